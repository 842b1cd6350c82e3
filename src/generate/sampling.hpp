// SPDX-License-Identifier: Apache-2.0
#pragma once
// From logits to a token.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/common/types.hpp"

namespace strata::generate {

using kernels::Index;

/// How to choose a token from softmax(logits / temperature). The filters apply one after the other in the
/// order given here; each sees the probabilities of what the ones before it kept. Among equal logits the
/// lower id counts as the more likely one.
struct Sampling {
  double temperature = 1;  ///< divides the logits; 0: the most likely token
  Index top_k = 0;         ///< keep the k most likely tokens; 0: all
  /// The MBLM package's filter_thres F: keep the filter_count(F, V) most likely tokens. Not beside top_k.
  std::optional<double> filter_thres;
  double top_p = 1;  ///< keep the fewest most likely tokens whose probabilities add up to at least p
  double min_p = 0;  ///< keep tokens at least min_p times as probable as the most likely one
  std::uint64_t seed = 1;

  /// Throws core::InputError naming the option whose value cannot be used.
  void validate() const;
};

/// max(trunc((1 - F) * V), 1) in double arithmetic: how many of a model's V tokens filter_thres F keeps. 1 is
/// greedy, 0 keeps all.
Index filter_count(double filter_thres, Index vocabulary);

/// Natural logarithm of softmax(logits) at one token.
double log_probability(std::span<float const> logits, std::int32_t token);

/// Draws tokens; holds the room for it, so that a draw does not allocate.
class Sampler {
 public:
  /// Only ids below `allowed` take part (256 for a model that is to produce bytes); V = `vocabulary` counts
  /// for filter_thres only.
  Sampler(Sampling const& settings, Index vocabulary, Index allowed);

  /// One token for a row of V logits. The random number is a function of (seed, number of the sample,
  /// position) only. Throws core::InputError if a logit is NaN or infinite.
  std::int32_t draw(std::span<float const> logits, std::uint64_t number, std::uint64_t position);
  /// Ids that the last draw chose among, ascending.
  std::span<std::int32_t const> kept() const { return kept_; }

 private:
  void keep_most_likely(std::span<float const> logits, std::size_t count);
  void keep_mass(std::span<float const> logits);

  Sampling settings_;
  std::size_t allowed_, most_kept_;
  std::vector<double> weight_;              ///< by id: probability over that of the most likely token
  std::vector<std::int32_t> kept_, order_;  ///< ids: ascending; in the order of the filter at work
};

}  // namespace strata::generate
