// SPDX-License-Identifier: Apache-2.0
// Which earlier bytes a prediction sees, found by changing one byte at a time on random weights.
#include <gtest/gtest.h>

#include "model/predictions.hpp"
#include "unit_tests/model/small_model.hpp"

namespace strata::test {
namespace {

/// Far below every effect of a byte, and above the rounding that a batch of another size can bring.
constexpr double threshold = 1e-10;

std::vector<std::uint8_t> matrix(ModelConfig const& config, Index length) {
  Hierarchy<double> model(config, {2, 7}, false);
  randomise(model.parameters(), 31);
  Windows const windows({length}, config.num_tokens, 32);
  std::vector<std::int64_t> const ids(windows.ids.begin(), windows.ids.end());
  return model::dependencies(model, ids, threshold);
}

/// Predictions of tokens 0 .. length - 1 that see all tokens before them; the last one's neighbours count as
/// well.
Index with_full_past(std::vector<std::uint8_t> const& seen, Index length) {
  Index count = 0;
  for (Index t = 0; t < length; ++t) {
    bool full = true;
    for (Index i = 0; i < t; ++i) full = full && seen[static_cast<std::size_t>(i * (length + 1) + t)] != 0;
    count += full ? 1 : 0;
  }
  return count;
}

void expect_no_later_byte(std::vector<std::uint8_t> const& seen, Index length) {
  for (Index i = 0; i < length; ++i)
    for (Index t = 0; t <= i; ++t)
      EXPECT_EQ(seen[static_cast<std::size_t>(i * (length + 1) + t)], 0)
          << "byte " << i << " moves byte " << t;
}

TEST(Dependencies, HeadCompleteSeesAllEarlierBytesAndNoLaterOne) {
  std::vector<std::vector<Index>> const lists{{12},      {1},       {4, 3},       {1, 5},      {5, 1},
                                              {3, 2, 3}, {2, 1, 4}, {2, 2, 2, 3}, {3, 2, 3, 2}};
  for (std::vector<Index> const& lens : lists) {
    for (Position const position : {Position::none, Position::fixed, Position::rope}) {
      Index context = 1;
      for (Index const n : lens) context *= n;
      for (Index const length : {context, context - 1}) {
        if (length < 1) continue;
        SCOPED_TRACE(testing::PrintToString(lens) + " length " + std::to_string(length) + " position " +
                     std::to_string(static_cast<int>(position)));
        ModelConfig const config = small_config(Head::complete, lens, position, 40, 39);
        std::vector<std::uint8_t> const seen = matrix(config, length);
        expect_no_later_byte(seen, length);
        EXPECT_EQ(with_full_past(seen, length), length);
        // The token after the window is predicted as well where the padding leaves room for it.
        Index const padded = Hierarchy<double>(config, {}, false).padded_length(length);
        for (Index i = 0; i < length; ++i)
          EXPECT_EQ(seen[static_cast<std::size_t>(i * (length + 1) + length)], length < padded ? 1 : 0)
              << "byte " << i;
      }
    }
  }
}

/// Cross-patch attention adds no later byte, to whole models and to the innermost stage by itself: there byte
/// t of a patch sees, besides its own patch, what the last positions of the patches before have read, one
/// patch further back with each layer. Without rows from above that is all it sees.
TEST(Dependencies, HoldForCrossPatchAttention) {
  for (std::vector<Index> const& lens : {std::vector<Index>{5, 3}, {3, 2, 3}, {2, 2, 2, 3}}) {
    std::vector<Index> seen(lens.size(), 1);
    seen.front() = 0;
    seen.back() = 2;
    Index context = 1;
    for (Index const n : lens) context *= n;
    for (Index const length : {context, context - 1}) {
      SCOPED_TRACE(testing::PrintToString(lens) + " length " + std::to_string(length));
      std::vector<std::uint8_t> const depends =
          matrix(with_cross_patch(small_config(Head::complete, lens, Position::none, 40, 39), seen), length);
      expect_no_later_byte(depends, length);
      EXPECT_EQ(with_full_past(depends, length), length);
    }
  }
  constexpr Index patches = 5, patch = 4, length = patches * patch;
  for (Index const layers : {1, 2, 3})
    for (Index const r : {0, 1, 2, 4}) {
      SCOPED_TRACE(std::to_string(layers) + " layers, " + std::to_string(r) + " positions");
      ModelConfig const config = with_cross_patch(
          small_config(Head::complete, {patches, patch}, Position::none, 40, 39), {0, r}, layers);
      Hierarchy<double> model(config, {2, 7}, false);
      randomise(model.parameters(), 33);
      for (std::size_t p = 0; p < model.parameters().all().size(); ++p) {
        if (model.parameters().all()[p].name != "to_next_stage_proj.0.1.weight") continue;
        std::vector<double> const zeros(static_cast<std::size_t>(model.parameters().place(p).size()), 0.0);
        model.parameters().set(p, zeros.data());
      }
      Windows const windows({length}, config.num_tokens, 34);
      std::vector<std::uint8_t> const depends = model::dependencies(
          model, std::vector<std::int64_t>(windows.ids.begin(), windows.ids.end()), threshold);
      for (Index i = 0; i < length; ++i)
        for (Index t = 0; t < length; ++t) {
          bool const later = t <= i, same_patch = t / patch == i / patch;
          // The row after byte i is the first that has read it; the last byte of a patch no row of it reads.
          // In the last layer r rows of the patch before are seen, in those below all that these saw.
          Index const back = t / patch - i / patch, row = i % patch + 1;
          bool const reaches = back > 0 && r > 0 && row < patch && back <= layers;
          // Without the layers' help the row itself must be one of the last r.
          bool const surely = reaches && back == 1 && row >= patch - r;
          bool const depends_on = depends[static_cast<std::size_t>(i * (length + 1) + t)] != 0;
          if (later || (!same_patch && !reaches)) {
            EXPECT_FALSE(depends_on) << "byte " << i << " moves byte " << t;
          }
          if ((same_patch && !later) || surely) {
            EXPECT_TRUE(depends_on) << "byte " << i << " does not move byte " << t;
          }
        }
    }
}

TEST(Dependencies, HoldForStateSpaceStages) {
  struct Mix {
    std::vector<Index> lens;
    char const* letters;
  };
  for (Mix const& mix :
       {Mix{{9}, "1"}, {{9}, "2"}, {{4, 3}, "2T"}, {{4, 3}, "T1"}, {{3, 2, 3}, "2T2"}, {{3, 2, 3}, "1TT"}}) {
    SCOPED_TRACE(mix.letters);
    Index context = 1;
    for (Index const n : mix.lens) context *= n;
    std::vector<std::uint8_t> const seen = matrix(
        with_blocks(small_config(Head::complete, mix.lens, Position::none, 40, 39), mix.letters), context);
    expect_no_later_byte(seen, context);
    EXPECT_EQ(with_full_past(seen, context), context);
  }
}

/// No convolution carries a byte into the patch that predicts it, or into an earlier one.
TEST(Dependencies, HoldForConvolutionalPatchEncoders) {
  for (std::vector<Index> const& lens :
       std::vector<std::vector<Index>>{{4, 3}, {6, 4}, {5, 1}, {2, 14}, {3, 2, 3}, {2, 1, 4}, {2, 2, 2, 3}}) {
    Index context = 1;
    for (Index const n : lens) context *= n;
    for (Index const length : {context, context - 1}) {
      SCOPED_TRACE(testing::PrintToString(lens) + " length " + std::to_string(length));
      std::vector<std::uint8_t> const complete =
          matrix(with_convolutions(small_config(Head::complete, lens, Position::fixed, 40, 39)), length);
      expect_no_later_byte(complete, length);
      EXPECT_EQ(with_full_past(complete, length), length);
      expect_no_later_byte(
          matrix(with_convolutions(small_config(Head::reference, lens, Position::none, 40, 39)), length),
          length);
    }
  }
}

/// Published behaviour of the original packages: from three stages on some bytes miss most of their past.
TEST(Dependencies, HeadReferenceHasItsHoles) {
  struct Case {
    std::vector<Index> lens;
    Index length, full;
  };
  for (Case const& c :
       {Case{{12}, 12, 12}, Case{{6, 4}, 24, 24}, Case{{4, 3, 4}, 48, 36}, Case{{3, 2, 3, 2}, 36, 18}}) {
    SCOPED_TRACE(testing::PrintToString(c.lens));
    std::vector<std::uint8_t> const seen =
        matrix(small_config(Head::reference, c.lens, Position::fixed, 40, 39), c.length);
    expect_no_later_byte(seen, c.length);
    EXPECT_EQ(with_full_past(seen, c.length), c.full);
  }
}

}  // namespace
}  // namespace strata::test
