// SPDX-License-Identifier: Apache-2.0
#include "parallel/part_messages.hpp"

#include <algorithm>

#include "kernels/common/profile.hpp"
#include "kernels/common/row_ops.hpp"
#include "parallel/mpi_type.hpp"

namespace strata::parallel {

namespace {

constexpr int summands_tag = 0, results_tag = 1;

template <class T>
void send(Communicator const& comm, T const* data, Block const& part, Index to, int tag,
          std::vector<MPI_Request>& requests) {
  if (part.size() == 0) return;
  kernels::CommunicationScope const timed("MPI_Isend", static_cast<std::size_t>(part.size()) * sizeof(T));
  requests.push_back(MPI_REQUEST_NULL);
  check_mpi(MPI_Isend(data + part.first, static_cast<int>(part.size()), mpi_type<T>(), static_cast<int>(to),
                      tag, comm.get(), &requests.back()),
            "MPI_Isend");
}

template <class T>
void receive(Communicator const& comm, T* data, Block const& part, Index from, int tag,
             std::vector<MPI_Request>& requests) {
  if (part.size() == 0) return;
  kernels::CommunicationScope const timed("MPI_Irecv", 0);
  requests.push_back(MPI_REQUEST_NULL);
  check_mpi(MPI_Irecv(data + part.first, static_cast<int>(part.size()), mpi_type<T>(), static_cast<int>(from),
                      tag, comm.get(), &requests.back()),
            "MPI_Irecv");
}

/// The elements [begin, end) of add_by_rank.
template <class T>
struct AddByRank {
  T* mine;
  T* received;
  Index slice, rank, ranks;

  KOKKOS_INLINE_FUNCTION void operator()(Index begin, Index end) const {
    // What ranks below this one contribute is added up where the first of it lies.
    for (Index r = 1; r < rank; ++r) add(received, received + r * slice, begin, end);
    if (rank > 0) add(mine, received, begin, end);
    for (Index r = rank + 1; r < ranks; ++r) add(mine, received + (r - 1) * slice, begin, end);
  }

 private:
  KOKKOS_INLINE_FUNCTION static void add(T* sum, T const* term, Index begin, Index end) {
    STRATA_INDEPENDENT
    for (Index i = begin; i < end; ++i) sum[i] += term[i];
  }
};

}  // namespace

template <class T>
void post_summands(Communicator const& comm, Parts const& parts, Index k, T const* data, T* received,
                   std::vector<MPI_Request>& requests) {
  Index const rank = comm.rank(), ranks = comm.size();
  Index const mine = parts.slice_of(rank, k).size();
  for (Index distance = 1; distance < ranks; ++distance) {
    Index const from = (rank + ranks - distance) % ranks;
    Index const at = (from < rank ? from : from - 1) * parts.slice;
    receive(comm, received, {at, at + mine}, from, summands_tag, requests);
  }
  for (Index distance = 1; distance < ranks; ++distance) {
    Index const to = (rank + distance) % ranks;
    send(comm, data, parts.slice_of(to, k), to, summands_tag, requests);
  }
}

template <class T>
void post_results(Communicator const& comm, Parts const& parts, Index k, T* data,
                  std::vector<MPI_Request>& requests) {
  Index const rank = comm.rank(), ranks = comm.size();
  for (Index distance = 1; distance < ranks; ++distance) {
    Index const from = (rank + ranks - distance) % ranks;
    receive(comm, data, parts.slice_of(from, k), from, results_tag, requests);
  }
  for (Index distance = 1; distance < ranks; ++distance)
    send(comm, data, parts.slice_of(rank, k), (rank + distance) % ranks, results_tag, requests);
}

template <class T>
void add_by_rank(kernels::ExecSpace const& space, T* mine, T* received, Index count, Index slice, Index rank,
                 Index ranks) {
  AddByRank<T> const add = {mine, received, slice, rank, ranks};
  if (count == 0) return;
  if constexpr (through_host) {
    constexpr Index span = 4096;
    using Host = Kokkos::DefaultHostExecutionSpace;
    Host const host;
    Kokkos::parallel_for(
        "strata::part_messages::add_by_rank",
        Kokkos::RangePolicy<Host, Kokkos::IndexType<Index>>(host, 0, kernels::blocks_of(count, span)),
        [=](Index i) { add(i * span, std::min(count, (i + 1) * span)); });
    host.fence();
  } else {
    kernels::for_spans(space, "strata::part_messages::add_by_rank", count, add);
    space.fence();
  }
}

#define STRATA_PART_MESSAGES(T)                                                                           \
  template void post_summands<T>(Communicator const&, Parts const&, Index, T const*, T*,                  \
                                 std::vector<MPI_Request>&);                                              \
  template void post_results<T>(Communicator const&, Parts const&, Index, T*, std::vector<MPI_Request>&); \
  template void add_by_rank<T>(kernels::ExecSpace const&, T*, T*, Index, Index, Index, Index);
STRATA_INSTANTIATE(STRATA_PART_MESSAGES)

}  // namespace strata::parallel
