// SPDX-License-Identifier: Apache-2.0
#pragma once
// The plain recurrence of the selective scan over a scalar type S (support/dual.hpp) with all states kept,
// and its gradient by the recurrence of the adjoint states, in double.

#include <cmath>
#include <cstddef>
#include <vector>

#include "kernels/selective_scan.hpp"

namespace strata::test::reference {

/// Arrays row by row, contiguous, with the shapes of kernels::SelectiveScanInputs and its gradients; the
/// state (count * channels * state) before the span in inputs, its gradient in gradients.
template <class S>
struct SelectiveScanArrays {
  std::vector<S> delta, delta_bias, x, b, c, a_log, d, state;
};

template <class S>
struct SelectiveScanResult {
  std::vector<S> y;  ///< (rows, channels)
  std::vector<S>
      states;  ///< (count, length + 1, channels, state), the first of each sequence before the span
  /// The state behind the span of each sequence, (count, channels, state).
  std::vector<S> last(kernels::SelectiveScanShape const& shape) const {
    std::size_t const size = static_cast<std::size_t>(shape.channels * shape.state);
    auto const per_sequence = (static_cast<std::size_t>(shape.sequences.length) + 1) * size;
    std::vector<S> result;
    for (std::size_t end = per_sequence; end <= states.size(); end += per_sequence)
      result.insert(result.end(), states.begin() + static_cast<std::ptrdiff_t>(end - size),
                    states.begin() + static_cast<std::ptrdiff_t>(end));
    return result;
  }
};

template <class S>
S softplus(S raw) {
  using std::exp, std::log;
  return raw > S(20) ? raw : log(S(1) + exp(raw));
}

template <class S>
SelectiveScanResult<S> selective_scan(kernels::SelectiveScanShape const& shape,
                                      SelectiveScanArrays<S> const& in) {
  using std::exp;
  auto const count = static_cast<std::size_t>(shape.sequences.count),
             length = static_cast<std::size_t>(shape.sequences.length),
             channels = static_cast<std::size_t>(shape.channels),
             state = static_cast<std::size_t>(shape.state);
  SelectiveScanResult<S> result;
  result.y.resize(count * length * channels);
  result.states.resize(count * (length + 1) * channels * state);
  for (std::size_t s = 0; s < count; ++s) {
    S* h = &result.states[s * (length + 1) * channels * state];
    for (std::size_t i = 0; i < channels * state; ++i) h[i] = in.state.at(s * channels * state + i);
    for (std::size_t t = 0; t < length; ++t, h += channels * state) {
      std::size_t const row = s * length + t;
      for (std::size_t c = 0; c < channels; ++c) {
        S const x = in.x.at(row * channels + c);
        S const step = softplus<S>(in.delta.at(row * channels + c) + in.delta_bias.at(c));
        S y = in.d.at(c) * x;
        for (std::size_t n = 0; n < state; ++n) {
          S const decay = exp(step * -exp(in.a_log.at(c * state + n)));
          S const next = decay * h[c * state + n] + step * x * in.b.at(row * state + n);
          h[(channels + c) * state + n] = next;
          y += next * in.c.at(row * state + n);
        }
        result.y[row * channels + c] = y;
      }
    }
  }
  return result;
}

/// Gradients for dy (rows, channels) and dlast (count, channels, state), the gradient of the state behind.
inline SelectiveScanArrays<double> selective_scan_gradients(kernels::SelectiveScanShape const& shape,
                                                            SelectiveScanArrays<double> const& in,
                                                            std::vector<double> const& dy,
                                                            std::vector<double> const& dlast) {
  auto const count = static_cast<std::size_t>(shape.sequences.count),
             length = static_cast<std::size_t>(shape.sequences.length),
             channels = static_cast<std::size_t>(shape.channels),
             state = static_cast<std::size_t>(shape.state);
  auto const forward = selective_scan<double>(shape, in);
  SelectiveScanArrays<double> out;
  out.delta.resize(in.delta.size());
  out.delta_bias.resize(channels);
  out.x.resize(in.x.size());
  out.b.resize(in.b.size());
  out.c.resize(in.c.size());
  out.a_log.resize(channels * state);
  out.d.resize(channels);
  out.state = dlast;
  for (std::size_t s = 0; s < count; ++s) {
    double* const g = &out.state[s * channels * state];  // of the state behind position t, then before it
    for (std::size_t t = length; t-- > 0;) {
      std::size_t const row = s * length + t;
      double const* const before = &forward.states[(s * (length + 1) + t) * channels * state];
      double const* const here = before + channels * state;
      for (std::size_t c = 0; c < channels; ++c) {
        std::size_t const at = row * channels + c;
        double const raw = in.delta.at(at) + in.delta_bias.at(c), step = softplus<double>(raw);
        double dstep = 0;
        out.x[at] = in.d.at(c) * dy.at(at);
        for (std::size_t n = 0; n < state; ++n) {
          std::size_t const i = c * state + n, bc = row * state + n;
          double const a = -std::exp(in.a_log.at(i)), decay = std::exp(step * a);
          g[i] += dy[at] * in.c.at(bc);
          out.c[bc] += dy[at] * here[i];
          out.b[bc] += g[i] * step * in.x.at(at);
          out.x[at] += g[i] * step * in.b.at(bc);
          dstep += g[i] * (in.x[at] * in.b[bc] + a * decay * before[i]);
          out.a_log[i] += g[i] * step * a * decay * before[i];
          g[i] *= decay;
        }
        out.delta[at] = raw > 20 ? dstep : dstep / (1 + std::exp(-raw));
        out.delta_bias[c] += out.delta[at];
        out.d[c] += dy[at] * in.x[at];
      }
    }
  }
  return out;
}

}  // namespace strata::test::reference
