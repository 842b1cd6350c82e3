// SPDX-License-Identifier: Apache-2.0
#pragma once
// Arrays that own their memory for tests: made of NaN, with guard cells before, after and (if strided)
// between the rows, and read back to the host as doubles.

#include <Kokkos_Core.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "kernels/common/types.hpp"
#include "unit_tests/support/random.hpp"

namespace strata::test {

using kernels::Index;

/// `strided`: the span is a range of columns of a wider matrix.
enum class Storage { contiguous, strided };

/// A matrix of (rows, columns); starts out as NaN.
template <class T>
class OwnedMat {
 public:
  OwnedMat(Index rows, Index columns, Storage storage = Storage::contiguous)
      : rows_(rows),
        columns_(columns),
        left_(storage == Storage::strided ? 3 : 0),
        pitch_(storage == Storage::strided ? columns + 8 : columns),
        cells_("strata::test::OwnedMat", static_cast<std::size_t>(rows_ * pitch_ + 2 * guard)) {
    fill_nan();
  }
  /// With given values, row by row.
  OwnedMat(Index rows, Index columns, std::vector<double> const& values,
           Storage storage = Storage::contiguous)
      : OwnedMat(rows, columns, storage) {
    fill(values);
  }
  /// With random values in [low, high).
  static OwnedMat random(Index rows, Index columns, std::uint64_t seed, Storage storage = Storage::contiguous,
                         double low = -1, double high = 1) {
    return OwnedMat(rows, columns, random_values(static_cast<std::size_t>(rows * columns), seed, low, high),
                    storage);
  }

  kernels::Mat<T> span() const {
    kernels::Mat<T> const whole(cells_.data() + guard, rows_, pitch_);
    return kernels::columns<T>(whole, left_, left_ + columns_);
  }
  kernels::Mat<T const> const_span() const { return span(); }

  /// Also renews the guard cells.
  void fill(std::vector<double> const& values) {
    if (values.size() != static_cast<std::size_t>(rows_ * columns_)) throw std::logic_error("wrong size");
    auto const host = Kokkos::create_mirror_view(cells_);
    Kokkos::deep_copy(host, guard_value);
    for (Index r = 0; r < rows_; ++r)
      for (Index c = 0; c < columns_; ++c)
        host(cell(r, c)) = static_cast<T>(values[static_cast<std::size_t>(r * columns_ + c)]);
    Kokkos::deep_copy(cells_, host);
  }
  void fill(double value) { fill(std::vector<double>(static_cast<std::size_t>(rows_ * columns_), value)); }
  void fill_nan() { fill(std::numeric_limits<double>::quiet_NaN()); }

  /// The values on the host, row by row. Waits for all kernels.
  std::vector<double> values() const {
    auto const host = to_host();
    std::vector<double> result;
    result.reserve(static_cast<std::size_t>(rows_ * columns_));
    for (Index r = 0; r < rows_; ++r)
      for (Index c = 0; c < columns_; ++c) result.push_back(host(cell(r, c)));
    return result;
  }
  /// Whether nothing was written outside the span.
  bool guards_intact() const {
    auto const host = to_host();
    Index untouched = 0;
    for (std::size_t i = 0; i < host.extent(0); ++i) untouched += host(i) == guard_value ? 1 : 0;
    Index guards_inside = 0;
    for (double const v : values()) guards_inside += v == static_cast<double>(guard_value) ? 1 : 0;
    return untouched - guards_inside == static_cast<Index>(host.extent(0)) - rows_ * columns_;
  }

 private:
  static constexpr Index guard = 16;
  static constexpr T guard_value = T(-12345.678);

  std::size_t cell(Index r, Index c) const {
    return static_cast<std::size_t>(guard + r * pitch_ + left_ + c);
  }
  auto to_host() const {
    Kokkos::fence();
    auto const host = Kokkos::create_mirror_view(cells_);
    Kokkos::deep_copy(host, cells_);
    return host;
  }

  Index rows_, columns_, left_, pitch_;
  Kokkos::View<T*, kernels::MemSpace> cells_;
};

/// A vector of n numbers; starts out as NaN.
template <class T>
class OwnedVec {
 public:
  explicit OwnedVec(Index n) : cells_(1, n), n_(n) {}
  OwnedVec(Index n, std::vector<double> const& values) : cells_(1, n, values), n_(n) {}
  static OwnedVec random(Index n, std::uint64_t seed, double low = -1, double high = 1) {
    return OwnedVec(n, random_values(static_cast<std::size_t>(n), seed, low, high));
  }

  kernels::Vec<T> span() const { return kernels::Vec<T>(cells_.span().data(), n_); }
  kernels::Vec<T const> const_span() const { return span(); }
  void fill(std::vector<double> const& values) { cells_.fill(values); }
  void fill(double value) { cells_.fill(value); }
  void fill_nan() { cells_.fill_nan(); }
  std::vector<double> values() const { return cells_.values(); }
  bool guards_intact() const { return cells_.guards_intact(); }

 private:
  OwnedMat<T> cells_;
  Index n_;
};

}  // namespace strata::test
