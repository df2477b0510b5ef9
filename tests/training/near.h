#pragma once
// What of a run of several ranks is compared with a run alone, and how near it must come.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <vector>

#include "lathe/kernels/optimizer.h"
#include "lathe/runtime/parameters.h"

namespace lathe {

/// |a - b| <= tolerance * max(|b|, 1e-4 * |all gradients|), tensor by tensor.
inline void expect_gradients_near(const ParameterArena& arena, const std::vector<float>& together,
                                  const std::vector<float>& alone, double tolerance) {
  ASSERT_EQ(together.size(), alone.size());
  const std::size_t tensors = static_cast<std::size_t>(arena.blocks().back().tensor) + 1;
  std::vector<double> distance(tensors);
  std::vector<double> length(tensors);
  for (std::size_t i = 0; i < alone.size(); ++i) {
    const auto tensor = static_cast<std::size_t>(arena.blocks()[i / kArenaBlock].tensor);
    distance[tensor] += std::pow(static_cast<double>(together[i]) - static_cast<double>(alone[i]), 2);
    length[tensor] += std::pow(static_cast<double>(alone[i]), 2);
  }
  const double all = std::accumulate(length.begin(), length.end(), 0.0);
  ASSERT_GT(all, 0.0);
  for (std::size_t i = 0; i < tensors; ++i) {
    const double allowed = tolerance * std::max(std::sqrt(length[i]), 1e-4 * std::sqrt(all));
    EXPECT_LE(std::sqrt(distance[i]), allowed) << "tensor " << i << " of norm " << std::sqrt(length[i]);
  }
}

/// 1e-5 for the first five steps, then rounding grows with the weights' distance: 1e-3 at the fiftieth.
inline void expect_losses_near(const std::vector<double>& together, const std::vector<double>& alone) {
  ASSERT_EQ(together.size(), alone.size());
  for (std::size_t i = 0; i < alone.size(); ++i)
    EXPECT_NEAR(together[i], alone[i], (i < 5 ? 1e-5 : 1e-3) * alone[i]) << "step " << i + 1;
}

}  // namespace lathe
