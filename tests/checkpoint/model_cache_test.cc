#include "lathe/checkpoint/model_cache.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <map>
#include <optional>
#include <string>

#include "lathe/checkpoint/model_folder.h"
#include "lathe/runtime/error.h"
#include "tests/checkpoint/test_files.h"

namespace lathe {
namespace {

namespace fs = std::filesystem;
using checkpoint_test::message_of;
using checkpoint_test::TemporaryFolder;

/// A cache as huggingface_hub lays it out: files are links from snapshots into blobs.
class ModelCacheTest : public testing::Test {
 protected:
  fs::path add_snapshot(const std::string& repository, const std::string& revision) const {
    const fs::path blobs = cache_.path() / repository / "blobs";
    fs::path snapshot = cache_.path() / repository / "snapshots" / revision;
    fs::create_directories(blobs);
    fs::create_directories(snapshot);
    for (const char* name : {"config.json", "model.safetensors"}) {
      std::ofstream(blobs / (revision + name)) << "{}";
      fs::create_symlink(fs::path("../../blobs") / (revision + name), snapshot / name);
    }
    return snapshot;
  }
  void set_main(const std::string& repository, const std::string& revision) const {
    fs::create_directories(cache_.path() / repository / "refs");
    std::ofstream(cache_.path() / repository / "refs" / "main") << revision;
  }
  fs::path find(const std::string& name) const { return find_model(name, cache_.path()); }
  std::string refusal(const std::string& name) const {
    return message_of<FileError>([&] { find(name); });
  }

  TemporaryFolder cache_;
};

TEST_F(ModelCacheTest, AFolderIsItself) {
  const TemporaryFolder folder;
  EXPECT_EQ(find_model(folder.path(), cache_.path()), folder.path());
}

TEST_F(ModelCacheTest, TheMainRevisionIsTaken) {
  const fs::path main = add_snapshot("models--org--name", "aaaa");
  const fs::path other = add_snapshot("models--org--name", "bbbb");
  fs::last_write_time(other, fs::last_write_time(main) + std::chrono::hours(1));
  set_main("models--org--name", "aaaa");
  EXPECT_EQ(find("org/name"), main);
  // The links of the snapshot are followed.
  EXPECT_NO_THROW(ModelFolder::open(find("org/name")));
}

TEST_F(ModelCacheTest, ElseTheNewestSnapshotIs) {
  const fs::path old = add_snapshot("models--bert-base-uncased", "bbbb");
  const fs::path recent = add_snapshot("models--bert-base-uncased", "aaaa");
  fs::last_write_time(old, fs::last_write_time(recent) - std::chrono::hours(1));
  EXPECT_EQ(find("bert-base-uncased"), recent);
  set_main("models--bert-base-uncased", "cccc");
  EXPECT_EQ(find("bert-base-uncased"), recent) << "refs/main names a snapshot that is gone";
  set_main("models--bert-base-uncased", "../../..");
  EXPECT_EQ(find("bert-base-uncased"), recent) << "a revision is no path";
}

TEST_F(ModelCacheTest, WhatIsNowhereIsExplainedInALine) {
  const std::string cache = cache_.path().string();
  EXPECT_EQ(refusal("org/name"),
            "org/name: no such folder, nor a model of that name in " + cache +
                "; Lathe downloads nothing: `hf download org/name` (from `pip install huggingface_hub`) puts it there");
  add_snapshot("models--sentence-transformers--all-MiniLM-L6-v2", "aaaa");
  EXPECT_EQ(refusal("all-MiniLM-L6-v2"), "all-MiniLM-L6-v2: no such folder, nor a model of that name in " + cache +
                                             "; did you mean sentence-transformers/all-MiniLM-L6-v2?");
}

TEST_F(ModelCacheTest, PathsAreNoNames) {
  for (const char* path : {"a/b/c", "./name", "../name", "/name", "org/", "two words", "org--name"})
    EXPECT_EQ(refusal(path), std::string(path) + ": does not exist; a model is a folder with config.json and model.safetensors");
}

/// The variables that say where the cache is, as they were once the test is over.
class HubCacheFolder : public testing::Test {
 public:
  HubCacheFolder(const HubCacheFolder&) = delete;
  HubCacheFolder& operator=(const HubCacheFolder&) = delete;
  HubCacheFolder(HubCacheFolder&&) = delete;
  HubCacheFolder& operator=(HubCacheFolder&&) = delete;

 protected:
  HubCacheFolder() {
    for (const char* name : {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"}) {
      const char* value = std::getenv(name);
      before_[name] = value == nullptr ? std::nullopt : std::optional<std::string>(value);
      ::unsetenv(name);
    }
  }
  ~HubCacheFolder() override {
    for (const auto& [name, value] : before_) value ? ::setenv(name.c_str(), value->c_str(), 1) : ::unsetenv(name.c_str());
  }
  static void set(const char* name, const char* value) { ::setenv(name, value, 1); }

  std::map<std::string, std::optional<std::string>> before_;
};

TEST_F(HubCacheFolder, IsWhereHuggingFacesToolsHaveIt) {
  set("HOME", "/home/somebody");
  EXPECT_EQ(hub_cache_folder(), "/home/somebody/.cache/huggingface/hub");
  set("XDG_CACHE_HOME", "/caches");
  EXPECT_EQ(hub_cache_folder(), "/caches/huggingface/hub");
  set("HF_HOME", "/hf");
  EXPECT_EQ(hub_cache_folder(), "/hf/hub");
  set("HF_HUB_CACHE", "/models");
  EXPECT_EQ(hub_cache_folder(), "/models");
  set("HF_HUB_CACHE", "");
  EXPECT_EQ(hub_cache_folder(), "/hf/hub") << "an empty variable says nothing";
}

}  // namespace
}  // namespace lathe
