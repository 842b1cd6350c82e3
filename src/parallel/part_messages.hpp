// SPDX-License-Identifier: Apache-2.0
#pragma once
// The messages that a sum of a shared-out range is made of: every rank sends each other rank its summands of
// that one's part, and in the end its own part's sums to all. Each takes one hop and moves (n - 1) / n of the
// range out of and into every rank, as a ring would.

#include <mpi.h>

#include <type_traits>
#include <vector>

#include "parallel/block.hpp"
#include "parallel/communicator.hpp"
#include "parallel/host_stage.hpp"

namespace strata::parallel {

/// Where messages may begin and end: device memory only if MPI reads it.
using MessageSpace = std::conditional_t<through_host, StageSpace, kernels::MemSpace>;
template <class T>
using MessageVec = Kokkos::View<T*, Kokkos::LayoutRight, MessageSpace>;

/// Begins to send slice k of every other rank's part out of `data`, which holds the whole buffer, and to
/// receive the others' summands of this rank's part into `received`: (ranks - 1) times `parts.slice`
/// elements, by rank without this one. Adds to `requests`.
template <class T>
void post_summands(Communicator const& comm, Parts const& parts, Index k, T const* data, T* received,
                   std::vector<MPI_Request>& requests);

/// Begins to send slice k of this rank's part to all others, and to receive those of theirs into `data`.
template <class T>
void post_results(Communicator const& comm, Parts const& parts, Index k, T* data,
                  std::vector<MPI_Request>& requests);

/// mine (count) becomes the sum of all ranks' summands, added one after the other by rank: the bits do not
/// depend on which rank adds, nor on slices. `received` as post_summands filled it, in slices of `slice`.
/// Returns when the sum is there.
template <class T>
void add_by_rank(kernels::ExecSpace const& space, T* mine, T* received, Index count, Index slice, Index rank,
                 Index ranks);

}  // namespace strata::parallel
