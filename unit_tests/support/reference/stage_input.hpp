// SPDX-License-Identifier: Apache-2.0
#pragma once
// A stage's input rows for any scalar: the oracle of
// kernels/stage_input.hpp.

#include <cmath>
#include <cstddef>
#include <vector>

#include "unit_tests/support/reference/embedding.hpp"

namespace strata::test::reference {

enum class Positions { none, table, rotation };

/// embedded (rows that read a sub-patch, D), start (D), table (patches, D), context (count * patches, D) or
/// empty. The angles are computed here, in double, from their definition.
template <class S>
std::vector<S> stage_input(Span const& span, std::size_t width, std::size_t lag, Positions kind,
                           std::vector<S> const& embedded, std::vector<S> const& start,
                           std::vector<S> const& table, std::vector<S> const& context) {
  std::vector<S> x;
  std::size_t next_embedded = 0;
  for (std::size_t k = 0; k < span.count; ++k) {
    for (std::size_t t = span.first_position; t < span.first_position + span.length; ++t) {
      std::vector<S> row(width);
      if (t == 0) {
        row = start;
      } else {
        for (std::size_t d = 0; d < width; ++d) row[d] = embedded[next_embedded * width + d];
        ++next_embedded;
        std::size_t const j = t - 1;
        if (kind == Positions::table) {
          for (std::size_t d = 0; d < width; ++d) row[d] = row[d] + table[j * width + d];
        } else if (kind == Positions::rotation) {
          for (std::size_t d = 0; d + 1 < width; d += 2) {
            double const angle = double(j) * std::pow(10000.0, -double(d) / double(width));
            S const a = row[d], b = row[d + 1];
            row[d] = a * S(std::cos(angle)) - b * S(std::sin(angle));
            row[d + 1] = b * S(std::cos(angle)) + a * S(std::sin(angle));
          }
        }
      }
      if (!context.empty() && t >= lag) {
        std::size_t const slot = k * span.patches + t - lag;
        for (std::size_t d = 0; d < width; ++d) row[d] = row[d] + context[slot * width + d];
      }
      x.insert(x.end(), row.begin(), row.end());
    }
  }
  return x;
}

}  // namespace strata::test::reference
