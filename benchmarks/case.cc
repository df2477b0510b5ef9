#include "benchmarks/case.h"

#include <fmt/format.h>

#include <stdexcept>

namespace lathe::bench {
namespace {

constexpr std::int64_t kAlignment = 256;

std::int64_t padded(std::int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

std::byte* Addresses::find(std::string_view name) const {
  for (std::size_t i = 0; i < operands_.size(); ++i) {
    if (operands_[i].name == name) return addresses_[i];
  }
  throw std::out_of_range(fmt::format("no operand '{}'", name));
}

std::int64_t Case::bytes() const {
  std::int64_t sum = 0;
  for (const Operand& operand : operands) sum += operand.read_bytes() + operand.written_bytes();
  return sum;
}

std::string Case::shape_text() const {
  std::string text;
  for (const auto& [name, size] : shape) text += fmt::format("{}{}={}", text.empty() ? "" : " ", name, size);
  return text;
}

std::int64_t Placed::bytes(const Case& measured) {
  std::int64_t sum = kAlignment;
  for (const Operand& operand : measured.operands) sum += padded(operand.bytes);
  return sum;
}

Placed::Placed(const Case& measured, const DeviceRef& device) : storage_(device->allocate(bytes(measured))) {
  std::byte* at = storage_.data();
  at += padded(static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(at) % kAlignment)) -
        static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(at) % kAlignment);
  std::vector<std::byte> host;
  for (const Operand& operand : measured.operands) {
    addresses_.push_back(at);
    at += padded(operand.bytes);
    if (!operand.contents || operand.bytes == 0) continue;
    host.resize(static_cast<std::size_t>(operand.bytes));
    operand.contents(host);
    device->upload(addresses_.back(), host);
  }
  call_ = measured.bind(*device, Addresses(measured.operands, addresses_));
}

}  // namespace lathe::bench
