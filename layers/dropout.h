#pragma once
// From a batch and a site to the kernels' description of a dropout. Internal to layers/.
#include "lathe/kernels/dropout.h"
#include "lathe/layers/functions.h"

namespace lathe {

/// The kernels' view; threshold 0 (nothing dropped) where the batch has no random key.
Dropout dropout_of(const Batch& batch, RowKind rows, DropoutSite site);

/// The integer tensors that such a view points into, to be saved for backward: random key, sample numbers, positions.
struct DropoutTensors {
  Tensor key, sample, position;
};
DropoutTensors dropout_tensors(const Batch& batch, RowKind rows);

/// The same view from tensors that were saved.
Dropout dropout_from(const Tensor& key, const Tensor& sample, const Tensor& position, DropoutSite site);

}  // namespace lathe
