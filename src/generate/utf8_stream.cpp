// SPDX-License-Identifier: Apache-2.0
#include "generate/utf8_stream.hpp"

namespace strata::generate {

namespace {

constexpr char const* replacement = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace

/// The first byte of a character; which second bytes may follow it is Table 3-7 of the standard.
void Utf8Stream::begin(std::uint8_t byte, std::string& out) {
  lowest_ = 0x80;
  highest_ = 0xBF;
  if (byte < 0x80) {
    out.push_back(static_cast<char>(byte));
    return;
  }
  if (byte >= 0xC2 && byte <= 0xDF) {
    need_ = 2;
  } else if (byte >= 0xE0 && byte <= 0xEF) {
    need_ = 3;
    if (byte == 0xE0) lowest_ = 0xA0;   // shorter forms exist
    if (byte == 0xED) highest_ = 0x9F;  // surrogates are no characters
  } else if (byte >= 0xF0 && byte <= 0xF4) {
    need_ = 4;
    if (byte == 0xF0) lowest_ = 0x90;
    if (byte == 0xF4) highest_ = 0x8F;  // nothing above U+10FFFF
  } else {
    out += replacement;
    return;
  }
  pending_[0] = static_cast<char>(byte);
  have_ = 1;
}

void Utf8Stream::put(std::uint8_t byte, std::string& out) {
  if (have_ > 0 && (byte < lowest_ || byte > highest_)) finish(out);
  if (have_ == 0) {
    begin(byte, out);
    return;
  }
  pending_[have_++] = static_cast<char>(byte);
  lowest_ = 0x80;
  highest_ = 0xBF;
  if (have_ < need_) return;
  out.append(pending_.data(), have_);
  have_ = 0;
}

void Utf8Stream::put(std::string_view bytes, std::string& out) {
  for (char const c : bytes) put(static_cast<std::uint8_t>(c), out);
}

void Utf8Stream::finish(std::string& out) {
  if (have_ > 0) out += replacement;
  have_ = 0;
}

std::string valid_utf8(std::string_view bytes) {
  std::string out;
  Utf8Stream stream;
  stream.put(bytes, out);
  stream.finish(out);
  return out;
}

}  // namespace strata::generate
