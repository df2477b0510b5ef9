#pragma once
// What a DeviceEvent and a TimedEvent are on a CUDA device. Internal to runtime/.
#include "lathe/runtime/cuda_handles.h"

namespace lathe {

struct RecordedEvent {
  OwnedEvent event = make_event();
};

struct TimedRecording {
  OwnedEvent event = make_timed_event();
};

}  // namespace lathe
