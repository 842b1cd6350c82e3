// SPDX-License-Identifier: Apache-2.0
#pragma once
// The recurrence of Mamba-2, position by position, and its gradient by the recurrence in reverse, in double.

#include <cmath>
#include <cstddef>
#include <vector>

#include "kernels/ssd.hpp"
#include "unit_tests/support/dual.hpp"

namespace strata::test::reference {

inline double softplus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }
inline Dual softplus(Dual x) { return {softplus(x.value), x.slope / (1 + std::exp(-x.value))}; }

/// Everything that goes in, or the gradient of all of it. Layouts as in kernels/ssd.hpp.
template <class S>
struct Ssd {
  std::vector<S> x, b, c, dt, dt_bias, a_log, d, state;
};

template <class S>
struct SsdResult {
  std::vector<S> y, state;
  std::vector<S> states;  ///< before each position: (rows, heads * N * p)
};

template <class S>
SsdResult<S> ssd(kernels::SsdShape const& shape, Ssd<S> const& in) {
  using std::exp;
  auto const size = [](kernels::Index n) { return static_cast<std::size_t>(n); };
  std::size_t const heads = size(shape.heads), p = size(shape.head_width), n_states = size(shape.state);
  std::size_t const length = size(shape.sequences.length), rows = size(shape.sequences.rows());
  std::size_t const all = heads * n_states * p;
  SsdResult<S> out{std::vector<S>(rows * heads * p), in.state, {}};
  for (std::size_t row = 0; row < rows; ++row) {
    S* const state = out.state.data() + row / length * all;
    out.states.insert(out.states.end(), state, state + all);
    for (std::size_t h = 0; h < heads; ++h) {
      S const step = softplus(in.dt[row * heads + h] + in.dt_bias[h]);
      S const decay = exp(-(step * exp(in.a_log[h])));
      for (std::size_t f = 0; f < p; ++f) {
        S const x = in.x[(row * heads + h) * p + f];
        S y = in.d[h] * x;
        for (std::size_t n = 0; n < n_states; ++n) {
          S& s = state[(h * n_states + n) * p + f];
          s = decay * s + step * in.b[row * n_states + n] * x;
          y += s * in.c[row * n_states + n];
        }
        out.y[(row * heads + h) * p + f] = y;
      }
    }
  }
  return out;
}

/// Gradients for dy and, in `dstate`, the gradient of the last state.
inline Ssd<double> ssd_gradient(kernels::SsdShape const& shape, Ssd<double> const& in,
                                std::vector<double> const& dy, std::vector<double> const& dstate) {
  auto const size = [](kernels::Index n) { return static_cast<std::size_t>(n); };
  std::size_t const heads = size(shape.heads), p = size(shape.head_width), n_states = size(shape.state);
  std::size_t const length = size(shape.sequences.length), rows = size(shape.sequences.rows());
  std::size_t const all = heads * n_states * p;
  std::vector<double> const states = ssd(shape, in).states;
  Ssd<double> g;
  g.x.resize(in.x.size());
  g.b.resize(in.b.size());
  g.c.resize(in.c.size());
  g.dt.resize(in.dt.size());
  g.dt_bias.resize(heads);
  g.a_log.resize(heads);
  g.d.resize(heads);
  g.state = dstate;
  for (std::size_t row = rows; row-- > 0;) {
    double* const ds = g.state.data() + row / length * all;
    for (std::size_t h = 0; h < heads; ++h) {
      double const raw = in.dt[row * heads + h] + in.dt_bias[h], step = softplus(raw);
      double const a = -std::exp(in.a_log[h]), decay = std::exp(step * a);
      double dstep = 0, ddecay = 0;
      for (std::size_t f = 0; f < p; ++f) {
        std::size_t const at = (row * heads + h) * p + f;
        double const x = in.x[at], out = dy[at];
        double through = 0;
        for (std::size_t n = 0; n < n_states; ++n) {
          std::size_t const number = (h * n_states + n) * p + f;
          double const before = states[row * all + number], b = in.b[row * n_states + n];
          g.c[row * n_states + n] += out * (decay * before + step * b * x);
          ds[number] += out * in.c[row * n_states + n];
          g.b[row * n_states + n] += ds[number] * step * x;
          through += ds[number] * b;
          ddecay += ds[number] * before;
          ds[number] *= decay;
        }
        g.x[at] = in.d[h] * out + step * through;
        dstep += x * through;
        g.d[h] += out * x;
      }
      dstep += a * decay * ddecay;
      g.a_log[h] += a * step * decay * ddecay;
      double const ddt = dstep / (1 + std::exp(-raw));
      g.dt[row * heads + h] = ddt;
      g.dt_bias[h] += ddt;
    }
  }
  return g;
}

}  // namespace strata::test::reference
