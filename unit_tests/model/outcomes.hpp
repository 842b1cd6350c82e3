// SPDX-License-Identifier: Apache-2.0
#pragma once
// Outcomes of training steps that are cut up in different ways, compared.
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "unit_tests/model/small_model.hpp"

namespace strata::test {

/// How far two ways of adding up the same terms may lie apart, of the largest.
template <class T>
constexpr double rounding = std::is_same_v<T, double> ? 1e-12 : 1e-5;

template <class T>
void expect_near(ModelConfig const& config, Outcome<T> const& wanted, Outcome<T> const& got,
                 double tolerance = rounding<T>) {
  EXPECT_NEAR(got.nats, wanted.nats, tolerance * wanted.nats);
  EXPECT_EQ(got.bytes, wanted.bytes);
  ASSERT_EQ(got.gradients.size(), wanted.gradients.size());
  for (std::size_t p = 0; p < wanted.gradients.size(); ++p) {
    double const difference = relative_difference(wanted.gradients[p], got.gradients[p]);
    if (difference <= tolerance) continue;
    ADD_FAILURE() << Hierarchy<T>::plan(config, {}).parameters().all()[p].name << " differs by " << difference
                  << " of its largest element";
  }
}

template <class T>
bool same_bits(Outcome<T> const& a, Outcome<T> const& b) {
  if (std::memcmp(&a.nats, &b.nats, sizeof(double)) != 0 || a.bytes != b.bytes) return false;
  for (std::size_t p = 0; p < a.gradients.size(); ++p)
    if (std::memcmp(a.gradients[p].data(), b.gradients[p].data(), a.gradients[p].size() * sizeof(T)) != 0)
      return false;
  return true;
}

/// Every way to do without kept tapes: intervals from each chunk to more than all, and the automatic one.
inline std::vector<Chunking> rebuilding(Chunking chunking) {
  std::vector<Chunking> result;
  chunking.outer_tapes = OuterTapes::rebuild;
  result.push_back(chunking);
  chunking.outer_tapes = OuterTapes::two_level;
  for (Index const interval : {0, 1, 2, 3, 1000}) {
    chunking.border_interval = interval;
    result.push_back(chunking);
  }
  return result;
}

inline std::string name(Chunking const& c) {
  std::string const cut =
      "outer " + std::to_string(c.outer_positions) + " inner " + std::to_string(c.inner_rows);
  if (c.outer_tapes == OuterTapes::keep) return cut;
  if (c.outer_tapes == OuterTapes::rebuild) return cut + ", rebuilt";
  return cut + ", rebuilt, interval " + std::to_string(c.border_interval);
}

}  // namespace strata::test
