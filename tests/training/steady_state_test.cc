// Counts calls of the system's allocator in steps 20 to 40 of a training run. The functions below take malloc's place in this program and in
// every library that it loads.
#include <dlfcn.h>
#include <execinfo.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "lathe/text/documents.h"
#include "lathe/training/dataset.h"
#include "lathe/training/finetune.h"
#include "lathe/training/pretrain.h"
#include "tests/temporary_folder.h"
#include "tests/training/tiny_model.h"
#include "tests/training/tiny_text.h"

// glibc's own, under the names that it keeps for programs which replace malloc.
extern "C" {  // NOLINTBEGIN(readability-identifier-naming): glibc chose them
void* __libc_malloc(std::size_t bytes);
void* __libc_calloc(std::size_t count, std::size_t bytes);
void* __libc_realloc(void* block, std::size_t bytes);
void* __libc_memalign(std::size_t alignment, std::size_t bytes);
void __libc_free(void* block);
}  // NOLINTEND(readability-identifier-naming)

namespace {

std::atomic<bool> counting{false};
/// Calls from Lathe's own code (and what it inlines or calls of the C++ library), from the matrix library, and the bytes of the latter.
std::atomic<int> own_calls{0};
std::atomic<int> library_calls{0};
std::atomic<std::size_t> largest_library_call{0};
/// Where the first few of our own calls came from.
constexpr int kFrames = 12;
std::array<std::array<void*, kFrames>, 6> callers{};

void count(std::size_t bytes, void* caller) {
  if (!counting.exchange(false)) return;  // what dladdr itself needs isn't counted
  Dl_info info{};
  if (::dladdr(caller, &info) != 0 && std::strstr(info.dli_fname, "libdnnl") != nullptr) {
    ++library_calls;
    if (bytes > largest_library_call) largest_library_call = bytes;
  } else {
    const int index = own_calls++;
    if (index < static_cast<int>(callers.size())) ::backtrace(callers[static_cast<std::size_t>(index)].data(), kFrames);
  }
  counting = true;
}

void* counted(void* block, std::size_t bytes, void* caller) {
  count(bytes, caller);
  return block;
}

}  // namespace

extern "C" {  // their parameters are called as in stdlib.h
void* malloc(std::size_t size) { return counted(__libc_malloc(size), size, __builtin_return_address(0)); }
void* calloc(std::size_t nmemb, std::size_t size) {
  return counted(__libc_calloc(nmemb, size), nmemb * size, __builtin_return_address(0));
}
void* realloc(void* ptr, std::size_t size) { return counted(__libc_realloc(ptr, size), size, __builtin_return_address(0)); }
void* memalign(std::size_t alignment, std::size_t size) {
  return counted(__libc_memalign(alignment, size), size, __builtin_return_address(0));
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  return counted(__libc_memalign(alignment, size), size, __builtin_return_address(0));
}
int posix_memalign(void** memptr, std::size_t alignment, std::size_t size) {
  *memptr = counted(__libc_memalign(alignment, size), size, __builtin_return_address(0));
  return *memptr == nullptr ? ENOMEM : 0;
}
void free(void* ptr) { __libc_free(ptr); }
}

// So that the caller of new is known, and not the C++ library's own malloc.
void* operator new(std::size_t bytes) {
  void* block = counted(__libc_malloc(bytes), bytes, __builtin_return_address(0));
  if (block == nullptr) throw std::bad_alloc();
  return block;
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  void* block = counted(__libc_memalign(static_cast<std::size_t>(alignment), bytes), bytes, __builtin_return_address(0));
  if (block == nullptr) throw std::bad_alloc();
  return block;
}
void operator delete(void* block) noexcept { __libc_free(block); }
void operator delete(void* block, std::size_t) noexcept { __libc_free(block); }
void operator delete(void* block, std::align_val_t) noexcept { __libc_free(block); }
void operator delete(void* block, std::size_t, std::align_val_t) noexcept { __libc_free(block); }

namespace lathe {
namespace {

template <class Observer>
class Counter final : public Observer {
 public:
  void stepped(std::int64_t step, std::int64_t, std::int64_t) override { counting = step >= 19 && step < 40; }
};

/// That calls are counted at all; forgets those so far.
void check_counting() {
  // The first backtrace loads a library, which allocates.
  std::array<void*, 2> first{};
  ::backtrace(first.data(), static_cast<int>(first.size()));
  own_calls = library_calls = 0;
  largest_library_call = 0;
  counting = true;
  void* volatile block = std::malloc(100);  // volatile: or the compiler knows better
  std::free(block);
  int* volatile number = new int(1);
  delete number;
  counting = false;
  ASSERT_EQ(own_calls.exchange(0), 2);
  callers = {};
}

void expect_no_calls() {
  counting = false;
  std::string where;
  for (const auto& frames : callers) {
    for (void* const frame : frames) {
      Dl_info info{};
      if (frame != nullptr && ::dladdr(frame, &info) != 0)
        where += std::string(info.dli_sname != nullptr ? info.dli_sname : info.dli_fname) + "\n";
    }
    where += "\n";
  }
  EXPECT_EQ(own_calls.load(), 0) << where;
  std::printf("calls of the allocator in 21 steps: %d by Lathe; %d by the matrix library, the largest of %zu bytes\n",
              own_calls.load(), library_calls.load(), largest_library_call.load());
  // oneDNN keeps the list of a call's arguments on the heap; its buffers are ours.
  EXPECT_LE(largest_library_call.load(), 4096U);
}

TEST(SteadyState, StepsTwentyToFortyAskTheSystemForNothing) {
  const TemporaryFolder folder;
  write_tiny_model(folder / "model");
  write_tiny_data(folder / "train.tsv", 512, 1);
  const DataSet data = read_records(folder / "train.tsv");
  const auto classifier = Classifier::load(folder / "model", Device::cpu({.threads = 2, .target = {}, .reserved_bytes = 1 << 28}),
                                           choose_labels(data.records, LabelSet()).labels, Classifier::Head::renewed, 1);
  const LabelledSamples train{.samples = tokenize(*classifier, data.records, TextKind::single, 32, 1).samples,
                              .labels = classifier->labels().ids_of(data.records)};
  FinetuneSettings settings;
  settings.batch_size = 8;
  settings.max_steps = 45;
  settings.log_steps = 100;
  Counter<FinetuneObserver> counter;
  check_counting();
  finetune(*classifier, train, nullptr, settings, counter);
  expect_no_calls();
}

TEST(SteadyState, SoDoStepsOfPretraining) {
  const TemporaryFolder folder;
  write_tiny_model(folder / "model");
  write_tiny_text(folder / "train.txt", 400, 1);
  const auto model = MaskedLm::load(folder / "model", Device::cpu({.threads = 2, .target = {}, .reserved_bytes = 1 << 28}), 1);
  const TokenizedSamples train =
      make_sequences(model->tokenizer(), read_documents(std::vector{folder / "train.txt"}), {.max_length = 24, .threads = 1})
          .samples;
  PretrainSettings settings;
  settings.batch_tokens = 160;
  settings.max_steps = 45;
  settings.log_steps = 100;
  settings.recompute = Recompute::blocks;  // asks for nothing either
  ASSERT_GT(pretrain_steps(settings, train).per_epoch, 45) << "the next epoch's order is a new list";
  Counter<PretrainObserver> counter;
  check_counting();
  pretrain(*model, train, nullptr, settings, counter);
  expect_no_calls();
}

}  // namespace
}  // namespace lathe
