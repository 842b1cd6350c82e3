// SPDX-License-Identifier: Apache-2.0
#pragma once
// Naive bias + GELU + dropout over a scalar type S (support/dual.hpp).

#include <cmath>
#include <cstddef>
#include <vector>

namespace strata::test::reference {

/// scales: what dropout multiplies each element with; empty for none.
template <class S>
std::vector<S> bias_gelu(std::vector<S> const& h, std::vector<S> const& bias,
                         std::vector<double> const& scales) {
  using std::erf;
  std::vector<S> y(h.size());
  for (std::size_t i = 0; i < h.size(); ++i) {
    S const x = h[i] + bias[i % bias.size()];
    y[i] = S(0.5) * x * (S(1) + erf(x / S(std::sqrt(2.0))));
    if (!scales.empty()) y[i] = y[i] * S(scales[i]);
  }
  return y;
}

}  // namespace strata::test::reference
