// fp32 products by oneDNN 2.6 to 3.x. oneDNN chooses among the instruction sets that it finds, and can be held to a lower one
// only for the whole process; so a stream that asks for less than the machine's best gets Eigen, compiled for what it asks for.
#include <omp.h>

#include <array>
#include <functional>
#include <new>
#include <oneapi/dnnl/dnnl.hpp>
#include <stdexcept>
#include <string>
#include <unordered_map>

#include "lathe/kernels/cpu_target.h"
#include "lathe/kernels/matmul.h"
#include "lathe/kernels/matmul_backend.h"

namespace lathe {
namespace {

/// Below this many multiply-adds oneDNN's fixed cost a call, about a microsecond, is not worth it.
constexpr std::int64_t kSmallProduct = std::int64_t{1} << 16;

/// Below this many a second thread isn't.
constexpr std::int64_t kSerialProduct = std::int64_t{1} << 20;

bool is_for_onednn(CpuStream stream, const Matmul<float>& p) {
  return p.m * p.n * p.k >= kSmallProduct && stream.target == best_cpu_target();
}

/// What a prepared product is a function of.
struct Key {
  std::int64_t m, n, k, lda, ldb, ldc;
  int threads;
  Transpose transpose_a, transpose_b;
  bool adds, has_bias;

  bool operator==(const Key&) const = default;
};

Key key_of(CpuStream stream, const Matmul<float>& p) {
  return {.m = p.m,
          .n = p.n,
          .k = p.k,
          .lda = p.lda,
          .ldb = p.ldb,
          .ldc = p.ldc,
          .threads = p.m * p.n * p.k < kSerialProduct ? 1 : stream.threads,
          .transpose_a = p.transpose_a,
          .transpose_b = p.transpose_b,
          .adds = p.use == Use::add,
          .has_bias = p.bias != nullptr};
}

struct KeyHash {
  std::size_t operator()(const Key& key) const {
    std::uint64_t hash = 0;
    const auto mix = [&hash](std::int64_t value) {
      hash = (hash ^ static_cast<std::uint64_t>(value)) * 0x9E3779B97F4A7C15U;
      hash ^= hash >> 32U;
    };
    for (const std::int64_t size : {key.m, key.n, key.k, key.lda, key.ldb, key.ldc}) mix(size);
    mix(key.threads * 16 + static_cast<int>(key.transpose_a) * 8 + static_cast<int>(key.transpose_b) * 4 + key.adds * 2 +
        static_cast<int>(key.has_bias));
    return hash;
  }
};

/// oneDNN uses as many threads as OpenMP gives the calling thread, and prepares for just that many.
class OpenMpThreads {
 public:
  explicit OpenMpThreads(int threads) : before_(omp_get_max_threads()) {
    if (threads != before_) omp_set_num_threads(threads);
  }
  ~OpenMpThreads() { omp_set_num_threads(before_); }
  OpenMpThreads(const OpenMpThreads&) = delete;
  OpenMpThreads& operator=(const OpenMpThreads&) = delete;
  OpenMpThreads(OpenMpThreads&&) = delete;
  OpenMpThreads& operator=(OpenMpThreads&&) = delete;

