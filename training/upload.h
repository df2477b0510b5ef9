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

/// A batch's place on a device: one piece of memory, in which every batch of the same sizes has its tensors at the same addresses, so that what
/// was captured with one of them is replayed with others. One copy fills it.
class BatchMemory {
 public:
  /// Room for `packed` and all that is as large, for a model in `dtype`; with a random key where `scalars` has one.
  BatchMemory(const DeviceRef& device, DType dtype, const PackedBatch& packed, const BatchScalars& scalars);

  /// Copies a batch there, behind all that was enqueued before. Throws LogicError where its sizes are others.
  void fill(const PackedBatch& packed, const BatchScalars& scalars);
  /// The tensors, as the constructor laid them out.
  const Batch& batch() const noexcept { return batch_; }

 private:
  DeviceRef device_;
  Storage memory_;
  Batch batch_;
};

/// Copies `packed` to memory of its own on `device`, for a model in `dtype`.
Batch upload(const DeviceRef& device, DType dtype, const PackedBatch& packed, const BatchScalars& scalars);

}  // namespace lathe
