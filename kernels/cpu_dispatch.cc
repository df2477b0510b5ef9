// The public functions of the CPU kernels: each chooses the code that was compiled for the stream's target.
#include "lathe/kernels/cpu_dispatch.h"

#include "lathe/kernels/activation.h"
#include "lathe/kernels/attention.h"
#include "lathe/kernels/cast.h"
#include "lathe/kernels/cross_entropy.h"
#include "lathe/kernels/dropout.h"
#include "lathe/kernels/embedding.h"
#include "lathe/kernels/gather.h"
#include "lathe/kernels/layernorm.h"
#include "lathe/kernels/optimizer.h"
#include "lathe/kernels/reduce.h"

// Exported as in the headers: what is instantiated here doesn't take its visibility from the declaration.
namespace [[gnu::visibility("default")]] lathe {

template <class T>
void activation_forward(CpuStream stream, const ActivationForward<T>& args) {
  run_on_target(stream, args);
}
template void activation_forward(CpuStream, const ActivationForward<float>&);
template void activation_forward(CpuStream, const ActivationForward<double>&);
template <class T>
void activation_backward(CpuStream stream, const ActivationBackward<T>& args) {
  run_on_target(stream, args);
}
template void activation_backward(CpuStream, const ActivationBackward<float>&);
template void activation_backward(CpuStream, const ActivationBackward<double>&);

template <class T>
void attention_forward(CpuStream stream, const AttentionForward<T>& args) {
  run_on_target(stream, args);
}
template void attention_forward(CpuStream, const AttentionForward<float>&);
template void attention_forward(CpuStream, const AttentionForward<double>&);
template <class T>
void attention_backward(CpuStream stream, const AttentionBackward<T>& args) {
  run_on_target(stream, args);
}
template void attention_backward(CpuStream, const AttentionBackward<float>&);
template void attention_backward(CpuStream, const AttentionBackward<double>&);

template <class To, class From>
void cast(CpuStream stream, const Cast<To, From>& args) {
  run_on_target(stream, args);
}
template void cast(CpuStream, const Cast<Bf16, float>&);
template void cast(CpuStream, const Cast<float, Bf16>&);

template <class T>
void cross_entropy(CpuStream stream, const CrossEntropy<T>& args) {
  run_on_target(stream, args);
}
template void cross_entropy(CpuStream, const CrossEntropy<float>&);
template void cross_entropy(CpuStream, const CrossEntropy<double>&);

template <class T>
void dropout_forward(CpuStream stream, const DropoutForward<T>& args) {
  run_on_target(stream, args);
}
template void dropout_forward(CpuStream, const DropoutForward<float>&);
template void dropout_forward(CpuStream, const DropoutForward<double>&);
template <class T>
void dropout_backward(CpuStream stream, const DropoutBackward<T>& args) {
  run_on_target(stream, args);
}
template void dropout_backward(CpuStream, const DropoutBackward<float>&);
template void dropout_backward(CpuStream, const DropoutBackward<double>&);

template <class T>
void embedding_forward(CpuStream stream, const EmbeddingForward<T>& args) {
  run_on_target(stream, args);
}
template void embedding_forward(CpuStream, const EmbeddingForward<float>&);
template void embedding_forward(CpuStream, const EmbeddingForward<double>&);
template <class T>
void embedding_norm_backward(CpuStream stream, const EmbeddingNormBackward<T>& args) {
  run_on_target(stream, args);
}
template void embedding_norm_backward(CpuStream, const EmbeddingNormBackward<float>&);
template void embedding_norm_backward(CpuStream, const EmbeddingNormBackward<double>&);
template <class T>
void embedding_backward(CpuStream stream, const EmbeddingBackward<T>& args) {
  run_on_target(stream, args);
}
template void embedding_backward(CpuStream, const EmbeddingBackward<float>&);
template void embedding_backward(CpuStream, const EmbeddingBackward<double>&);

template <class T>
void gather_forward(CpuStream stream, const GatherForward<T>& args) {
  run_on_target(stream, args);
}
template void gather_forward(CpuStream, const GatherForward<float>&);
template void gather_forward(CpuStream, const GatherForward<double>&);
template <class T>
void gather_backward(CpuStream stream, const GatherBackward<T>& args) {
  run_on_target(stream, args);
}
template void gather_backward(CpuStream, const GatherBackward<float>&);
template void gather_backward(CpuStream, const GatherBackward<double>&);

template <class T>
void layernorm_forward(CpuStream stream, const LayerNormForward<T>& args) {
  run_on_target(stream, args);
}
template void layernorm_forward(CpuStream, const LayerNormForward<float>&);
template void layernorm_forward(CpuStream, const LayerNormForward<double>&);
template <class T>
void layernorm_backward(CpuStream stream, const LayerNormBackward<T>& args) {
  run_on_target(stream, args);
}
template void layernorm_backward(CpuStream, const LayerNormBackward<float>&);
template void layernorm_backward(CpuStream, const LayerNormBackward<double>&);

template <class T>
void squared_norms(CpuStream stream, const SquaredNorms<T>& args) {
  run_on_target(stream, args);
}
template void squared_norms(CpuStream, const SquaredNorms<float>&);
template void squared_norms(CpuStream, const SquaredNorms<double>&);
template <class T>
void clip_scale(CpuStream stream, const ClipScale<T>& args) {
  run_on_target(stream, args);
}
template void clip_scale(CpuStream, const ClipScale<float>&);
template void clip_scale(CpuStream, const ClipScale<double>&);
template <class T>
void adamw(CpuStream stream, const AdamW<T>& args) {
  run_on_target(stream, args);
}
template void adamw(CpuStream, const AdamW<float>&);
template void adamw(CpuStream, const AdamW<double>&);

template <class T>
void column_sum(CpuStream stream, const ColumnSum<T>& args) {
  run_on_target(stream, args);
}
template void column_sum(CpuStream, const ColumnSum<float>&);
template void column_sum(CpuStream, const ColumnSum<double>&);
template <class T>
void sum(CpuStream stream, const Sum<T>& args) {
  run_on_target(stream, args);
}
template void sum(CpuStream, const Sum<float>&);
template void sum(CpuStream, const Sum<double>&);
template <class T>
void add(CpuStream stream, const Add<T>& args) {
  run_on_target(stream, args);
}
template void add(CpuStream, const Add<float>&);
template void add(CpuStream, const Add<double>&);

}  // namespace lathe
