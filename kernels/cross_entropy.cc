// Softmax cross-entropy, a row at a time: the largest logit, the exponentials (left in the logits' place), the gradient from
// them. The second and the third pass find the row in cache.
#include "lathe/kernels/cross_entropy.h"

#include "lathe/kernels/cpu_dispatch.h"
#include "lathe/kernels/cpu_math.h"
#include "lathe/kernels/cpu_threads.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

/// Logits below which one thread does it all.
constexpr std::int64_t kSerialLogits = 16384;

/// Rows that a thread is dealt at a time: few, since ignored rows, which cost nothing, come in a row.
constexpr std::int64_t kDealtRows = 4;

/// Logits between two rounds of prefetches, and numbers of a sum within its parts.
constexpr std::int64_t kRun = 256;

/// What is the same for all rows. With w = 1 where there are no weights, as in the contract.
struct Terms {
  double scale;
  double target;        ///< 1 - s
  double every;         ///< s / V
  double weight_total;  ///< W
};

template <class T>
struct Peak {
  T largest;
  T probe;  ///< 0, or NaN where a logit is NaN or infinite
};

template <class T>
Peak<T> find_peak(const T* __restrict x, std::int64_t classes) {
  T largest = x[0];
  T probe = 0;
#pragma omp simd reduction(max : largest) reduction(+ : probe)
  for (std::int64_t c = 0; c < classes; ++c) {
    largest = largest < x[c] ? x[c] : largest;
    probe += x[c] * T{0};
  }
  return {largest, probe};
}

template <class T>
struct Sums {
  T exponentials = 0;
  T shifted_logits = 0;  ///< sum of w[c] (x[c] - largest), where labels are smoothed
};

/// Where the gradient is wanted x[c] becomes exp(x[c] - largest). This pass computes while memory rests, so that it has the next
/// row, [V] at `next`, brought into cache.
template <LogitsGradient kGradient, bool kSmoothed, bool kWeighted, class T>
Sums<T> exponentiate(T* __restrict x, const T* __restrict weights, T largest, std::int64_t classes, const T* next) {
  constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(T));
  Sums<T> sums;
  for (std::int64_t first = 0; first < classes; first += kRun) {
    const std::int64_t end = classes - first < kRun ? classes : first + kRun;
    for (std::int64_t c = first; c < end; c += kLine)
      __builtin_prefetch(next + c, kGradient == LogitsGradient::in_place ? 1 : 0, 2);
    T exponentials = 0;
    T shifted_logits = 0;
#pragma omp simd reduction(+ : exponentials, shifted_logits)
    for (std::int64_t c = first; c < end; ++c) {
      const T shifted = x[c] - largest;
      const T exponential = exp(shifted);
      exponentials += exponential;
      if constexpr (kSmoothed) shifted_logits += kWeighted ? weights[c] * shifted : shifted;
      if constexpr (kGradient == LogitsGradient::in_place) x[c] = exponential;
    }
    sums.exponentials += exponentials;
    sums.shifted_logits += shifted_logits;
  }
  return sums;
}

template <bool kSmoothed, bool kWeighted, class T>
void write_gradient(T* __restrict x, const T* __restrict weights, T factor, T every, std::int64_t classes) {
#pragma omp simd
  for (std::int64_t c = 0; c < classes; ++c) {
    T gradient = factor * x[c];
    if constexpr (kSmoothed) gradient -= kWeighted ? every * weights[c] : every;
    x[c] = gradient;
  }
}

