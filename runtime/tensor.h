#pragma once
// Tensors: a shape, an element type and a counted reference to a device's memory.
#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "lathe/kernels/types.h"
#include "lathe/runtime/device.h"

namespace [[gnu::visibility("default")]] lathe {

/// Up to four dimensions, row-major.
class Shape {
 public:
  static constexpr int kMaxRank = 4;
  Shape() = default;
  /// Throws LogicError for a negative dimension or more than four.
  Shape(std::initializer_list<std::int64_t> dimensions);
  explicit Shape(std::span<const std::int64_t> dimensions);

  int rank() const noexcept { return rank_; }
  std::int64_t operator[](int i) const noexcept { return dimensions_[static_cast<std::size_t>(i)]; }
  /// Product of the dimensions; 1 for rank 0.
  std::int64_t size() const noexcept;
  /// The last dimension (C), and the product of those before it (T).
  std::int64_t channels() const noexcept { return rank_ == 0 ? 1 : (*this)[rank_ - 1]; }
  std::int64_t rows() const noexcept;
  std::span<const std::int64_t> dimensions() const noexcept { return {dimensions_.data(), static_cast<std::size_t>(rank_)}; }
  bool operator==(const Shape&) const = default;

 private:
  std::array<std::int64_t, kMaxRank> dimensions_{};
  int rank_ = 0;
};

/// "[32, 384]".
std::string to_string(const Shape& shape);
/// "f32".
std::string_view to_string(DType dtype);

/// A handle: copies share elements and identity. Always contiguous. The elements of a const Tensor can be written, as those
/// behind a const pointer can.
class Tensor {
 public:
  Tensor() = default;
  /// Uninitialised elements.
  static Tensor empty(const DeviceRef& device, DType dtype, const Shape& shape);
  static Tensor zeros(const DeviceRef& device, DType dtype, const Shape& shape);
  /// A new tensor with x's device, dtype and shape, or another shape; uninitialised.
  static Tensor like(const Tensor& x) { return empty(x.device(), x.dtype(), x.shape()); }
  static Tensor like(const Tensor& x, const Shape& shape) { return empty(x.device(), x.dtype(), shape); }
  /// Elements in a piece of memory, from byte `offset` on, which must suit their type; uninitialised where the memory is. Throws LogicError
  /// where they don't fit into it.
  static Tensor within(const Storage& memory, std::int64_t offset, DType dtype, const Shape& shape);
  /// A copy of host values. Throws LogicError where their number isn't the shape's.
  template <class T>
  static Tensor from(const DeviceRef& device, std::span<const T> values, const Shape& shape);

  explicit operator bool() const noexcept { return static_cast<bool>(storage_); }
  const Shape& shape() const noexcept { return shape_; }
  DType dtype() const noexcept { return dtype_; }
  const DeviceRef& device() const noexcept { return storage_.device(); }
  std::int64_t size() const noexcept { return shape_.size(); }
  std::int64_t rows() const noexcept { return shape_.rows(); }
  std::int64_t channels() const noexcept { return shape_.channels(); }
  std::int64_t bytes() const noexcept { return size() * size_of(dtype_); }
  /// What the tape knows the tensor by: copies and reshaped handles have the same number.
  std::uint64_t id() const noexcept { return id_; }
  /// The elements; null for an empty handle. Throws LogicError where T isn't the dtype.
  template <class T>
  T* data() const;

  /// The same elements in another shape of the same size, the same tensor to the tape.
  Tensor reshape(const Shape& shape) const;
  /// A part of the elements, from element `offset` on: another tensor to the tape.
  Tensor view(std::int64_t offset, const Shape& shape) const;
  /// Whether both see some of the same elements.
  bool overlaps(const Tensor& other) const noexcept;

  /// Copies the elements to the host. Throws LogicError where the number or dtype doesn't fit.
  template <class T>
  void copy_to(std::span<T> values) const;
  /// Overwrites the elements from the host.
  template <class T>
  void copy_from(std::span<const T> values) const;
  /// Copies fp32 or bf16 elements to the host in fp32.
  void copy_to_floats(std::span<float> values) const;
  void fill_zero() const;

 private:
  std::byte* begin() const noexcept { return storage_.data() + offset_; }

  Storage storage_;
  std::int64_t offset_ = 0;  // bytes
  Shape shape_;
  DType dtype_ = DType::f32;
  std::uint64_t id_ = 0;
};

/// The element type that T is stored as.
template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::f32;
}
template <>
constexpr DType dtype_of<double>() {
  return DType::f64;
}
template <>
constexpr DType dtype_of<Bf16>() {
  return DType::bf16;
}
template <>
constexpr DType dtype_of<std::int32_t>() {
  return DType::i32;
}

/// Throws the LogicError of a function that was given a dtype which its device's kernels don't compute.
[[noreturn]] void throw_not_covered(DType dtype, DeviceKind device);

/// Calls f<T>(stream) with the element type of x and its device's stream, a CpuStream or a CudaStream: the one place that knows them all.
/// The CPU computes in fp32 and fp64, CUDA in fp32 and bf16.
template <class F>
void on(const Tensor& x, F&& f) {
  const Device& device = *x.device();
  if (device.kind() == DeviceKind::cpu) {
    if (x.dtype() == DType::f32) return f.template operator()<float>(device.cpu_stream());
    if (x.dtype() == DType::f64) return f.template operator()<double>(device.cpu_stream());
  }
#ifdef LATHE_HAS_CUDA
  if (device.kind() == DeviceKind::cuda) {
    if (x.dtype() == DType::f32) return f.template operator()<float>(device.cuda_stream());
    if (x.dtype() == DType::bf16) return f.template operator()<Bf16>(device.cuda_stream());
  }
#endif
  throw_not_covered(x.dtype(), device.kind());
}

}  // namespace lathe
