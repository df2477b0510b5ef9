// Streams, events, copies and graphs: what is found where an event is missing, and what CUDA promises where none is.
#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "lathe/kernels/emulation/host_operation.h"
#include "lathe/kernels/emulation/trace.h"
#include "tests/kernels/emulation/device.h"

namespace lathe::test {
namespace {

using namespace emulation::cuda;  // NOLINT(google-build-using-namespace): the API under its own names

class Runtime : public EmulatedDevice {
 protected:
  void SetUp() override {
    EmulatedDevice::SetUp();
    cudaStreamCreateWithFlags(&first_, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&second_, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&event_, cudaEventDisableTiming);
    cudaMallocHost(&pinned_, kBytes);
    std::fill_n(pinned_, kCount, 1.0F);
  }
  void TearDown() override {
    cudaStreamDestroy(first_);
    cudaStreamDestroy(second_);
    cudaEventDestroy(event_);
    cudaFreeHost(pinned_);
    EmulatedDevice::TearDown();
  }

  template <class Work>
  void in_all_orders(const Work& work) {
    for (const Order order : {Order::forward, Order::reverse, Order::random}) {
      for (const std::uint32_t seed : {1U, 2U, 3U}) {
        emulation::configure({.threads = order, .blocks = order, .streams = order, .seed = seed});
        work();
      }
    }
    emulation::configure({});
  }
  /// Finds what `message` says in some order, and says nothing else in any, where second_ doesn't wait for first_; nothing where it does.
  void expect_order(const std::string& message, const std::function<void(CudaStream)>& before,
                    const std::function<void(CudaStream)>& after) {
    bool found = false;
    in_all_orders([&] {
      const std::string said = fault([&] {
        before({first_});
        after({second_});
      });
      EXPECT_TRUE(said.starts_with("emulation: stream order: ")) << said;
      found = found || said == "emulation: stream order: " + message;
      EXPECT_EQ(fault([&] {
                  before({first_});
                  cudaEventRecord(event_, first_);
                  cudaStreamWaitEvent(second_, event_);
                  after({second_});
                }),
                "");
    });
    EXPECT_TRUE(found) << message;
  }

  cudaGraphExec_t instantiate(cudaGraph_t graph) {
    cudaGraphExec_t executable = nullptr;
    EXPECT_EQ(cudaGraphInstantiate(&executable, graph), cudaSuccess);
    cudaGraphDestroy(graph);
    return executable;
  }
  template <class Work>
  cudaGraph_t capture(cudaStream_t stream, const Work& work) {
    EXPECT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
    work();
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    return graph;
  }

