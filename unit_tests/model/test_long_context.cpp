// SPDX-License-Identifier: Apache-2.0
// The gradient goes through the whole context, wherever the outermost stage is cut and whatever is rebuilt.
#include <gtest/gtest.h>

#include "unit_tests/model/outcomes.hpp"

namespace strata::test {
namespace {

constexpr Index all_at_once = 1 << 20;

/// An outermost stage.
struct Outer {
  char const* what;
  char letter;  // as with_blocks has it
  Position position;
  bool rotary;  // rotary positions in attention
};

constexpr Outer outers[] = {{"Mamba-1", '1', Position::none, false},
                            {"Mamba-2", '2', Position::none, false},
                            {"Transformer, rotary", 'T', Position::none, true},
                            {"Transformer, fixed positions", 'T', Position::fixed, false},
                            {"Transformer, rope", 'T', Position::rope, false},
                            {"Transformer, no positions", 'T', Position::none, false}};

/// Above stages of `inner` blocks.
ModelConfig config_of(Outer const& outer, std::string const& inner, Head head,
                      std::vector<Index> const& lens) {
  ModelConfig config = small_config(head, lens, Position::none, 20, 19);
  config.block[0].attn_use_rot_embs = outer.rotary;
  config.block[0].pos_emb_type = outer.position;
  return with_blocks(config, outer.letter + inner);
}

template <class T>
class LongContext : public testing::Test {};
using Precisions = testing::Types<float, double>;
TYPED_TEST_SUITE(LongContext, Precisions);

/// Chunks of 1 position to all of them, of a full window and a shorter one.
TYPED_TEST(LongContext, NoCutAndNoPolicyChangesTheGradient) {
  struct Below {
    std::vector<Index> lens;
    char const* blocks;
  };
  for (Outer const& outer : outers) {
    for (Below const& below : {Below{{11}, ""}, {{9, 2}, "T"}, {{7, 2, 3}, "1T"}}) {
      for (Head const head : {Head::complete, Head::reference}) {
        ModelConfig const config = config_of(outer, below.blocks, head, below.lens);
        SCOPED_TRACE(outer.what + std::string(" of ") + std::to_string(below.lens.size()) + " stages" +
                     (head == Head::reference ? ", head reference" : ""));
        Index const context = config.context();
        Windows const windows({context, context - 4}, 19, 41);
        Outcome<TypeParam> const whole = Trial<TypeParam>(config, windows, {all_at_once, all_at_once}).step();
        Index const rows = config.rows(0, below.lens[0]);
        for (Index positions = 1; positions <= rows; ++positions) {
          Chunking const chunking{positions, 5};
          SCOPED_TRACE(name(chunking));
          Trial<TypeParam> trial(config, windows, chunking);
          ASSERT_EQ(trial.model().outer_chunk(2, context), positions);
          Outcome<TypeParam> const kept = trial.step();
          expect_near(config, whole, kept);
          for (Chunking const& other : rebuilding(chunking))
            EXPECT_TRUE(same_bits(kept, Trial<TypeParam>(config, windows, other).step())) << name(other);
        }
      }
    }
  }
}

// ------------------------------------------------------------------ a byte far away

constexpr Index patches = 300;
constexpr Index patch_bytes = 2;
constexpr Index marks = 17;  // the ids 17 and 18 stand in the first patch and nowhere else

/// A window of 600 bytes of which only the last one counts.
Windows window_with_marks() {
  Windows windows({patches * patch_bytes}, marks, 51, true);
  std::fill(windows.weights.begin(), windows.weights.end(), 0.0F);
  windows.weights.back() = 1;
  for (Index i = 0; i < patch_bytes; ++i)
    windows.ids[static_cast<std::size_t>(i)] = static_cast<std::uint16_t>(marks + i);
  return windows;
}

/// The rows of the marks in the gradient of a stage's embedding table: for the outermost stage, what the loss
/// changes by when the first patch does.
template <class T>
std::vector<T> rows_of_marks(model::ParameterStore<T> const& store, Outcome<T> const& outcome,
                             std::string const& table) {
  std::size_t const p = store.find(table);
  auto const width = store.place(p).columns;
  auto const first = outcome.gradients[p].begin() + marks * width;
  return {first, first + patch_bytes * width};
}

char const* const outer_table = "token_embs_rev.1.0.weight";
char const* const inner_table = "token_embs_rev.0.weight";

TYPED_TEST(LongContext, TheLastByteReachesTheFirstPatch) {
  Windows const windows = window_with_marks();
  for (Outer const& outer : outers) {
    SCOPED_TRACE(outer.what);
    ModelConfig const config = config_of(outer, "T", Head::complete, {patches, patch_bytes});
    Trial<TypeParam> trial(config, windows, {all_at_once, all_at_once});
    Outcome<TypeParam> const whole = trial.step();
    EXPECT_EQ(whole.bytes, 1);
    model::ParameterStore<TypeParam> const& store = trial.model().parameters();
    std::vector<TypeParam> const wanted = rows_of_marks(store, whole, outer_table);
    auto const is_zero = [](TypeParam x) { return x == 0; };
    EXPECT_EQ(std::count_if(wanted.begin(), wanted.end(), is_zero), 0);
    // There is no other way from there to the loss than through all positions of the outermost stage.
    std::vector<TypeParam> const below = rows_of_marks(store, whole, inner_table);
    EXPECT_TRUE(std::all_of(below.begin(), below.end(), is_zero));

    Chunking const chunking{7, 64};
    Trial<TypeParam> cut(config, windows, chunking);
    EXPECT_EQ(cut.model().outer_chunks(1, patches * patch_bytes), 43);
    Outcome<TypeParam> const kept = cut.step();
    expect_near(config, whole, kept);
    EXPECT_LE(relative_difference(wanted, rows_of_marks(store, kept, outer_table)), rounding<TypeParam>);
    for (Chunking const& other : rebuilding(chunking))
      EXPECT_TRUE(same_bits(kept, Trial<TypeParam>(config, windows, other).step())) << name(other);
  }
}

/// The same gradient from differences of losses, along itself.
TEST(FarByte, TheFarGradientIsTheSlopeOfTheLoss) {
  Windows const windows = window_with_marks();
  for (Outer const& outer : outers) {
    SCOPED_TRACE(outer.what);
    ModelConfig const config = config_of(outer, "T", Head::complete, {patches, patch_bytes});
    Trial<double> trial(config, windows, {7, 64, OuterTapes::two_level});
    model::ParameterStore<double>& store = trial.model().parameters();
    std::vector<double> const gradient = rows_of_marks(store, trial.step(), outer_table);
    double slope = 0;
    for (double const g : gradient) slope += g * g;
    slope = std::sqrt(slope);

    std::size_t const p = store.find(outer_table);
    std::vector<double> const values = [&] {
      std::vector<double> v(static_cast<std::size_t>(store.place(p).size()));
      store.get(p, v.data());
      return v;
    }();
    auto const first = static_cast<std::size_t>(marks * store.place(p).columns);
    auto const loss_at = [&](double step) {
      std::vector<double> moved = values;
      for (std::size_t i = 0; i < gradient.size(); ++i) moved[first + i] += step * gradient[i] / slope;
      store.set(p, moved.data());
      return trial.loss();
    };
    constexpr double h = 1e-3;
    double const difference = (loss_at(h) - loss_at(-h)) / (2 * h);
    EXPECT_NEAR(difference / slope, 1, 1e-5) << "slope " << slope;
  }
}

}  // namespace
}  // namespace strata::test
