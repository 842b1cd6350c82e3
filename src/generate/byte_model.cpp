// SPDX-License-Identifier: Apache-2.0
#include "generate/byte_model.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/common/check.hpp"

namespace strata::generate {

bool ByteModel::set(std::span<float const> logits) {
  STRATA_REQUIRE(logits.size() >= 256, logits.size() << " logits are not one for each byte");
  logits = logits.first(256);
  float const* const top = std::max_element(logits.data(), logits.data() + logits.size());
  auto const highest = static_cast<double>(*top);
  std::array<double, 256> weights{};
  double sum = 0;
  for (std::size_t b = 0; b < 256; ++b) {
    weights[b] = std::exp(static_cast<double>(logits[b]) - highest);
    sum += weights[b];
  }
  bool const usable = std::isfinite(sum);
  if (!usable) {
    weights.fill(1);
    sum = 256;
  }
  // One unit for every byte, the others by weight. What rounding down leaves over goes to the likeliest byte.
  double const scale = static_cast<double>(coder_total - 256) / sum;
  std::array<std::uint64_t, 256> units{};
  std::uint64_t left = coder_total;
  for (std::size_t b = 0; b < 256; ++b) {
    units[b] = 1 + std::min(static_cast<std::uint64_t>(weights[b] * scale), left - (256 - b));
    left -= units[b];
  }
  units[static_cast<std::size_t>(top - logits.data())] += left;
  for (std::size_t b = 0; b < 256; ++b) starts_[b + 1] = starts_[b] + units[b];
  return usable;
}

Share ByteModel::share(std::uint8_t byte) const {
  std::size_t const b = byte;
  return {static_cast<std::uint32_t>(starts_[b]), static_cast<std::uint32_t>(starts_[b + 1] - starts_[b])};
}

std::uint8_t ByteModel::find(std::uint32_t cumulative) const {
  auto const after = std::upper_bound(starts_.begin() + 1, starts_.end() - 1, std::uint64_t{cumulative});
  return static_cast<std::uint8_t>(after - starts_.begin() - 1);
}

}  // namespace strata::generate
