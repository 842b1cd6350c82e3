// SPDX-License-Identifier: Apache-2.0
#pragma once
// A batch of token windows in the memory that kernels read, from lists of tokens.

#include <Kokkos_Core.hpp>
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/embedding.hpp"
#include "unit_tests/support/random.hpp"

namespace strata::test {

/// `count` windows of random lengths up to `longest` (the first one is full) with tokens below `kinds`.
inline std::vector<std::vector<int>> random_windows(std::size_t count, std::size_t longest, int kinds,
                                                    std::uint64_t seed) {
  Random random(seed);
  std::vector<std::vector<int>> windows(count);
  for (std::size_t b = 0; b < count; ++b) {
    windows[b].resize(b == 0 ? longest : std::size_t(random.next() % (longest + 1)));
    for (int& token : windows[b]) token = int(random.next() % std::uint64_t(kinds));
  }
  return windows;
}

/// Holds the windows as bytes or as 16-bit ids, `slack` cells further apart than their padded length; the
/// cells that no token occupies hold 255, so that reading one instead of the pad shows.
class TokenBatch {
 public:
  TokenBatch(std::vector<std::vector<int>> const& windows, std::size_t padded_length, int pad, bool wide,
             std::size_t slack = 3)
      : bytes_("strata::test::TokenBatch::bytes", wide ? 0 : windows.size() * (padded_length + slack)),
        ids_("strata::test::TokenBatch::ids", wide ? windows.size() * (padded_length + slack) : 0),
        lengths_("strata::test::TokenBatch::lengths", windows.size()) {
    std::size_t const stride = padded_length + slack;
    auto const bytes = Kokkos::create_mirror_view(bytes_);
    auto const ids = Kokkos::create_mirror_view(ids_);
    auto const lengths = Kokkos::create_mirror_view(lengths_);
    for (std::size_t b = 0; b < windows.size(); ++b) {
      lengths(b) = kernels::Index(windows[b].size());
      for (std::size_t i = 0; i < stride; ++i) {
        int const token = i < windows[b].size() ? windows[b][i] : 255;
        if (wide) {
          ids(b * stride + i) = std::uint16_t(token);
        } else {
          bytes(b * stride + i) = std::uint8_t(token);
        }
      }
    }
    Kokkos::deep_copy(bytes_, bytes);
    Kokkos::deep_copy(ids_, ids);
    Kokkos::deep_copy(lengths_, lengths);
    tokens_ = {wide ? nullptr : bytes_.data(),
               wide ? ids_.data() : nullptr,
               lengths_.data(),
               kernels::Index(windows.size()),
               kernels::Index(stride),
               kernels::Index(padded_length),
               pad};
  }

  kernels::Tokens const& tokens() const { return tokens_; }

 private:
  Kokkos::View<std::uint8_t*, kernels::MemSpace> bytes_;
  Kokkos::View<std::uint16_t*, kernels::MemSpace> ids_;
  Kokkos::View<kernels::Index*, kernels::MemSpace> lengths_;
  kernels::Tokens tokens_;
};

}  // namespace strata::test
