// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a model that reads byte by byte says of given texts: their log-probability.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "generate/lane_reader.hpp"

namespace strata::generate {

struct Score {
  Index bytes = 0;  ///< counted ones: all but those equal to the model's pad token, as in an evaluation
  double nats = 0;  ///< minus the sum of their log-probabilities
};

/// Scores of texts, each cut into windows side by side in which the model starts anew. Called by all
/// ranks with the same texts; all get the same scores, whatever their number and the lanes (on a host);
/// nothing when it was stopped. lanes: windows at a time on a rank; 0, or more: as many as the generator
/// allows. Throws core::InputError when a byte is not in the vocabulary, or the model looks ahead or has no
/// room for the window.
std::optional<std::vector<Score>> score(model::Hierarchy<float> const& model,
                                        std::vector<std::span<std::uint8_t const>> const& texts, Index window,
                                        Index lanes, parallel::Communicator const& ranks,
                                        Follow const& follow = {});

}  // namespace strata::generate
