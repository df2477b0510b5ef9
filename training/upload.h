#pragma once
// From a packed batch in host memory to one on a device.
#include "lathe/kernels/philox.h"
#include "lathe/layers/batch.h"
#include "lathe/text/packing.h"

namespace [[gnu::visibility("default")]] lathe {

/// What a batch needs beside its tokens.
struct BatchScalars {
  /// Key of the step's dropout masks; nothing is dropped without one.
  const RandomKey* random_key = nullptr;
  /// What the global batch's loss is divided by: its labelled rows.
  double loss_denominator = 1.0;
};

/// Copies `packed` to `device`, for a model in `dtype`.
Batch upload(const DeviceRef& device, DType dtype, const PackedBatch& packed, const BatchScalars& scalars);

}  // namespace lathe
