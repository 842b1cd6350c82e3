// SPDX-License-Identifier: Apache-2.0
// Valid and broken sequences, cut at every place.
#include "generate/utf8_stream.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "unit_tests/support/random.hpp"

namespace strata::generate {
namespace {

std::string const U = "\xEF\xBF\xBD";

struct Case {
  std::string bytes, text;
};

/// Expected texts are those of Python's bytes.decode("utf-8", "replace").
std::vector<Case> cases() {
  return {
      {"", ""},
      {"plain", "plain"},
      {std::string("a\0b", 3), std::string("a\0b", 3)},
      {"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"},
      // First and last characters of each length.
      {"\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF", "\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF"},
      {"\xED\x9F\xBF\xEE\x80\x80\xF0\x90\x80\x80\xF4\x8F\xBF\xBF",
       "\xED\x9F\xBF\xEE\x80\x80\xF0\x90\x80\x80\xF4\x8F\xBF\xBF"},
      // Bytes that begin nothing.
      {"\x80", U},
      {"a\xBF\xC0\xC1\xF5\xFF\xFE z", "a" + U + U + U + U + U + U + " z"},
      // Longer forms than needed, surrogates, beyond U+10FFFF: no byte of them is the beginning of a
      // character.
      {"\xC0\xAF", U + U},
      {"\xE0\x80\xAF", U + U + U},
      {"\xE0\x9F\xBF", U + U + U},
      {"\xED\xA0\x80", U + U + U},
      {"\xF0\x8F\xBF\xBF", U + U + U + U},
      {"\xF4\x90\x80\x80", U + U + U + U},
      // Maximal subparts count once (the standard's Table 3-8 and neighbours).
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", U + U + U + U + "A"},
      {"\x41\xC3\xB1\xC3\x42", "A\xC3\xB1" + U + "B"},
      {"\xF0\x9F\x98\x41", U + "A"},
      {"\xF0\x9F\x98\xC3\xA9", U + "\xC3\xA9"},
      {"\xE2\x82\xE2\x82\xAC", U + "\xE2\x82\xAC"},
      {"\xE2\x41\x80", U + "A" + U},
      // Not complete at the end.
      {"x\xC3", "x" + U},
      {"x\xE2\x82", "x" + U},
      {"x\xF0\x9F\x98", "x" + U},
      {"x\xF0\x9F\x98\x80\xF0", "x\xF0\x9F\x98\x80" + U},
  };
}

/// Whether every character of `text` is whole, by the ranges of the standard's Table 3-7.
bool is_valid(std::string const& text) {
  auto const at = [&](std::size_t i) { return static_cast<unsigned>(static_cast<unsigned char>(text[i])); };
  for (std::size_t i = 0; i < text.size();) {
    std::size_t const length = at(i) < 0x80 ? 1 : at(i) < 0xE0 ? 2 : at(i) < 0xF0 ? 3 : 4;
    if (i + length > text.size()) return false;
    unsigned code = length == 1 ? at(i) : at(i) & (0xFFU >> (length + 1));
    for (std::size_t k = 1; k < length; ++k) {
      if ((at(i + k) & 0xC0U) != 0x80) return false;
      code = code << 6 | (at(i + k) & 0x3FU);
    }
    unsigned const lowest = length == 1 ? 0 : length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
    if (code < lowest || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return false;
    i += length;
  }
  return true;
}

TEST(Utf8Stream, ReplacesMaximalSubparts) {
  for (Case const& c : cases()) EXPECT_EQ(valid_utf8(c.bytes), c.text) << testing::PrintToString(c.bytes);
}

TEST(Utf8Stream, DoesNotDependOnWhereTheTextIsCut) {
  for (Case const& c : cases())
    for (std::size_t cut = 0; cut <= c.bytes.size(); ++cut) {
      Utf8Stream stream;
      std::string text;
      stream.put(std::string_view(c.bytes).substr(0, cut), text);
      EXPECT_TRUE(is_valid(text)) << "a character was split";
      EXPECT_EQ(text, c.text.substr(0, text.size()));
      stream.put(std::string_view(c.bytes).substr(cut), text);
      stream.finish(text);
      EXPECT_EQ(text, c.text) << testing::PrintToString(c.bytes) << " cut at " << cut;
    }
}

TEST(Utf8Stream, ShowsACharacterWithItsLastByte) {
  Utf8Stream stream;
  std::string text;
  stream.put("\xF0\x9F\x98", text);
  EXPECT_EQ(text, "");
  stream.put(0x80, text);
  EXPECT_EQ(text, "\xF0\x9F\x98\x80");
  stream.put(0xE2, text);
  stream.put('a', text);
  EXPECT_EQ(text, "\xF0\x9F\x98\x80" + U + "a");
  stream.finish(text);
  EXPECT_EQ(text, "\xF0\x9F\x98\x80" + U + "a") << "nothing was left";
}

TEST(Utf8Stream, BeginsAnewAfterTheEnd) {
  Utf8Stream stream;
  std::string text;
  stream.put("\xE2\x82", text);
  stream.finish(text);
  stream.put("\xAC", text);
  stream.finish(text);
  EXPECT_EQ(text, U + U);
}

TEST(Utf8Stream, RandomBytesBecomeValid) {
  test::Random random(1);
  for (int round = 0; round < 300; ++round) {
    std::string bytes;
    // Bytes near the borders of the ranges come up often.
    char const* const edges = "\x7F\x80\x8F\x90\x9F\xA0\xBF\xC0\xC1\xC2\xDF\xE0\xE1\xED\xEF\xF0\xF4\xF5\xFF";
    for (int i = 0; i < 60; ++i)
      bytes.push_back(random.next() % 2 == 0 ? edges[random.next() % 19] : static_cast<char>(random.next()));
    std::string const text = valid_utf8(bytes);
    EXPECT_TRUE(is_valid(text));
    EXPECT_EQ(valid_utf8(text), text);
  }
}

}  // namespace
}  // namespace strata::generate
