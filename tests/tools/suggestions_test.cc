#include "tools/command_line/suggestions.h"

#include <gtest/gtest.h>

namespace lathe {
namespace {

const std::vector<std::string> options = {"lr",    "epochs", "batch-size", "max-length", "output",
                                          "model", "warmup", "dev",        "text-column"};
const std::vector<std::string> commands = {"finetune", "evaluate", "predict"};

TEST(Suggestions, MisspeltNamesFindTheirs) {
  EXPECT_EQ(nearest("batchsize", options), "batch-size");
  EXPECT_EQ(nearest("batch_size", options), "batch-size");
  EXPECT_EQ(nearest("epoch", options), "epochs");
  EXPECT_EQ(nearest("ouptut", options), "output");
  EXPECT_EQ(nearest("batch", options), "batch-size") << "the beginning of it";
  EXPECT_EQ(nearest("Max-Length", options), "max-length");
}

TEST(Suggestions, WhatIsNotNearGetsNone) {
  EXPECT_EQ(nearest("zzz", options), std::nullopt);
  EXPECT_EQ(nearest("gradient-checkpointing", options), std::nullopt);
  EXPECT_EQ(nearest("", options), std::nullopt);
  EXPECT_EQ(nearest(std::string(100'000, 'e'), options), std::nullopt);
}

TEST(Suggestions, OtherTrainersNamesAreKnown) {
  EXPECT_EQ(nearest_setting("learning_rate", options), "lr");
  EXPECT_EQ(nearest_setting("num_train_epochs", options), "epochs");
  EXPECT_EQ(nearest_setting("per-device-train-batch-size", options), "batch-size");
  EXPECT_EQ(nearest_setting("overwrite_output_dir", options), std::nullopt) << "no option of this command";
  EXPECT_EQ(nearest_command("train", commands), "finetune");
  EXPECT_EQ(nearest_command("eval", commands), "evaluate");
  EXPECT_EQ(nearest_command("fintune", commands), "finetune");
}

}  // namespace
}  // namespace lathe
