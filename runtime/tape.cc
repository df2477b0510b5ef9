#include "lathe/runtime/tape.h"

#include <fmt/format.h>

#include <algorithm>

#include "lathe/kernels/device/range.h"
#include "lathe/runtime/error.h"

namespace lathe {

/// What the tape knows of a tensor, without keeping its elements alive.
struct Tape::Node {
  Tensor gradient;  // of a watched tensor from the start; of others from the first contribution to the last use
  Use next = Use::write;
  Use first = Use::write;
  bool watched = false;
  std::int64_t uses = 0;  // of a watched tensor, in backward: as inputs of entries that are still to be passed
};

struct Backward::Input {
  std::uint64_t id = 0;
  Shape shape;
  DType dtype = DType::f32;
  Use use = Use::skip;
  Tensor gradient;
  Tensor in_place;  // the input itself, where it already holds its gradient
};

struct Backward::Entry {
  std::string_view name;
  Device* device = nullptr;
  std::span<Input> inputs;
  std::span<Input> outputs;
  std::span<Tensor> saved;
  void* closure = nullptr;
  void (*run)(void*, const Backward&) = nullptr;
  void (*destroy)(void*) = nullptr;
};

const Tensor& Backward::saved(std::size_t i) const { return entry_.saved[i]; }
Use Backward::use(std::size_t i) const { return entry_.inputs[i].use; }
const Tensor& Backward::d_input(std::size_t i) const { return entry_.inputs[i].gradient; }
const Tensor& Backward::d_output(std::size_t i) const { return entry_.outputs[i].gradient; }
Device& Backward::device() const { return *entry_.device; }

namespace {
/// Blocks up to this size are kept when the record is dropped, so that the next one of its kind takes none from the system.
constexpr std::pmr::pool_options kPool{.max_blocks_per_chunk = 4, .largest_required_pool_block = std::size_t{1} << 20U};
}  // namespace

Tape::Tape(DeviceRef device, Recording recording)
    : device_(std::move(device)),
      recording_(recording),
      pool_(kPool),
      arena_(&pool_),
      entries_(&pool_),
      nodes_(&pool_),
      watched_(&pool_) {}

Tape::~Tape() { drop_entries(); }

void Tape::watch(const Tensor& x, const Tensor& gradient, Use first) {
  if (gradient.size() != x.size()) {
    throw LogicError(fmt::format("a gradient {} was given for a tensor {}", to_string(gradient.shape()), to_string(x.shape())));
  }
  Node& node = nodes_[x.id()];
  node.gradient = gradient;
  node.next = first;
  node.first = first;
  if (!node.watched) watched_.push_back(x.id());
  node.watched = true;
}

void Tape::tell(std::function<void(const Tensor&)> ready) { ready_ = std::move(ready); }

bool Tape::needs_gradient(const Tensor& x) const { return recording() && x && nodes_.contains(x.id()); }

void Tape::expect_not_saved(const Lists& entry) const {
  for (const Tensor& target : entry.in_place) {
    for (const Backward::Entry* earlier : entries_) {
      const bool saved =
          std::any_of(earlier->saved.begin(), earlier->saved.end(), [&](const Tensor& s) { return s.overlaps(target); });
      if (saved) {
        throw LogicError(fmt::format("{} would overwrite a tensor {} that the backward of {} still needs", entry.name,
                                     to_string(target.shape()), earlier->name));
      }
    }
  }
  // Of a function that is recomputed the outer tape has saved what it takes.
  if (outer_ != nullptr) outer_->expect_not_saved(entry);
}

bool Tape::begin_entry(const Lists& entry) {
  if (inner_ != nullptr && inner_->phase_ != Phase::none) {
    throw LogicError(fmt::format(
        "{} was recorded on the tape outside of the function that is recomputed, which has one of its own", entry.name));
  }
  expect_not_saved(entry);
  if (outer_ != nullptr) find_inputs(entry);
  const bool needed = std::any_of(entry.inputs.begin(), entry.inputs.end(), [&](const Tensor& x) { return needs_gradient(x); });
  if (!needed) return false;

  const auto make_array = [&]<class T>(T*, std::size_t count) {
    T* array = static_cast<T*>(arena_.allocate(count * sizeof(T), alignof(T)));
    std::uninitialized_value_construct_n(array, count);
    return std::span<T>(array, count);
  };
  const auto describe = [&](std::span<const Tensor> tensors) {
    const auto array = make_array(static_cast<Backward::Input*>(nullptr), tensors.size());
    std::transform(tensors.begin(), tensors.end(), array.begin(), [](const Tensor& x) {
      return Backward::Input{
          .id = x.id(), .shape = x.shape(), .dtype = x.dtype(), .use = Use::skip, .gradient = {}, .in_place = {}};
    });
    return array;
  };
  auto* record = ::new (arena_.allocate(sizeof(Backward::Entry), alignof(Backward::Entry))) Backward::Entry();
  record->name = entry.name;
  record->device = device_.get();
  record->inputs = describe(entry.inputs);
  for (const Tensor& target : entry.in_place) {
    const auto input =
        std::find_if(record->inputs.begin(), record->inputs.end(), [&](const Backward::Input& i) { return i.id == target.id(); });
    if (input == record->inputs.end())
      throw LogicError(fmt::format("{} declares a gradient in place of what is not its input", entry.name));
    input->in_place = target;
  }
  record->outputs = describe(entry.outputs);
  record->saved = make_array(static_cast<Tensor*>(nullptr), entry.saved.size());
  std::copy(entry.saved.begin(), entry.saved.end(), record->saved.begin());
  for (const Tensor& output : entry.outputs) nodes_.try_emplace(output.id());
  entries_.push_back(record);
  return true;
}

void Tape::end_entry(void* closure, Run run, Destroy destroy) {
  entries_.back()->closure = closure;
  entries_.back()->run = run;
  entries_.back()->destroy = destroy;
}

namespace {
template <class Entry>
void destroy(Entry& entry) noexcept {
  if (entry.destroy != nullptr) entry.destroy(entry.closure);
  std::destroy(entry.inputs.begin(), entry.inputs.end());
  std::destroy(entry.outputs.begin(), entry.outputs.end());
  std::destroy(entry.saved.begin(), entry.saved.end());
  std::destroy_at(&entry);
}
}  // namespace

void Tape::drop_entries() noexcept {
  for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry) destroy(**entry);
  entries_.clear();
  arena_.release();
}

