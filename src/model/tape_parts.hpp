// SPDX-License-Identifier: Apache-2.0
#pragma once
// What training keeps of one position of one layer, for `strata info` and for tests.

#include <vector>

#include "model/config.hpp"

namespace strata::model {

struct TapePart {
  char const* what;
  Index elements;
};

/// The arrays of one layer on a tape, per position. They add up to layer_tape_elements.
std::vector<TapePart> layer_tape_parts(BlockConfig const& config, Index width);

/// Elements that one more position of one layer adds to a tape, from the sizes of real tapes.
Index layer_tape_elements(BlockConfig const& config, Index width);

}  // namespace strata::model
