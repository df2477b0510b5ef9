#pragma once
// Reverse-mode differentiation: what was done, in order, in an explicit scope. Backward walks the record in reverse; there is no
// graph.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
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
  /// Has `ready` called in each backward once for each gradient that is watched, as soon as nothing more of that backward will change it: after
  /// the last of the recorded functions that take the tensor has been passed (the first of them, in the order in which they ran), be it one that is
  /// recomputed; at the beginning, in the order of watching, where none takes it. What the device has been given by then makes the gradient whole. The
  /// order depends on nothing but what was watched and recorded. Stays in force, also after clear(); an empty function ends it.
  void tell(std::function<void(const Tensor& gradient)> ready);

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
    const Lists lists{.name = entry.name,
                      .inputs = {entry.inputs.begin(), entry.inputs.size()},
                      .outputs = {entry.outputs.begin(), entry.outputs.size()},
                      .saved = {entry.saved.begin(), entry.saved.size()},
                      .in_place = {entry.in_place.begin(), entry.in_place.size()}};
    if (begin_entry(lists)) end_entry(std::move(backward));
  }

  /// function(a tape), a Tensor, of which nothing is kept for backward but the result: backward calls the function once more, on another tape,
  /// and goes back through that. It costs the function's time once more, and saves the memory of what its parts save. To this tape the
  /// function is one entry called `name` (a literal), whose inputs are those tensors with a gradient, parameters among them, that its parts take:
  /// they are found as it runs, so that none can be forgotten, and saved until backward has passed. The second run must be as the first:
  /// what the function captures otherwise must still be there, unchanged, and its random masks must be functions of keys. It records on the tape
  /// that it is given, and on no other (LogicError). Its result takes a gradient from above: a loss stays outside. Gradients have the same bits as
  /// without.
  template <class F>
  Tensor recompute(std::string_view name, F function) {
    if (!keeps()) return function(*this);
    FirstRun first(*this);
    Tensor result = function(first.tape());
    const std::span<const Tensor> inputs = first.end();
    // A result that was there before has its entry already.
    if (!needs_gradient(result) &&
        begin_entry({.name = name, .inputs = inputs, .outputs = {&result, 1}, .saved = inputs, .in_place = {}})) {
      end_entry([this, function = std::move(function)](const Backward& b) {
        const SecondRun second(*this, b);
        second.backward(function(second.tape()), b.d_output(0));
      });
    }
    return result;
  }

  bool recording() const noexcept { return recording_ == Recording::on; }
  /// Whether a gradient of x will be wanted: x is watched, or computed from what is.
  bool needs_gradient(const Tensor& x) const;

  /// Walks back from `loss`, whose function must need no upstream gradient (a loss). Entries without a gradient of their outputs
  /// are skipped; each entry's saved tensors and closure go as it is passed; watched gradients that nothing writes are zeroed. The
  /// record is then empty; what is watched stays. Throws LogicError where `loss` was not recorded. Where a function throws, the rest of the
  /// record is dropped, and watched gradients are of no use until the next backward.
  void backward(const Tensor& loss);
  /// The same from any output, with its gradient given.
  void backward(const Tensor& output, const Tensor& d_output);

  /// Forgets the record and what is watched.
  void clear();

 private:
  struct Node;
  using Run = void (*)(void*, const Backward&);
  using Destroy = void (*)(void*);
  /// An Entry whose tensors may be of any number.
  struct Lists {
    std::string_view name;
    std::span<const Tensor> inputs, outputs, saved, in_place;
  };

  /// While a function runs that will be run again: finds what it takes of the tape that it is recomputed on.
  class FirstRun {
   public:
    explicit FirstRun(Tape& outer);
    ~FirstRun();
    FirstRun(const FirstRun&) = delete;
    FirstRun& operator=(const FirstRun&) = delete;
    FirstRun(FirstRun&&) = delete;
    FirstRun& operator=(FirstRun&&) = delete;
    Tape& tape() const { return inner_; }
    /// What was found, until this goes.
    std::span<const Tensor> end();

   private:
    Tape& inner_;
  };
  /// The same function in backward: its gradients go where its entry's go.
  class SecondRun {
   public:
    SecondRun(Tape& outer, const Backward& entry);
    ~SecondRun();
    SecondRun(const SecondRun&) = delete;
    SecondRun& operator=(const SecondRun&) = delete;
    SecondRun(SecondRun&&) = delete;
    SecondRun& operator=(SecondRun&&) = delete;
    Tape& tape() const { return inner_; }
    void backward(Tensor result, const Tensor& d_result) const;

   private:
    Tape& inner_;
  };
  /// Which run of a recomputed function this tape is for, now.
  enum class Phase : std::uint8_t { none, first, second };

  bool begin_entry(const Lists& entry);
  void end_entry(void* closure, Run run, Destroy destroy);
  template <class F>
  void end_entry(F backward) {
    void* memory = arena_.allocate(sizeof(F), alignof(F));
    end_entry(
        ::new (memory) F(std::move(backward)), [](void* f, const Backward& b) { (*static_cast<F*>(f))(b); },
        [](void* f) { static_cast<F*>(f)->~F(); });
  }
  /// Whether anything is kept for a backward of this tape's own.
  bool keeps() const noexcept { return recording() && phase_ != Phase::first; }
  Tape& inner();
  void expect_not_saved(const Lists& entry) const;
  void find_inputs(const Lists& entry);
  void walk();
  void count_uses();
  void finish(const Node& node) const;
  void forget_steps() noexcept;
  void drop_entries() noexcept;
  Tensor& seed(const Tensor& output);

  DeviceRef device_;
  Recording recording_;
  std::pmr::unsynchronized_pool_resource pool_;
  std::pmr::monotonic_buffer_resource arena_;  // entries and closures of the record
  std::pmr::vector<Backward::Entry*> entries_;
  std::pmr::unordered_map<std::uint64_t, Node> nodes_;  // what is known of tensors, by id
  std::pmr::vector<std::uint64_t> watched_;             // in the order of watching
  std::function<void(const Tensor&)> ready_;

  std::unique_ptr<Tape> inner_;  // for functions that are recomputed; null until there is one
  // Of an inner tape:
  Tape* outer_ = nullptr;
  Phase phase_ = Phase::none;
  std::vector<Tensor> found_;  // in the first run: tensors of the outer tape that were taken, each once
};

}  // namespace lathe
