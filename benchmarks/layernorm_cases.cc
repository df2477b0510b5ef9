#include "benchmarks/operands.h"
#include "lathe/kernels/layernorm.h"

namespace lathe::bench {
namespace {

/// A LayerNorm alone, or with the bias, dropout and residual that stand before it in BERT.
enum class Before : std::uint8_t { nothing, residual };

template <class Stream, class T>
Case forward(const Sizes& s, Before before) {
  using A = Accumulator<T>;
  const bool fused = before == Before::residual;
  Case made{.family = "layernorm",
            .kernel = fused ? "layernorm_forward" : "layernorm_forward (plain)",
            .dtype = dtype_name<T>(),
            .shape = {{"T", s.tokens}, {"C", s.channels}},
            .operands = {matrix<T>("y", Access::write, s.tokens, s.channels), per_row<A>("mean", Access::write, s.tokens),
                         per_row<A>("rstd", Access::write, s.tokens), matrix<T>("x", Access::read, s.tokens, s.channels),
                         vector<T>("gamma", Access::read, s.channels), vector<T>("beta", Access::read, s.channels)},
            // Mean 1, variance 3, normalising 2, gamma and beta 2; bias, dropout and residual 3.
            .operations = (fused ? 11 : 8) * s.tokens * s.channels,
            .bind = {}};
  if (fused) {
    made.operands.push_back(matrix<T>("z", Access::write, s.tokens, s.channels));
    made.operands.push_back(matrix<T>("residual", Access::read, s.tokens, s.channels));
    made.operands.push_back(vector<T>("bias", Access::read, s.channels));
    add_dropout(made.operands, make_batch(s));
  }
  made.bind = [s, fused](Device& device, const Addresses& at) -> Call {
    LayerNormForward<T> args{.y = at.get<T>("y"),
                             .z = nullptr,
                             .mean = at.get<A>("mean"),
                             .rstd = at.get<A>("rstd"),
                             .x = at.get<T>("x"),
                             .bias = nullptr,
                             .residual = nullptr,
                             .gamma = at.get<T>("gamma"),
                             .beta = at.get<T>("beta"),
                             .dropout = {},
                             .epsilon = 1e-12,
                             .tokens = s.tokens,
                             .channels = s.channels};
    if (fused) {
      args.z = at.get<T>("z");
      args.bias = at.get<T>("bias");
      args.residual = at.get<T>("residual");
      args.dropout = dropout_at(at);
    }
    return [stream = stream_of<Stream>(device), args] { layernorm_forward(stream, args); };
  };
  return made;
}

template <class Stream, class T>
Case backward(const Sizes& s, Before before) {
  using A = Accumulator<T>;
  const bool fused = before == Before::residual;
  Case made{
      .family = "layernorm",
      .kernel = fused ? "layernorm_backward" : "layernorm_backward (plain)",
      .dtype = dtype_name<T>(),
      .shape = {{"T", s.tokens}, {"C", s.channels}},
      .operands = {matrix<T>("d_x", Access::write, s.tokens, s.channels), vector<A>("d_gamma", Access::write, s.channels),
                   vector<A>("d_beta", Access::write, s.channels), matrix<T>("d_y", Access::read, s.tokens, s.channels),
                   matrix<T>("z", Access::read, s.tokens, s.channels), per_row<A>("mean", Access::read, s.tokens),
                   filled(per_row<A>("rstd", Access::read, s.tokens), noise<A>(Sign::positive)),
                   vector<T>("gamma", Access::read, s.channels), scratch(layernorm_backward_workspace<T>(s.tokens, s.channels))},
      // n 2, g 1, two means 3, d_z 4, d_gamma 2, d_beta 1; dropout and d_bias 2.
      .operations = (fused ? 15 : 13) * s.tokens * s.channels,
      .bind = {}};
  if (fused) {
    made.operands.push_back(matrix<T>("d_residual", Access::write, s.tokens, s.channels));
    made.operands.push_back(vector<A>("d_bias", Access::write, s.channels));
    add_dropout(made.operands, make_batch(s));
  }
  made.bind = [s, fused](Device& device, const Addresses& at) -> Call {
    LayerNormBackward<T> args{.d_x = at.get<T>("d_x"),
                              .use_x = Use::write,
                              .d_residual = nullptr,
                              .use_residual = Use::skip,
                              .d_bias = nullptr,
                              .use_bias = Use::skip,
                              .d_gamma = at.get<A>("d_gamma"),
                              .use_gamma = Use::write,
                              .d_beta = at.get<A>("d_beta"),
                              .use_beta = Use::write,
                              .d_y = at.get<T>("d_y"),
                              .z = at.get<T>("z"),
                              .mean = at.get<A>("mean"),
                              .rstd = at.get<A>("rstd"),
                              .gamma = at.get<T>("gamma"),
                              .dropout = {},
                              .workspace = at.find("workspace"),
                              .tokens = s.tokens,
                              .channels = s.channels};
    if (fused) {
      args.d_residual = at.get<T>("d_residual");
      args.use_residual = Use::write;
      args.d_bias = at.get<A>("d_bias");
      args.use_bias = Use::write;
      args.dropout = dropout_at(at);
    }
    return [stream = stream_of<Stream>(device), args] { layernorm_backward(stream, args); };
  };
  return made;
}

}  // namespace

std::vector<Case> layernorm_cases(DeviceKind kind, const Sizes& sizes) {
  return for_each_type(kind, [&]<class Stream, class T>(std::vector<Case>& list) {
    for (const Before before : {Before::residual, Before::nothing}) {
      list.push_back(forward<Stream, T>(sizes, before));
      list.push_back(backward<Stream, T>(sizes, before));
    }
  });
}

}  // namespace lathe::bench
