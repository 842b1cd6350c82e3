// SPDX-License-Identifier: Apache-2.0
// Files through compression and back, by small models with random weights.
#include "generate/compression.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "generate/score.hpp"
#include "unit_tests/io/temp_folder.hpp"
#include "unit_tests/model/small_model.hpp"

namespace strata::test {
namespace {

using generate::CodingSettings;
using generate::compress;
using generate::decompress;
using io::CompressedFile;
using io::parse_compressed;
using Bytes = std::vector<std::uint8_t>;

std::string const digest = "0123456789abcdef00ff10203040a0b0";

/// What files may hold.
std::vector<Bytes> contents(Index window) {
  auto const w = static_cast<std::size_t>(window);
  Random random(5);
  Bytes every(256);
  for (std::size_t b = 0; b < 256; ++b) every[b] = static_cast<std::uint8_t>(b);
  Bytes noise(7 * w + 5);
  for (auto& byte : noise) byte = static_cast<std::uint8_t>(random.next());
  Bytes const broken_utf8{0xC3, 0x28, 0xA0, 0xFF, 0xFE, 0xE2, 0x82, 'a',
                          0xF0, 0x9F, 0x92, 0x00, 0xED, 0xA0, 0x80};
  return {{},           {0},          {255},
          {'\n'},       every,        noise,
          broken_utf8,  Bytes(w, 65), Bytes(w - 1, 200),
          Bytes(w + 1), Bytes(3 * w), Bytes(20 * w + 1, 0xFF)};
}

Hierarchy<float> make_model(ModelConfig const& config) {
  Hierarchy<float> model(config, {}, false);
  randomise(model.parameters(), 61);
  return model;
}

/// Through the bytes of a file.
Bytes there_and_back(Hierarchy<float> const& model, Bytes const& content, CodingSettings const& settings,
                     parallel::Communicator const& ranks) {
  CompressedFile const file = compress(model, digest, content, settings, ranks).value();
  CompressedFile const read = parse_compressed(to_bytes(file), "test");
  return decompress(model, digest, read, "test", settings.lanes, ranks).value();
}

class Compression : public testing::Test {
 protected:
  parallel::Communicator const ranks_;
  parallel::Communicator const alone_{MPI_COMM_SELF};
};

TEST_F(Compression, IsLosslessForEveryHeadAndNumberOfStages) {
  for (Head const head : {Head::complete, Head::reference}) {
    for (std::vector<Index> const& lens : {std::vector<Index>{13}, {4, 3}, {3, 2, 3}, {2, 2, 2, 3}}) {
      for (Index const pad : {256, 65}) {  // 65 is a byte as well
        SCOPED_TRACE(testing::PrintToString(lens) + (head == Head::complete ? " complete" : " reference") +
                     " pad " + std::to_string(pad));
        auto const model = make_model(small_config(head, lens, Position::fixed, 257, pad));
        for (Bytes const& content : contents(model.config().context()))
          EXPECT_EQ(there_and_back(model, content, {}, alone_), content);
      }
    }
  }
}

TEST_F(Compression, IsLosslessWithEveryBlock) {
  for (char const* const letters : {"1T", "2T", "21", "TT"}) {
    SCOPED_TRACE(letters);
    auto const model =
        make_model(with_blocks(small_config(Head::complete, {5, 3}, Position::none, 300, 299), letters));
    // Longer windows than the model was made for.
    for (Bytes const& content : contents(24))
      EXPECT_EQ(there_and_back(model, content, {24}, alone_), content);
  }
}

/// The same file, whoever makes it, and the same content, whoever restores it.
TEST_F(Compression, DoesNotDependOnLanesOrRanks) {
  auto const model = make_model(small_config(Head::complete, {4, 3}, Position::rope, 256, 7));
  Random random(6);
  Bytes content(20001);
  for (auto& byte : content) byte = static_cast<std::uint8_t>(random.next() % 200);
  CompressedFile const file = compress(model, digest, content, {200, 8}, alone_).value();
  EXPECT_GT(file.streams.size(), 3U);
  Bytes const bytes = to_bytes(file);
  for (Index const lanes : {1, 1000})
    EXPECT_EQ(to_bytes(*compress(model, digest, content, {200, lanes}, alone_)), bytes);
  for (Index const lanes : {2, 3}) {
    auto const together = compress(model, digest, content, {200, lanes}, ranks_);
    ASSERT_TRUE(together);
    if (ranks_.is_root()) {
      EXPECT_EQ(to_bytes(*together), bytes);
    }
  }
  for (Index const lanes : {2, 8}) EXPECT_EQ(decompress(model, digest, file, "f", lanes, ranks_), content);
  EXPECT_EQ(decompress(model, digest, file, "f", 1, alone_), content);
}

/// Half a percent and 64 bytes more than the model's own figure at most, also where almost nothing is left to
/// code.
TEST_F(Compression, ComesCloseToTheScore) {
  for (bool const certain : {false, true}) {
    ModelConfig const config = small_config(Head::complete, {6, 4}, Position::fixed, 257, 256);
    Hierarchy<float> model = make_model(config);
    if (certain) {
      std::vector<float> bias(257, 0);
      bias['x'] = 14;
      model.parameters().set(model.logits_bias(), bias.data());
    }
    for (std::size_t const size : {1, 24, 1000, 30000}) {
      for (Index const window : {3, 24}) {
        SCOPED_TRACE(std::to_string(size) + " bytes, window " + std::to_string(window));
        Bytes content(size, 'x');
        Random random(7);
        if (!certain)
          for (auto& byte : content) byte = static_cast<std::uint8_t>(random.next());
        auto const score = generate::score(model, {content}, window, 0, alone_).value().front();
        EXPECT_EQ(score.bytes, static_cast<Index>(size));
        double const predicted = score.nats / std::log(2.0) / 8;
        auto const actual =
            static_cast<double>(to_bytes(*compress(model, digest, content, {window}, alone_)).size());
        EXPECT_LE(actual, 1.005 * predicted + 64);
        EXPECT_GE(actual, 0.9 * predicted);
        if (certain && size == 30000) {
          EXPECT_LT(actual, 500);
        }
      }
    }
  }
}

TEST_F(Compression, SaysHowFarItIsAndStops) {
  auto const model = make_model(small_config(Head::complete, {4, 3}, Position::rope, 256, 7));
  Bytes const content(1000, 3);
  std::vector<Index> seen;
  generate::Follow follow;
  follow.progress = [&](Index bytes) { seen.push_back(bytes); };
  CompressedFile const file = compress(model, digest, content, {100, 2}, alone_, follow).value();
  EXPECT_GT(seen.size(), 10U);
  EXPECT_EQ(seen.front(), 0);
  EXPECT_EQ(seen.back(), 1000);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  follow.stop = [&] { return seen.size() > 3; };
  seen.clear();
  EXPECT_FALSE(compress(model, digest, content, {100, 2}, alone_, follow));
  EXPECT_LT(seen.back(), 300);
  seen.clear();
  EXPECT_FALSE(decompress(model, digest, file, "f", 2, alone_, follow));
  // A wish of one rank is one of all.
  generate::Follow one;
  one.stop = [&] { return ranks_.rank() == ranks_.size() - 1; };
  EXPECT_FALSE(compress(model, digest, content, {100, 2}, ranks_, one));
}

TEST_F(Compression, RefusesWhatCannotWork) {
  auto const model = make_model(small_config(Head::complete, {4, 3}, Position::fixed, 257, 256));
  Bytes const content(100, 3);
  CompressedFile const file = compress(model, digest, content, {}, alone_).value();
  auto const refusal = [](auto const& action) { return message_of<core::InputError>(action); };

  std::string const other = "f" + digest.substr(1);
  EXPECT_EQ(
      refusal([&] { decompress(model, other, file, "f.strata", 0, alone_); }),
      "f.strata was compressed by another model: the digest of its model begins with 01234567, that of this "
      "one with f1234567");

  // The digest says the model is right, and yet it predicts something else.
  Hierarchy<float> different(model.config(), {}, false);
  randomise(different.parameters(), 62);
  EXPECT_NE(refusal([&] {
              decompress(different, digest, file, "f.strata", 0, alone_);
            }).find("does not come out as it was"),
            std::string::npos);

  EXPECT_NE(
      refusal([&] { compress(model, digest, content, {13}, alone_); }).find("fixed positions end at 12"),
      std::string::npos);
  EXPECT_TRUE(compress(model, digest, std::span(content).first(12), {13}, alone_))
      << "the window is the file";

  auto const narrow = make_model(small_config(Head::complete, {4, 3}, Position::fixed, 255, 254));
  EXPECT_NE(refusal([&] { compress(narrow, digest, content, {}, alone_); }).find("255 tokens lacks"),
            std::string::npos);
  EXPECT_NE(refusal([&] { decompress(narrow, digest, file, "f", 0, alone_); }).find("255 tokens lacks"),
            std::string::npos);

  ModelConfig config = small_config(Head::reference, {4, 3}, Position::fixed, 257, 256);
  config.block[0].block_type = model::BlockType::transformer_encoder;
  Hierarchy<float> const encoder(config, {}, false);
  EXPECT_NE(refusal([&] { compress(encoder, digest, content, {}, alone_); }).find("bidirectional"),
            std::string::npos);

  auto broken = make_model(small_config(Head::complete, {4, 3}, Position::fixed, 257, 256));
  std::vector<float> bias(257, 0);
  bias[9] = std::numeric_limits<float>::quiet_NaN();
  broken.parameters().set(broken.logits_bias(), bias.data());
  EXPECT_NE(refusal([&] { compress(broken, digest, content, {}, alone_); }).find("not finite"),
            std::string::npos);
}

}  // namespace
}  // namespace strata::test
