#include "lathe/kernels/cpu_dispatch.h"
