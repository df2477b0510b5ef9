// config.json: whatever is accepted is in range, and is the same again after it was written and read.
#include "lathe/checkpoint/config.h"

#include "tests/fuzz/fuzz.h"

namespace lathe::fuzz {
namespace {

void check_ranges(const BertConfig& config) {
  for (const std::int64_t size : {config.vocabulary_size, config.hidden_size, config.layers, config.heads,
                                  config.intermediate_size, config.max_positions, config.token_types}) {
    require(size >= 1 && size <= 10'000'000, "a size is positive and bounded");
  }
  require(config.hidden_size % config.heads == 0, "heads divide the hidden size");
  require(config.head_size() <= 256, "heads are no wider than attention takes");
  require(config.layer_norm_epsilon > 0, "epsilon is positive");
  for (const double rate : {config.hidden_dropout, config.attention_dropout, config.classifier_dropout.value_or(0)}) {
    require(rate >= 0 && rate < 1, "a dropout rate leaves something");
  }
  require(config.pad_token_id >= 0 && config.pad_token_id < config.vocabulary_size, "padding is a token");
}

void check_same(const BertConfig& a, const BertConfig& b) {
  require(a.vocabulary_size == b.vocabulary_size && a.hidden_size == b.hidden_size && a.layers == b.layers &&
              a.heads == b.heads && a.intermediate_size == b.intermediate_size && a.max_positions == b.max_positions &&
              a.token_types == b.token_types,
          "sizes survive a round trip");
  require(a.layer_norm_epsilon == b.layer_norm_epsilon && a.hidden_dropout == b.hidden_dropout &&
              a.attention_dropout == b.attention_dropout && a.classifier_dropout == b.classifier_dropout &&
              a.initializer_range == b.initializer_range,
          "numbers survive a round trip");
  require(a.hidden_activation == b.hidden_activation && a.pad_token_id == b.pad_token_id && a.model_type == b.model_type &&
              a.architectures == b.architectures && a.labels == b.labels && a.problem_type == b.problem_type,
          "names survive a round trip");
}

}  // namespace
}  // namespace lathe::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lathe::fuzz;
  using lathe::BertConfig;
  const auto config = accepted([&] { return BertConfig::parse(text_of({data, size}), "config.json"); });
  if (!config) return 0;
  check_ranges(*config);
  // "num_labels": 100000 is one line to read and a hundred thousand to write.
  if (config->labels.size() > 1'000) return 0;
  const std::string text = config->to_json();
  const auto again = accepted([&] { return BertConfig::parse(text, "config.json"); });
  require(again.has_value(), "what was written can be read");
  check_same(*config, *again);
  require(again->to_json() == text, "writing again gives the same text");
  return 0;
}
