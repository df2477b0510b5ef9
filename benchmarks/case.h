#pragma once
// What is measured: a call of a kernel, its operands, and what the mathematics asks of memory and arithmetic for it.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lathe/runtime/device.h"

namespace lathe::bench {

/// What a kernel has to do with an operand. Scratch is what the mathematics knows nothing of.
enum class Access : std::uint8_t { read, write, update, scratch };

/// What an operand grows with. A matrix is a tensor with T rows, an arena, or a table of which each row takes another; profiles tell the
/// others apart: numbers that each row has one of, tables so small that rows are met again in a cache, and vectors and partial sums.
enum class Extent : std::uint8_t { matrix, per_row, table, vector };

/// Fills memory of so many bytes before the first call.
using Contents = std::function<void(std::span<std::byte>)>;

struct Operand {
  std::string name;
  Access access = Access::read;
  Extent extent = Extent::matrix;
  std::int64_t bytes = 0;
  /// Of them, those that one pass takes: a gather doesn't take the whole table.
  std::int64_t touched = 0;
  Contents contents;  ///< empty where nothing is read before it is written

  std::int64_t read_bytes() const { return access == Access::read || access == Access::update ? touched : 0; }
  std::int64_t written_bytes() const { return access == Access::write || access == Access::update ? touched : 0; }
};

/// Where the operands of a case lie on the device.
class Addresses {
 public:
  /// Both are borrowed; an address for each operand.
  Addresses(std::span<const Operand> operands, std::span<std::byte* const> addresses)
      : operands_(operands), addresses_(addresses) {}
  /// Throws std::out_of_range where no operand has this name.
  template <class T>
  T* get(std::string_view name) const {
    return reinterpret_cast<T*>(find(name));
  }
  std::byte* find(std::string_view name) const;

 private:
  std::span<const Operand> operands_;
  std::span<std::byte* const> addresses_;
};

using Call = std::function<void()>;

struct Case {
  std::string family;                                       ///< what a user asks for: "layernorm"
  std::string kernel;                                       ///< "layernorm_forward"
  std::string dtype;                                        ///< "f32", "bf16"
  std::vector<std::pair<std::string, std::int64_t>> shape;  ///< {"T", 16384}, {"C", 1024}
  std::vector<Operand> operands;
  /// Additions, multiplications, comparisons and functions (a root, an exponential), one each. Random numbers, indices and addresses
  /// aren't counted.
  std::int64_t operations = 0;
  /// The kernel's call for operands at these addresses, on the device's stream.
  std::function<Call(Device&, const Addresses&)> bind;

  /// Bytes that the mathematics moves: each operand that is read, once; each that is written, once; scratch not at all.
  std::int64_t bytes() const;
  /// "T=16384 C=1024".
  std::string shape_text() const;
};

/// A case's operands on a device, filled, side by side at multiples of 256 bytes.
class Placed {
 public:
  Placed(const Case& measured, const DeviceRef& device);
  const Call& call() const { return call_; }
  std::span<std::byte* const> addresses() const { return addresses_; }
  /// Bytes that placing a case takes.
  static std::int64_t bytes(const Case& measured);

 private:
  Storage storage_;
  std::vector<std::byte*> addresses_;
  Call call_;
};

}  // namespace lathe::bench
