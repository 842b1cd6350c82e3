// SPDX-License-Identifier: Apache-2.0
// The coder alone, on shares of every size, and the frequencies that logits become.
#include "generate/arithmetic_coder.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "generate/byte_model.hpp"
#include "unit_tests/support/random.hpp"

namespace strata::test {
namespace {

using generate::ArithmeticDecoder;
using generate::ArithmeticEncoder;
using generate::ByteModel;
using generate::coder_total;
using generate::Share;

/// Shares that cover the whole range, made from weights.
std::vector<Share> table(std::vector<double> const& weights) {
  double sum = 0;
  for (double const w : weights) sum += w;
  std::vector<Share> shares;
  std::uint64_t start = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    std::uint64_t const left = coder_total - start - (weights.size() - 1 - i);
    auto const wanted = 1 + static_cast<std::uint64_t>(weights[i] / sum * static_cast<double>(coder_total));
    std::uint64_t const frequency = i + 1 == weights.size() ? left : std::min(left, wanted);
    shares.push_back({static_cast<std::uint32_t>(start), static_cast<std::uint32_t>(frequency)});
    start += frequency;
  }
  return shares;
}

double bits(Share share) { return 32 - std::log2(static_cast<double>(share.frequency)); }

/// Encodes and decodes; the stream's size must be what the shares say.
void expect_round_trip(std::vector<std::vector<Share>> const& tables,
                       std::vector<std::size_t> const& symbols) {
  ArithmeticEncoder encoder;
  double expected = 0;
  for (std::size_t i = 0; i < symbols.size(); ++i) {
    Share const share = tables[i % tables.size()][symbols[i]];
    encoder.encode(share);
    expected += bits(share);
  }
  std::vector<std::uint8_t> const stream = encoder.finish();
  double const size = 8 * static_cast<double>(stream.size());
  EXPECT_LE(size, expected + 0x1p-23 * static_cast<double>(symbols.size()) + 8 + 1e-6);
  EXPECT_GE(size, expected - 8 - 1e-6);
  ArithmeticDecoder decoder(stream);
  for (std::size_t i = 0; i < symbols.size(); ++i) {
    std::vector<Share> const& shares = tables[i % tables.size()];
    std::uint32_t const target = decoder.target();
    std::size_t symbol = 0;
    while (symbol + 1 < shares.size() && target >= shares[symbol + 1].start) ++symbol;
    ASSERT_EQ(symbol, symbols[i]) << "symbol " << i;
    decoder.consume(shares[symbol]);
  }
}

TEST(ArithmeticCoder, ReturnsWhatRandomTablesEncoded) {
  Random random(1);
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<std::vector<Share>> tables;
    for (int t = 0; t < 7; ++t) {
      std::vector<double> weights;
      std::size_t const count = 2 + random.next() % 255;
      // From nearly equal to spread over more orders of magnitude than a share can show.
      double const spread = random.uniform(0, 40);
      for (std::size_t i = 0; i < count; ++i) weights.push_back(std::exp(spread * random.uniform(-1, 1)));
      tables.push_back(table(weights));
    }
    std::vector<std::size_t> symbols;
    std::size_t const length = random.next() % 400;
    for (std::size_t i = 0; i < length; ++i) symbols.push_back(random.next() % tables[i % 7].size());
    expect_round_trip(tables, symbols);
    if (HasFatalFailure()) return;
  }
}

/// Probabilities next to 0 and 1, at either end of the range: long runs of carries and of nothing.
TEST(ArithmeticCoder, ReturnsWhatExtremeTablesEncoded) {
  auto const largest = static_cast<std::uint32_t>(coder_total - 1);
  std::vector<std::vector<Share>> const tables{{{0, largest}, {largest, 1}}, {{0, 1}, {1, largest}}};
  std::uint32_t const half = std::uint32_t{1} << 31U;
  std::vector<Share> const halves{{0, half}, {half, half}};
  for (std::size_t const length : {0, 1, 2, 7, 8, 9, 1000}) {
    expect_round_trip({tables[0]}, std::vector<std::size_t>(length, 0));
    expect_round_trip({tables[0]}, std::vector<std::size_t>(length, 1));
    expect_round_trip({tables[1]}, std::vector<std::size_t>(length, 0));
    expect_round_trip({tables[1]}, std::vector<std::size_t>(length, 1));
    expect_round_trip({tables[0], tables[1]}, std::vector<std::size_t>(length, 1));
    expect_round_trip({halves, tables[0]}, std::vector<std::size_t>(length, 1));
  }
  Random random(2);
  std::vector<std::size_t> rare(100000);
  for (auto& symbol : rare) symbol = random.next() % 500 == 0 ? 1 : 0;
  expect_round_trip({tables[0]}, rare);
}

