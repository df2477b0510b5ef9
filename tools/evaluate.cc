#include <fmt/format.h>

#include <cstdio>

#include "lathe/checkpoint/model_cache.h"
#include "lathe/runtime/error.h"
#include "lathe/training/dataset.h"
#include "lathe/training/evaluation.h"
#include "lathe/training/results.h"
#include "tools/cache_choice.h"
#include "tools/commands.h"
#include "tools/setup.h"

namespace lathe {

int evaluate_command(const EvaluateOptions& options) {
  const std::filesystem::path model = find_model(options.model, hub_cache_folder());
  const RunDefaults run = read_run_defaults(model);
  const ResolvedReading reading = resolve(options.reading, options.running, run);
  const DeviceChoice device = choose_device(options.running);
  print_device(device);
  const auto classifier = load_for_inference(model, device, options.positive_label.value_or(run.positive_label.value_or("")));
  const std::int32_t max_length = length_for(classifier->config(), reading.max_length);
  const DataSet data = read_records(options.data, reading.records);
  print_reading("data", data.report);
  const std::vector<std::int32_t> labels = classifier->labels().ids_of(data.records);
  const auto cache = choose_token_cache(options.cache_dir, 1);
  const TokenizedTexts encoded = tokenize(*classifier, data.records, reading.kind(), max_length, device.threads, cache.get());
  print_tokens("data", encoded, max_length);
  const ClassificationMetrics metrics = evaluate(*classifier, encoded.samples, labels, reading.batch_size);
  if (options.json) {
    fmt::print("{}\n", metrics_to_json(metrics, classifier->labels().names(), place_of(device)));
  } else {
    fmt::print("{}", format_report(metrics, classifier->labels().names()));
  }
  return 0;
}

}  // namespace lathe
