// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a generator has read, on disk (doc/formats.md), so that a long prompt is read once.

#include <cstdint>
#include <string>
#include <vector>

#include "generate/generator.hpp"

namespace strata::generate {

struct SavedState {
  std::vector<std::uint8_t> bytes;  ///< everything the lane has seen
  LaneState<float> lane;
};

/// Writes beside `path` first. digest: model_digest of the model. Throws core::InputError.
void save_state(std::string const& path, std::string const& digest, SavedState const& state);

/// Throws core::InputError when the file is damaged, not a state, or of a model with another digest.
SavedState load_state(std::string const& path, std::string const& digest);

}  // namespace strata::generate
