// SPDX-License-Identifier: Apache-2.0
#pragma once
// Dropout masks as a pure function of (seed, site, row of the training stream, column), by the counter-based
// generator Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; Random123).
// Nothing is stored: backward and recomputation draw the same numbers again, and neither ranks nor threads
// nor chunk sizes change them.

#include <Random123/philox.h>

#include "kernels/common/types.hpp"

namespace strata::kernels {

/// The numbers one sub-layer draws. A default-constructed Dropout keeps everything.
struct Dropout {
  double probability = 0;  ///< of dropping, in [0, 1)
  std::uint64_t seed = 0;
  std::uint32_t site = 0;  ///< which stage, layer and sub-layer
  /// Row r of a call is row base + (r / length) * stride + r % length of the training stream; below 2^48.
  Index base = 0, length = 1, stride = 1;

  KOKKOS_INLINE_FUNCTION bool active() const { return probability > 0; }

  /// 0 for a dropped element, 1 / (1 - probability) for a kept one. `head` (below 2^16) separates the heads
  /// of attention.
  template <class T>
  KOKKOS_INLINE_FUNCTION T scale(Index row, Index column, std::uint32_t head = 0) const {
    return chosen<T>(words(stream_row(row), column / 4, head)[static_cast<unsigned>(column % 4)]);
  }

  /// scales[i] = scale(row, column + i) for i in [0, width), four to a call of the generator.
  template <class T>
  KOKKOS_INLINE_FUNCTION void fill_scales(Index row, Index column, Index width, T* scales,
                                          std::uint32_t head = 0) const {
    std::uint64_t const id = stream_row(row);
    for (Index quad = column / 4; quad * 4 < column + width; ++quad) {
      auto const drawn = words(id, quad, head);
      for (Index lane = 0; lane < 4; ++lane) {
        Index const i = quad * 4 + lane - column;
        if (i >= 0 && i < width) scales[i] = chosen<T>(drawn[static_cast<unsigned>(lane)]);
      }
    }
  }

  /// What identifies row `row` of a call in the training stream.
  KOKKOS_INLINE_FUNCTION std::uint64_t stream_row(Index row) const {
    return static_cast<std::uint64_t>(base + (row / length) * stride + row % length);
  }
  /// scale(row, 4 * quad + i) for i in [0, 4) with id = stream_row(row). No branches, so that loops over ids
  /// vectorise.
  template <class T>
  KOKKOS_FORCEINLINE_FUNCTION Kokkos::Array<T, 4> quad_scales(std::uint64_t id, Index quad,
                                                              std::uint32_t head = 0) const {
    auto const drawn = words(id, quad, head);
    return {{chosen<T>(drawn[0]), chosen<T>(drawn[1]), chosen<T>(drawn[2]), chosen<T>(drawn[3])}};
  }

 private:
  KOKKOS_INLINE_FUNCTION r123::Philox4x32::ctr_type words(std::uint64_t id, Index quad,
                                                          std::uint32_t head) const {
    r123::Philox4x32::ctr_type const counter{{static_cast<std::uint32_t>(id),
                                              static_cast<std::uint32_t>(id >> 32) ^ (head << 16),
                                              static_cast<std::uint32_t>(quad), site}};
    r123::Philox4x32::key_type const key{
        {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)}};
    return r123::Philox4x32()(counter, key);
  }
  /// Drops when (word + 1/2) / 2^32 < probability, which compares integers once the limit is known.
  template <class T>
  KOKKOS_INLINE_FUNCTION T chosen(std::uint32_t word) const {
    double const limit = probability * 4294967296.0;
    auto const whole = static_cast<std::uint32_t>(limit);
    std::uint32_t const first_kept = whole + (whole + 0.5 < limit ? 1 : 0);
    return word < first_kept ? T(0) : static_cast<T>(1.0 / (1.0 - probability));
  }
};

}  // namespace strata::kernels
