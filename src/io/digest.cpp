// SPDX-License-Identifier: Apache-2.0
#include "io/digest.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace strata::io {

namespace {

/// First 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4,
/// section 4.2.2).
constexpr std::array<std::uint32_t, 64> round_constants{
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

std::uint32_t load_big_endian(std::uint8_t const* p) {
  return (std::uint32_t{p[0]} << 24) | (std::uint32_t{p[1]} << 16) | (std::uint32_t{p[2]} << 8) | p[3];
}

/// table[k][b]: the remainder of byte b followed by k zero bytes, so that eight bytes are folded at a time.
using CrcTables = std::array<std::array<std::uint32_t, 256>, 8>;

constexpr CrcTables make_crc_tables() {
  CrcTables tables{};
  for (std::uint32_t b = 0; b < 256; ++b) {
    std::uint32_t value = b;
    for (int bit = 0; bit < 8; ++bit) value = (value & 1U) != 0 ? (value >> 1) ^ 0xEDB88320U : value >> 1;
    tables[0][b] = value;
  }
  for (std::size_t k = 1; k < 8; ++k) {
    for (std::size_t b = 0; b < 256; ++b) {
      std::uint32_t const before = tables[k - 1][b];
      tables[k][b] = (before >> 8) ^ tables[0][before & 0xFFU];
    }
  }
  return tables;
}

constexpr CrcTables crc_tables = make_crc_tables();

}  // namespace

void Sha256::block(std::uint8_t const* data) {
  std::array<std::uint32_t, 64> w{};
  for (std::size_t i = 0; i < 16; ++i) w[i] = load_big_endian(data + 4 * i);
  for (std::size_t i = 16; i < 64; ++i) {
    std::uint32_t const s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
    std::uint32_t const s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state_;
  for (std::size_t i = 0; i < 64; ++i) {
    std::uint32_t const s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    std::uint32_t const t1 = h + s1 + ((e & f) ^ (~e & g)) + round_constants[i] + w[i];
    std::uint32_t const s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    std::uint32_t const t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = d + t1;
    d = c;
    c = b;
    b = a;
    a = t1 + t2;
  }
  std::array<std::uint32_t, 8> const sum{a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < 8; ++i) state_[i] += sum[i];
}

void Sha256::update(std::span<std::uint8_t const> data) {
  length_ += data.size();
  if (filled_ > 0) {
    std::size_t const part = std::min(data.size(), pending_.size() - filled_);
    std::copy_n(data.data(), part, pending_.data() + filled_);
    filled_ += part;
    data = data.subspan(part);
    if (filled_ < pending_.size()) return;
    block(pending_.data());
    filled_ = 0;
  }
  while (data.size() >= pending_.size()) {
    block(data.data());
    data = data.subspan(pending_.size());
  }
  std::copy(data.begin(), data.end(), pending_.begin());
  filled_ = data.size();
}

void Sha256::update(std::string const& text) {
  update(std::span(reinterpret_cast<std::uint8_t const*>(text.data()), text.size()));
}

std::string Sha256::finish() {
  std::uint64_t const bits = length_ * 8;
  std::array<std::uint8_t, 72> padding{0x80};
  std::size_t const zeros = (filled_ < 56 ? 56 : 120) - filled_;
  for (std::size_t i = 0; i < 8; ++i) padding[zeros + i] = static_cast<std::uint8_t>(bits >> (56 - 8 * i));
  update(std::span<std::uint8_t const>(padding.data(), zeros + 8));
  std::string text;
  for (std::uint32_t const word : state_) {
    for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[(word >> shift) & 15U];
  }
  return text;
}

std::uint32_t crc32(std::span<std::uint8_t const> data, std::uint32_t crc) {
  auto const& t = crc_tables;
  crc = ~crc;
  while (data.size() >= 8) {
    auto const* p = data.data();
    std::uint32_t const low =
        crc ^ (p[0] | (std::uint32_t{p[1]} << 8) | (std::uint32_t{p[2]} << 16) | (std::uint32_t{p[3]} << 24));
    crc = t[7][low & 0xFFU] ^ t[6][(low >> 8) & 0xFFU] ^ t[5][(low >> 16) & 0xFFU] ^ t[4][low >> 24] ^
          t[3][p[4]] ^ t[2][p[5]] ^ t[1][p[6]] ^ t[0][p[7]];
    data = data.subspan(8);
  }
  for (std::uint8_t const byte : data) crc = (crc >> 8) ^ t[0][(crc ^ byte) & 0xFFU];
  return ~crc;
}

std::uint32_t crc32_joined(std::uint32_t first, std::uint32_t second, std::uint64_t second_length) {
  // Appending n zero bytes multiplies the polynomial of the first piece by x^(8 n); the start and end values
  // of the two checksums cancel. Coefficients run from the highest bit down: 1 is 0x80000000.
  auto const product = [](std::uint32_t a, std::uint32_t b) {
    std::uint32_t result = 0;
    for (std::uint32_t bit = 0x80000000U; bit != 0; bit >>= 1) {
      if ((a & bit) != 0) result ^= b;
      b = (b & 1U) != 0 ? (b >> 1) ^ 0xEDB88320U : b >> 1;
    }
    return result;
  };
  std::uint32_t power = 0x00800000U;  // x^8
  for (std::uint64_t n = second_length; n != 0; n >>= 1) {
    if ((n & 1U) != 0) first = product(first, power);
    power = product(power, power);
  }
  return first ^ second;
}

}  // namespace strata::io
