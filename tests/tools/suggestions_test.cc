#include "tools/command_line/suggestions.h"

#include <gtest/gtest.h>

namespace lathe {
namespace {

const std::vector<std::string> kOptions = {"lr",    "epochs", "batch-size", "max-length", "output",
                                           "model", "warmup", "dev",        "text-column"};
const std::vector<std::string> kCommands = {"finetune", "evaluate", "predict"};

TEST(Suggestions, MisspeltNamesFindTheirs) {
  EXPECT_EQ(nearest("batchsize", kOptions), "batch-size");
  EXPECT_EQ(nearest("batch_size", kOptions), "batch-size");
  EXPECT_EQ(nearest("epoch", kOptions), "epochs");
  EXPECT_EQ(nearest("ouptut", kOptions), "output");
  EXPECT_EQ(nearest("batch", kOptions), "batch-size") << "the beginning of it";
  EXPECT_EQ(nearest("Max-Length", kOptions), "max-length");
}

TEST(Suggestions, WhatIsNotNearGetsNone) {
  EXPECT_EQ(nearest("zzz", kOptions), std::nullopt);
  EXPECT_EQ(nearest("gradient-checkpointing", kOptions), std::nullopt);
  EXPECT_EQ(nearest("", kOptions), std::nullopt);
  EXPECT_EQ(nearest(std::string(100'000, 'e'), kOptions), std::nullopt);
}

TEST(Suggestions, OtherTrainersNamesAreKnown) {
  EXPECT_EQ(nearest_setting("learning_rate", kOptions), "lr");
  EXPECT_EQ(nearest_setting("num_train_epochs", kOptions), "epochs");
  EXPECT_EQ(nearest_setting("per-device-train-batch-size", kOptions), "batch-size");
  EXPECT_EQ(nearest_setting("overwrite_output_dir", kOptions), std::nullopt) << "no option of this command";
  EXPECT_EQ(nearest_command("train", kCommands), "finetune");
  EXPECT_EQ(nearest_command("eval", kCommands), "evaluate");
  EXPECT_EQ(nearest_command("fintune", kCommands), "finetune");
}

}  // namespace
}  // namespace lathe
