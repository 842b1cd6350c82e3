// SPDX-License-Identifier: Apache-2.0
#pragma once
// Naive half-split rotary positions: v turned by angles p * f[c] (angles given, as (length, d / 2)).

#include <cmath>
#include <cstddef>
#include <vector>

namespace strata::test::reference {

/// One head's vector of d features turned by d / 2 angles, or back where direction = -1.
template <class S>
std::vector<S> rotate_half_split(std::vector<S> const& v, std::vector<double> const& angles,
                                 double direction) {
  std::size_t const pairs = v.size() / 2;
  std::vector<S> out(v.size());
  for (std::size_t c = 0; c < pairs; ++c) {
    double const cosine = std::cos(angles[c]), sine = direction * std::sin(angles[c]);
    out[c] = v[c] * S(cosine) - v[c + pairs] * S(sine);
    out[c + pairs] = v[c + pairs] * S(cosine) + v[c] * S(sine);
  }
  return out;
}

}  // namespace strata::test::reference
