// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "core/error.hpp"
#include "data/evaluation_plan.hpp"
#include "data/sample_order.hpp"
#include "parallel/block.hpp"

namespace {

using namespace strata;
using namespace strata::data;

TEST(Permute, IsAPermutationForEveryCount) {
  for (Index count = 1; count <= 70; ++count) {
    for (std::uint64_t const seed : {0ULL, 1ULL, ~0ULL}) {
      std::set<Index> seen;
      for (Index i = 0; i < count; ++i) seen.insert(permute(i, count, seed, 3));
      ASSERT_EQ(seen.size(), static_cast<std::size_t>(count));
      ASSERT_EQ(*seen.begin(), 0);
      ASSERT_EQ(*seen.rbegin(), count - 1);
    }
  }
  std::vector<bool> seen(100003, false);
  for (Index i = 0; i < 100003; ++i) seen[static_cast<std::size_t>(permute(i, 100003, 5, 0))] = true;
  EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [](bool b) { return b; }));
}

TEST(Permute, LargeCountsStayInside) {
  Index const count = (Index{1} << 46) - 17;
  for (Index i = 0; i < 1000; ++i) {
    Index const value = permute(count - 1 - i, count, 9, 1);
    ASSERT_GE(value, 0);
    ASSERT_LT(value, count);
  }
}

// Mean and neighbour correlation of a uniform permutation of n: the correlation has standard deviation about
// 1/sqrt(n).
TEST(Permute, LooksShuffled) {
  Index const n = 10000;
  double correlation = 0;
  int fixed = 0;
  for (Index i = 0; i < n; ++i) {
    auto const a = static_cast<double>(permute(i, n, 1, 0)) - 0.5 * (n - 1);
    auto const b = static_cast<double>(permute((i + 1) % n, n, 1, 0)) - 0.5 * (n - 1);
    correlation += a * b;
    fixed += permute(i, n, 1, 0) == i ? 1 : 0;
  }
  correlation /= static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / 12;
  EXPECT_LT(std::abs(correlation), 5.0 / 100);
  EXPECT_LT(fixed, 10);
}

TEST(SampleOrder, SequentialWindowsFollowTheReferencesOffset) {
  SampleOrder const order(23, 5, false, 0);
  EXPECT_EQ(order.windows(0), 5);
  EXPECT_EQ(order.window(0, 0), (Window{0, 5}));
  EXPECT_EQ(order.window(0, 4), (Window{20, 3}));
  EXPECT_EQ(order.windows(1), 6);
  EXPECT_EQ(order.window(1, 0), (Window{0, 1}));
  EXPECT_EQ(order.window(1, 1), (Window{1, 5}));
  EXPECT_EQ(order.window(1, 5), (Window{21, 2}));
  EXPECT_EQ(order.windows(3), 5);  // 3 + 4 * 5 = 23: no tail
  EXPECT_EQ(order.window(3, 4), (Window{18, 5}));
  EXPECT_EQ(order.window(5, 0), (Window{0, 5}));  // offset 5 mod 5
}

TEST(SampleOrder, EachByteOncePerEpoch) {
  for (Index const total : {1, 2, 5, 6, 23, 64}) {
    for (Index const length : {1, 2, 5, 7, 64, 100}) {
      for (bool const shuffle : {false, true}) {
        SampleOrder const order(total, length, shuffle, 11);
        for (Index epoch = 0; epoch < 2 * length + 1; ++epoch) {
          std::vector<int> seen(static_cast<std::size_t>(total), 0);
          ASSERT_GE(order.windows(epoch), 1);
          for (Index i = 0; i < order.windows(epoch); ++i) {
            Window const window = order.window(epoch, i);
            ASSERT_GE(window.length, 1);
            ASSERT_LE(window.length, length);
            for (Index b = 0; b < window.length; ++b) ++seen.at(static_cast<std::size_t>(window.start + b));
          }
          ASSERT_EQ(seen, std::vector<int>(seen.size(), 1)) << total << " " << length << " epoch " << epoch;
        }
      }
    }
  }
}

// A cut would only hide the beginning from the bytes behind it.
TEST(SampleOrder, OneWindowIsNeverCut) {
  for (Index const length : {64, 100}) {
    SampleOrder const order(64, length, true, 1);
    for (Index epoch = 0; epoch < 130; ++epoch) {
      ASSERT_EQ(order.windows(epoch), 1);
      ASSERT_EQ(order.window(epoch, 0), (Window{0, 64}));
    }
  }
}

TEST(SampleOrder, ShuffleDependsOnSeedAndEpoch) {
  auto const starts = [](std::uint64_t seed, Index epoch) {
    SampleOrder const order(1000, 10, true, seed);
    std::vector<Index> result;
    for (Index i = 0; i < 100; ++i) result.push_back(order.window(epoch, i).start);
    return result;
  };
  EXPECT_EQ(starts(1, 0), starts(1, 0));
  EXPECT_NE(starts(1, 0), starts(2, 0));
  EXPECT_NE(starts(1, 0), starts(1, 10));  // the same windows, as 10 mod 10 = 0
  std::vector<Index> sorted = starts(1, 10);
  std::sort(sorted.begin(), sorted.end());
  EXPECT_NE(sorted, starts(1, 10));
}

