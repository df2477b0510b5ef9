#include "lathe/runtime/parameters.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "lathe/runtime/error.h"
#include "lathe/runtime/random.h"
#include "lathe/runtime/tape.h"

namespace lathe {

Parameter& ParameterSet::add(Parameter parameter) {
  const bool known =
      std::any_of(parameters_.begin(), parameters_.end(), [&](const Parameter& p) { return p.name == parameter.name; });
  if (known) throw LogicError(fmt::format("there is a parameter {} already", parameter.name));
  if (parameter.file_names.empty()) parameter.file_names.push_back(parameter.name);
  return parameters_.emplace_back(std::move(parameter));
}

std::int64_t ParameterSet::size() const {
  return std::accumulate(parameters_.begin(), parameters_.end(), std::int64_t{0},
                         [](std::int64_t n, const Parameter& p) { return n + p.shape.size(); });
}

namespace {

/// Elements that a parameter takes of an arena: whole blocks.
std::int64_t room_of(const Parameter& parameter) {
  return (parameter.shape.size() + kArenaBlock - 1) / kArenaBlock * kArenaBlock;
}

}  // namespace

ParameterArena::ParameterArena(const DeviceRef& device, DType dtype, ParameterSet& parameters, ArenaUse use)
    : parameters_(&parameters) {
  for (std::size_t i = 0; i < parameters.all().size(); ++i) {
    const std::size_t from_end = parameters.all().size() - 1 - i;
    const Parameter& parameter = parameters.all()[from_end];
    blocks_.insert(blocks_.end(), static_cast<std::size_t>(room_of(parameter) / kArenaBlock),
                   {.tensor = static_cast<std::int32_t>(i), .group = static_cast<std::int32_t>(parameter.decay)});
  }
  const Shape shape{static_cast<std::int64_t>(blocks_.size()) * kArenaBlock};
  values_ = Tensor::empty(device, dtype, shape);
  const DType full = dtype == DType::bf16 ? DType::f32 : dtype;
  if (use == ArenaUse::training) gradients_ = Tensor::zeros(device, full, shape);
  std::int64_t offset = 0;
  for (auto parameter = parameters.all().rbegin(); parameter != parameters.all().rend(); ++parameter) {
    parameter->value = values_.view(offset, parameter->shape);
    if (gradients_) parameter->gradient = gradients_.view(offset, parameter->shape);
    offset += room_of(*parameter);
  }
  if (full == dtype) {
    set_master(values_);
  } else if (use == ArenaUse::training) {
    set_master(Tensor::empty(device, full, shape));
  }
  offset = 0;
  for (auto parameter = parameters.all().rbegin(); parameter != parameters.all().rend(); ++parameter) {
    const std::int64_t size = parameter->shape.size();
    for (const Tensor& arena : {values_, master_}) {
      if (arena) arena.view(offset + size, Shape{room_of(*parameter) - size}).fill_zero();
    }
    offset += room_of(*parameter);
  }
}

void ParameterArena::set_master(Tensor master) {
  master_ = std::move(master);
  std::int64_t offset = 0;
  for (auto parameter = parameters_->all().rbegin(); parameter != parameters_->all().rend(); ++parameter) {
    if (!master_) {
      parameter->master = Tensor();
    } else {
      parameter->master = master_.id() == values_.id() ? parameter->value : master_.view(offset, parameter->shape);
    }
    offset += room_of(*parameter);
  }
}

void ParameterArena::release_master() {
  if (values_.dtype() == DType::bf16) set_master(Tensor());
}

void ParameterArena::lend_gradients() {
  if (values_.dtype() == DType::bf16) set_master(gradients_.view(0, gradients_.shape()));
}

void ParameterArena::own_master() {
  if (!master_ || !gradients_ || !master_.overlaps(gradients_)) return;
  const Tensor lent = master_;
  set_master(Tensor::like(lent));
  device()->copy(reinterpret_cast<std::byte*>(master_.data<float>()), reinterpret_cast<const std::byte*>(lent.data<float>()),
                 lent.bytes());
}

void ParameterArena::watch(Tape& tape, Use first) const {
  for (const Parameter& parameter : parameters_->all()) tape.watch(parameter.value, parameter.gradient, first);
}

void set_values(const Parameter& parameter, std::span<const float> values) {
  if (parameter.value.dtype() != DType::bf16) return parameter.value.copy_from(values);
  if (parameter.master) parameter.master.copy_from(values);
  std::vector<Bf16> rounded(values.size());
  std::ranges::transform(values, rounded.begin(), [](float x) { return Bf16(x); });
  parameter.value.copy_from<Bf16>(rounded);
}

void get_values(const Parameter& parameter, std::span<float> values) {
  (parameter.master ? parameter.master : parameter.value).copy_to_floats(values);
}

void ParameterArena::initialise(const Parameter& parameter, std::uint32_t seed, double deviation) {
  const RandomNumbers random(seed, RandomUse::initial_weights, stream_of(parameter.name));
  const auto draw = [&]<class T>(std::vector<T> values) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double value =
          parameter.initial == Initial::normal ? deviation * random.normal(i) : (parameter.initial == Initial::ones ? 1.0 : 0.0);
      values[i] = static_cast<T>(value);
    }
    return values;
  };
  const auto count = static_cast<std::size_t>(parameter.value.size());
  if (parameter.value.dtype() == DType::f64) return parameter.value.copy_from<double>(draw(std::vector<double>(count)));
  set_values(parameter, draw(std::vector<float>(count)));
}

}  // namespace lathe
