// SPDX-License-Identifier: Apache-2.0
// The container of compressed files: whole ones come back, all others are refused.
#include "io/compressed_file.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "io/digest.hpp"
#include "unit_tests/io/temp_folder.hpp"
#include "unit_tests/support/random.hpp"

namespace strata::test {
namespace {

using io::CompressedFile;
using io::Index;
using io::parse_compressed;
using Bytes = std::vector<std::uint8_t>;

std::string const digest = "0123456789abcdef00ff10203040a0b0";

CompressedFile example() {
  Random random(1);
  CompressedFile file;
  file.digest = digest;
  file.content_crc = 0x89ABCDEF;
  file.length = 1000;
  file.window = 300;
  for (Index const windows : {2, 1, 1}) {
    Bytes bytes(static_cast<std::size_t>(40 * windows + 100));
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random.next());
    file.streams.push_back({windows, bytes});
  }
  return file;
}

/// Writes the checksum that fits the bytes, as somebody who means harm would.
void seal(Bytes& bytes) {
  std::uint32_t const crc = io::crc32(std::span(bytes).subspan(12));
  for (unsigned i = 0; i < 4; ++i) bytes[8 + i] = static_cast<std::uint8_t>(crc >> (8 * i));
}

std::string refusal(Bytes const& bytes) {
  return message_of<core::InputError>([&] { parse_compressed(bytes, "some.strata"); });
}

TEST(CompressedFile, ComesBack) {
  CompressedFile const file = example();
  CompressedFile const back = parse_compressed(to_bytes(file), "some.strata");
  EXPECT_EQ(back.digest, digest);
  EXPECT_EQ(back.content_crc, file.content_crc);
  EXPECT_EQ(back.length, 1000);
  EXPECT_EQ(back.window, 300);
  ASSERT_EQ(back.streams.size(), 3U);
  for (std::size_t s = 0; s < 3; ++s) {
    EXPECT_EQ(back.streams[s].windows, file.streams[s].windows);
    EXPECT_EQ(back.streams[s].bytes, file.streams[s].bytes);
  }
  CompressedFile empty;
  empty.digest = digest + "more digits";
  Bytes const bytes = to_bytes(empty);
  EXPECT_LE(bytes.size(), 40U);
  EXPECT_EQ(parse_compressed(bytes, "").length, 0);
  EXPECT_EQ(parse_compressed(bytes, "").digest, digest);
}

TEST(CompressedFile, KeepsLargeNumbers) {
  CompressedFile file;
  file.digest = digest;
  file.length = (Index(1) << 56) - 1;
  file.window = Index(1) << 40;
  file.streams.push_back({file.windows(), Bytes(3)});
  CompressedFile const back = parse_compressed(to_bytes(file), "");
  EXPECT_EQ(back.length, file.length);
  EXPECT_EQ(back.window, file.window);
}

TEST(CompressedFile, IsRefusedWhenAnyByteChanged) {
  Bytes const whole = to_bytes(example());
  for (std::size_t i = 0; i < whole.size(); ++i) {
    for (unsigned const change : {1U, 0x80U, 0xFFU}) {
      Bytes broken = whole;
      broken[i] = static_cast<std::uint8_t>(broken[i] ^ change);
      std::string const message = refusal(broken);
      EXPECT_EQ(message.find("some.strata"), 0U) << message;
      EXPECT_EQ(message.find('\n'), std::string::npos);
    }
  }
}

TEST(CompressedFile, IsRefusedWhenCutOrLonger) {
  Bytes const whole = to_bytes(example());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    std::string const message = refusal({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)});
    if (size >= 50) {
      EXPECT_EQ(message, "some.strata is cut short: it ends after " + std::to_string(size) + " bytes of " +
                             std::to_string(whole.size()));
    }
  }
  Bytes longer = whole;
  longer.push_back(0);
  EXPECT_NE(refusal(longer).find("damaged"), std::string::npos);
  seal(longer);
  EXPECT_NE(refusal(longer).find("do not add up"), std::string::npos);
}

TEST(CompressedFile, IsRefusedWhenItIsSomethingElse) {
  EXPECT_EQ(refusal({}), "some.strata is not a file that strata compress wrote");
  EXPECT_EQ(refusal(Bytes(100, 'x')), "some.strata is not a file that strata compress wrote");
  Bytes later = to_bytes(example());
  later[7] = 2;
  EXPECT_EQ(refusal(later), "some.strata is a compressed file of version 2; this program reads version 1");
}

/// Headers of nonsense under a right checksum are refused, or state sizes that fit the file.
TEST(CompressedFile, SurvivesForgedNumbers) {
  Bytes const whole = to_bytes(example());
  Random random(2);
  int refused = 0;
  for (int trial = 0; trial < 20000; ++trial) {
    Bytes forged = whole;
    for (std::uint64_t changes = 1 + random.next() % 3; changes > 0; --changes)
      forged[32 + random.next() % 14] =
          random.next() % 4 == 0 ? 0xFF : static_cast<std::uint8_t>(random.next());
    seal(forged);
    try {
      CompressedFile const file = parse_compressed(forged, "forged");
      std::size_t bytes = 0;
      Index windows = 0;
      for (auto const& stream : file.streams) {
        bytes += stream.bytes.size();
        windows += stream.windows;
      }
      EXPECT_LE(bytes, forged.size());
      EXPECT_EQ(windows, file.windows());
    } catch (core::InputError const&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 10000);
}

}  // namespace
}  // namespace strata::test