Tensor& Tape::seed(const Tensor& output) {
  const auto node = nodes_.find(output.id());
  if (node == nodes_.end() || entries_.empty())
    throw LogicError("backward starts from a tensor that no recorded function made from what is watched");
  return node->second.gradient;
}

void Tape::backward(const Tensor& loss) {
  seed(loss) = Tensor::empty(device_, loss.dtype(), Shape{0});  // there is a gradient, which nobody reads
  walk();
}

void Tape::backward(const Tensor& output, const Tensor& d_output) {
  if (d_output.size() != output.size()) {
    throw LogicError(
        fmt::format("a gradient {} was given for an output {}", to_string(d_output.shape()), to_string(output.shape())));
  }
  seed(output) = d_output;
  walk();
}

void Tape::forget_steps() noexcept {
  drop_entries();
  std::erase_if(nodes_, [](const auto& item) { return !item.second.watched; });
  for (auto& [id, node] : nodes_) node.next = node.first;
}

void Tape::count_uses() {
  for (const std::uint64_t id : watched_) nodes_.find(id)->second.uses = 0;
  for (const Backward::Entry* entry : entries_) {
    for (const Backward::Input& input : entry->inputs) {
      const auto found = nodes_.find(input.id);
      if (found != nodes_.end() && found->second.watched) ++found->second.uses;
    }
  }
}

/// All entries that take a watched tensor have been passed.
void Tape::finish(const Node& node) const {
  if (node.next == Use::write) node.gradient.fill_zero();
  if (ready_) ready_(node.gradient);
}

