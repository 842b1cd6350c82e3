// SPDX-License-Identifier: Apache-2.0
#pragma once
// Attention with the whole matrix of scores: the oracle of kernels/attention.hpp.

#include <cmath>
#include <cstddef>
#include <functional>
#include <vector>

#include "kernels/attention.hpp"

namespace strata::test::reference {

/// The factor dropout gives to a probability: keep(row, key, head).
using Keep = std::function<double(long, long, long)>;
inline Keep keep_all() {
  return [](long, long, long) { return 1.0; };
}

template <class S>
struct AttentionOutput {
  std::vector<S> o, log_sum;
};
template <class S>
struct AttentionGradient {
  std::vector<S> dq, dkey_values;
};

/// Index arithmetic of one head of one sequence.
struct AttentionPlace {
  kernels::AttentionShape shape;
  long capacity, sequence, head;

  long row(long t) const { return sequence * shape.queries.length + t; }
  std::size_t q(long t, long c) const {
    return std::size_t((row(t) * shape.heads + head) * shape.head_dim + c);
  }
  std::size_t key(long j, long c) const {
    return std::size_t(((sequence * capacity + j) * 2 * shape.heads + head) * shape.head_dim + c);
  }
  std::size_t value(long j, long c) const { return key(j, c) + std::size_t(shape.heads * shape.head_dim); }
  long keys_seen(long t) const { return shape.start + (shape.causal ? t + 1 : shape.queries.length); }
};

/// log(sum of exp(scores)) of query t, and its scores turned into probabilities.
template <class S>
S attention_probabilities(AttentionPlace const& at, long t, std::vector<S> const& q,
                          std::vector<S> const& key_values, std::vector<S>& p) {
  p.assign(std::size_t(at.keys_seen(t)), S(0));
  S most(-1e300);
  for (std::size_t j = 0; j < p.size(); ++j) {
    for (long c = 0; c < at.shape.head_dim; ++c) p[j] += q[at.q(t, c)] * key_values[at.key(long(j), c)];
    p[j] = p[j] / S(std::sqrt(double(at.shape.head_dim)));
    if (p[j] > most) most = p[j];
  }
  S total(0);
  for (S& x : p) {
    x = exp(x - most);
    total += x;
  }
  for (S& x : p) x = x / total;
  return most + log(total);
}

template <class F>
void for_each_head(kernels::AttentionShape const& shape, long capacity, F const& f) {
  for (long sequence = 0; sequence < shape.queries.count; ++sequence)
    for (long head = 0; head < shape.heads; ++head) f(AttentionPlace{shape, capacity, sequence, head});
}

template <class S>
AttentionOutput<S> attention_forward(kernels::AttentionShape const& shape, long capacity,
                                     std::vector<S> const& q, std::vector<S> const& key_values,
                                     Keep const& keep) {
  AttentionOutput<S> out{std::vector<S>(q.size(), S(0)),
                         std::vector<S>(std::size_t(shape.queries.rows() * shape.heads), S(0))};
  std::vector<S> p;
  for_each_head(shape, capacity, [&](AttentionPlace const& at) {
    for (long t = 0; t < shape.queries.length; ++t) {
      out.log_sum[std::size_t(at.row(t) * shape.heads + at.head)] =
          attention_probabilities(at, t, q, key_values, p);
      for (std::size_t j = 0; j < p.size(); ++j) {
        S const kept = p[j] * S(keep(at.row(t), long(j), at.head));
        for (long c = 0; c < shape.head_dim; ++c)
          out.o[at.q(t, c)] += kept * key_values[at.value(long(j), c)];
      }
    }
  });
  return out;
}

template <class S>
AttentionGradient<S> attention_backward(kernels::AttentionShape const& shape, long capacity,
                                        std::vector<S> const& q, std::vector<S> const& key_values,
                                        std::vector<S> const& dout, Keep const& keep) {
  AttentionGradient<S> out{std::vector<S>(q.size(), S(0)), std::vector<S>(key_values.size(), S(0))};
  std::vector<S> p, dp;
  S const scale(1 / std::sqrt(double(shape.head_dim)));
  for_each_head(shape, capacity, [&](AttentionPlace const& at) {
    for (long t = 0; t < shape.queries.length; ++t) {
      attention_probabilities(at, t, q, key_values, p);
      dp.assign(p.size(), S(0));
      S mean(0);
      for (std::size_t j = 0; j < p.size(); ++j) {
        S const kept(keep(at.row(t), long(j), at.head));
        for (long c = 0; c < shape.head_dim; ++c) {
          dp[j] += kept * dout[at.q(t, c)] * key_values[at.value(long(j), c)];
          out.dkey_values[at.value(long(j), c)] += p[j] * kept * dout[at.q(t, c)];
        }
        mean += p[j] * dp[j];
      }
      for (std::size_t j = 0; j < p.size(); ++j) {
        S const ds = p[j] * (dp[j] - mean) * scale;
        for (long c = 0; c < shape.head_dim; ++c) {
          out.dq[at.q(t, c)] += ds * key_values[at.key(long(j), c)];
          out.dkey_values[at.key(long(j), c)] += ds * q[at.q(t, c)];
        }
      }
    }
  });
  return out;
}

}  // namespace strata::test::reference
