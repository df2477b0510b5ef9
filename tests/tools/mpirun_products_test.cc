// Which algorithm computes which product is rank 0's choice. Times mean nothing in the emulation, and it has one algorithm: what is shown is the
// way of the choices.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "tests/tools/mpirun.h"
#include "tests/tools/refusal.h"

namespace lathe {
namespace {

using Strings = std::vector<std::string>;

class MpirunProductsTest : public RefusalTest {
 protected:
  Strings arguments(const std::string& output, const Strings& more) const {
    Strings all = finetune({"--max-steps", "1", "--batch-size", "12", "--threads", "1", "--device", "emulated"});
    std::ranges::replace(all, path("run"), path(output));
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};

TEST_F(MpirunProductsTest, Rank0sTableIsEverybodys) {
  const Strings tuned = arguments("tuned", {"--tune"});
  const CommandResult first = run_ranks(folder_.path(), {tuned, tuned});
  ASSERT_EQ(first.status, 0) << first.error;
  const std::string table = contents_of(folder_ / "tuned" / "products.jsonl");
  EXPECT_NE(table.find("\"algorithm\""), std::string::npos) << table;

  // A replay's table is read by rank 0 alone: no other has the file.
  const CommandResult replay = run_ranks(folder_.path(), {arguments("replay", {"--product-table", path("tuned/products.jsonl")}),
                                                          arguments("replay", {"--product-table", path("nothing.jsonl")})});
  ASSERT_EQ(replay.status, 0) << replay.error;
  EXPECT_EQ(contents_of(folder_ / "replay" / "model.safetensors"), contents_of(folder_ / "tuned" / "model.safetensors"));

  const Strings missing = arguments("run", {"--product-table", path("nothing.jsonl")});
  const CommandResult refused = run_ranks(folder_.path(), {missing, missing});
  EXPECT_EQ(refused.status, 2);
  EXPECT_NE(refused.error.find("lathe: " + path("nothing.jsonl")), std::string::npos) << refused.error;
  EXPECT_FALSE(std::filesystem::exists(folder_ / "run"));
}

}  // namespace
}  // namespace lathe