void Tape::walk() try {
  count_uses();
  for (const std::uint64_t id : watched_) {
    if (const Node& node = nodes_.find(id)->second; node.uses == 0) finish(node);
  }
  while (!entries_.empty()) {
    Backward::Entry& entry = *entries_.back();
    bool used = false;
    for (Backward::Input& output : entry.outputs) {
      Node& node = nodes_.find(output.id)->second;
      output.gradient = node.watched ? node.gradient : std::move(node.gradient);
      // A watched output has a gradient only once something wrote it.
      if (node.watched && node.next == Use::write) output.gradient = Tensor();
      used = used || output.gradient;
    }
    if (used) {
      for (Backward::Input& input : entry.inputs) {
        const auto found = nodes_.find(input.id);
        if (found == nodes_.end()) continue;
        Node& node = found->second;
        if (!node.gradient && input.in_place) {
          node.gradient = input.in_place;
          node.next = Use::add;
          continue;
        }
        if (!node.gradient) {
          node.gradient = Tensor::empty(device_, input.dtype, input.shape);
          node.next = Use::write;
        }
        input.gradient = node.gradient;
        input.use = std::exchange(node.next, Use::add);
      }
      const device::Range range(entry.name.data());  // a literal, which ends in 0
      entry.run(entry.closure, Backward(entry));
    }
    for (const Backward::Input& input : entry.inputs) {
      const auto found = nodes_.find(input.id);
      if (found == nodes_.end() || !found->second.watched) continue;
      if (--found->second.uses == 0) finish(found->second);
    }
    entries_.pop_back();
    destroy(entry);
  }
  forget_steps();
} catch (...) {
  forget_steps();
  throw;
}

Tape& Tape::inner() {
  if (inner_ == nullptr) {
    inner_ = std::make_unique<Tape>(device_);
    inner_->outer_ = this;
  }
  if (inner_->phase_ != Phase::none)
    throw LogicError("a function that is recomputed recomputes another on the tape outside of it; it has one of its own");
  return *inner_;
}

void Tape::find_inputs(const Lists& entry) {
  for (const Tensor& x : entry.inputs) {
    if (!outer_->needs_gradient(x) || nodes_.contains(x.id())) continue;
    if (phase_ == Phase::second) {
      throw LogicError(fmt::format("{} takes a tensor {} in a recomputed function's second run that nothing took in its first",
                                   entry.name, to_string(x.shape())));
    }
    if (std::ranges::find(found_, x.id(), &Tensor::id) == found_.end()) found_.push_back(x);
  }
}

Tape::FirstRun::FirstRun(Tape& outer) : inner_(outer.inner()) { inner_.phase_ = Phase::first; }

std::span<const Tensor> Tape::FirstRun::end() {
  inner_.phase_ = Phase::none;
  return inner_.found_;
}

Tape::FirstRun::~FirstRun() {
  inner_.phase_ = Phase::none;
  inner_.found_.clear();
}

Tape::SecondRun::SecondRun(Tape& outer, const Backward& entry) : inner_(outer.inner()) {
  inner_.clear();
  for (std::size_t i = 0; i < entry.entry_.inputs.size(); ++i) {
    if (entry.use(i) != Use::skip) inner_.watch(entry.saved(i), entry.d_input(i), entry.use(i));
  }
  inner_.phase_ = Phase::second;
}

Tape::SecondRun::~SecondRun() {
  inner_.clear();
  inner_.phase_ = Phase::none;
}

void Tape::SecondRun::backward(Tensor result, const Tensor& d_result) const {
  if (d_result.size() != result.size()) {
    throw LogicError(
        fmt::format("a gradient {} came for the result {} of a recomputed function: a loss can't be recomputed, since it "
                    "takes no upstream gradient",
                    to_string(d_result.shape()), to_string(result.shape())));
  }
  const auto node = inner_.nodes_.find(result.id());
  if (node != inner_.nodes_.end() && node->second.watched)
    throw LogicError("a recomputed function's second run gives one of its inputs back, and its first didn't");
  // Nothing of it: what is watched is zeroed.
  if (node != inner_.nodes_.end()) node->second.gradient = d_result;
  result = Tensor();  // nobody reads it
  inner_.walk();
}

void Tape::clear() {
  drop_entries();
  nodes_.clear();
  watched_.clear();
}

}  // namespace lathe
