#pragma once
// Cutting a labelled data set into parts.
#include <cstdint>
#include <span>
#include <vector>

namespace [[gnu::visibility("default")]] lathe {

/// Cuts records 0 to labels.size()-1 into parts whose sizes stand to each other as `shares`, and in which each class has its
/// share.
///
/// Sizes of parts are rounded by largest remainder, so that they add up; within a part, so are the classes' counts, in proportion
/// to the records that the parts after it have left. Which records of a class go where is drawn from `seed`: the same for the
/// same labels, shares and seed on every machine. Each part lists its records in ascending order.
///
/// `labels` are class ids from 0 up; LogicError for a negative one. UsageError where a share isn't above 0, the shares don't add
/// up to 1 (to 1e-6), or there are too few records to give every part one.
std::vector<std::vector<std::int64_t>> stratified_split(std::span<const std::int32_t> labels, std::span<const double> shares,
                                                        std::uint64_t seed);

}  // namespace lathe
