// Attention's two directions against each other: gradients are what central differences of the outputs are, in double, on the CPU.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "lathe/kernels/attention.h"
#include "lathe/kernels/cpu_target.h"
#include "tests/kernels/attention_cases.h"

namespace lathe::test {
namespace {

struct Forward {
  std::vector<double> out, lse;
};

Forward forward(const Inputs<double>& in) {
  Forward to{.out = std::vector<double>(in.d_out.size()),
             .lse = std::vector<double>(static_cast<std::size_t>(in.queries * in.shape.heads))};
  AttentionForward<double> args{};
  args.out = to.out.data();
  args.lse = to.lse.data();
  args.q = in.q.data();
  args.k = in.kv.data();
  args.v = in.kv.data() + in.v_column;
  args.q_stride = in.q_stride;
  args.k_stride = args.v_stride = in.kv_stride;
  args.cu_q = in.cu_q.data();
  args.cu_k = in.cu_k.data();
  args.dropout = in.dropout();
  args.mask = in.shape.mask;
  args.scale = in.scale;
  args.queries = in.queries;
  args.keys = in.keys;
  args.sequences = in.sequences();
  args.heads = in.shape.heads;
  args.head_size = in.shape.head_size;
  attention_forward(CpuStream{.threads = 1, .target = best_cpu_target()}, args);
  return to;
}

/// The gradients of sum(out d_out), in rows as q's and kv's.
struct Gradients {
  std::vector<double> d_q, d_kv;
};

Gradients backward(const Inputs<double>& in) {
  const Forward of = forward(in);
  Gradients to{.d_q = std::vector<double>(in.q.size()), .d_kv = std::vector<double>(in.kv.size())};
  AttentionBackward<double> args{};
  args.d_q = to.d_q.data();
  args.d_k = to.d_kv.data();
  args.d_v = to.d_kv.data() + in.v_column;
  args.use_q = args.use_k = args.use_v = Use::write;
  args.d_q_stride = args.q_stride = in.q_stride;
  args.d_k_stride = args.d_v_stride = args.k_stride = args.v_stride = in.kv_stride;
  args.d_out = in.d_out.data();
  args.out = of.out.data();
  args.lse = of.lse.data();
  args.q = in.q.data();
  args.k = in.kv.data();
  args.v = in.kv.data() + in.v_column;
  args.cu_q = in.cu_q.data();
  args.cu_k = in.cu_k.data();
  args.dropout = in.dropout();
  args.mask = in.shape.mask;
  args.scale = in.scale;
  args.queries = in.queries;
  args.keys = in.keys;
  args.sequences = in.sequences();
  args.heads = in.shape.heads;
  args.head_size = in.shape.head_size;
  attention_backward(CpuStream{.threads = 1, .target = best_cpu_target()}, args);
  return to;
}

double loss(const Inputs<double>& in) {
  const Forward of = forward(in);
  double sum = 0;
  for (std::int64_t i = 0; i < in.cu_q.back() * in.width; ++i)
    sum += of.out[static_cast<std::size_t>(i)] * in.d_out[static_cast<std::size_t>(i)];
  return sum;
}

TEST(Attention, GradientsAreThoseOfCentralDifferences) {
  for (const AttentionMask mask : {AttentionMask::full, AttentionMask::causal}) {
    Inputs<double> in({.sequences = {{5, 7}, {6, 4}, {2, 2}}, .heads = 2, .head_size = 5, .mask = mask, .dropout = 0.2});
    const Gradients gradients = backward(in);
    const auto check = [&](const char* what, std::vector<double>& parameters, const std::vector<double>& gradient,
                           std::int64_t rows, std::int64_t stride) {
      for (std::int64_t t = 0; t < rows; ++t) {
        for (std::int64_t c = 0; c < stride; ++c) {
          if (c % in.v_column >= in.width) continue;  // a gap
          const std::size_t i = at(t, c, stride);
          constexpr double kStep = 1e-5;
          const double before = parameters[i];
          parameters[i] = before + kStep;
          const double up = loss(in);
          parameters[i] = before - kStep;
          const double down = loss(in);
          parameters[i] = before;
          ASSERT_NEAR(gradient[i], (up - down) / (2 * kStep), 2e-9) << what << ' ' << t << ' ' << c;
        }
      }
    };
    check("q", in.q, gradients.d_q, in.cu_q.back(), in.q_stride);
    check("k and v", in.kv, gradients.d_kv, in.cu_k.back(), in.kv_stride);
  }
}

}  // namespace
}  // namespace lathe::test
