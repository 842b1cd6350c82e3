// SPDX-License-Identifier: Apache-2.0
#pragma once
// Softmax cross-entropy for any scalar and the rules for what each row predicts: the oracle of
// kernels/cross_entropy.hpp.

#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "unit_tests/support/reference/embedding.hpp"

namespace strata::test::reference {

/// What row (k, t) of the last stage predicts, as an index into the windows laid end to end with their
/// padding, or -1. `rule` is "same", "next" or "self"; one sub-patch is one byte here.
inline long predicted(Span const& span, std::string const& rule, std::size_t k, std::size_t t,
                      std::vector<std::vector<int>> const& windows, std::size_t padded_length) {
  std::size_t const patch_start = (span.first_sequence + k) * span.patches;
  long target = -1;
  if (rule == "same") {
    target = long(patch_start + t);
  } else if (rule == "self") {
    if (t > 0) target = long(patch_start + t - 1);
  } else if (t > 0) {  // the byte after byte t - 1, unless that byte was the window's last
    std::size_t const read = patch_start + t - 1;
    if (read % padded_length + 1 < padded_length) target = long(read + 1);
  } else if (patch_start % padded_length == 0) {  // the first row of a window predicts its first byte
    target = long(patch_start);
  }
  if (target < 0) return -1;
  std::size_t const window = std::size_t(target) / padded_length;
  return std::size_t(target) % padded_length < windows[window].size() ? target : -1;
}

/// -log softmax(z)[target] for one row.
template <class S>
S row_loss(std::vector<S> const& z, std::size_t target) {
  using std::exp, std::log;
  S top = z[0];
  for (S const& value : z) top = value > top ? value : top;
  S sum = 0;
  for (S const& value : z) sum += exp(value - top);
  return log(sum) + top - z[target];
}

/// Its gradient: softmax(z) - [v == target].
template <class S>
std::vector<S> row_gradient(std::vector<S> const& z, std::size_t target) {
  using std::exp;
  S top = z[0];
  for (S const& value : z) top = value > top ? value : top;
  S sum = 0;
  for (S const& value : z) sum += exp(value - top);
  std::vector<S> gradient;
  for (std::size_t v = 0; v < z.size(); ++v) {
    gradient.push_back(exp(z[v] - top) / sum - S(v == target ? 1.0 : 0.0));
  }
  return gradient;
}

}  // namespace strata::test::reference
