// SPDX-License-Identifier: Apache-2.0
#pragma once
// How a step is cut up. Results depend on none of it beyond rounding, and on `outer_tapes` and
// `border_interval` not even that.

#include <vector>

#include "kernels/common/types.hpp"

namespace strata::model {

using kernels::Index;

/// What becomes of the outermost stage's tapes until backward reaches their time chunk.
enum class OuterTapes {
  keep,       ///< all kept: most memory, nothing computed twice
  rebuild,    ///< dropped; rebuilt one at a time from the carry saved before each chunk
  two_level,  ///< as rebuild, but only every border_interval-th carry is saved; those between are rebuilt
              ///< first
};

struct Chunking {
  Index outer_positions = 0;  ///< positions of the outermost stage per time chunk; 0: automatic
  Index inner_rows = 0;       ///< rows (positions) per chunk of every inner stage; 0: automatic
  OuterTapes outer_tapes = OuterTapes::keep;
  /// Time chunks per saved carry (two_level); 0: the square root of their number.
  Index border_interval = 0;
  /// The package's train_checkpoint_chunks (stages 2..n): at least so many chunks.
  std::vector<Index> checkpoint_chunks = {};
};

}  // namespace strata::model
