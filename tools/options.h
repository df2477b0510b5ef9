#pragma once
// What the command line asks for, as plain values; what wasn't given is empty.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace lathe {

/// How a data set is read.
struct ReadingOptions {
  std::optional<std::string> text_column, pair_column, label_column;
  std::optional<std::string> format;
  std::optional<bool> no_header;
};

/// How a model is run.
struct RunningOptions {
  std::optional<std::int32_t> max_length, batch_size;
  std::optional<std::int32_t> threads;
  std::string device = "auto";
  std::string precision = "auto";
  std::string instruction_set = "auto";
};

/// What every command that trains has.
struct TrainingOptions {
  std::filesystem::path output;
  std::optional<std::string> dev;               ///< a file or a share
  std::optional<std::filesystem::path> config;  ///< the file whose settings are in here already
  RunningOptions running;
  double epochs = 3.0;
  std::int64_t max_steps = 0;
  double learning_rate = 5e-5;
  std::string warmup = "0.1";
  double weight_decay = 0.01;
  double max_grad_norm = 1.0;
  std::uint32_t seed = 42;
  std::int64_t log_steps = 10;
  std::int64_t micro_batch_tokens = 0;
  std::string recompute = "none";
  bool shard_optimizer = false;
  std::int64_t gradient_bucket_mib = 25;
  bool no_graphs = false;
  bool tune = false;
  std::optional<std::filesystem::path> product_table;
  std::optional<std::string> cache_dir;  ///< "none" for no cache
  bool overwrite = false;
  bool allow_non_finite = false;
  bool dry_run = false;
  bool profile = false;
  std::int64_t profile_steps = 20;
  std::int64_t comm_timeout = 600;    ///< seconds
  std::int64_t start_timeout = 1800;  ///< seconds
};

struct FinetuneOptions : TrainingOptions {
  std::filesystem::path model, train;
  std::optional<std::filesystem::path> test;
  ReadingOptions reading;
  std::optional<std::string> positive_label;
  bool new_head = false;
};

/// A model's sizes, for one from scratch.
struct ModelSizes {
  std::optional<std::int64_t> layers, hidden_size, heads, intermediate_size;
};

struct PretrainOptions : TrainingOptions {
  std::string task = "mlm";
  std::optional<std::filesystem::path> model, tokenizer;
  std::vector<std::filesystem::path> train;
  ModelSizes sizes;
  std::optional<double> dropout;
  std::int64_t batch_tokens = 8192;
  double mlm_probability = 0.15;
};

struct EvaluateOptions {
  std::filesystem::path model, data;
  ReadingOptions reading;
  RunningOptions running;
  std::optional<std::string> cache_dir;
  std::optional<std::string> positive_label;
  bool json = false;
};

struct PredictOptions {
  std::filesystem::path model;
  std::filesystem::path data = "-";
  std::optional<std::filesystem::path> output;
  ReadingOptions reading;
  RunningOptions running;
};

struct TokenizeOptions {
  std::filesystem::path model;
  std::filesystem::path data = "-";
  ReadingOptions reading;
  std::optional<std::int32_t> max_length;
  std::optional<std::int32_t> threads;
  bool json = false;
};

struct InspectOptions {
  std::filesystem::path path;  ///< a model's folder, or a file of weights
  std::optional<std::int32_t> threads;
  bool json = false;
};

struct CheckDataOptions {
  std::filesystem::path data;
  std::optional<std::filesystem::path> dev;
  std::optional<std::filesystem::path> model;
  ReadingOptions reading;
  std::optional<std::int32_t> threads;
  bool json = false;
};

/// What `lathe bench step` measures; what wasn't given depends on the device.
struct BenchStepOptions {
  std::vector<std::string> tasks, models, lengths;
  std::optional<std::filesystem::path> lengths_from;
  std::optional<std::int64_t> tokens, warmup_steps, steps;
  std::optional<double> seconds, dropout;
  std::optional<std::string> precision;
  bool no_graphs = false;
};

struct BenchOptions {
  std::vector<std::string> families;  ///< all where empty; "step" stands alone
  std::optional<std::string> shape;   ///< "TOKENSxCHANNELS"
  std::optional<std::string> profile;
  BenchStepOptions step;
  std::string device = "auto";
  std::optional<std::int32_t> threads;
  bool json = false;
};

/// What parsing gave: a command's options, or the exit status of a call that is over (help was printed).
using CommandLine = std::variant<int, FinetuneOptions, PretrainOptions, EvaluateOptions, PredictOptions, TokenizeOptions,
                                 InspectOptions, CheckDataOptions, BenchOptions>;

/// Parses the command line; prints help, version, completion and the man page itself. Throws UsageError, and FileError and FormatError for
/// the file of --config.
CommandLine parse_command_line(int argc, const char* const* argv);

}  // namespace lathe
