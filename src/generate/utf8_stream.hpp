// SPDX-License-Identifier: Apache-2.0
#pragma once
// Bytes that arrive one at a time, as valid UTF-8: whole characters only, and U+FFFD for what is none.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace strata::generate {

/// A broken sequence becomes one U+FFFD for each maximal subpart (The Unicode Standard, section 3.9, "U+FFFD
/// Substitution of Maximal Subparts"): the longest beginning of a character counts once, any other byte by
/// itself.
class Utf8Stream {
 public:
  /// Appends to `out` the characters that `byte` completes: none, one, or a U+FFFD and a character.
  void put(std::uint8_t byte, std::string& out);
  void put(std::string_view bytes, std::string& out);
  /// The end of the text: a character that is not complete becomes U+FFFD.
  void finish(std::string& out);

 private:
  void begin(std::uint8_t byte, std::string& out);

  std::array<char, 4> pending_ = {};
  std::size_t have_ = 0, need_ = 0;        ///< bytes of the character under way; none: 0
  std::uint8_t lowest_ = 0, highest_ = 0;  ///< what its next byte may be
};

/// The whole of a text at once.
std::string valid_utf8(std::string_view bytes);

}  // namespace strata::generate