  static constexpr std::size_t kBytes = kCount * sizeof(float);
  cudaStream_t first_ = nullptr;
  cudaStream_t second_ = nullptr;
  cudaEvent_t event_ = nullptr;
  float* pinned_ = nullptr;
};

TEST_F(Runtime, AMissingWaitBetweenACopyAndAKernelIsFound) {
  expect_order(
      "double_kernel, block (0, 0, 0), thread (0, 0, 0): reads 4 bytes at " + line_of("double") +
          ": @, byte 0 of 'x' of 1024 bytes, was touched by cudaMemcpyAsync, which runs in another stream and is not awaited by "
          "an event",
      [&](CudaStream stream) { cudaMemcpyAsync(x_, pinned_, kBytes, cudaMemcpyHostToDevice, stream.handle); },
      [&](CudaStream stream) { run_double(stream, y_, x_, kCount); });
}

TEST_F(Runtime, AMissingWaitBetweenKernelsIsFound) {
  expect_order(
      "double_kernel, block (0, 0, 0), thread (0, 0, 0): reads 4 bytes at " + line_of("double") +
          ": @, byte 0 of 'x' of 1024 bytes, was touched by add_one_kernel, which runs in another stream and is not awaited by "
          "an event",
      [&](CudaStream stream) { run_add_one(stream, x_, kCount); },
      [&](CudaStream stream) { run_double(stream, y_, x_, kCount); });
}

TEST_F(Runtime, AMissingWaitBeforeACopyIsFound) {
  expect_order(
      "cudaMemcpyAsync: writes @, byte 0 of 'x' of 1024 bytes, was touched by double_kernel, which runs in another stream and is "
      "not awaited by an event",
      [&](CudaStream stream) { run_double(stream, y_, x_, kCount); },
      [&](CudaStream stream) { cudaMemcpyAsync(x_, pinned_, kBytes, cudaMemcpyHostToDevice, stream.handle); });
}

TEST_F(Runtime, AMissingWaitForAGraphIsFound) {
  cudaGraphExec_t graph = instantiate(capture(first_, [&] { run_add_one({first_}, x_, kCount); }));
  expect_order(
      "double_kernel, block (0, 0, 0), thread (0, 0, 0): reads 4 bytes at " + line_of("double") +
          ": @, byte 0 of 'x' of 1024 bytes, was touched by add_one_kernel, which runs in another stream and is not awaited by "
          "an event",
      [&](CudaStream stream) { cudaGraphLaunch(graph, stream.handle); },
      [&](CudaStream stream) { run_double(stream, y_, x_, kCount); });
  cudaGraphExecDestroy(graph);
}

TEST_F(Runtime, AMissingWaitBesideWhatWasOrderedBeforeIsFound) {
  // The first reader is ordered behind the writer; that doesn't order the second one.
  EXPECT_EQ(fault([&] {
              run_add_one({first_}, x_, kCount);
              run_double({first_}, y_, x_, kCount);
              emulation::enqueue_host_operation(second_, {.name = "matmul", .reads = {{x_, kBytes}}, .writes = {}, .run = [] {}});
            }),
            "emulation: stream order: matmul: reads @, byte 0 of 'x' of 1024 bytes, was touched by add_one_kernel, which runs in "
            "another "
            "stream and is not awaited by an event");
}

TEST_F(Runtime, WhatTheHostHasWaitedForNeedsNoEvent) {
  in_all_orders([&] {
    EXPECT_EQ(fault([&] {
                run_add_one({first_}, x_, kCount);
                cudaStreamSynchronize(first_);
                run_double({second_}, y_, x_, kCount);
                cudaEventRecord(event_, second_);
                while (cudaEventQuery(event_) == cudaErrorNotReady) {
                }
                run_add_one({first_}, x_, kCount);
                while (cudaStreamQuery(first_) == cudaErrorNotReady) {
                }
                run_add_one({second_}, x_, kCount);
              }),
              "");
  });
}

TEST_F(Runtime, AnEventIsTheRecordingThatWasLastWhenItWasAwaited) {
  EXPECT_EQ(fault([&] {
              cudaEventRecord(event_, first_);
              cudaStreamWaitEvent(second_, event_);
              run_add_one({first_}, x_, kCount);
              cudaEventRecord(event_, first_);
              run_double({second_}, y_, x_, kCount);
            }).substr(0, 25),
            "emulation: stream order: ");
}

TEST_F(Runtime, TheDefaultStreamAndBlockingOnesWaitForEachOther) {
  cudaStream_t blocking = nullptr;
  cudaStreamCreateWithFlags(&blocking, cudaStreamDefault);
  cudaGraphExec_t graph = instantiate(capture(first_, [&] { run_double({first_}, y_, x_, kCount); }));
  in_all_orders([&] {
    cudaMemset(x_, 0, kBytes);
    EXPECT_EQ(fault([&] {
                run_add_one({blocking}, x_, kCount);
                run_add_one({}, x_, kCount);
                cudaGraphLaunch(graph, blocking);
                run_add_one({}, y_, kCount);
              }),
              "");
    EXPECT_EQ(read(y_, kCount), std::vector<float>(kCount, 5.0F));
    EXPECT_EQ(fault([&] {
                run_add_one({first_}, x_, kCount);
                run_add_one({}, x_, kCount);
              }).substr(0, 25),
              "emulation: stream order: ");
  });
  cudaGraphExecDestroy(graph);
  cudaStreamDestroy(blocking);
}

TEST_F(Runtime, NothingRunsWhenItIsEnqueuedAndStreamsRunInAnyOrder) {
  std::vector<std::string> ran;
  const auto note = [&](cudaStream_t stream, const char* name) {
    emulation::enqueue_host_operation(stream,
                                      {.name = name, .reads = {}, .writes = {}, .run = [&ran, name] { ran.emplace_back(name); }});
  };
  const auto order_of = [&](emulation::Settings settings) {
    emulation::configure(settings);
    ran.clear();
    for (const char* name : {"a", "b"}) note(first_, name);
    for (const char* name : {"c", "d"}) note(second_, name);
    EXPECT_TRUE(ran.empty());
    cudaDeviceSynchronize();
    std::string all;
    for (const std::string& name : ran) all += name;
    return all;
  };
  EXPECT_EQ(order_of({}), "abcd");
  EXPECT_EQ(order_of({.streams = Order::reverse}), "cdab");
  std::vector<std::string> orders;
  for (int i = 0; i < 200; ++i) orders.push_back(order_of({.streams = Order::random}));
  std::ranges::sort(orders);
  orders.erase(std::ranges::unique(orders).begin(), orders.end());
  EXPECT_EQ(orders, (std::vector<std::string>{"abcd", "acbd", "acdb", "cabd", "cadb", "cdab"}));
}

TEST_F(Runtime, APinnedSourceIsReadWhenTheCopyRunsAndAPageableOneWhenItIsEnqueued) {
  std::vector<float> pageable(kCount, 4.0F);
  cudaMemcpyAsync(x_, pageable.data(), kBytes, cudaMemcpyHostToDevice, first_);
  std::ranges::fill(pageable, 5.0F);
  cudaStreamSynchronize(first_);
  EXPECT_EQ(read(x_, 1)[0], 4.0F);

  cudaMemcpyAsync(pinned_, x_, kBytes, cudaMemcpyDeviceToHost, first_);
  EXPECT_EQ(pinned_[0], 1.0F);
  cudaStreamSynchronize(first_);
  EXPECT_EQ(pinned_[0], 4.0F);

  EXPECT_EQ(fault([&] {
              cudaMemcpyAsync(x_, pinned_, kBytes, cudaMemcpyHostToDevice, first_);
              pinned_[7] = 2;
            }),
            "emulation: pinned memory reused: cudaMemcpyAsync to @, byte 0 of 'x' of 1024 bytes: its 1024 pinned bytes changed "
            "after the "
            "copy was enqueued and before it ran");
  EXPECT_EQ(fault([&] {
              cudaMemcpyAsync(x_, pinned_, kBytes, cudaMemcpyHostToDevice, first_);
              cudaEventRecord(event_, first_);
              cudaEventSynchronize(event_);
              pinned_[7] = 3;
            }),
            "");
}

TEST_F(Runtime, WhatIsBehindAFaultNeverRuns) {
  EXPECT_NE(fault([&] {
              run_add_one({first_}, y_, kCount);
              run_double({first_}, x_, pinned_, kCount);
              run_add_one({first_}, y_, kCount);
              run_add_one({second_}, y_, kCount);
            }),
            "");
  EXPECT_EQ(read(y_, kCount), std::vector<float>(kCount, 1.0F));
}

TEST_F(Runtime, AReplayTakesItsArgumentsFromTheCaptureAndItsDataFromMemory) {
  cudaGraph_t graph = capture(first_, [&] {
    cudaMemcpyAsync(x_, pinned_, kBytes, cudaMemcpyHostToDevice, first_);
    run_double({first_}, y_, x_, kCount);
    run_scale({first_}, y_, kCount, 10.0F);
  });
  EXPECT_EQ(read(y_, 1)[0], 0.0F) << "a capture runs nothing";
  cudaGraphExec_t executable = instantiate(graph);
  for (const float value : {1.0F, 2.0F}) {
    std::fill_n(pinned_, kCount, value);
    ASSERT_EQ(cudaGraphLaunch(executable, first_), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(first_), cudaSuccess);
    EXPECT_EQ(read(y_, kCount), std::vector<float>(kCount, 20 * value));
  }
  cudaGraphExecDestroy(executable);
}

TEST_F(Runtime, AGraphOfTwoStreamsKeepsTheirOrder) {
  cudaEvent_t back = nullptr;
  cudaEventCreateWithFlags(&back, cudaEventDisableTiming);
  const auto step = [&](bool joined) {
    run_add_one({first_}, x_, kCount);
    cudaEventRecord(event_, first_);
    cudaStreamWaitEvent(second_, event_);
    run_double({second_}, y_, x_, kCount);
    run_add_one({second_}, y_, kCount);
    cudaEventRecord(back, second_);
    if (joined) cudaStreamWaitEvent(first_, back);
    run_add_one({first_}, joined ? y_ : x_, kCount);
    if (!joined) cudaStreamWaitEvent(first_, back);
  };
  cudaGraphExec_t sound = instantiate(capture(first_, [&] { step(true); }));
  cudaGraphExec_t racing = instantiate(capture(first_, [&] { step(false); }));
  in_all_orders([&] {
    cudaMemset(x_, 0, kBytes);
    EXPECT_EQ(fault([&] { cudaGraphLaunch(sound, first_); }), "");
    EXPECT_EQ(read(y_, kCount), std::vector<float>(kCount, 4.0F));
    EXPECT_EQ(fault([&] { cudaGraphLaunch(racing, first_); }).substr(0, 25), "emulation: stream order: ");
  });
  cudaGraphExecDestroy(sound);
  cudaGraphExecDestroy(racing);
  cudaEventDestroy(back);
}

TEST_F(Runtime, AnExternalEventOfAGraphIsAwaitedOutsideOfIt) {
  // The first kernel's result is free when the event is recorded; what follows in the graph is not.
  cudaGraphExec_t graph = instantiate(capture(first_, [&] {
    run_add_one({first_}, x_, kCount);
    cudaEventRecordWithFlags(event_, first_, cudaEventRecordExternal);
    run_add_one({first_}, y_, kCount);
  }));
  in_all_orders([&] {
    EXPECT_EQ(fault([&] {
                cudaGraphLaunch(graph, first_);
                cudaStreamWaitEvent(second_, event_);
                run_add_one({second_}, x_, kCount);
              }),
              "");
    EXPECT_EQ(fault([&] {
                cudaGraphLaunch(graph, first_);
                cudaStreamWaitEvent(second_, event_);
                run_add_one({second_}, y_, kCount);
              }).substr(0, 25),
              "emulation: stream order: ");
  });
  cudaGraphExecDestroy(graph);
}

/// The kernels that `work` has run, in the given order of streams, and the number of each one's stream.
template <class Work>
std::vector<std::pair<std::string, std::size_t>> traced(Order streams, const Work& work) {
  emulation::configure({.streams = streams, .trace = true});
  emulation::take_trace();
  EXPECT_EQ(fault(work), "");
  std::vector<std::pair<std::string, std::size_t>> kernels;
  std::uint64_t moment = 0;
  for (const emulation::TracedOperation& operation : emulation::take_trace()) {
    EXPECT_LT(moment, operation.began);  // nothing here waits for another process
    EXPECT_LT(operation.began, operation.ended);
    moment = operation.ended;
    if (operation.name.ends_with("_kernel")) kernels.emplace_back(operation.name, operation.stream);
  }
  emulation::configure({});
  return kernels;
}

TEST_F(Runtime, WhatAwaitsAnExternalEventRunsBesideTheRestOfTheGraph) {
  cudaGraphExec_t graph = instantiate(capture(first_, [&] {
    run_add_one({first_}, x_, kCount);
    cudaEventRecordWithFlags(event_, first_, cudaEventRecordExternal);
    run_add_one({first_}, y_, kCount);
  }));
  const auto work = [&] {
    cudaGraphLaunch(graph, first_);
    cudaStreamWaitEvent(second_, event_);
    run_double({second_}, x_, x_, kCount);
  };
  const auto names = [&](Order streams) {
    std::vector<std::string> list;
    for (const auto& [name, stream] : traced(streams, work)) list.push_back(name);
    return list;
  };
  EXPECT_EQ(names(Order::forward), (std::vector<std::string>{"add_one_kernel", "add_one_kernel", "double_kernel"}));
  EXPECT_EQ(names(Order::reverse), (std::vector<std::string>{"add_one_kernel", "double_kernel", "add_one_kernel"}))
      << "a stream that was made later goes first, as soon as it may";
  cudaGraphExecDestroy(graph);
}

TEST_F(Runtime, AGraphDoesNotRunBesideItself) {
  cudaGraphExec_t graph = instantiate(capture(first_, [&] {
    run_add_one({first_}, x_, kCount);
    run_add_one({first_}, y_, kCount);
  }));
  const auto kernels = traced(Order::reverse, [&] {
    cudaGraphLaunch(graph, first_);
    cudaGraphLaunch(graph, second_);
  });
  ASSERT_EQ(kernels.size(), 4U);
  EXPECT_EQ(kernels[0].second, kernels[1].second) << "the first launch";
  EXPECT_EQ(kernels[2].second, kernels[3].second);
  EXPECT_NE(kernels[1].second, kernels[2].second);
  cudaGraphExecDestroy(graph);
}

TEST_F(Runtime, AGraphWhoseEventIsGoneIsRefused) {
  cudaEvent_t gone = nullptr;
  cudaEventCreateWithFlags(&gone, cudaEventDisableTiming);
  cudaGraphExec_t graph = instantiate(capture(first_, [&] { cudaEventRecordWithFlags(gone, first_, cudaEventRecordExternal); }));
  cudaEventDestroy(gone);
  EXPECT_EQ(fault([&] { cudaGraphLaunch(graph, first_); }),
            "emulation: memory: a graph's event that was destroyed, or never made, is used");
  cudaGraphExecDestroy(graph);
}

TEST_F(Runtime, AStaleScalarIsFoundByCapturingAgain) {
  const auto captured = [&](float factor, std::int64_t count) {
    return capture(first_, [&] {
      cudaMemsetAsync(x_, 0, static_cast<std::size_t>(count), first_);
      run_scale({first_}, y_, count, factor);
    });
  };
  cudaGraph_t graph = captured(2.0F, 64);
  cudaGraph_t same = captured(2.0F, 64);
  cudaGraph_t other_factor = captured(3.0F, 64);
  cudaGraph_t other_count = captured(2.0F, 65);
  cudaGraph_t empty = capture(first_, [] {});
  EXPECT_EQ(fault([&] { emulation::expect_same_arguments(graph, same); }), "");
  EXPECT_EQ(fault([&] { emulation::expect_same_arguments(graph, other_factor); }),
            "emulation: stale argument: scale_kernel: byte 2 of its arguments has changed since the graph was captured, and a "
            "replay has "
            "the old value: what varies belongs in device memory");
  EXPECT_EQ(fault([&] { emulation::expect_same_arguments(graph, other_count); }),
            "emulation: stale argument: cudaMemsetAsync: was captured with 64 bytes of 0 at @, and is now called with 65 bytes "
            "of 0 at @");
  EXPECT_EQ(fault([&] { emulation::expect_same_arguments(graph, empty); }),
            "emulation: stale argument: a graph of 2 operations, captured again with 0");
  for (cudaGraph_t each : {graph, same, other_factor, other_count, empty}) cudaGraphDestroy(each);
}

TEST_F(Runtime, ACaptureForbidsWhatCudaForbids) {
  float* memory = nullptr;
  cudaGraph_t graph = nullptr;
  cudaEvent_t outside = nullptr;
  cudaEventCreateWithFlags(&outside, cudaEventDisableTiming);
  cudaEventRecord(outside, second_);
  ASSERT_EQ(cudaStreamBeginCapture(first_, cudaStreamCaptureModeGlobal), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&memory, 4), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamSynchronize(first_), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaEventQuery(outside), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaMemcpy(pinned_, x_, 4, cudaMemcpyDeviceToHost), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamWaitEvent(first_, outside), cudaErrorStreamCaptureIsolation);
  EXPECT_EQ(cudaStreamEndCapture(first_, &graph), cudaSuccess);
  cudaGraphDestroy(graph);

