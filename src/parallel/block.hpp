// SPDX-License-Identifier: Apache-2.0
#pragma once
// How things in a row are shared among ranks.

#include "kernels/common/types.hpp"

namespace strata::parallel {

using kernels::Index;

/// The block [first, last) of `count` things that a rank gets; blocks are contiguous and differ by at most
/// one.
struct Block {
  Index first = 0, last = 0;
  Index size() const { return last - first; }
};
constexpr Block block_of(Index count, Index rank, Index ranks) {
  Index const small = count / ranks;
  Index const extra = count % ranks;
  Index const first = rank * small + (rank < extra ? rank : extra);
  return {first, first + small + (rank < extra ? 1 : 0)};
}

}  // namespace strata::parallel
