// SPDX-License-Identifier: Apache-2.0
#include "generate/arithmetic_coder.hpp"

#include <algorithm>
#include <utility>

#include "kernels/common/check.hpp"

namespace strata::generate {

namespace {

/// Below this the interval's leading byte is put out. Then a unit of frequency, range / 2^32, is at least
/// 2^24, and rounding it down loses at most 2^-24 of the range.
constexpr std::uint64_t least_range = std::uint64_t{1} << 56;

}  // namespace

void ArithmeticEncoder::encode(Share share) {
  STRATA_REQUIRE(share.frequency > 0 && share.start + std::uint64_t{share.frequency} <= coder_total,
                 "a share of " << share.frequency << " from " << share.start << " does not lie within 2^32");
  std::uint64_t const unit = range_ >> 32U, offset = unit * share.start;
  low_ += offset;
  if (low_ < offset) carry();
  range_ = unit * share.frequency;
  for (; range_ < least_range; range_ <<= 8U, low_ <<= 8U)
    bytes_.push_back(static_cast<std::uint8_t>(low_ >> 56U));
}

/// Adds one to the number that the bytes so far make. The whole number stays below 1, so some byte can take
/// it.
void ArithmeticEncoder::carry() {
  std::size_t i = bytes_.size();
  while (++bytes_.at(--i) == 0) {
  }
}

std::vector<std::uint8_t> ArithmeticEncoder::finish() {
  // The number of the interval that ends with most zeros; one byte is enough, as range_ >= least_range.
  for (unsigned count = 0; count <= 1; ++count) {
    std::uint64_t const below = ~std::uint64_t{0} >> (8 * count);
    std::uint64_t const number = (low_ + below) & ~below;
    if (number - low_ >= range_) continue;
    if (number < low_) carry();
    if (count == 1) bytes_.push_back(static_cast<std::uint8_t>(number >> 56U));
    break;
  }
  low_ = 0;
  range_ = ~std::uint64_t{0};
  return std::exchange(bytes_, {});
}

ArithmeticDecoder::ArithmeticDecoder(std::span<std::uint8_t const> stream) : stream_(stream) {
  for (int i = 0; i < 8; ++i) value_ = value_ << 8U | next_byte();
}

std::uint32_t ArithmeticDecoder::target() const {
  return static_cast<std::uint32_t>(std::min(value_ / (range_ >> 32U), coder_total - 1));
}

void ArithmeticDecoder::consume(Share share) {
  std::uint64_t const unit = range_ >> 32U;
  value_ -= unit * share.start;
  range_ = unit * share.frequency;
  for (; range_ < least_range; range_ <<= 8U) value_ = value_ << 8U | next_byte();
}

}  // namespace strata::generate