 private:
  int before_;
};

[[noreturn]] void fail(const Key& key, const char* what, dnnl_status_t status) {
  if (status == dnnl_out_of_memory) throw std::bad_alloc();
  throw std::runtime_error(std::string(MatmulPlans::library()) + " could not " + what + " the matrix product [" +
                           std::to_string(key.m) + ", " + std::to_string(key.k) + "] x [" + std::to_string(key.k) + ", " +
                           std::to_string(key.n) + "]: status " + std::to_string(static_cast<int>(status)));
}

/// A prepared product, and the memory objects that carry its operands' addresses.
struct Plan {
  dnnl::matmul primitive;
  dnnl::memory a, b, c, bias, scratchpad;
  std::int64_t workspace = 0;
};

dnnl::memory::desc matrix(std::int64_t rows, std::int64_t columns, std::int64_t stride, Transpose transpose) {
  using Dims = dnnl::memory::dims;
  return {{rows, columns}, dnnl::memory::data_type::f32, transpose == Transpose::yes ? Dims{1, stride} : Dims{stride, 1}};
}

dnnl::matmul::primitive_desc describe(const Key& key, const dnnl::engine& engine) {
  const dnnl::memory::desc a = matrix(key.m, key.k, key.lda, key.transpose_a);
  const dnnl::memory::desc b = matrix(key.k, key.n, key.ldb, key.transpose_b);
  const dnnl::memory::desc c = matrix(key.m, key.n, key.ldc, Transpose::no);
  const dnnl::memory::desc bias = key.has_bias ? matrix(1, key.n, key.n, Transpose::no) : dnnl::memory::desc();
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (key.adds) {
    dnnl::post_ops sum;
    sum.append_sum(1.0F);
    attributes.set_post_ops(sum);
  }
#if DNNL_VERSION_MAJOR >= 3
  return {engine, a, b, bias, c, attributes};
#else
  return {dnnl::matmul::desc(a, b, bias, c), attributes, engine};
#endif
}

Plan prepare(const Key& key, const dnnl::engine& engine) {
  const OpenMpThreads threads(key.threads);
  try {
    const dnnl::matmul::primitive_desc description = describe(key, engine);
    const auto operand = [&engine](const dnnl::memory::desc& desc) { return dnnl::memory(desc, engine, DNNL_MEMORY_NONE); };
    Plan plan;
    plan.a = operand(description.src_desc());
    plan.b = operand(description.weights_desc());
    plan.c = operand(description.dst_desc());
    if (key.has_bias) plan.bias = operand(description.bias_desc());
    plan.scratchpad = operand(description.scratchpad_desc());
    plan.workspace = static_cast<std::int64_t>(description.scratchpad_desc().get_size());
    plan.primitive = dnnl::matmul(description);
    return plan;
  } catch (const dnnl::error& error) {
    fail(key, "prepare", error.status);
  }
}

}  // namespace

class MatmulPlans::Implementation {
 public:
  const Plan& plan(const Key& key) {
    const auto found = plans_.find(key);
    return found != plans_.end() ? found->second : plans_.emplace(key, prepare(key, engine_)).first->second;
  }

  /// Through the C interface, since the C++ one builds a map of the operands at every call.
  void execute(const Key& key, const Matmul<float>& p) {
    const Plan& plan = this->plan(key);
    std::array<dnnl_exec_arg_t, 5> operands{};
    int count = 0;
    const auto add_operand = [&](int argument, const dnnl::memory& memory, const void* address) {
      // oneDNN has no handles of constant memory; it writes to none but the destination and the scratchpad.
      const dnnl_status_t status = dnnl_memory_set_data_handle(memory.get(), const_cast<void*>(address));
      if (status != dnnl_success) fail(key, "take the operands of", status);
      operands[static_cast<std::size_t>(count++)] = {argument, memory.get()};
    };
    add_operand(DNNL_ARG_SRC, plan.a, p.a);
    add_operand(DNNL_ARG_WEIGHTS, plan.b, p.b);
    add_operand(DNNL_ARG_DST, plan.c, p.c);
    if (key.has_bias) add_operand(DNNL_ARG_BIAS, plan.bias, p.bias);
    if (plan.workspace > 0) add_operand(DNNL_ARG_SCRATCHPAD, plan.scratchpad, p.workspace);

    const OpenMpThreads threads(key.threads);
    dnnl_status_t status = dnnl_primitive_execute(plan.primitive.get(), stream_.get(), count, operands.data());
    if (status == dnnl_success) status = dnnl_stream_wait(stream_.get());
    if (status != dnnl_success) fail(key, "compute", status);
  }

 private:
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::unordered_map<Key, Plan, KeyHash> plans_;
};

MatmulPlans::MatmulPlans() : implementation_(std::make_unique<Implementation>()) {}
MatmulPlans::~MatmulPlans() = default;

const char* MatmulPlans::library() {
  static const std::string text = [] {
    const dnnl_version_t* version = dnnl_version();
    return "oneDNN " + std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
           std::to_string(version->patch);
  }();
  return text.c_str();
}

std::int64_t fp32_matmul_workspace(CpuStream stream, const Matmul<float>& args) {
  if (!is_for_onednn(stream, args)) return eigen_matmul_workspace(stream, args);
  const Key key = key_of(stream, args);
  if (stream.plans != nullptr) return stream.plans->implementation().plan(key).workspace;
  return MatmulPlans::Implementation().plan(key).workspace;
}

void fp32_matmul(CpuStream stream, const Matmul<float>& args) {
  if (!is_for_onednn(stream, args)) {
    eigen_matmul(stream, args);
  } else if (stream.plans != nullptr) {
    stream.plans->implementation().execute(key_of(stream, args), args);
  } else {
    MatmulPlans::Implementation().execute(key_of(stream, args), args);
  }
}

}  // namespace lathe
