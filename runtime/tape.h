#pragma once
// Reverse-mode differentiation: what was done, in order, in an explicit scope. Backward walks the record in reverse; there is no
// graph.
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory_resource>
#include <new>
#include <span>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lathe/runtime/tensor.h"

namespace [[gnu::visibility("default")]] lathe {

class Tape;

/// What a backward function sees of its entry.
class Backward {
 public:
  /// A tensor that was declared as saved.
  const Tensor& saved(std::size_t i) const;
  /// What to do with the gradient of input i.
  Use use(std::size_t i) const;
  /// Where the gradient of input i goes; an empty tensor where it is skipped.
  const Tensor& d_input(std::size_t i) const;
  template <class T>
  T* d_input(std::size_t i) const {
    return d_input(i).template data<T>();
  }
  /// The gradient of output i; an empty tensor where nothing used that output. One of an entry's outputs has one.
  const Tensor& d_output(std::size_t i) const;
  template <class T>
  const T* d_output(std::size_t i) const {
    return d_output(i).template data<T>();
  }
  Device& device() const;

 private:
  friend class Tape;
  struct Input;
  struct Entry;
  explicit Backward(const Entry& entry) : entry_(entry) {}
  const Entry& entry_;
};

enum class Recording : std::uint8_t { on, off };

/// A record of functions. Not to be used by two threads at once. Memory of its own is kept from step to step: a step that records
/// as the one before asks the system for nothing.
class Tape {
 public:
  explicit Tape(DeviceRef device, Recording recording = Recording::on);
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;
  Tape(Tape&&) = delete;
  Tape& operator=(Tape&&) = delete;

  /// Asks for the gradient of x (a parameter, or any input of what follows) in `gradient`, which has x's shape. `first` says
  /// whether its first contribution of each backward overwrites what is there or adds to it (a later micro-batch). Stays in force
  /// until clear().
  void watch(const Tensor& x, const Tensor& gradient, Use first = Use::write);

  /// One function that was done. A tensor that is an input twice gets its gradient in two parts, in the order of inputs.
  struct Entry {
    std::string_view name;  ///< a literal; shown in errors and profiles
    std::initializer_list<Tensor> inputs;
    std::initializer_list<Tensor> outputs;
    std::initializer_list<Tensor> saved;  ///< kept until backward has passed
    /// Inputs whose elements the function has replaced by their gradients (cross-entropy's logits). Refused where an earlier
    /// function saved them. Backward is told to skip such an input where its memory becomes the gradient, else to write or add it
    /// elsewhere.
    std::initializer_list<Tensor> in_place{};
  };
  /// Records `backward`, called with a `const Backward&`; not recorded where no input needs a gradient. Outputs aren't kept
  /// alive.
  template <class F>
  void record(const Entry& entry, F backward) {
    if (!begin_entry(entry)) return;
    void* memory = arena_.allocate(sizeof(F), alignof(F));
    end_entry(
        ::new (memory) F(std::move(backward)), [](void* f, const Backward& b) { (*static_cast<F*>(f))(b); },
        [](void* f) { static_cast<F*>(f)->~F(); });
  }

  bool recording() const noexcept { return recording_ == Recording::on; }
  /// Whether a gradient of x will be wanted: x is watched, or computed from what is.
  bool needs_gradient(const Tensor& x) const;

  /// Walks back from `loss`, whose function must need no upstream gradient (a loss). Entries without a gradient of their outputs
  /// are skipped; each entry's saved tensors and closure go as it is passed; watched gradients that nothing wrote are zeroed. The
  /// record is then empty; what is watched stays. Throws LogicError where `loss` was not recorded.
  void backward(const Tensor& loss);
  /// The same from any output, with its gradient given.
  void backward(const Tensor& output, const Tensor& d_output);

  /// Forgets the record and what is watched.
  void clear();

 private:
  struct Node;
  using Run = void (*)(void*, const Backward&);
  using Destroy = void (*)(void*);
  bool begin_entry(const Entry& entry);
  void end_entry(void* closure, Run run, Destroy destroy);
  void walk();
  void drop_entries() noexcept;
  Tensor& seed(const Tensor& output);

  DeviceRef device_;
  Recording recording_;
  std::pmr::unsynchronized_pool_resource pool_;
  std::pmr::monotonic_buffer_resource arena_;  // entries and closures of the record
  std::pmr::vector<Backward::Entry*> entries_;
  std::pmr::unordered_map<std::uint64_t, Node> nodes_;  // what is known of tensors, by id
};

}  // namespace lathe
