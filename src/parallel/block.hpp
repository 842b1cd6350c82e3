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
  constexpr Index size() const { return last - first; }
};
constexpr Block block_of(Index count, Index rank, Index ranks) {
  Index const small = count / ranks;
  Index const extra = count % ranks;
  Index const first = rank * small + (rank < extra ? rank : extra);
  return {first, first + small + (rank < extra ? 1 : 0)};
}

/// A range of a flat buffer cut into one part per rank, in whole units of `unit` elements but for the last
/// one: rank 0's part is the longest, those of the last ranks may be empty. Parts travel in slices of at most
/// `slice` elements, slice k of every part at the same time.
struct Parts {
  Block range;
  Index unit = 1, ranks = 1, slice = 1;

  constexpr Block of(Index rank) const {
    Block const units = block_of((range.size() + unit - 1) / unit, rank, ranks);
    return {range.first + least(units.first * unit), range.first + least(units.last * unit)};
  }
  constexpr Index slices() const { return (of(0).size() + slice - 1) / slice; }
  constexpr Block slice_of(Index rank, Index k) const {
    Block const part = of(rank);
    Index const begin = part.first + (k * slice < part.size() ? k * slice : part.size());
    return {begin, part.last - begin < slice ? part.last : begin + slice};
  }

 private:
  constexpr Index least(Index length) const { return length < range.size() ? length : range.size(); }
};

}  // namespace strata::parallel