template <LogitsGradient kGradient, bool kSmoothed, bool kWeighted, class T>
T process_row(T* x, std::int64_t label, const T* weights, const Terms& terms, std::int64_t classes, const T* next) {
  const Peak<T> peak = find_peak(x, classes);
  const double shifted_target = static_cast<double>(x[label]) - static_cast<double>(peak.largest);
  const Sums<T> sums = exponentiate<kGradient, kSmoothed, kWeighted>(x, weights, peak.largest, classes, next);

  const double sum = static_cast<double>(sums.exponentials) + static_cast<double>(peak.probe);
  const double log_sum = __builtin_log(sum);
  const double weight = kWeighted ? static_cast<double>(weights[label]) : 1.0;
  const double target = terms.target * weight;
  double loss = target * (log_sum - shifted_target);
  if constexpr (kSmoothed) loss += terms.every * (terms.weight_total * log_sum - static_cast<double>(sums.shifted_logits));

  if constexpr (kGradient == LogitsGradient::in_place) {
    const double pull = target + terms.every * terms.weight_total;
    const double of_target = pull * (static_cast<double>(x[label]) / sum) - target - terms.every * weight;
    write_gradient<kSmoothed, kWeighted>(x, weights, static_cast<T>(terms.scale * pull / sum),
                                         static_cast<T>(terms.scale * terms.every), classes);
    x[label] = static_cast<T>(terms.scale * of_target);
  }
  return static_cast<T>(terms.scale * loss);
}

/// Run by run: one sum over a vocabulary would lose a digit.
template <class T>
double sum_in_runs(const T* values, std::int64_t count) {
  double sum = 0.0;
  for (std::int64_t first = 0; first < count; first += kRun) {
    const std::int64_t end = count - first < kRun ? count : first + kRun;
    double run = 0.0;
    for (std::int64_t i = first; i < end; ++i) run += static_cast<double>(values[i]);
    sum += run;
  }
  return sum;
}

template <LogitsGradient kGradient, bool kSmoothed, bool kWeighted, class T>
void process_rows(CpuStream stream, const CrossEntropy<T>& args) {
  const auto classes = static_cast<double>(args.classes);
  Terms terms{.scale = static_cast<double>(*args.scale),
              .target = 1.0 - args.label_smoothing,
              .every = args.label_smoothing / classes,
              .weight_total = classes};
  if constexpr (kSmoothed && kWeighted) {
    terms.weight_total = sum_in_runs(args.class_weights, args.classes);
  }
  const int threads = args.rows * args.stride > kSerialLogits ? stream.threads : 1;
  share_dealt(threads, args.rows, kDealtRows, [&](std::int64_t r) {
    T* x = args.logits + r * args.stride;
    const std::int64_t next_row = r % kDealtRows < kDealtRows - 1 ? r + 1 : r + 1 + (stream.threads - 1) * kDealtRows;
    const T* next = next_row < args.rows ? args.logits + next_row * args.stride : x;
    const std::int64_t label = args.labels[r];
    const bool ignored = label < 0 || label >= args.classes;
    args.loss[r] =
        ignored ? T{0} : process_row<kGradient, kSmoothed, kWeighted>(x, label, args.class_weights, terms, args.classes, next);
    if constexpr (kGradient == LogitsGradient::in_place) {
      for (std::int64_t c = ignored ? 0 : args.classes; c < args.stride; ++c) x[c] = T{0};
    }
  });
}

template <LogitsGradient kGradient, class T>
void process_rows(CpuStream stream, const CrossEntropy<T>& args) {
  const bool weighted = args.class_weights != nullptr;
  if (args.label_smoothing != 0.0) {
    weighted ? process_rows<kGradient, true, true>(stream, args) : process_rows<kGradient, true, false>(stream, args);
  } else {
    weighted ? process_rows<kGradient, false, true>(stream, args) : process_rows<kGradient, false, false>(stream, args);
  }
}

}  // namespace

template <class Arguments>
void run(CpuStream stream, const Arguments& args) {
  if (args.gradient == LogitsGradient::in_place) {
    process_rows<LogitsGradient::in_place>(stream, args);
  } else {
    process_rows<LogitsGradient::none>(stream, args);
  }
}
template void run(CpuStream, const CrossEntropy<float>&);
template void run(CpuStream, const CrossEntropy<double>&);

}  // namespace lathe::LATHE_CPU_TARGET
