#pragma once
// The emulated device's memory, and the judgement of every access to it. Internal to kernels/emulation.
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "lathe/kernels/emulation/running.h"
#include "lathe/kernels/emulation/shadow.h"

namespace lathe::emulation {

enum class AccessKind : std::uint8_t { read, write, atomic };
enum class Space : std::uint8_t { any, global, shared };

/// One access of a thread of a kernel.
struct Touch {
  const void* address;
  std::size_t bytes;
  AccessKind kind;
  Space space = Space::any;   ///< where it must be
  std::size_t alignment = 1;  ///< a power of two, of which the address must be a multiple
  bool asynchronous = false;  ///< the destination of a cp.async, which must not be touched until it has landed
};

/// Judges and counts an access of the running kernel from the place in the code that `code` returns to.
void watch(const Touch& access, const void* code);
/// A cp.async has reached shared memory: from here on it's a write of the thread that waited.
void landed(const AsyncCopy& copy);

/// Where the block's dynamic shared memory begins: all that a block can ask for, and behind it more that no kernel may touch.
void* dynamic_shared_memory();
inline constexpr std::size_t kDynamicSharedReserved = std::size_t{1} << 20U;

struct Allocation {
  std::uintptr_t begin;
  std::size_t bytes;
  std::string name;
};

/// All memory of the device, in one range of addresses that nobody can touch but launches, copies and host operations while they run.
class DeviceMemory {
 public:
  static constexpr std::size_t kReserved = std::size_t{64} << 30U;
  static constexpr std::size_t kCapacity = std::size_t{8} << 30U;  ///< what cudaMemGetInfo calls total

  DeviceMemory();
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  DeviceMemory(DeviceMemory&&) = delete;
  DeviceMemory& operator=(DeviceMemory&&) = delete;

  /// Aligned to 256 bytes; null where the device is full.
  void* allocate(std::size_t bytes);
  /// Throws Fault where it isn't the beginning of a live allocation.
  void release(void* address);
  void name(const void* address, std::size_t bytes, const char* name);

  bool contains(const void* address) const { return all_.contains(reinterpret_cast<std::uintptr_t>(address)); }
  std::size_t in_use() const { return in_use_; }
  const std::map<std::uintptr_t, Allocation>& allocations() const { return live_; }
  /// "byte 400 of 'y' (1,024 bytes)", for any address.
  std::string describe(std::uintptr_t address) const;
  /// The named part, or else the allocation, that has this address; null where none has.
  const Allocation* find(std::uintptr_t address) const;

  Range range() const { return all_; }
  Cell* cells() const { return cells_; }
  std::uint8_t* states() const { return states_; }

  /// Marks a copy's or host operation's access, and throws Fault where bytes are outside of an allocation, or read and never written.
  void touch(const void* address, std::size_t bytes, AccessKind kind, Serial serial, const std::string& who);

  /// A cell has room for one reader. Where another operation reads, and neither comes before the other, the earlier one is kept here until
  /// the cell is written.
  void keep_read(std::size_t cell, const Access& read);
  bool keeps_reads() const { return !kept_reads_.empty(); }
  /// Takes out what was kept of the cell.
  std::vector<Access> take_reads(std::size_t cell);

  /// Makes the memory accessible while it lives.
  class Opened {
   public:
    explicit Opened(DeviceMemory& memory);
    ~Opened();
    Opened(const Opened&) = delete;
    Opened& operator=(const Opened&) = delete;
    Opened(Opened&&) = delete;
    Opened& operator=(Opened&&) = delete;

   private:
    DeviceMemory& memory_;
  };

 private:
  void protect(int protection);
  std::uintptr_t place(std::size_t room);

  Range all_;
  Cell* cells_ = nullptr;
  std::uint8_t* states_ = nullptr;
  std::uintptr_t next_ = 0;  ///< where room is sought
  std::size_t reached_ = 0;  ///< bytes from the beginning that were ever handed out
  std::size_t in_use_ = 0;
  int opened_ = 0;
  bool accessible_ = false;
  std::map<std::uintptr_t, Allocation> live_;
  std::map<std::uintptr_t, Allocation> freed_;
  std::map<std::uintptr_t, Allocation> named_;
  std::unordered_map<std::size_t, std::vector<Access>> kept_reads_;
};

/// The one device's.
DeviceMemory& device_memory();

/// Whether the access that `before` remembers is ordered before the running operation. In queue.cc, which knows the streams.
bool ordered_before_operation(const Access& before);
/// The moments of the operation that had this one.
Range moments_of_operation(Serial serial);
/// Why not: "was touched by ...".
std::string why_unordered(const Access& before);

}  // namespace lathe::emulation
