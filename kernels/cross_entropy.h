#pragma once
// Softmax cross-entropy, with the gradient left in the logits' place in the same pass.
#include <cstdint>

#include "lathe/kernels/stream.h"
#include "lathe/kernels/types.h"

namespace [[gnu::visibility("default")]] lathe {

/// Whether the logits are replaced by their gradient (training) or left alone (evaluation).
enum class LogitsGradient : std::uint8_t { none, in_place };

/// For each row r whose label y = labels[r] is in [0, V), with p = softmax(logits[r, 0..V)), w = class_weights (1 where null),
/// s = label_smoothing and W = sum_c w[c]:
///   loss[r] = scale * ( -(1 - s) w[y] log p[y] - (s / V) sum_c w[c] log p[c] ), as torch.nn.functional.cross_entropy defines it;
///   d_logits[r,c] = scale * ( p[c] ((1 - s) w[y] + (s / V) W) - (1 - s) w[y] [c = y] - (s / V) w[c] ), put in logits' place.
/// Any other label is ignored: loss 0, gradient 0. A NaN or infinite logit makes the row's loss NaN. `scale` is the factor in the
/// total loss (weight / global denominator), a device scalar, so that no other upstream gradient is ever needed. Shapes: logits
/// [R, stride], of which the first V columns count; columns V..stride are vocabulary padding, never read, and written 0 with the
/// gradient. loss [R]; labels [R]; class_weights [V] or null. p - [c = y] is formed in the accumulator's type and stored once. A
/// CUDA block owns a row: online softmax, one pass where the row fits in shared memory. Deterministic; no workspace.
template <class T>
struct CrossEntropy {
  T* logits;
  Accumulator<T>* loss;
  const std::int32_t* labels;
  const T* class_weights;
  const Accumulator<T>* scale;
  double label_smoothing;
  LogitsGradient gradient;
  std::int64_t rows, classes, stride;
};

template <class T>
void cross_entropy(CpuStream stream, const CrossEntropy<T>& args);
template <class T>
void cross_entropy(CudaStream stream, const CrossEntropy<T>& args);

}  // namespace lathe
