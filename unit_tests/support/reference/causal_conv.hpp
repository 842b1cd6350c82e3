// SPDX-License-Identifier: Apache-2.0
#pragma once
// Naive causal depthwise convolution + SiLU over a scalar type S (support/dual.hpp), on sequences with their
// border written out in front: rows 0 .. W - 2 of a sequence are the border, row W - 1 + t is input t.

#include <cmath>
#include <cstddef>
#include <vector>

#include "kernels/causal_conv.hpp"

namespace strata::test::reference {

struct CausalConv {
  std::size_t count, length, channels, inputs;

  CausalConv(kernels::Sequences shape, kernels::Index c, kernels::Index w)
      : count(static_cast<std::size_t>(shape.count)),
        length(static_cast<std::size_t>(shape.length)),
        channels(static_cast<std::size_t>(c)),
        inputs(static_cast<std::size_t>(w)) {}

  std::size_t border() const { return inputs - 1; }
  /// Element of a sequence with its border in front.
  std::size_t bordered(std::size_t s, std::size_t row, std::size_t c) const {
    return (s * (border() + length) + row) * channels + c;
  }

  /// Border (empty: zeros) and x of each sequence, one behind the other.
  template <class S>
  std::vector<S> join(std::vector<S> const& previous, std::vector<S> const& x) const {
    std::vector<S> result(count * (border() + length) * channels, S(0));
    for (std::size_t s = 0; s < count; ++s)
      for (std::size_t c = 0; c < channels; ++c) {
        if (!previous.empty())
          for (std::size_t e = 0; e < border(); ++e)
            result.at(bordered(s, e, c)) = previous.at((s * border() + e) * channels + c);
        for (std::size_t t = 0; t < length; ++t)
          result.at(bordered(s, border() + t, c)) = x.at((s * length + t) * channels + c);
      }
    return result;
  }
  /// Rows [begin, begin + n) of each sequence with its border.
  template <class S>
  std::vector<S> cut(std::vector<S> const& joined, std::size_t begin, std::size_t n) const {
    std::vector<S> result;
    for (std::size_t s = 0; s < count; ++s)
      for (std::size_t row = begin; row < begin + n; ++row)
        for (std::size_t c = 0; c < channels; ++c) result.push_back(joined.at(bordered(s, row, c)));
    return result;
  }

  /// Row t of a sequence before the SiLU.
  template <class S>
  S sum(std::vector<S> const& joined, std::vector<S> const& weight, std::vector<S> const& bias, std::size_t s,
        std::size_t t, std::size_t c) const {
    S result = bias.at(c);
    for (std::size_t w = 0; w < inputs; ++w)
      result += weight.at(c * inputs + w) * joined.at(bordered(s, t + w, c));
    return result;
  }

  template <class S>
  std::vector<S> forward(std::vector<S> const& x, std::vector<S> const& previous,
                         std::vector<S> const& weight, std::vector<S> const& bias) const {
    using std::exp;
    std::vector<S> const joined = join(previous, x);
    std::vector<S> y;
    for (std::size_t s = 0; s < count; ++s)
      for (std::size_t t = 0; t < length; ++t)
        for (std::size_t c = 0; c < channels; ++c) {
          S const a = sum(joined, weight, bias, s, t, c);
          y.push_back(a / (S(1) + exp(-a)));
        }
    return y;
  }
  /// The last W - 1 inputs.
  template <class S>
  std::vector<S> next_border(std::vector<S> const& x, std::vector<S> const& previous) const {
    return cut(join(previous, x), length, border());
  }

  struct Gradients {
    std::vector<double> dx, dborder, dweight, dbias;
  };
  /// dnext: gradient of the border behind the span, or empty.
  Gradients backward(std::vector<double> const& dy, std::vector<double> const& x,
                     std::vector<double> const& previous, std::vector<double> const& weight,
                     std::vector<double> const& bias, std::vector<double> const& dnext) const {
    std::vector<double> const joined = join(previous, x);
    std::vector<double> djoined(joined.size(), 0);
    Gradients out{{}, {}, std::vector<double>(weight.size(), 0), std::vector<double>(bias.size(), 0)};
    for (std::size_t s = 0; s < count; ++s)
      for (std::size_t c = 0; c < channels; ++c) {
        for (std::size_t t = 0; t < length; ++t) {
          double const a = sum(joined, weight, bias, s, t, c), e = 1 / (1 + std::exp(-a));
          double const da = dy.at((s * length + t) * channels + c) * (e + a * e * (1 - e));
          out.dbias[c] += da;
          for (std::size_t w = 0; w < inputs; ++w) {
            out.dweight[c * inputs + w] += da * joined[bordered(s, t + w, c)];
            djoined[bordered(s, t + w, c)] += da * weight[c * inputs + w];
          }
        }
        if (!dnext.empty())
          for (std::size_t e = 0; e < border(); ++e)
            djoined[bordered(s, length + e, c)] += dnext.at((s * border() + e) * channels + c);
      }
    out.dborder = cut(djoined, 0, border());
    out.dx = cut(djoined, border(), length);
    return out;
  }
};

}  // namespace strata::test::reference
