// SPDX-License-Identifier: Apache-2.0
#pragma once
// Samples made on several ranks, together on one.

#include <vector>

#include "generate/sample_run.hpp"
#include "parallel/communicator.hpp"

namespace strata::generate {

/// The part of `total` samples that belongs to a rank, [first_sample(rank), first_sample(rank + 1)):
/// neighbours, which often share a prompt, stay together, and sample 0 is the root's.
Index first_sample(Index total, int rank, int ranks);

/// Samples of all ranks by number, on the root; nothing on the others. Collective.
std::vector<Sample> gather(parallel::Communicator const& ranks, std::vector<Sample> const& mine);

}  // namespace strata::generate
