#include "benchmarks/operands.h"
#include "lathe/kernels/cross_entropy.h"

namespace lathe::bench {
namespace {

template <class Stream, class T>
Case loss(const Sizes& s, LogitsGradient gradient) {
  using A = Accumulator<T>;
  const bool trains = gradient == LogitsGradient::in_place;
  const std::int64_t rows = s.rows();
  constexpr std::int64_t kStride = Sizes::kPaddedVocabulary;
  constexpr auto kElement = static_cast<std::int64_t>(sizeof(T));
  std::vector<std::int32_t> labels(static_cast<std::size_t>(rows));
  for (std::size_t r = 0; r < labels.size(); ++r) labels[r] = static_cast<std::int32_t>(r * 7919 % Sizes::kVocabulary);
  Operand logits = matrix<T>("logits", trains ? Access::update : Access::read, rows, kStride);
  // The padding is written (0) with the gradient, and never read: a read and a written byte are one each.
  logits.touched = rows * Sizes::kVocabulary * kElement;
  return {.family = "cross_entropy",
          .kernel = trains ? "cross_entropy" : "cross_entropy (loss alone)",
          .dtype = dtype_name<T>(),
          .shape = {{"R", rows}, {"V", Sizes::kVocabulary}},
          .operands = {logits, per_row<A>("loss", Access::write, rows), array("labels", Extent::per_row, labels),
                       array("scale", Extent::vector, std::vector<A>{A{1} / static_cast<A>(rows)})},
          // Largest, difference, exponential, sum 4; and for the gradient difference, exponential, normalising, factor 4.
          .operations = (trains ? 8 : 4) * rows * Sizes::kVocabulary,
          .bind = [rows, gradient](Device& device, const Addresses& at) -> Call {
            const CrossEntropy<T> args{.logits = at.get<T>("logits"),
                                       .loss = at.get<A>("loss"),
                                       .labels = at.get<std::int32_t>("labels"),
                                       .class_weights = nullptr,
                                       .scale = at.get<A>("scale"),
                                       .label_smoothing = 0.0,
                                       .gradient = gradient,
                                       .rows = rows,
                                       .classes = Sizes::kVocabulary,
                                       .stride = kStride};
            return [stream = stream_of<Stream>(device), args] { cross_entropy(stream, args); };
          }};
}

}  // namespace

std::vector<Case> cross_entropy_cases(DeviceKind kind, const Sizes& sizes) {
  return for_each_type(kind, [&]<class Stream, class T>(std::vector<Case>& list) {
    list.push_back(loss<Stream, T>(sizes, LogitsGradient::in_place));
    list.push_back(loss<Stream, T>(sizes, LogitsGradient::none));
  });
}

}  // namespace lathe::bench
