// all-MiniLM-L6-v2 as it is published: BertModel, names without prefix, integer position_ids, no head.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "lathe/checkpoint/bert_names.h"
#include "lathe/checkpoint/config.h"
#include "lathe/checkpoint/model_folder.h"
#include "lathe/checkpoint/safetensors.h"
#include "lathe/checkpoint/safetensors_writer.h"
#include "tests/checkpoint/test_files.h"

namespace lathe {
namespace {

class PublishedWeights : public testing::Test {
 protected:
  void SetUp() override {
    const char* folder = std::getenv("LATHE_TEST_WEIGHTS");
    if (folder == nullptr) GTEST_SKIP() << "LATHE_TEST_WEIGHTS is not set: it names the folder of all-MiniLM-L6-v2";
    model_ = ModelFolder::open(folder);
  }
  ModelFolder model_;
};

TEST_F(PublishedWeights, EveryTensorIsFound) {
  const BertConfig config = BertConfig::load(model_.config);
  EXPECT_EQ(config.layers, 6);
  EXPECT_EQ(config.hidden_size, 384);
  EXPECT_EQ(config.heads, 12);
  const SafetensorsFile file = SafetensorsFile::open(model_.weights);
  EXPECT_EQ(file.metadata().at("format"), "pt");

  const std::vector<ExpectedTensor> expected = bert_tensors(config, 2, Presence::replaceable);
  const BertMatch match = match_bert_tensors(file, expected);
  EXPECT_EQ(match.absent, (std::vector<std::string>{"classifier.weight", "classifier.bias"}));
  EXPECT_TRUE(match.replaced.empty() && match.other_heads.empty() && match.unused.empty());
  ASSERT_EQ(match.found.size(), 5U + 6 * 16 + 2);

  std::int64_t parameters = 0;
  std::vector<float> values;
  for (const MatchedTensor& tensor : match.found) {
    EXPECT_EQ(tensor.entry->type, SafetensorsType::f32) << tensor.name;
    values.assign(static_cast<std::size_t>(tensor.entry->elements()), NAN);
    file.read_f32(*tensor.entry, values);
    EXPECT_TRUE(std::ranges::all_of(values, [](float value) { return std::isfinite(value); })) << tensor.name;
    parameters += tensor.entry->elements();
  }
  EXPECT_EQ(parameters, 22'713'216);
}

TEST_F(PublishedWeights, WrittenAgainTheyAreTheSameWeights) {
  const SafetensorsFile file = SafetensorsFile::open(model_.weights);
  std::vector<TensorView> views;
  for (const TensorEntry& entry : file.tensors()) views.push_back({entry.name, entry.type, entry.shape, file.bytes(entry)});
  const checkpoint_test::TemporaryFolder folder;
  write_safetensors(folder.path() / "copy.safetensors", views, file.metadata());
  // Python's library wrote the original: same order, same header, same padding.
  EXPECT_EQ(checkpoint_test::contents(folder.path() / "copy.safetensors"), checkpoint_test::contents(model_.weights));
}

}  // namespace
}  // namespace lathe
