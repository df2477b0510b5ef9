#include "lathe/checkpoint/model_folder.h"

#include <gtest/gtest.h>

#include "lathe/runtime/error.h"
#include "tests/checkpoint/test_files.h"

namespace lathe {
namespace {

using checkpoint_test::message_of;
using checkpoint_test::TemporaryFolder;

std::string refusal(const std::filesystem::path& folder) {
  const std::string message = message_of<FileError>([&] { ModelFolder::open(folder); });
  return message.starts_with(folder.string()) ? message.substr(folder.string().size()) : message;
}

TEST(ModelFolder, GivesItsFiles) {
  const TemporaryFolder folder;
  folder.file("config.json", "{}");
  folder.file("model.safetensors", "");
  const ModelFolder model = ModelFolder::open(folder.path());
  EXPECT_EQ(model.folder, folder.path());
  EXPECT_EQ(model.config, folder.path() / "config.json");
  EXPECT_EQ(model.weights, folder.path() / "model.safetensors");
}

TEST(ModelFolder, FollowsLinks) {
  const TemporaryFolder folder;
  folder.file("blob", "{}");
  std::filesystem::create_symlink("blob", folder.path() / "config.json");
  std::filesystem::create_symlink("blob", folder.path() / "model.safetensors");
  EXPECT_EQ(refusal(folder.path()), "(nothing thrown)");
}

TEST(ModelFolder, SaysWhatIsMissing) {
  const TemporaryFolder folder;
  EXPECT_EQ(refusal(folder.path() / "nowhere"), ": does not exist; a model is a folder with config.json and model.safetensors");
  EXPECT_EQ(refusal(folder.path()), ": has no config.json; it is empty");
  folder.file("vocab.txt", "");
  folder.file("a.md", "");
  EXPECT_EQ(refusal(folder.path()), ": has no config.json; it holds a.md, vocab.txt");
  const std::filesystem::path config = folder.file("config.json", "{}");
  EXPECT_EQ(refusal(config), ": is not a folder; give the folder that holds config.json and model.safetensors");
  EXPECT_EQ(refusal(folder.path()), ": has no model.safetensors; it holds a.md, config.json, vocab.txt");
  for (int i = 0; i < 10; ++i) folder.file(std::string(1, static_cast<char>('p' + i)), "");
  EXPECT_EQ(refusal(folder.path()), ": has no model.safetensors; it holds a.md, config.json, p, q, r, s, t, u and 5 more");
}

TEST(ModelFolder, SaysWhatToDoWithOtherWeights) {
  const TemporaryFolder folder;
  folder.file("config.json", "{}");
  const std::filesystem::path pickle = folder.file("pytorch_model.bin", "");
  EXPECT_EQ(refusal(folder.path()),
            ": has pytorch_model.bin, but no model.safetensors; PyTorch's own format is not read yet: load the model with "
            "transformers and save "
            "it with save_pretrained(NEW_FOLDER)");
  std::filesystem::remove(pickle);
  for (const char* name : {"model.safetensors.index.json", "tf_model.h5", "bert_model.ckpt.index"}) {
    const std::filesystem::path other = folder.file(name, "");
    const std::string message = refusal(folder.path());
    EXPECT_TRUE(message.starts_with(std::string(": has ") + name + ", but no model.safetensors; ")) << message;
    EXPECT_NE(message.find("not read yet"), std::string::npos) << message;
    std::filesystem::remove(other);
  }
}

}  // namespace
}  // namespace lathe
