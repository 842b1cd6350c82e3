// SPDX-License-Identifier: Apache-2.0
#pragma once
// Elementwise comparison of a kernel's result in precision T with a naive reference in double. The bound of
// each element is factor * epsilon(T) * size, where size is the sum of the absolute values of the terms that
// the reference added up.

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "unit_tests/support/dual.hpp"
#include "unit_tests/support/owned.hpp"

namespace strata::test {

/// Every |got - wanted| <= factor * epsilon(T) * size. A NaN agrees with a NaN only, an infinity with itself
/// only.
template <class T>
testing::AssertionResult near(std::vector<double> const& got, std::vector<Scaled> const& wanted,
                              double factor) {
  if (got.size() != wanted.size())
    return testing::AssertionFailure() << "sizes differ: got " << got.size() << ", wanted " << wanted.size();
  double worst = 0;
  std::size_t where = 0, wrong = 0;
  auto const bound_of = [&](std::size_t i) {
    return factor * static_cast<double>(std::numeric_limits<T>::epsilon()) * wanted[i].size +
           static_cast<double>(std::numeric_limits<T>::min());
  };
  for (std::size_t i = 0; i < got.size(); ++i) {
    long double const w = wanted[i].value;
    if ((std::isnan(got[i]) && std::isnan(w)) || got[i] == w) continue;
    auto ratio = static_cast<double>(std::fabs(got[i] - w) / bound_of(i));
    if (std::isnan(ratio)) ratio = std::numeric_limits<double>::infinity();
    if (ratio > 1) ++wrong;
    if (ratio > worst) {
      worst = ratio;
      where = i;
    }
  }
  if (wrong == 0) return testing::AssertionSuccess() << "worst error " << worst << " of the bound";
  return testing::AssertionFailure() << wrong << " of " << got.size()
                                     << " elements are wrong; worst at index " << where << ": got "
                                     << got[where] << ", wanted " << wanted[where].value << ", bound "
                                     << bound_of(where);
}

/// The same for arrays of a test, which must also have kept their guard cells.
template <class T, template <class> class Owned>
testing::AssertionResult near(Owned<T> const& got, std::vector<Scaled> const& wanted, double factor) {
  if (!got.guards_intact()) return testing::AssertionFailure() << "wrote outside the span";
  return near<T>(got.values(), wanted, factor);
}

/// The same numbers, bit for bit but for the payload of a NaN.
inline testing::AssertionResult same(std::vector<double> const& got, std::vector<double> const& wanted) {
  if (got.size() != wanted.size())
    return testing::AssertionFailure() << "sizes differ: got " << got.size() << ", wanted " << wanted.size();
  for (std::size_t i = 0; i < got.size(); ++i) {
    bool const equal = got[i] == wanted[i] && std::signbit(got[i]) == std::signbit(wanted[i]);
    if (!equal && !(std::isnan(got[i]) && std::isnan(wanted[i])))
      return testing::AssertionFailure() << "index " << i << ": got " << got[i] << ", wanted " << wanted[i];
  }
  return testing::AssertionSuccess();
}

}  // namespace strata::test
