// SPDX-License-Identifier: Apache-2.0
#pragma once
// A model's predictions for small batches, on the host: for tests, parity checks and the dependency audit.

#include <cstdint>
#include <vector>

#include "model/hierarchy.hpp"

namespace strata::model {

/// What a forward pass says about windows of `length` tokens.
struct Predictions {
  Index windows = 0, length = 0, vocabulary = 0, width = 0;
  /// (windows, length + 1, vocabulary): logits of token t given those before it; t = length is the token
  /// after the window, which head `complete` predicts only if the window is shorter than its padding, else
  /// NaN.
  std::vector<double> logits;
  /// (windows, length, width): the last stage's row after reading token t (head `reference`), NaN for head
  /// `complete`.
  std::vector<double> hidden;

  double const* at(Index window, Index t) const {
    return logits.data() + static_cast<std::size_t>((window * (length + 1) + t) * vocabulary);
  }
};

/// ids (windows, length), each below num_tokens.
template <class T>
Predictions predict(Hierarchy<T>& model, std::vector<std::int64_t> const& ids, Index windows);

/// Which predictions a token can influence: entry i * (length + 1) + t is 1 when some other id at place i
/// changes the prediction of token t by more than `threshold` in any logit. `replacements` other ids are
/// tried per place, never the pad id.
template <class T>
std::vector<std::uint8_t> dependencies(Hierarchy<T>& model, std::vector<std::int64_t> const& ids,
                                       double threshold, Index replacements = 3);

}  // namespace strata::model
