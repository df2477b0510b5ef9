#include "lathe/kernels/matmul.h"