  ASSERT_EQ(cudaStreamBeginCapture(first_, cudaStreamCaptureModeRelaxed), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&memory, 4), cudaSuccess);
  // A stream that has joined must be joined.
  cudaEventRecord(event_, first_);
  cudaStreamWaitEvent(second_, event_);
  run_add_one({second_}, x_, kCount);
  EXPECT_EQ(cudaStreamEndCapture(first_, &graph), cudaErrorStreamCaptureUnjoined);
  EXPECT_EQ(graph, nullptr);
  EXPECT_EQ(cudaStreamWaitEvent(second_, event_), cudaErrorCapturedEvent);
  cudaFree(memory);

  cudaStream_t blocking = nullptr;
  cudaStreamCreateWithFlags(&blocking, cudaStreamDefault);
  ASSERT_EQ(cudaStreamBeginCapture(blocking, cudaStreamCaptureModeRelaxed), cudaSuccess);
  EXPECT_EQ(cudaMemsetAsync(x_, 0, 4, nullptr), cudaErrorStreamCaptureImplicit);
  EXPECT_EQ(fault([&] { run_add_one({}, x_, kCount); }),
            "emulation: launch: add_one_kernel: in the default stream while a stream that waits for it is captured");
  EXPECT_EQ(cudaStreamEndCapture(blocking, &graph), cudaSuccess);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(blocking);
  cudaEventDestroy(outside);
}

