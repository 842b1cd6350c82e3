// SPDX-License-Identifier: Apache-2.0
// Where a row's bytes, targets and weights lie in windows of more than 2^32 bytes. Such windows are only
// addressed here, not held.

#include <gtest/gtest.h>

#include "kernels/cross_entropy.hpp"
#include "kernels/dropout.hpp"
#include "unit_tests/support/sparse_memory.hpp"

namespace strata::kernels {
namespace {

using test::SparseMemory;

constexpr Index patch = 1000;                              // bytes of a position of the outermost stage
constexpr Index positions = (Index(1) << 32) / patch + 3;  // of a window
constexpr Index padded = positions * patch;
constexpr Index length = padded - 7;
constexpr Index stride = length + 5;

TEST(LongWindows, TokensAndWeightsAreFoundBeyond32Bits) {
  SparseMemory<std::uint8_t> const bytes(2 * stride);
  SparseMemory<float> const weights(2 * stride);
  Index const lengths[] = {length, length};
  Tokens tokens{bytes.data(), nullptr, lengths, 2, stride, padded, 256};
  Targets targets;
  targets.tokens = tokens;
  targets.weights = weights.data();
  struct Place {
    Index window, position;
  };
  Index const places[] = {
      0, (Index(1) << 31) - 1, Index(1) << 31, (Index(1) << 32) - 1, Index(1) << 32, length - 1};
  int value = 1;
  for (Index const window : {0, 1})
    for (Index const position : places) {
      Index const stored = window * stride + position, flat = window * padded + position;
      EXPECT_EQ(tokens(flat), 0);
      bytes[static_cast<std::size_t>(stored)] = static_cast<std::uint8_t>(value);
      weights[static_cast<std::size_t>(stored)] = static_cast<float>(value);
      EXPECT_EQ(tokens(flat), value);
      EXPECT_EQ(targets.weight(flat), static_cast<float>(value));
      ++value;
    }
  EXPECT_EQ(tokens(length), 256);          // padding of the first window
  EXPECT_EQ(tokens(2 * padded - 1), 256);  // and of the second
}

TEST(LongWindows, RowsOfTheOutermostStageReadTheirPatch) {
  StageRows rows;
  rows.patches = positions;
  rows.patch_bytes = patch;
  // The last chunk of both windows, without a start vector.
  rows.first_position = positions - 4;
  rows.shape = {2, 4};
  ASSERT_EQ(rows.embedded_rows(), 8);
  for (Index window : {0, 1}) EXPECT_EQ(rows.first_byte(window), window * padded + (positions - 5) * patch);
  EXPECT_GT(rows.first_byte(1), Index(1) << 32);
  EXPECT_EQ(rows.embedded_bytes(), 8 * patch);
  // A whole window at once: more rows than 2^31 where a position is one byte.
  rows.patch_bytes = 1;
  rows.patches = padded;
  rows.first_position = 0;
  rows.shape = {2, padded};
  EXPECT_EQ(rows.shape.rows(), 2 * padded);
  EXPECT_EQ(rows.embedded_rows(), 2 * (padded - 1));
  EXPECT_EQ(rows.embedded_bytes(), 2 * (padded - 1));
  EXPECT_EQ(rows.first_byte(0), 0);
  EXPECT_EQ(rows.first_byte(1), padded);
}

TEST(LongWindows, RowsOfTheLastStageKnowTheirTarget) {
  Index const lengths[] = {length, length};
  Targets targets;
  targets.tokens = {nullptr, nullptr, lengths, 2, stride, padded, 256};
  StageRows rows;  // the last two sequences of the second window, eight bytes each
  rows.patches = 8;
  rows.first_sequence = 2 * padded / 8 - 2;
  Index const first = 2 * padded - 16;
  rows.shape = {2, 8};
  for (Index r = 0; r < 16; ++r) EXPECT_EQ(targets.flat(rows, r), r < 16 - 7 ? first + r : -1) << r;
  targets.prediction = Prediction::next;
  rows.shape = {2, 9};
  for (Index r = 0; r < 18; ++r) {
    Index const t = r % 9, target = first + r / 9 * 8 + t;
    EXPECT_EQ(targets.flat(rows, r), t == 0 || target >= 2 * padded - 7 ? -1 : target) << r;
  }
  // The row after a window's last byte predicts nothing; row 0 of the next predicts its first byte.
  rows.first_sequence = padded / 8 - 1;
  EXPECT_EQ(targets.flat(rows, 8), -1);
  EXPECT_EQ(targets.flat(rows, 9), padded);
  targets.prediction = Prediction::self;
  EXPECT_EQ(targets.flat(rows, 9 + 3), padded + 2);
}

TEST(LongWindows, DropoutNumbersItsRowsIn64Bits) {
  Dropout dropout;
  dropout.base = (Index(1) << 33) + 5;
  dropout.length = Index(1) << 31;
  dropout.stride = (Index(1) << 31) + 1;
  EXPECT_EQ(dropout.stream_row(0), (std::uint64_t(1) << 33) + 5);
  EXPECT_EQ(dropout.stream_row((Index(1) << 32) + 7),
            (std::uint64_t(1) << 33) + 5 + (std::uint64_t(1) << 32) + 2 + 7);
}

}  // namespace
}  // namespace strata::kernels
