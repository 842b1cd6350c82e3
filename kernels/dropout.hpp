// SPDX-License-Identifier: Apache-2.0
#pragma once
// Dropout masks as a pure function of (seed, site, row of the training stream, column), by the counter-based generator
// Philox4x32-10 (Random123). Nothing is stored: backward and recomputation draw the same numbers again, and neither
// ranks nor threads nor chunk sizes change them.

#include <Random123/philox.h>

#include "kernels/common/types.hpp"

namespace strata::kernels {

/// The numbers one sub-layer draws. A default-constructed Dropout keeps everything.
struct Dropout {
  double probability = 0;
  std::uint64_t seed = 0;
  std::uint32_t site = 0;  ///< which stage, layer and sub-layer
  /// Row r of a call is row base + (r / length) * stride + r % length of the training stream.
  Index base = 0, length = 1, stride = 1;

  KOKKOS_INLINE_FUNCTION bool active() const { return probability > 0; }

  /// 0 for a dropped element, 1 / (1 - probability) for a kept one. `head` separates the heads of attention.
  template <class T>
  KOKKOS_INLINE_FUNCTION T scale(Index row, Index column, std::uint32_t head = 0) const {
    auto const id = static_cast<std::uint64_t>(base + (row / length) * stride + row % length);
    r123::Philox4x32::ctr_type const counter{
        {static_cast<std::uint32_t>(id), static_cast<std::uint32_t>(id >> 32) ^ (head << 16),
         static_cast<std::uint32_t>(column / 4), site}};
    r123::Philox4x32::key_type const key{
        {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)}};
    auto const words = r123::Philox4x32()(counter, key);
    double const uniform = (words[static_cast<unsigned>(column % 4)] + 0.5) * (1.0 / 4294967296.0);
    return uniform < probability ? T(0) : static_cast<T>(1.0 / (1.0 - probability));
  }
};

}  // namespace strata::kernels