TEST_F(Runtime, MemoryRunsOut) {
  std::size_t free = 0;
  std::size_t total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  EXPECT_EQ(free, total - 2 * kBytes);
  void* memory = this;
  EXPECT_EQ(cudaMalloc(&memory, free + 1), cudaErrorMemoryAllocation);
  EXPECT_EQ(memory, nullptr);
  EXPECT_STREQ(cudaGetErrorName(cudaErrorMemoryAllocation), "cudaErrorMemoryAllocation");
}

TEST_F(Runtime, Queries) {
  EXPECT_EQ(cudaStreamQuery(first_), cudaSuccess);
  EXPECT_EQ(cudaEventQuery(event_), cudaSuccess) << "never recorded";
  run_add_one({first_}, x_, kCount);
  run_add_one({first_}, x_, kCount);
  cudaEventRecord(event_, first_);
  EXPECT_EQ(cudaStreamQuery(first_), cudaErrorNotReady);
  EXPECT_EQ(cudaEventQuery(event_), cudaErrorNotReady);
  EXPECT_EQ(cudaEventSynchronize(event_), cudaSuccess);
  EXPECT_EQ(cudaEventQuery(event_), cudaSuccess);
  EXPECT_EQ(cudaStreamQuery(first_), cudaSuccess);
}

}  // namespace
}  // namespace lathe::test
