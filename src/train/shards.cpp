// SPDX-License-Identifier: Apache-2.0
#include "train/shards.hpp"

namespace strata::train {

using kernels::Index;

std::vector<model::FlatRange> shard_ranges(model::ParameterStore<float> const& parameters, Index rank,
                                           Index ranks) {
  std::vector<model::FlatRange> result;
  for (auto const ready : {model::Ready::before_outer_backward, model::Ready::at_end}) {
    model::FlatRange const range = parameters.ready_range(ready);
    parallel::Block const part = parallel::Parts{{range.begin, range.end}, shard_unit, ranks}.of(rank);
    result.push_back({part.first, part.last});
  }
  return result;
}

Index largest_shard(model::ParameterStore<float> const& parameters, Index ranks) {
  Index size = 0;
  for (model::FlatRange const& range : shard_ranges(parameters, 0, ranks)) size += range.size();
  return size;
}

}  // namespace strata::train
