#pragma once
// A packed batch that is small and awkward: sequences of 1, 5 and 3 tokens, ids that repeat, a label that is ignored.
#include <optional>
#include <vector>

#include "lathe/text/packing.h"
#include "lathe/training/upload.h"

namespace lathe {

inline PackedBatch small_packed_batch() {
  SampleLists samples;
  const std::vector<std::vector<std::int32_t>> sequences = {{3}, {5, 1, 5, 5, 2}, {4, 5, 0}};
  for (const auto& sequence : sequences) {
    for (std::size_t i = 0; i < sequence.size(); ++i) {
      samples.ids.push_back(sequence[i]);
      samples.types.push_back(i > 2 ? 1 : 0);
    }
    samples.offsets.push_back(static_cast<std::int64_t>(samples.ids.size()));
  }
  PackedBatch packed;
  const std::vector<std::int32_t> members = {0, 1, 2};
  const std::vector<std::int32_t> labels = {2, 0, 1};
  pack_sequences(samples, members, labels, 0, packed);
  return packed;
}

inline Batch small_batch(const DeviceRef& device, DType dtype, std::optional<RandomKey> key) {
  return upload(device, dtype, small_packed_batch(), {.random_key = key ? &*key : nullptr, .loss_denominator = 3.0});
}

}  // namespace lathe
