#pragma once
// A model's parameters, and the flat arenas that hold all of them, their gradients and what an optimizer keeps for each.
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/kernels/optimizer.h"
#include "lathe/runtime/tensor.h"

namespace [[gnu::visibility("default")]] lathe {

class Tape;

/// Whether weight decay applies: not to biases and LayerNorm.
enum class Decay : std::int32_t { yes = 0, no = 1 };

/// How a parameter starts where no file gives it.
enum class Initial : std::uint8_t { zeros, ones, normal };

struct Parameter {
  std::string name;
  Shape shape;
  Decay decay = Decay::yes;
  Initial initial = Initial::normal;
  /// Names that files know it by: one, or several tensors of equal shape that are stacked by rows (a merged QKV matrix).
  std::vector<std::string> file_names;
  // Set by ParameterArena:
  Tensor value{};     ///< what the model computes with
  Tensor master{};    ///< the same in full precision, which an optimizer updates; value itself unless that is bf16
  Tensor gradient{};  ///< of the accumulator's dtype
};

/// Parameters in the order in which modules first use them. References stay valid as it grows.
class ParameterSet {
 public:
  ParameterSet() = default;
  ParameterSet(const ParameterSet&) = delete;
  ParameterSet& operator=(const ParameterSet&) = delete;
  ParameterSet(ParameterSet&&) = default;
  ParameterSet& operator=(ParameterSet&&) = default;
  ~ParameterSet() = default;

  /// Throws LogicError for a name that is there already.
  Parameter& add(Parameter parameter);
  std::deque<Parameter>& all() noexcept { return parameters_; }
  const std::deque<Parameter>& all() const noexcept { return parameters_; }
  /// Elements in all.
  std::int64_t size() const;

 private:
  std::deque<Parameter> parameters_;
};

/// Whether gradients will be wanted; without, no memory is taken for them.
enum class ArenaUse : std::uint8_t { training, inference };

/// Overwrites a parameter's values: the master, where there is one, and what the model computes with, which is their nearest bf16 where it
/// computes in that. The parameter is in fp32 or bf16.
void set_values(const Parameter& parameter, std::span<const float> values);
/// A parameter's values in fp32: the master's, where there is one.
void get_values(const Parameter& parameter, std::span<float> values);

/// Values and gradients of a ParameterSet in one piece of memory each, in the reverse order of first use, so that the gradients
/// that are complete first lie first; in bf16 a third piece has the fp32 master, unless gradients are not wanted. Each parameter starts at a
/// multiple of kArenaBlock elements; what lies between is zero and stays zero.
class ParameterArena {
 public:
  /// Sets value and gradient of every parameter. Built once, when the model is whole.
  /// Values are uninitialised.
  ParameterArena(const DeviceRef& device, DType dtype, ParameterSet& parameters, ArenaUse use = ArenaUse::training);

  const DeviceRef& device() const noexcept { return values_.device(); }
  const Tensor& values() const noexcept { return values_; }
  /// Full precision: values() itself unless that is bf16; empty for bf16 without training, and after release_master().
  const Tensor& master() const noexcept { return master_; }
  const Tensor& gradients() const noexcept { return gradients_; }
  std::span<const ArenaBlock> blocks() const noexcept { return blocks_; }

  // Of what computes in bf16 the whole master can be away, while ranks keep a part each. Nothing happens where values() are the master.
  /// master() and the parameters' are empty from now on, and their memory is free.
  void release_master();
  /// The gradients' memory, with what it holds, is the master until release_master() or own_master(): between a step and the next it is free.
  void lend_gradients();
  /// A master that lies in the gradients' memory moves to memory of its own.
  void own_master();

  /// Watches all parameters on `tape`.
  void watch(Tape& tape, Use first) const;
  /// Draws the initial values of a parameter: N(0, deviation) or constants.
  static void initialise(const Parameter& parameter, std::uint32_t seed, double deviation);

 private:
  ParameterSet* parameters_;
  /// `master`, which may be empty, for the arena and all parameters.
  void set_master(Tensor master);

  Tensor values_;
  Tensor master_;
  Tensor gradients_;
  std::vector<ArenaBlock> blocks_;
};

}  // namespace lathe
