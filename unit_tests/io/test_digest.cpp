// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>

#include "io/digest.hpp"

namespace {

using namespace strata::io;

std::string sha256(std::string const& text) {
  Sha256 digest;
  digest.update(text);
  return digest.finish();
}

// FIPS 180-4 examples and the empty message.
TEST(Sha256, KnownDigests) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesGiveTheSameDigest) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += static_cast<char>(i * 7);
  for (std::size_t cut = 0; cut <= 200; ++cut) {
    Sha256 digest;
    digest.update(text.substr(0, cut));
    digest.update(text.substr(cut));
    ASSERT_EQ(digest.finish(), sha256(text)) << cut;
  }
}

TEST(Crc32, KnownValueAndContinuation) {
  std::string const text = "123456789";
  auto const bytes = std::span(reinterpret_cast<std::uint8_t const*>(text.data()), text.size());
  EXPECT_EQ(crc32(bytes), 0xCBF43926U);
  std::string longer;
  for (int i = 0; i < 100; ++i) longer += static_cast<char>(i * 37);
  auto const all = std::span(reinterpret_cast<std::uint8_t const*>(longer.data()), longer.size());
  for (std::size_t cut = 0; cut <= longer.size(); ++cut) {
    ASSERT_EQ(crc32(all.subspan(cut), crc32(all.first(cut))), crc32(all)) << cut;
    ASSERT_EQ(crc32_joined(crc32(all.first(cut)), crc32(all.subspan(cut)), longer.size() - cut), crc32(all))
        << cut;
  }
}

}  // namespace
