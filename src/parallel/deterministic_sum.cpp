// SPDX-License-Identifier: Apache-2.0
#include "parallel/deterministic_sum.hpp"

#include <mpi.h>

#include <algorithm>
#include <string>

#include "core/error.hpp"
#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "parallel/mpi_type.hpp"

namespace strata::parallel {

using kernels::ExecSpace;
using kernels::Index;
using kernels::Vec;

namespace {

template <class T>
void add_to(ExecSpace const& space, Vec<T> sum, Vec<T const> term) {
  Kokkos::parallel_for(
      "strata::deterministic_sum::add_to",
      Kokkos::RangePolicy<ExecSpace, Kokkos::IndexType<Index>>(space, 0, sum.extent(0)),
      KOKKOS_LAMBDA(Index i) { sum(i) += term(i); });
}

/// How many subtrees of the tree over [0, n) are complete once leaf i has been added, without the leaf
/// itself.
Index complete_subtrees(Index i, Index n) {
  Index lo = 0;
  Index hi = n;
  Index count = 0;
  while (hi - lo > 1) {
    if (i == hi - 1) ++count;
    Index const mid = lo + (hi - lo) / 2;
    if (i < mid)
      hi = mid;
    else
      lo = mid;
  }
  return count;
}

/// The most subtrees that are open at once: 1 + ceil(log2(n)), less the last leaf, which is added without
/// being stored.
Index open_subtrees(Index n) {
  Index count = 1;
  while (n > 2) {
    n -= n / 2;
    ++count;
  }
  return count;
}

}  // namespace

template <class T>
DeterministicSum<T>::DeterministicSum(Communicator const& comm, Index elements, Index global_samples)
    : comm_(comm),
      elements_(elements),
      piece_(std::min<Index>(longest_piece, static_cast<Index>(comm.piece()))) {
  Index const ranks = comm.size();
  if ((ranks & (ranks - 1)) != 0)
    throw core::InputError("deterministic training needs a power of two of ranks, not " +
                           std::to_string(ranks));
  if (global_samples < 1 || global_samples % ranks != 0)
    throw core::InputError("deterministic training needs a global batch that the number of ranks divides: " +
                           std::to_string(global_samples) + " samples on " + std::to_string(ranks) +
                           " ranks");
  max_local_ = global_samples / ranks;
  piece_ = std::min(piece_, std::max<Index>(elements, 1));
  auto const label = [](std::string const& name) {
    return Kokkos::view_alloc(Kokkos::WithoutInitializing, name);
  };
  Index const depth = open_subtrees(max_local_);
  stack_ = decltype(stack_)(label("strata::deterministic_sum::stack"), depth, elements);
  losses_.resize(static_cast<std::size_t>(depth));
  if (ranks == 1) return;
  received_ = decltype(received_)(label("strata::deterministic_sum::received"), piece_);
  if constexpr (through_host) {
    stage_send_ = StageVec<T>(label("strata::deterministic_sum::stage_send"), piece_);
    stage_receive_ = StageVec<T>(label("strata::deterministic_sum::stage_receive"), piece_);
  }
}

template <class T>
std::size_t DeterministicSum<T>::buffer_bytes(Index elements, Index global_samples, Index ranks) {
  Index const depth = open_subtrees(global_samples / ranks);
  Index const pieces = ranks == 1 ? 0 : (through_host ? 3 : 1);
  Index const piece = std::min(longest_piece, std::max<Index>(elements, 1));
  return static_cast<std::size_t>(depth * elements + pieces * piece) * sizeof(T) +
         static_cast<std::size_t>(depth) * sizeof(Losses);
}

template <class T>
void DeterministicSum<T>::begin(Index local_count) {
  STRATA_REQUIRE(1 <= local_count && local_count <= max_local_,
                 local_count << " samples, room for " << max_local_);
  local_count_ = local_count;
  added_ = 0;
  depth_ = 0;
}

template <class T>
void DeterministicSum<T>::add(Vec<T> gradient, Losses const& losses) {
  STRATA_REQUIRE(added_ < local_count_, "sample " << added_ << " of " << local_count_);
  STRATA_REQUIRE(static_cast<Index>(gradient.extent(0)) == elements_, gradient.extent(0)
                                                                          << " != " << elements_);
  ExecSpace const space;
  auto const level = [this](Index i) { return Vec<T>(stack_.data() + i * elements_, elements_); };
  auto const at = [this](Index i) -> Losses& { return losses_[static_cast<std::size_t>(i)]; };
  auto const add_losses = [](Losses& sum, Losses const& term) {
    for (std::size_t k = 0; k < sum.size(); ++k) sum[k] += term[k];
  };
  Index complete = complete_subtrees(added_, local_count_);
  if (complete == 0) {
    Kokkos::deep_copy(space, level(depth_), gradient);
    at(depth_) = losses;
    ++depth_;
  } else {
    add_to<T>(space, level(depth_ - 1), gradient);
    add_losses(at(depth_ - 1), losses);
    for (; complete > 1; --complete) {
      add_to<T>(space, level(depth_ - 2), level(depth_ - 1));
      add_losses(at(depth_ - 2), at(depth_ - 1));
      --depth_;
    }
  }
  ++added_;
}

/// sum += the partner's sum, while the partner does the same.
template <class T>
void DeterministicSum<T>::exchange(int partner, Vec<T> sum) {
  ExecSpace const space;
  for (Index begin = 0; begin < elements_; begin += piece_) {
    Index const n = std::min(piece_, elements_ - begin);
    Vec<T> const mine(sum.data() + begin, n);
    Vec<T> const theirs(received_.data(), n);
    T const* send = mine.data();
    T* receive = theirs.data();
    if constexpr (through_host) {
      Kokkos::deep_copy(Kokkos::subview(stage_send_, std::pair<Index, Index>(0, n)), mine);
      send = stage_send_.data();
      receive = stage_receive_.data();
    }
    {
      kernels::CommunicationScope const timed("MPI_Sendrecv", static_cast<std::size_t>(n) * sizeof(T));
      check_mpi(MPI_Sendrecv(send, static_cast<int>(n), mpi_type<T>(), partner, 0, receive,
                             static_cast<int>(n), mpi_type<T>(), partner, 0, comm_.get(), MPI_STATUS_IGNORE),
                "MPI_Sendrecv");
    }
    if constexpr (through_host)
      Kokkos::deep_copy(theirs, Kokkos::subview(stage_receive_, std::pair<Index, Index>(0, n)));
    add_to<T>(space, mine, theirs);
    space.fence();
  }
}

template <class T>
typename DeterministicSum<T>::Losses DeterministicSum<T>::finish(Vec<T> out) {
  STRATA_REQUIRE(added_ == local_count_ && depth_ == 1,
                 added_ << " of " << local_count_ << " samples were added");
  STRATA_REQUIRE(static_cast<Index>(out.extent(0)) == elements_, out.extent(0) << " != " << elements_);
  ExecSpace const space;
  Kokkos::deep_copy(space, out, Vec<T>(stack_.data(), elements_));
  space.fence();
  Losses mine = losses_[0];
  for (int distance = 1; distance < comm_.size(); distance *= 2) {
    int const partner = comm_.rank() ^ distance;
    exchange(partner, out);
    Losses theirs = {};
    kernels::CommunicationScope const timed("MPI_Sendrecv", sizeof mine);
    check_mpi(MPI_Sendrecv(mine.data(), 2, MPI_DOUBLE, partner, 1, theirs.data(), 2, MPI_DOUBLE, partner, 1,
                           comm_.get(), MPI_STATUS_IGNORE),
              "MPI_Sendrecv");
    for (std::size_t k = 0; k < mine.size(); ++k) mine[k] += theirs[k];
  }
  local_count_ = 0;
  added_ = 0;
  return mine;
}

template class DeterministicSum<float>;
template class DeterministicSum<double>;

}  // namespace strata::parallel
