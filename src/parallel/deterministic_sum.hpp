// SPDX-License-Identifier: Apache-2.0
#pragma once
// Sum of the gradients of single samples whose bits do not depend on the number of ranks.

#include <array>
#include <vector>

#include "kernels/common/types.hpp"
#include "parallel/communicator.hpp"
#include "parallel/host_stage.hpp"

namespace strata::parallel {

/// Adds the G gradients of a global batch in one fixed binary tree over the sample's index,
///   sum(lo, hi) = sum(lo, mid) + sum(mid, hi),  mid = lo + (hi - lo) / 2.
/// With R ranks, R a power of two that divides G, rank r holds samples [r G/R, (r + 1) G/R), which is one
/// subtree: it is added locally, and the levels above it by recursive doubling. Addition commutes in IEEE
/// arithmetic, so both partners get the same bits, and 1, 2, 4, ... ranks do the same additions.
///
/// A batch: begin(G / R), add() once per local sample in order, finish(). Nothing is allocated after the
/// construction.
template <class T>
class DeterministicSum {
 public:
  using Index = kernels::Index;
  /// Two numbers per sample, such as its loss and the bytes counted in it, that go through the same tree.
  using Losses = std::array<double, 2>;

  /// Takes device memory for log2(global_samples / ranks) + 1 gradients of `elements` each. Throws
  /// core::InputError when the number of ranks is not a power of two or does not divide `global_samples`.
  DeterministicSum(Communicator const& comm, Index elements, Index global_samples);

  /// What the construction allocates for such a sum: the open subtrees' gradients on the device and, with
  /// several ranks, a piece of the partner's there and, where messages go through the host, two pieces there.
  static std::size_t buffer_bytes(Index elements, Index global_samples, Index ranks);

  /// Starts a batch of `local_count` samples on every rank, at most global_samples / ranks.
  void begin(Index local_count);
  /// The next local sample's gradient, whose content is consumed: the caller zeroes it before the next
  /// backward pass. On the default execution space instance, without a fence.
  void add(kernels::Vec<T> gradient, Losses const& losses);
  /// Leaves the sum over all samples of all ranks in `out` and returns that of their losses. Fences.
  Losses finish(kernels::Vec<T> out);

 private:
  void exchange(int partner, kernels::Vec<T> sum);

  static constexpr Index longest_piece = Index(1) << 22;

  Communicator const& comm_;
  Index elements_;
  Index max_local_;
  Index piece_;
  Index local_count_ = 0;
  Index added_ = 0;
  Index depth_ = 0;  ///< open subtrees, from large to small
  Kokkos::View<T**, Kokkos::LayoutRight, kernels::MemSpace> stack_;
  std::vector<Losses> losses_;
  Kokkos::View<T*, Kokkos::LayoutRight, kernels::MemSpace> received_;  ///< one piece of the partner's sum
  StageVec<T> stage_send_, stage_receive_;
};

}  // namespace strata::parallel
