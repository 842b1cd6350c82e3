// SPDX-License-Identifier: Apache-2.0
#pragma once
// Naive SiLU gate and gated RMS norm over a scalar type S (support/dual.hpp).

#include <cmath>
#include <cstddef>
#include <vector>

namespace strata::test::reference {

template <class S>
std::vector<S> silu_gate(std::vector<S> const& y, std::vector<S> const& z) {
  using std::exp;
  std::vector<S> o;
  for (std::size_t i = 0; i < y.size(); ++i) o.push_back(y[i] * z.at(i) / (S(1) + exp(-z[i])));
  return o;
}

template <class S>
std::vector<S> gated_rms_norm(std::vector<S> const& y, std::vector<S> const& z, std::vector<S> const& gain) {
  using std::sqrt;
  std::vector<S> o = silu_gate(y, z);
  for (std::size_t start = 0; start < o.size(); start += gain.size()) {
    S square = 0;
    for (std::size_t j = 0; j < gain.size(); ++j) square += o[start + j] * o[start + j];
    S const root = sqrt(square / S(static_cast<double>(gain.size())) + S(1e-5));
    for (std::size_t j = 0; j < gain.size(); ++j) o[start + j] = o[start + j] / root * gain[j];
  }
  return o;
}

struct GateGradients {
  std::vector<double> dy, dz, dgain;
};

inline GateGradients silu_gate_backward(std::vector<double> const& dout, std::vector<double> const& y,
                                        std::vector<double> const& z) {
  GateGradients out;
  for (std::size_t i = 0; i < y.size(); ++i) {
    double const s = 1 / (1 + std::exp(-z.at(i)));
    out.dy.push_back(dout.at(i) * z[i] * s);
    out.dz.push_back(dout[i] * y[i] * (s + z[i] * s * (1 - s)));
  }
  return out;
}

inline GateGradients gated_rms_norm_backward(std::vector<double> const& dout, std::vector<double> const& y,
                                             std::vector<double> const& z, std::vector<double> const& gain) {
  std::vector<double> const g = silu_gate(y, z);
  std::vector<double> dg(g.size()), dgain(gain.size(), 0);
  auto const width = static_cast<double>(gain.size());
  for (std::size_t start = 0; start < g.size(); start += gain.size()) {
    long double square = 0, dot = 0;  // else 5000 columns leave more rounding here than in the kernel
    for (std::size_t j = 0; j < gain.size(); ++j) {
      square += g[start + j] * g[start + j];
      dot += gain[j] * dout.at(start + j) * g[start + j];
    }
    double const pull = static_cast<double>(dot) / width;
    double const root = std::sqrt(static_cast<double>(square) / width + 1e-5);
    for (std::size_t j = 0; j < gain.size(); ++j) {
      dg[start + j] = gain[j] * dout[start + j] / root - g[start + j] * pull / (root * root * root);
      dgain[j] += dout[start + j] * g[start + j] / root;
    }
  }
  GateGradients out = silu_gate_backward(dg, y, z);
  out.dgain = dgain;
  return out;
}

}  // namespace strata::test::reference
