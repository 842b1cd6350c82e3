// SPDX-License-Identifier: Apache-2.0
// How a step is cut up changes its memory, not its result.
#include <gtest/gtest.h>

#include "unit_tests/model/outcomes.hpp"

namespace strata::test {
namespace {

struct Shape {
  char const* what;
  ModelConfig config;
  Windows windows;
};

/// Batches of 3 and 1, all windows full or not, with dropout.
std::vector<Shape> shapes() {
  return {{"two stages", small_config(Head::complete, {7, 3}, Position::fixed, 20, 19, 0.25),
           Windows({21, 20, 9}, 20, 21)},
          {"two stages, reference", small_config(Head::reference, {7, 3}, Position::rope, 20, 19, 0.25),
           Windows({21, 20, 9}, 20, 22)},
          {"three stages", small_config(Head::complete, {5, 3, 4}, Position::rope, 20, 19, 0.25),
           Windows({55}, 20, 23)},
          {"three stages, reference", small_config(Head::reference, {5, 3, 4}, Position::none, 20, 19, 0.25),
           Windows({60, 13, 48}, 20, 24)},
          {"one stage", small_config(Head::complete, {13}, Position::fixed, 20, 19, 0.25),
           Windows({13, 11}, 20, 25)},
          {"three stages, convolutions",
           with_convolutions(small_config(Head::complete, {5, 3, 4}, Position::rope, 20, 19, 0.25)),
           Windows({60, 13, 48}, 20, 30)},
          {"Mamba-2 above a Transformer",
           with_blocks(small_config(Head::complete, {7, 3}, Position::none, 20, 19, 0.25), "2T"),
           Windows({21, 20, 9}, 20, 27)},
          {"Mamba-1 above Mamba-2",
           with_blocks(small_config(Head::complete, {7, 3}, Position::none, 20, 19, 0.25), "12"),
           Windows({21, 20, 9}, 20, 28)},
          {"one stage of Mamba-2",
           with_blocks(small_config(Head::complete, {13}, Position::fixed, 20, 19, 0.25), "2"),
           Windows({13, 11}, 20, 29)},
          {"cross-patch attention",
           with_cross_patch(small_config(Head::complete, {7, 3}, Position::fixed, 20, 19, 0.25), {0, 2}),
           Windows({21, 20, 9}, 20, 30)},
          {"cross-patch attention in three stages",
           with_cross_patch(small_config(Head::complete, {5, 3, 4}, Position::rope, 20, 19, 0.25), {0, 1, 4}),
           Windows({60, 13, 48}, 20, 31)},
          {"cross-patch attention below Mamba-2",
           with_cross_patch(
               with_blocks(small_config(Head::complete, {9, 2, 3}, Position::none, 20, 19, 0.25), "22T"),
               {0, 0, 3}, 3),
           Windows({54}, 20, 32)},
          {"one stage, reference", small_config(Head::reference, {13}, Position::fixed, 20, 19, 0.25),
           Windows({12, 13}, 20, 26)}};
}

constexpr Index all_at_once = 1 << 20;

std::vector<Chunking> chunkings() {
  std::vector<Chunking> result;
  for (Index const outer : {Index(1), Index(2), Index(5), all_at_once})
    for (Index const inner : {Index(1), Index(7), Index(64), all_at_once}) result.push_back({outer, inner});
  result.push_back({});
  return result;
}

template <class T>
class Chunks : public testing::Test {};
using Precisions = testing::Types<float, double>;
TYPED_TEST_SUITE(Chunks, Precisions);

/// All sizes agree, with dropout and without; recomputing gives the same bits, and so does running again.
TYPED_TEST(Chunks, ChangeRoundingOnly) {
  for (Shape const& shape : shapes()) {
    for (std::optional<std::uint64_t> const seed :
         {std::optional<std::uint64_t>(), std::optional<std::uint64_t>(5)}) {
      SCOPED_TRACE(std::string(shape.what) + (seed ? ", dropout" : ""));
      Outcome<TypeParam> const whole =
          Trial<TypeParam>(shape.config, shape.windows, {all_at_once, all_at_once}).step(seed);
      for (Chunking const& chunking : chunkings()) {
        SCOPED_TRACE(name(chunking));
        Trial<TypeParam> trial(shape.config, shape.windows, chunking);
        Outcome<TypeParam> const stored = trial.step(seed);
        expect_near(shape.config, whole, stored);
        EXPECT_TRUE(same_bits(stored, trial.step(seed))) << "a second run differs";
        for (Chunking const& other : rebuilding(chunking))
          EXPECT_TRUE(same_bits(stored, Trial<TypeParam>(shape.config, shape.windows, other).step(seed)))
              << name(other);
      }
    }
  }
}

TYPED_TEST(Chunks, DropoutDropsAndDependsOnItsSeed) {
  Shape const shape = shapes()[0];
  Trial<TypeParam> trial(shape.config, shape.windows);
  Outcome<TypeParam> const none = trial.step(), five = trial.step(5), six = trial.step(6);
  EXPECT_GT(std::abs(none.nats - five.nats), 1e-3 * none.nats);
  EXPECT_GT(std::abs(five.nats - six.nats), 1e-3 * none.nats);
}

/// The number of chunks that the package's train_checkpoint_chunks asks for is a matter of memory as well.
TYPED_TEST(Chunks, CheckpointChunksChangeRoundingOnly) {
  Shape const shape = shapes()[3];
  Outcome<TypeParam> const whole = Trial<TypeParam>(shape.config, shape.windows).step(5);
  Chunking chunking;
  chunking.checkpoint_chunks = {3, 5};
  Trial<TypeParam> trial(shape.config, shape.windows, chunking);
  expect_near(shape.config, whole, trial.step(5));
  EXPECT_LT(trial.model().arena_peak(),
            Trial<TypeParam>(shape.config, shape.windows).model().arena_bytes(3, 60, true));
}

/// What is reserved is what a step uses: to the byte if the chunks are equal, else for chunks that are all as
/// large as the largest, which is a little more.
TYPED_TEST(Chunks, ArenaIsExactlyLargeEnough) {
  int exact = 0;
  for (Shape const& shape : shapes()) {
    for (Chunking chunking : chunkings()) {
      for (OuterTapes const tapes : {OuterTapes::keep, OuterTapes::rebuild, OuterTapes::two_level}) {
        SCOPED_TRACE(std::string(shape.what) + ", " + name(chunking) + ", tapes " +
                     std::to_string(static_cast<int>(tapes)));
        chunking.outer_tapes = tapes;
        auto const windows = static_cast<Index>(shape.windows.lengths.size());
        Trial<TypeParam> trial(shape.config, shape.windows, chunking);
        Index const rows = shape.config.rows(0, trial.padded() / shape.config.bytes_per_position(0));
        bool const equal_chunks = chunking.outer_positions == 0 || chunking.outer_positions >= rows ||
                                  rows % chunking.outer_positions == 0;
        exact += equal_chunks ? 1 : 0;
        auto const expect_fit = [&](Hierarchy<TypeParam> const& model, bool training) {
          std::size_t const bytes = model.arena_bytes(windows, shape.windows.stride, training);
          EXPECT_LE(model.arena_peak(), bytes);
          // The rows before a chunk that is shorter than others count as if it were not.
          double const least = shape.config.lead(1) > 0 ? 0.5 : equal_chunks ? 1 : 0.9;
          EXPECT_GE(static_cast<double>(model.arena_peak()), static_cast<double>(bytes) * least);
        };
        trial.model().reserve(windows, shape.windows.stride, true);
        trial.step(5);
        expect_fit(trial.model(), true);
        Trial<TypeParam> evaluated(shape.config, shape.windows, chunking);
        evaluated.loss();
        expect_fit(evaluated.model(), false);
      }
    }
  }
  EXPECT_GT(exact, 100);
}

/// Smaller chunks need less memory.
TYPED_TEST(Chunks, SmallChunksSaveMemory) {
  Shape const shape = shapes()[2];
  auto const bytes = [&](Chunking const& chunking) {
    return Hierarchy<TypeParam>(shape.config, chunking, true).arena_bytes(1, 60, true);
  };
  EXPECT_LT(bytes({1, 1, OuterTapes::rebuild}), bytes({1, 1}));
  EXPECT_LT(bytes({1, 1}), bytes({1, 64}));
  EXPECT_LT(bytes({1, 7, OuterTapes::rebuild}), bytes({2, 7, OuterTapes::rebuild}));
}

}  // namespace
}  // namespace strata::test
