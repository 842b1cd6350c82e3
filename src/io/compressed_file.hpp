// SPDX-License-Identifier: Apache-2.0
#pragma once
// The file that `strata compress` writes (doc/formats.md, "Compressed file"): what is needed to decode it,
// and the streams. Two checksums, one of the file itself and one of what it decodes to.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/common/types.hpp"

namespace strata::io {

using kernels::Index;

/// Consecutive windows that one arithmetic coder has gone through.
struct CodedStream {
  Index windows = 0;
  std::vector<std::uint8_t> bytes;
};

struct CompressedFile {
  std::string digest;             ///< of the model: the first 32 hexadecimal digits
  std::uint32_t content_crc = 0;  ///< CRC-32 of the content
  Index length = 0;               ///< bytes of content
  Index window = 1;               ///< bytes that the model sees before it starts anew
  std::vector<CodedStream> streams;

  Index windows() const { return length / window + (length % window > 0 ? 1 : 0); }
};

/// Digits of a model's digest that a file stores.
constexpr std::size_t stored_digits = 32;

/// The digest must have at least stored_digits hexadecimal digits.
std::vector<std::uint8_t> to_bytes(CompressedFile const& file);

/// The same, checked: every sum and every count. `name` is for messages. Throws core::InputError when the
/// bytes are no compressed file, or one that is damaged, cut short or of a later version.
CompressedFile parse_compressed(std::span<std::uint8_t const> bytes, std::string const& name);

}  // namespace strata::io
