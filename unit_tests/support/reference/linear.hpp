// SPDX-License-Identifier: Apache-2.0
#pragma once
// Naive products for any scalar, written from the definition: the oracle of kernels/linear.hpp.

#include <cstddef>
#include <vector>

namespace strata::test::reference {

/// Contiguous matrices, row by row: x (M, K), weight (N, K), bias (N) or empty -> (M, N).
template <class S>
std::vector<S> linear(std::size_t m, std::size_t k, std::size_t n, std::vector<S> const& x,
                      std::vector<S> const& weight, std::vector<S> const& bias) {
  std::vector<S> y(m * n);
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      S sum = bias.empty() ? S(0.0) : bias[j];
      for (std::size_t l = 0; l < k; ++l) sum += x[i * k + l] * weight[j * k + l];
      y[i * n + j] = sum;
    }
  }
  return y;
}

/// dy (M, N), weight (N, K) -> dx (M, K).
template <class S>
std::vector<S> linear_input_gradient(std::size_t m, std::size_t k, std::size_t n, std::vector<S> const& dy,
                                     std::vector<S> const& weight) {
  std::vector<S> dx(m * k);
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t l = 0; l < k; ++l) {
      for (std::size_t j = 0; j < n; ++j) dx[i * k + l] += dy[i * n + j] * weight[j * k + l];
    }
  }
  return dx;
}

/// dy (M, N), x (M, K) -> dweight (N, K).
template <class S>
std::vector<S> linear_weight_gradient(std::size_t m, std::size_t k, std::size_t n, std::vector<S> const& dy,
                                      std::vector<S> const& x) {
  std::vector<S> dweight(n * k);
  for (std::size_t j = 0; j < n; ++j) {
    for (std::size_t l = 0; l < k; ++l) {
      for (std::size_t i = 0; i < m; ++i) dweight[j * k + l] += dy[i * n + j] * x[i * k + l];
    }
  }
  return dweight;
}

}  // namespace strata::test::reference
