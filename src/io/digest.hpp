// SPDX-License-Identifier: Apache-2.0
#pragma once
// SHA-256 as FIPS 180-4 defines it, fed piece by piece, and CRC-32 as in zlib.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace strata::io {

class Sha256 {
 public:
  void update(std::span<std::uint8_t const> data);
  void update(std::string const& text);
  /// 64 hexadecimal digits; the object must not be used afterwards.
  std::string finish();

 private:
  void block(std::uint8_t const* data);

  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> pending_{};
  std::size_t filled_ = 0;
  std::uint64_t length_ = 0;
};

/// CRC-32 (polynomial 0xEDB88320), continuing from `crc` of the bytes before; equals Python's
/// zlib.crc32(data, crc).
std::uint32_t crc32(std::span<std::uint8_t const> data, std::uint32_t crc = 0);

/// CRC-32 of two pieces one after the other, from those of each and the length of the second in bytes.
std::uint32_t crc32_joined(std::uint32_t first, std::uint32_t second, std::uint64_t second_length);

}  // namespace strata::io
