// SPDX-License-Identifier: Apache-2.0
#pragma once
// Naive norms over a scalar type S (support/dual.hpp), written from their definitions.

#include <cmath>
#include <cstddef>
#include <vector>

#include "kernels/norm.hpp"

namespace strata::test::reference {

/// y of the shifted RMS norm; `previous` (count * shifted) or empty.
template <class S>
std::vector<S> shift_rms_norm(kernels::Sequences shape, kernels::RmsForm form, kernels::Index shifted,
                              std::vector<S> const& x, std::vector<S> const& previous,
                              std::vector<S> const& gain) {
  using std::sqrt;
  auto const width = static_cast<kernels::Index>(gain.size());
  std::vector<S> y(x.size());
  for (kernels::Index row = 0; row < shape.rows(); ++row) {
    kernels::Index const sequence = row / shape.length, t = row % shape.length;
    std::vector<S> s(gain.size());
    for (kernels::Index j = 0; j < width; ++j) {
      kernels::Index const lent = j - (width - shifted);
      auto const at = static_cast<std::size_t>(j);
      if (lent < 0) {
        s[at] = x.at(static_cast<std::size_t>(row * width + j));
      } else if (t > 0) {
        s[at] = x.at(static_cast<std::size_t>((row - 1) * width + j));
      } else {
        s[at] = previous.empty() ? S(0) : previous.at(static_cast<std::size_t>(sequence * shifted + lent));
      }
    }
    S square = 0;
    for (S const& v : s) square += v * v;
    S root;
    if (form == kernels::RmsForm::clamped) {
      root = square > S(0) ? S(sqrt(square) / sqrt(S(static_cast<double>(width)))) : S(0);
      if (!(root > S(1e-8))) root = S(1e-8);
    } else {
      root = sqrt(square / S(static_cast<double>(width)) + S(1e-5));
    }
    for (std::size_t j = 0; j < s.size(); ++j)
      y[static_cast<std::size_t>(row) * s.size() + j] = s[j] / root * gain[j];
  }
  return y;
}

template <class S>
std::vector<S> layer_norm(std::vector<S> const& x, std::vector<S> const& gain, std::vector<S> const& bias) {
  using std::sqrt;
  std::size_t const width = gain.size();
  S const features = static_cast<double>(width);
  std::vector<S> y(x.size());
  for (std::size_t start = 0; start < x.size(); start += width) {
    S mean = 0, variance = 0;
    for (std::size_t j = 0; j < width; ++j) mean += x[start + j];
    mean = mean / features;
    for (std::size_t j = 0; j < width; ++j) variance += (x[start + j] - mean) * (x[start + j] - mean);
    variance = variance / features;
    for (std::size_t j = 0; j < width; ++j)
      y[start + j] = (x[start + j] - mean) / sqrt(variance + S(1e-5)) * gain[j] + bias[j];
  }
  return y;
}

}  // namespace strata::test::reference