TEST(SampleOrder, AdvanceAndCounterAgree) {
  SampleOrder const order(23, 5, true, 0);
  Place place;
  for (Index c = 0; c < 200; ++c) {
    ASSERT_EQ(order.counter(place), c);
    ASSERT_EQ(order.advance({0, 0}, c), place);
    ASSERT_EQ(order.advance(place, 77), order.advance({0, 0}, c + 77));
    ASSERT_LT(place.index, order.windows(place.epoch));
    place = order.advance(place, 1);
  }
}

TEST(SampleOrder, RefusesNonsense) {
  EXPECT_THROW(SampleOrder(0, 5, false, 0), core::InputError);
  EXPECT_THROW(SampleOrder(5, 0, false, 0), core::InputError);
}

TEST(EvaluationPlan, EachByteScoredOnce) {
  for (Index const total : {1, 4, 5, 6, 9, 10, 23, 64}) {
    for (Index const length : {1, 2, 5, 10, 100}) {
      for (Index stride = 0; stride <= std::min<Index>(length, 10); ++stride) {
        EvaluationPlan const plan(total, length, stride);
        std::vector<int> scored(static_cast<std::size_t>(total), 0);
        for (Index w = 0; w < plan.count(); ++w) {
          ScoredWindow const s = plan.window(w);
          ASSERT_LE(s.window.length, length);
          ASSERT_EQ(s.window.start, w * (stride == 0 ? length : stride));
          ASSERT_LT(s.first_scored, s.window.length);
          for (Index b = s.first_scored; b < s.window.length; ++b) {
            ++scored.at(static_cast<std::size_t>(s.window.start + b));
          }
        }
        ASSERT_EQ(scored, std::vector<int>(scored.size(), 1)) << total << " " << length << " " << stride;
      }
    }
  }
  EXPECT_THROW(EvaluationPlan(10, 5, 6), core::InputError);
  EXPECT_THROW(EvaluationPlan(10, 5, -1), core::InputError);
  EXPECT_THROW(EvaluationPlan(10, 0), core::InputError);
  EXPECT_THROW(EvaluationPlan(0, 5), core::InputError);
}

/// Splits and windows far beyond 32 bits.
TEST(SampleOrder, HugeSplits) {
  constexpr Index total = (Index{1} << 40) + 12345;
  constexpr Index length = (Index{1} << 31) + 17;
  SampleOrder const order(total, length, false, 1);
  EXPECT_EQ(order.windows(0), total / length + 1);
  Index next = 0;
  for (Index i = 0; i < order.windows(0); ++i) {
    Window const window = order.window(0, i);
    ASSERT_EQ(window.start, next);
    next += window.length;
  }
  EXPECT_EQ(next, total);
  // An epoch whose windows start far from a multiple of the length.
  Index const epoch = (Index{1} << 31) + 5;
  EXPECT_EQ(order.window(epoch, 0), (Window{0, epoch}));
  EXPECT_EQ(order.window(epoch, 300), (Window{epoch + 299 * length, length}));
  // Small windows: as many as fit no 32 bits.
  SampleOrder const many(total, 100, true, 1);
  EXPECT_EQ(many.windows(0), total / 100 + 1);
  Place const far = many.advance({}, Index{1} << 33);
  EXPECT_EQ(far, (Place{0, Index{1} << 33}));
  EXPECT_EQ(many.counter(far), Index{1} << 33);
  EXPECT_EQ(many.window(far).start % 100, 0);
  EXPECT_EQ(many.advance({}, many.windows(0) + 3), (Place{1, 3}));
}

TEST(EvaluationPlan, HugeSplits) {
  constexpr Index total = (Index{1} << 35) + 77;
  EvaluationPlan const plan(total, 1000, 10);
  EXPECT_EQ(plan.count(), 1 + (total - 1000 + 9) / 10);
  ScoredWindow const last = plan.window(plan.count() - 1);
  EXPECT_EQ(last.window.start, (plan.count() - 1) * 10);
  EXPECT_EQ(last.window.start + last.window.length, total);
  EXPECT_EQ(last.first_scored, 990);
  constexpr Index length = (Index{1} << 32) + 3;
  EvaluationPlan const wide(total, length);
  EXPECT_EQ(wide.count(), 9);
  EXPECT_EQ(wide.window(7).window, (Window{7 * length, length}));
  EXPECT_EQ(wide.window(8).window, (Window{8 * length, total - 8 * length}));
  EXPECT_EQ(parallel::block_of(plan.count(), 2, 3).last, plan.count());
}

TEST(BlockOf, CoversEverythingOnce) {
  for (Index count = 0; count < 12; ++count) {
    for (Index ranks = 1; ranks < 6; ++ranks) {
      Index next = 0;
      for (Index rank = 0; rank < ranks; ++rank) {
        parallel::Block const block = parallel::block_of(count, rank, ranks);
        ASSERT_EQ(block.first, next);
        ASSERT_LE(block.last - block.first, (count + ranks - 1) / ranks);
        next = block.last;
      }
      ASSERT_EQ(next, count);
    }
  }
}

}  // namespace
