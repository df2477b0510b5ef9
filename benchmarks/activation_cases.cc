#include "benchmarks/operands.h"
#include "lathe/kernels/activation.h"

namespace lathe::bench {
namespace {

struct Kind {
  Activation activation;
  const char* name;
  /// Of the function and of its derivative. gelu_erf: scale, erf, +1, two products; and the density's square, scale, exp, product and sum.
  std::int64_t forward, backward;
};
constexpr Kind kGelus[] = {{Activation::gelu_erf, "gelu_erf", 5, 10}, {Activation::gelu_tanh, "gelu_tanh", 9, 16}};
constexpr Kind kOthers[] = {{Activation::relu, "relu", 1, 1},
                            {Activation::tanh, "tanh", 1, 3},
                            {Activation::sigmoid, "sigmoid", 3, 5},
                            {Activation::silu, "silu", 4, 7}};

template <class Stream, class T>
Case forward(const char* family, const Sizes& s, const Kind& kind) {
  const std::int64_t channels = s.feed_forward();
  return {.family = family,
          .kernel = std::string(kind.name) + "_forward",
          .dtype = dtype_name<T>(),
          .shape = {{"T", s.tokens}, {"F", channels}},
          .operands = {matrix<T>("y", Access::write, s.tokens, channels), matrix<T>("x", Access::read, s.tokens, channels),
                       vector<T>("bias", Access::read, channels)},
          .operations = (kind.forward + 1) * s.tokens * channels,
          .bind = [s, channels, kind](Device& device, const Addresses& at) -> Call {
            const ActivationForward<T> args{.y = at.get<T>("y"),
                                            .x = at.get<T>("x"),
                                            .bias = at.get<T>("bias"),
                                            .activation = kind.activation,
                                            .tokens = s.tokens,
                                            .channels = channels};
            return [stream = stream_of<Stream>(device), args] { activation_forward(stream, args); };
          }};
}

template <class Stream, class T>
Case backward(const char* family, const Sizes& s, const Kind& kind) {
  using A = Accumulator<T>;
  const std::int64_t channels = s.feed_forward();
  return {.family = family,
          .kernel = std::string(kind.name) + "_backward",
          .dtype = dtype_name<T>(),
          .shape = {{"T", s.tokens}, {"F", channels}},
          .operands = {matrix<T>("d_x", Access::write, s.tokens, channels), vector<A>("d_bias", Access::write, channels),
                       matrix<T>("d_y", Access::read, s.tokens, channels), matrix<T>("x", Access::read, s.tokens, channels),
                       vector<T>("bias", Access::read, channels), scratch(activation_backward_workspace<T>(s.tokens, channels))},
          // Bias, the product with d_y, and the bias's gradient: 3.
          .operations = (kind.backward + 3) * s.tokens * channels,
          .bind = [s, channels, kind](Device& device, const Addresses& at) -> Call {
            const ActivationBackward<T> args{.d_x = at.get<T>("d_x"),
                                             .use_x = Use::write,
                                             .d_bias = at.get<A>("d_bias"),
                                             .use_bias = Use::write,
                                             .d_y = at.get<T>("d_y"),
                                             .x = at.get<T>("x"),
                                             .bias = at.get<T>("bias"),
                                             .activation = kind.activation,
                                             .workspace = at.find("workspace"),
                                             .tokens = s.tokens,
                                             .channels = channels};
            return [stream = stream_of<Stream>(device), args] { activation_backward(stream, args); };
          }};
}

std::vector<Case> cases_of(const char* family, std::span<const Kind> kinds, DeviceKind kind, const Sizes& sizes) {
  return for_each_type(kind, [&]<class Stream, class T>(std::vector<Case>& list) {
    for (const Kind& one : kinds) {
      list.push_back(forward<Stream, T>(family, sizes, one));
      list.push_back(backward<Stream, T>(family, sizes, one));
    }
  });
}

}  // namespace

std::vector<Case> gelu_cases(DeviceKind kind, const Sizes& sizes) { return cases_of("gelu", kGelus, kind, sizes); }
std::vector<Case> activation_cases(DeviceKind kind, const Sizes& sizes) { return cases_of("activation", kOthers, kind, sizes); }

}  // namespace lathe::bench
