// Gathering, dropout, sums and casts: what is done to rows without a formula worth the name.
#include "benchmarks/operands.h"
#include "lathe/kernels/cast.h"
#include "lathe/kernels/dropout.h"
#include "lathe/kernels/gather.h"
#include "lathe/kernels/reduce.h"

namespace lathe::bench {
namespace {

using Shape = std::vector<std::pair<std::string, std::int64_t>>;
Shape rows_and_channels(const Sizes& s) { return {{"T", s.tokens}, {"C", s.channels}}; }

template <class Stream, class T>
void gather(const Sizes& s, std::vector<Case>& list) {
  const std::int64_t rows = s.rows();
  const std::int64_t step = s.tokens / rows;
  std::vector<std::int32_t> row_token(static_cast<std::size_t>(rows));
  std::vector<std::int32_t> token_row(static_cast<std::size_t>(s.tokens), -1);
  for (std::int64_t r = 0; r < rows; ++r) {
    row_token[static_cast<std::size_t>(r)] = static_cast<std::int32_t>(r * step);
    token_row[static_cast<std::size_t>(r * step)] = static_cast<std::int32_t>(r);
  }
  const std::int64_t taken = rows * s.channels * static_cast<std::int64_t>(sizeof(T));
  const Shape shape = {{"T", s.tokens}, {"R", rows}, {"C", s.channels}};
  list.push_back({.family = "gather",
                  .kernel = "gather_forward",
                  .dtype = dtype_name<T>(),
                  .shape = shape,
                  .operands = {matrix<T>("y", Access::write, rows, s.channels),
                               partly(matrix<T>("x", Access::read, s.tokens, s.channels), taken),
                               array("row_token", Extent::per_row, row_token)},
                  .operations = 0,
                  .bind = [s, rows](Device& device, const Addresses& at) -> Call {
                    const GatherForward<T> args{.y = at.get<T>("y"),
                                                .x = at.get<T>("x"),
                                                .row_token = at.get<std::int32_t>("row_token"),
                                                .rows = rows,
                                                .channels = s.channels};
                    return [stream = stream_of<Stream>(device), args] { gather_forward(stream, args); };
                  }});
  list.push_back({.family = "gather",
                  .kernel = "gather_backward",
                  .dtype = dtype_name<T>(),
                  .shape = shape,
                  .operands = {matrix<T>("d_x", Access::write, s.tokens, s.channels),
                               matrix<T>("d_y", Access::read, rows, s.channels), array("token_row", Extent::per_row, token_row)},
                  .operations = 0,
                  .bind = [s](Device& device, const Addresses& at) -> Call {
                    const GatherBackward<T> args{.d_x = at.get<T>("d_x"),
                                                 .use = Use::write,
                                                 .d_y = at.get<T>("d_y"),
                                                 .token_row = at.get<std::int32_t>("token_row"),
                                                 .tokens = s.tokens,
                                                 .channels = s.channels};
                    return [stream = stream_of<Stream>(device), args] { gather_backward(stream, args); };
                  }});
}

template <class Stream, class T>
void dropout(const Sizes& s, const PackedBatch& batch, std::vector<Case>& list) {
  Case forward{
      .family = "dropout",
      .kernel = "dropout_forward",
      .dtype = dtype_name<T>(),
      .shape = rows_and_channels(s),
      .operands = {matrix<T>("y", Access::write, s.tokens, s.channels), matrix<T>("x", Access::read, s.tokens, s.channels)},
      .operations = s.tokens * s.channels,
      .bind = [s](Device& device, const Addresses& at) -> Call {
        const DropoutForward<T> args{
            .y = at.get<T>("y"), .x = at.get<T>("x"), .dropout = dropout_at(at), .tokens = s.tokens, .channels = s.channels};
        return [stream = stream_of<Stream>(device), args] { dropout_forward(stream, args); };
      }};
  Case backward{
      .family = "dropout",
      .kernel = "dropout_backward",
      .dtype = dtype_name<T>(),
      .shape = rows_and_channels(s),
      .operands = {matrix<T>("d_x", Access::write, s.tokens, s.channels), matrix<T>("d_y", Access::read, s.tokens, s.channels)},
      .operations = s.tokens * s.channels,
      .bind = [s](Device& device, const Addresses& at) -> Call {
        const DropoutBackward<T> args{.d_x = at.get<T>("d_x"),
                                      .use = Use::write,
                                      .d_y = at.get<T>("d_y"),
                                      .dropout = dropout_at(at),
                                      .tokens = s.tokens,
                                      .channels = s.channels};
        return [stream = stream_of<Stream>(device), args] { dropout_backward(stream, args); };
      }};
  for (Case* made : {&forward, &backward}) {
    add_dropout(made->operands, batch);
    list.push_back(std::move(*made));
  }
}

template <class Stream, class T>
void sums(const Sizes& s, std::vector<Case>& list) {
  using A = Accumulator<T>;
  list.push_back({.family = "reduce",
                  .kernel = "column_sum",
                  .dtype = dtype_name<T>(),
                  .shape = rows_and_channels(s),
                  .operands = {vector<A>("y", Access::write, s.channels), matrix<T>("x", Access::read, s.tokens, s.channels),
                               scratch(column_sum_workspace<T>(s.tokens, s.channels))},
                  .operations = s.tokens * s.channels,
                  .bind = [s](Device& device, const Addresses& at) -> Call {
                    const ColumnSum<T> args{.y = at.get<A>("y"),
                                            .use = Use::write,
                                            .x = at.get<T>("x"),
                                            .workspace = at.find("workspace"),
                                            .tokens = s.tokens,
                                            .channels = s.channels};
                    return [stream = stream_of<Stream>(device), args] { column_sum(stream, args); };
                  }});
  list.push_back(
      {.family = "reduce",
       .kernel = "add",
       .dtype = dtype_name<T>(),
       .shape = rows_and_channels(s),
       .operands = {matrix<T>("y", Access::write, s.tokens, s.channels), matrix<T>("a", Access::read, s.tokens, s.channels),
                    matrix<T>("b", Access::read, s.tokens, s.channels)},
       .operations = s.tokens * s.channels,
       .bind = [s](Device& device, const Addresses& at) -> Call {
         const Add<T> args{.y = at.get<T>("y"), .a = at.get<T>("a"), .b = at.get<T>("b"), .count = s.tokens * s.channels};
         return [stream = stream_of<Stream>(device), args] { add(stream, args); };
       }});
}

template <class Stream, class To, class From>
Case cast_case(const Sizes& s) {
  return {
      .family = "cast",
      .kernel = "cast",
      .dtype = std::string(dtype_name<From>()) + "-" + dtype_name<To>(),
      .shape = rows_and_channels(s),
      .operands = {matrix<To>("y", Access::write, s.tokens, s.channels), matrix<From>("x", Access::read, s.tokens, s.channels)},
      .operations = s.tokens * s.channels,
      .bind = [s](Device& device, const Addresses& at) -> Call {
        const Cast<To, From> args{.y = at.get<To>("y"), .x = at.get<From>("x"), .count = s.tokens * s.channels};
        return [stream = stream_of<Stream>(device), args] { cast(stream, args); };
      }};
}

}  // namespace

std::vector<Case> gather_cases(DeviceKind kind, const Sizes& sizes) {
  return for_each_type(kind, [&]<class Stream, class T>(std::vector<Case>& list) { gather<Stream, T>(sizes, list); });
}

std::vector<Case> dropout_cases(DeviceKind kind, const Sizes& sizes) {
  const PackedBatch batch = make_batch(sizes);
  return for_each_type(kind, [&]<class Stream, class T>(std::vector<Case>& list) { dropout<Stream, T>(sizes, batch, list); });
}

// sum() is for a few numbers, and not measured.
std::vector<Case> reduce_cases(DeviceKind kind, const Sizes& sizes) {
  return for_each_type(kind, [&]<class Stream, class T>(std::vector<Case>& list) { sums<Stream, T>(sizes, list); });
}

std::vector<Case> cast_cases(DeviceKind kind, const Sizes& sizes) {
  return for_each_type(kind, [&]<class Stream, class T>(std::vector<Case>& list) {
    if constexpr (std::is_same_v<T, float>) {
      list.push_back(cast_case<Stream, Bf16, float>(sizes));
      list.push_back(cast_case<Stream, float, Bf16>(sizes));
    }
  });
}

}  // namespace lathe::bench
