#include "lathe/runtime/tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <vector>

#include "lathe/runtime/error.h"

namespace lathe {

Shape::Shape(std::initializer_list<std::int64_t> dimensions)
    : Shape(std::span<const std::int64_t>(dimensions.begin(), dimensions.size())) {}

Shape::Shape(std::span<const std::int64_t> dimensions) {
  if (dimensions.size() > kMaxRank)
    throw LogicError(fmt::format("a tensor has at most {} dimensions, not [{}]", kMaxRank, fmt::join(dimensions, ", ")));
  if (std::any_of(dimensions.begin(), dimensions.end(), [](std::int64_t d) { return d < 0; })) {
    throw LogicError(fmt::format("a tensor has no negative dimension: [{}]", fmt::join(dimensions, ", ")));
  }
  std::copy(dimensions.begin(), dimensions.end(), dimensions_.begin());
  rank_ = static_cast<int>(dimensions.size());
}

std::int64_t Shape::size() const noexcept {
  return std::accumulate(dimensions_.begin(), dimensions_.begin() + rank_, std::int64_t{1}, std::multiplies<>());
}

std::int64_t Shape::rows() const noexcept {
  return rank_ == 0 ? 1
                    : std::accumulate(dimensions_.begin(), dimensions_.begin() + rank_ - 1, std::int64_t{1}, std::multiplies<>());
}

std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape.dimensions(), ", ")); }

std::string_view to_string(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::f64:
      return "f64";
    case DType::i32:
      return "i32";
  }
  return "?";
}

void throw_not_covered(DType dtype, DeviceKind device) {
  if (dtype == DType::i32) throw LogicError("a floating-point tensor is needed here, not i32");
  throw LogicError(fmt::format("no kernel here for {} on {}", to_string(dtype), device == DeviceKind::cpu ? "the CPU" : "CUDA"));
}

Tensor Tensor::empty(const DeviceRef& device, DType dtype, const Shape& shape) {
  Tensor tensor;
  tensor.storage_ = device->allocate(shape.size() * size_of(dtype));
  tensor.shape_ = shape;
  tensor.dtype_ = dtype;
  tensor.id_ = device->next_id();
  return tensor;
}

Tensor Tensor::within(const Storage& memory, std::int64_t offset, DType dtype, const Shape& shape) {
  const std::int64_t bytes = shape.size() * size_of(dtype);
  if (offset < 0 || offset % size_of(dtype) != 0 || offset + bytes > memory.bytes()) {
    throw LogicError(fmt::format("a tensor {} of {} doesn't fit into {} bytes of memory from byte {} on", to_string(shape),
                                 to_string(dtype), memory.bytes(), offset));
  }
  Tensor tensor;
  tensor.storage_ = memory;
  tensor.offset_ = offset;
  tensor.shape_ = shape;
  tensor.dtype_ = dtype;
  tensor.id_ = memory.device()->next_id();
  return tensor;
}

Tensor Tensor::zeros(const DeviceRef& device, DType dtype, const Shape& shape) {
  Tensor tensor = empty(device, dtype, shape);
  tensor.fill_zero();
  return tensor;
}

template <class T>
Tensor Tensor::from(const DeviceRef& device, std::span<const T> values, const Shape& shape) {
  Tensor tensor = empty(device, dtype_of<T>(), shape);
  tensor.copy_from(values);
  return tensor;
}

template <class T>
T* Tensor::data() const {
  if (!storage_) return nullptr;
  if (dtype_ != dtype_of<T>()) {
    throw LogicError(
        fmt::format("a tensor {} of {} was used as {}", to_string(shape_), to_string(dtype_), to_string(dtype_of<T>())));
  }
  return reinterpret_cast<T*>(begin());
}

Tensor Tensor::reshape(const Shape& shape) const {
  if (shape.size() != size())
    throw LogicError(fmt::format("a tensor {} can't be seen as {}", to_string(shape_), to_string(shape)));
  Tensor tensor = *this;
  tensor.shape_ = shape;
  return tensor;
}

Tensor Tensor::view(std::int64_t offset, const Shape& shape) const {
  if (offset < 0 || offset + shape.size() > size()) {
    throw LogicError(
        fmt::format("a view {} from element {} lies outside a tensor {}", to_string(shape), offset, to_string(shape_)));
  }
  Tensor tensor = *this;
  tensor.offset_ += offset * size_of(dtype_);
  tensor.shape_ = shape;
  tensor.id_ = device()->next_id();
  return tensor;
}

bool Tensor::overlaps(const Tensor& other) const noexcept {
  return storage_ && storage_ == other.storage_ && offset_ < other.offset_ + other.bytes() && other.offset_ < offset_ + bytes();
}

template <class T>
void Tensor::copy_to(std::span<T> values) const {
  if (static_cast<std::int64_t>(values.size()) != size())
    throw LogicError(fmt::format("{} values don't fit a tensor {}", values.size(), to_string(shape_)));
  if (!values.empty()) device()->download(std::as_writable_bytes(values), reinterpret_cast<const std::byte*>(data<T>()));
}

template <class T>
void Tensor::copy_from(std::span<const T> values) const {
  if (static_cast<std::int64_t>(values.size()) != size())
    throw LogicError(fmt::format("{} values don't fit a tensor {}", values.size(), to_string(shape_)));
  if (!values.empty()) device()->upload(reinterpret_cast<std::byte*>(data<T>()), std::as_bytes(values));
}

void Tensor::copy_to_floats(std::span<float> values) const {
  if (dtype_ != DType::bf16) return copy_to<float>(values);
  std::vector<Bf16> elements(values.size());
  copy_to<Bf16>(elements);
  std::ranges::transform(elements, values.begin(), [](Bf16 x) { return static_cast<float>(x); });
}

void Tensor::fill_zero() const {
  if (size() > 0) device()->fill_zero(begin(), bytes());
}

template Tensor Tensor::from(const DeviceRef&, std::span<const float>, const Shape&);
template Tensor Tensor::from(const DeviceRef&, std::span<const double>, const Shape&);
template Tensor Tensor::from(const DeviceRef&, std::span<const Bf16>, const Shape&);
template Tensor Tensor::from(const DeviceRef&, std::span<const std::int32_t>, const Shape&);
template float* Tensor::data() const;
template double* Tensor::data() const;
template Bf16* Tensor::data() const;
template std::int32_t* Tensor::data() const;
template void Tensor::copy_to(std::span<float>) const;
template void Tensor::copy_to(std::span<double>) const;
template void Tensor::copy_to(std::span<Bf16>) const;
template void Tensor::copy_to(std::span<std::int32_t>) const;
template void Tensor::copy_from(std::span<const float>) const;
template void Tensor::copy_from(std::span<const double>) const;
template void Tensor::copy_from(std::span<const Bf16>) const;
template void Tensor::copy_from(std::span<const std::int32_t>) const;

}  // namespace lathe