/// A certain symbol costs nothing, and a million of them nothing more.
TEST(ArithmeticCoder, SpendsNothingOnWhatIsCertain) {
  ArithmeticEncoder encoder;
  for (int i = 0; i < 1000000; ++i) encoder.encode({0, static_cast<std::uint32_t>(coder_total - 255)});
  EXPECT_LE(encoder.finish().size(), 1U);
}

TEST(ArithmeticCoder, IsNewAfterFinish) {
  ArithmeticEncoder encoder;
  std::vector<std::uint8_t> first, second;
  for (auto* stream : {&first, &second}) {
    for (std::uint32_t i = 0; i < 100; ++i) encoder.encode({i << 20U, 77777});
    *stream = encoder.finish();
  }
  EXPECT_EQ(first, second);
  EXPECT_TRUE(encoder.finish().empty());
}

TEST(ArithmeticCoder, DecodesAnyBytesWithoutReadingBeyondThem) {
  Random random(3);
  std::vector<Share> const shares = table({1, 1e-9, 5, 1e9, 2});
  for (std::size_t size = 0; size < 40; ++size) {
    std::vector<std::uint8_t> stream(size);
    for (auto& byte : stream) byte = static_cast<std::uint8_t>(random.next());
    ArithmeticDecoder decoder(stream);
    for (int i = 0; i < 1000; ++i) {
      std::uint32_t const target = decoder.target();
      std::size_t symbol = 0;
      while (symbol + 1 < shares.size() && target >= shares[symbol + 1].start) ++symbol;
      decoder.consume(shares[symbol]);
    }
  }
}

TEST(ByteFrequencies, CoverTheRangeAndFollowTheSoftmax) {
  Random random(4);
  for (double const spread : {0.0, 1.0, 30.0, 1e4}) {
    std::vector<float> logits(257);
    for (float& z : logits) z = static_cast<float>(spread * random.uniform(-1, 1));
    logits[256] = 1e6F;  // takes no part
    ByteModel model;
    ASSERT_TRUE(model.set(logits));
    double highest = -1e30, sum = 0;
    for (int b = 0; b < 256; ++b) highest = std::max(highest, static_cast<double>(logits[b]));
    for (int b = 0; b < 256; ++b) sum += std::exp(static_cast<double>(logits[b]) - highest);
    std::uint64_t start = 0;
    for (int b = 0; b < 256; ++b) {
      Share const share = model.share(static_cast<std::uint8_t>(b));
      EXPECT_EQ(share.start, start);
      EXPECT_GE(share.frequency, 1U);
      double const p = std::exp(static_cast<double>(logits[b]) - highest) / sum;
      EXPECT_NEAR(share.frequency * 0x1p-32, p, 512 * 0x1p-32);
      EXPECT_EQ(model.find(share.start), b);
      EXPECT_EQ(model.find(share.start + (share.frequency - 1)), b);
      start += share.frequency;
    }
    EXPECT_EQ(start, coder_total);
  }
}

TEST(ByteFrequencies, SayWhenLogitsAreNoNumbers) {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float infinity = std::numeric_limits<float>::infinity();
  ByteModel model;
  for (float const bad : {nan, infinity}) {
    for (std::size_t const place : {0, 100, 255}) {
      std::vector<float> logits(256, 1);
      logits[place] = bad;
      EXPECT_FALSE(model.set(logits));
      EXPECT_EQ(model.share(3).frequency, coder_total / 256);
    }
  }
  EXPECT_FALSE(model.set(std::vector<float>(256, -infinity)));
  std::vector<float> logits(256, -infinity);
  logits[65] = 0;
  EXPECT_TRUE(model.set(logits));
  EXPECT_EQ(model.share(65).frequency, coder_total - 255);
}

}  // namespace
}  // namespace strata::test
