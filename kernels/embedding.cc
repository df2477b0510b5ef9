// Embeddings with their LayerNorm and dropout, and their gradients without a scatter: sums over lists that the loader sorted.
#include "lathe/kernels/embedding.h"

#include "lathe/kernels/cpu_dispatch.h"
#include "lathe/kernels/cpu_math.h"
#include "lathe/kernels/cpu_rows.h"
#include "lathe/kernels/cpu_threads.h"

namespace lathe::LATHE_CPU_TARGET {
namespace {

/// y[c] times dropout's multiplier of (t, c).
template <class T>
void drop_row(T* y, const Dropout& dropout, std::int64_t t, std::int64_t channels) {
  if (dropout.threshold == 0) return;
  alignas(64) T multipliers[kTile];
  for (std::int64_t c = 0; c < channels; c += kTile) {
    dropout_multipliers(dropout, t, c, multipliers);
    const std::int64_t count = tile_columns(channels, c);
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) y[c + i] *= multipliers[i];
  }
}

/// The variance comes from distances to the mean, in a pass of its own over a row in cache: E[z^2] - mean^2 would cancel.
template <class T>
void normalise_row(const EmbeddingForward<T>& args, std::int64_t t, const T* z, T* y) {
  const std::int64_t channels = args.channels;
  T sum{0};
#pragma omp simd reduction(+ : sum)
  for (std::int64_t c = 0; c < channels; ++c) sum += z[c];
  const T mean = sum / static_cast<T>(channels);
  T squares{0};
#pragma omp simd reduction(+ : squares)
  for (std::int64_t c = 0; c < channels; ++c) squares += (z[c] - mean) * (z[c] - mean);
  const T rstd = T{1} / sqrt(squares / static_cast<T>(channels) + static_cast<T>(args.epsilon));
#pragma omp simd
  for (std::int64_t c = 0; c < channels; ++c) y[c] = args.gamma[c] * ((z[c] - mean) * rstd) + args.beta[c];
  args.mean[t] = mean;
  args.rstd[t] = rstd;
}

template <class T>
void compute(CpuStream stream, const EmbeddingForward<T>& args) {
  const std::int64_t channels = args.channels;
  share_ranges(threads_for(stream, args.tokens * channels), args.tokens, [&](Range range) {
    for (std::int64_t t = range.first; t < range.end; ++t) {
      T* const y = args.y + t * channels;
      T* const z = args.gamma == nullptr ? y : args.z + t * channels;
      put(Use::write, z, args.words + args.token[t] * channels, channels);
      if (args.positions != nullptr) put(Use::add, z, args.positions + args.position[t] * channels, channels);
      if (args.types != nullptr) put(Use::add, z, args.types + args.type[t] * channels, channels);
      if (args.gamma != nullptr) normalise_row(args, t, z, y);
      drop_row(y, args.dropout, t, channels);
    }
  });
}

/// Token t through LayerNorm, in place: d is the gradient after dropout on entry, d_z on return. d_gamma and d_beta are sums of
/// the token's part.
template <class T>
void norm_backward_row(const EmbeddingNormBackward<T>& args, std::int64_t t, T* __restrict d, T* __restrict d_gamma,
                       T* __restrict d_beta) {
  const std::int64_t channels = args.channels;
  const T* __restrict const z = args.z + t * channels;
  const T* __restrict const gamma = args.gamma;
  const T mean = args.mean[t];
  const T rstd = args.rstd[t];
  T sum_g{0};
  T sum_g_n{0};
#pragma omp simd reduction(+ : sum_g, sum_g_n)
  for (std::int64_t c = 0; c < channels; ++c) {
    const T n = (z[c] - mean) * rstd;
    const T g = d[c] * gamma[c];
    sum_g += g;
    sum_g_n += g * n;
    d_gamma[c] += d[c] * n;
    d_beta[c] += d[c];
  }
  const T mean_g = sum_g / static_cast<T>(channels);
  const T mean_g_n = sum_g_n / static_cast<T>(channels);
#pragma omp simd
  for (std::int64_t c = 0; c < channels; ++c) d[c] = rstd * (d[c] * gamma[c] - mean_g - (z[c] - mean) * rstd * mean_g_n);
}

template <class T>
void compute(CpuStream stream, const EmbeddingNormBackward<T>& args) {
  const std::int64_t channels = args.channels;
  const std::int64_t parts = row_parts(args.tokens);
  const std::int64_t stride = 2 * channels;  // a part's d_gamma, then its d_beta
  T* const sums = reinterpret_cast<T*>(args.workspace);
  const int threads = threads_for(stream, args.tokens * channels);
  share_ranges(threads, parts, [&](Range range) {
    for (std::int64_t part = range.first; part < range.end; ++part) {
      T* const d_gamma = sums + part * stride;
      if (args.gamma != nullptr) clear(d_gamma, stride);
      const Range rows = part_rows(args.tokens, parts, part);
      for (std::int64_t t = rows.first; t < rows.end; ++t) {
        T* const d = args.d_z + t * channels;
        const T* const d_y = args.d_y + t * channels;
        if (d != d_y) put(Use::write, d, d_y, channels);
        drop_row(d, args.dropout, t, channels);
        if (args.gamma != nullptr) norm_backward_row(args, t, d, d_gamma, d_gamma + channels);
      }
    }
  });
  share_tiles(threads, (args.gamma == nullptr ? 0 : channels), [&](std::int64_t c, std::int64_t count) {
    sum_parts(args.use_gamma, args.d_gamma, sums, parts, stride, c, count);
    sum_parts(args.use_beta, args.d_beta, sums + channels, parts, stride, c, count);
  });
}

/// sum[:] = sum over i in [begin, end) of d_z[order[i], :], in order.
template <class T>
void sum_split(T* sum, const EmbeddingBackward<T>& args, std::int64_t split) {
  clear(sum, args.channels);
  for (std::int64_t i = args.segments.split_start[split]; i < args.segments.split_start[split + 1]; ++i) {
    put(Use::add, sum, args.d_z + args.segments.order[i] * args.channels, args.channels);
  }
}

/// sums[y, :] = sum of d_z[t, :] over a part's tokens of type y, in order.
template <class T>
void sum_types(T* sums, const EmbeddingBackward<T>& args, Range tokens) {
  clear(sums, args.types * args.channels);
  for (std::int64_t t = tokens.first; t < tokens.end; ++t) {
    put(Use::add, sums + args.type[t] * args.channels, args.d_z + t * args.channels, args.channels);
  }
}

/// d_words[row of the segment, :] += the sums of its splits, in order.
template <class T>
void add_segment(const EmbeddingBackward<T>& args, const T* split_sums, std::int64_t segment) {
  const std::int64_t row = args.segments.segment_row[segment];
  const std::int64_t first = args.segments.segment_split[segment];
  const std::int64_t count = args.segments.segment_split[segment + 1] - first;
  if (row < 0 || count == 0) return;
  const T* const sums = split_sums + first * args.channels;
  T* const d_words = args.d_words + row * args.channels;
  for (std::int64_t c = 0; c < args.channels; c += kTile) {
    sum_parts(Use::add, d_words, sums, count, args.channels, c, tile_columns(args.channels, c));
  }
}

/// d_positions[p, :] from the sequences that reach position p, in order.
template <class T>
void sum_position(const EmbeddingBackward<T>& args, std::int64_t p) {
  const std::int64_t channels = args.channels;
  const std::int64_t index = p - args.first_position;
  T* const d_position = args.d_positions + p * channels;
  for (std::int64_t c = 0; c < channels; c += kTile) {
    const std::int64_t count = tile_columns(channels, c);
    alignas(64) T sum[kTile];
    clear(sum, count);
    for (std::int64_t b = 0; b < (index < 0 ? 0 : args.sequences); ++b) {
      const std::int64_t t = args.cu_seqlens[b] + index;
      if (t < args.cu_seqlens[b + 1]) put(Use::add, sum, args.d_z + t * channels + c, count);
    }
    put(args.use_positions, d_position + c, sum, count);
  }
}

template <class T>
void compute(CpuStream stream, const EmbeddingBackward<T>& args) {
  const std::int64_t channels = args.channels;
  const std::int64_t parts = row_parts(args.tokens);
  // What there is to do; nothing where it is to be skipped.
  const std::int64_t zeroed_rows = args.use_words == Use::write ? args.vocabulary : 0;
  const std::int64_t splits = args.use_words == Use::skip ? 0 : args.segments.splits;
  const std::int64_t segments = args.use_words == Use::skip ? 0 : args.segments.segments;
  const std::int64_t positions = args.use_positions == Use::skip ? 0 : args.positions;
  const std::int64_t types = args.use_types == Use::skip ? 0 : args.types;
  T* const split_sums = reinterpret_cast<T*>(args.workspace);         // [splits, C]
  T* const type_sums = split_sums + args.segments.splits * channels;  // [parts, types, C]
  const int threads = threads_for(stream, (args.tokens + zeroed_rows) * channels);
  share_ranges(threads, zeroed_rows,
               [&](Range rows) { clear(args.d_words + rows.first * channels, (rows.end - rows.first) * channels); });
  // The long splits, of frequent words, are neighbours.
  share_dealt(threads, splits, 8, [&](std::int64_t split) { sum_split(split_sums + split * channels, args, split); });
  share_dealt(threads, types > 0 ? parts : 0, 1, [&](std::int64_t part) {
    sum_types(type_sums + part * types * channels, args, part_rows(args.tokens, parts, part));
  });
  share_dealt(threads, positions, 8, [&](std::int64_t position) { sum_position(args, position); });
  // The table is zero, the splits and the parts are summed.
  share_dealt(threads, segments, 8, [&](std::int64_t segment) { add_segment(args, split_sums, segment); });
  share_tiles(threads, types * channels, [&](std::int64_t c, std::int64_t count) {
    sum_parts(args.use_types, args.d_types, type_sums, parts, types * channels, c, count);
  });
}

}  // namespace

template <class Arguments>
void run(CpuStream stream, const Arguments& args) {
  compute(stream, args);
}
template void run(CpuStream, const EmbeddingForward<float>&);
template void run(CpuStream, const EmbeddingForward<double>&);
template void run(CpuStream, const EmbeddingNormBackward<float>&);
template void run(CpuStream, const EmbeddingNormBackward<double>&);
template void run(CpuStream, const EmbeddingBackward<float>&);
template void run(CpuStream, const EmbeddingBackward<double>&);

}  // namespace lathe::LATHE_CPU_TARGET
