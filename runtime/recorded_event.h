#pragma once
// What a DeviceEvent is on a CUDA device. Internal to runtime/.
#include "lathe/runtime/cuda_handles.h"

namespace lathe {

struct RecordedEvent {
  OwnedEvent event = make_event();
};

}  // namespace lathe
