// SPDX-License-Identifier: Apache-2.0
#pragma once
// How the threads of a row turn its attention heads by rotary positions.

#include "kernels/common/row_ops.hpp"

namespace strata::kernels::rotary {

/// f(head, pair) for every pair of features of every head of one row.
template <class F>
KOKKOS_INLINE_FUNCTION void for_pairs(Lanes const& lanes, Index heads, Index pairs, F const& f) {
  if constexpr (on_device) {
    lanes.loop(heads * pairs, [&](Index i) { f(i / pairs, i % pairs); });
  } else {
    for (Index head = 0; head < heads; ++head) lanes.loop(pairs, [&](Index pair) { f(head, pair); });
  }
}

/// out = in with each pair (c, c + pairs) of each head turned by the angle whose cosine and sine the table
/// row holds, backwards where direction = -1. in and out may be the same row.
template <class T>
KOKKOS_INLINE_FUNCTION void rotate(Lanes const& lanes, Index heads, Index head_dim, T direction,
                                   T const* table, T const* in, T* out) {
  Index const pairs = head_dim / 2;
  for_pairs(lanes, heads, pairs, [&](Index head, Index pair) {
    Index const first = head * head_dim + pair, second = first + pairs;
    T const cosine = table[pair], sine = direction * table[pairs + pair];
    T const a = in[first], b = in[second];
    out[first] = a * cosine - b * sine;
    out[second] = b * cosine + a * sine;
  });
}

/// out (n) = in.
template <class T>
KOKKOS_INLINE_FUNCTION void copy(Lanes const& lanes, Index n, T const* in, T* out) {
  lanes.loop(n, [&](Index c) { out[c] = in[c]; });
}

}  // namespace strata::kernels::rotary
