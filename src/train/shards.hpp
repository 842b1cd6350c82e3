// SPDX-License-Identifier: Apache-2.0
#pragma once
// Which elements of the flat parameter buffer a rank keeps moments of.

#include <algorithm>
#include <vector>

#include "kernels/reduce.hpp"
#include "model/parameters.hpp"
#include "parallel/block.hpp"

namespace strata::train {

/// Shards begin at multiples of it within a ready range: whole blocks of the gradient's norm, whose partial
/// sums are then the same numbers whoever makes them.
inline constexpr kernels::Index shard_unit = kernels::squares_per_block;

/// The half-open ranges of the flat buffers, in order, that rank `rank` of `ranks` updates, keeps the moments
/// of and hands out: its part of each ready range. Over all ranks they make up the whole buffer.
std::vector<model::FlatRange> shard_ranges(model::ParameterStore<float> const& parameters,
                                           kernels::Index rank, kernels::Index ranks);

/// f(begin, end, place) for every range of elements within `wanted` that a shard has; `place` is where they
/// lie in a buffer that holds the shard's elements only, range after range.
template <class F>
void for_elements_of(std::vector<model::FlatRange> const& shard, model::FlatRange wanted, F const& f) {
  kernels::Index place = 0;
  for (model::FlatRange const& range : shard) {
    kernels::Index const begin = std::max(range.begin, wanted.begin), end = std::min(range.end, wanted.end);
    if (begin < end) f(begin, end, place + begin - range.begin);
    place += range.size();
  }
}

/// Elements of the largest shard: rank 0's.
kernels::Index largest_shard(model::ParameterStore<float> const& parameters, kernels::Index ranks);

}  // namespace strata::train
