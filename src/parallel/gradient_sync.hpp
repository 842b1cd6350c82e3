// SPDX-License-Identifier: Apache-2.0
#pragma once
// Sum of the gradients over the ranks, begun as soon as a part of them is final and finished before the
// optimiser runs.

#include <mpi.h>

#include <array>
#include <chrono>
#include <vector>

#include "kernels/common/types.hpp"
#include "parallel/block.hpp"
#include "parallel/communicator.hpp"
#include "parallel/host_stage.hpp"
#include "parallel/part_messages.hpp"

namespace strata::parallel {

/// Who gets the sums: all ranks (reduce-scatter and all-gather), or each rank its part (reduce-scatter only).
enum class SumsGoTo { every_rank, owner };

struct GradientSyncSettings {
  Index bucket_elements = Index(1) << 22;  ///< travel together, over all ranks' parts
  Index unit = 8192;                       ///< parts begin at multiples of it (Parts::unit)
  SumsGoTo sums_go_to = SumsGoTo::every_rank;
};

/// Sums one flat gradient buffer over the ranks, in place, by non-blocking messages. Every started range is
/// cut into one part per rank (Parts). The summands of a part travel to the rank that owns it, which adds
/// them up in the order of the ranks, and the sums from there to all ranks, bucket by bucket; a few buckets
/// are under way at a time. The bits depend on the number of ranks, but neither on the buckets nor on who
/// gets the sums; DeterministicSum's do not depend on the number of ranks either. With one rank every
/// function does nothing.
///
/// A step: start(begin, end) for ranges that are disjoint and the same in the same order on every rank,
/// poll() now and then so that messages make progress, finish(). Nothing is allocated after the construction
/// unless a step starts more buckets than the whole buffer has.
template <class T>
class GradientSync {
 public:
  /// Collective. `gradients` stays the caller's; its elements [begin, end) must not be touched between their
  /// start() and finish(). On a device without STRATA_GPU_AWARE_MPI all messages travel through a host copy
  /// of it, allocated here, and the host adds.
  GradientSync(Communicator const& comm, kernels::Vec<T> gradients, GradientSyncSettings settings = {});
  /// Waits for what is pending. When an exception on this rank alone abandoned the sums, ends the job after
  /// two seconds: MPI must not write into memory that is about to be given back.
  ~GradientSync();
  GradientSync(GradientSync const&) = delete;
  GradientSync& operator=(GradientSync const&) = delete;

  /// What summing a buffer of `elements` takes at most: nothing with one rank, else the host copy where there
  /// is one, the lists of messages and room for the summands that are under way. On the host where messages
  /// travel through it, else beside the gradients.
  static std::size_t buffer_bytes(Index elements, Index ranks, GradientSyncSettings const& settings = {});

  /// Elements [begin, end) hold this rank's summands. Fences the default execution space instance first, so
  /// the kernels that wrote them on it need no fence of the caller's.
  void start(Index begin, Index end);
  /// Works on what is pending; never waits for another rank.
  void poll();
  /// Returns when all elements of all start() calls, or this rank's parts of them, hold the sums, visible to
  /// kernels on the default instance. With SumsGoTo::owner the other elements still hold summands.
  void finish();

  /// The other way round: every rank has made its part of elements [begin, end) of `values`, a buffer of the
  /// gradients' layout, and gets those of all others. Fences first; returns when they are there.
  void gather(kernels::Vec<T> values, Index begin, Index end);

  /// How a range is shared out.
  Parts parts_of(Block range) const { return {range, unit_, comm_.size(), slice_}; }

  /// Seconds that this rank has spent in these functions so far, waiting for others or moving and adding data
  /// itself (without the fence, which waits for computation): what communication has added to the run.
  double exposed_seconds() const { return exposed_seconds_; }
  /// The rest of the time in which sums were under way, from the first start() to when this rank noticed that
  /// the last one was there: communication behind which it did something else.
  double hidden_seconds() const { return hidden_seconds_; }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::size_t most_under_way = 4;

  /// Slice k of all parts of a range.
  struct Bucket {
    Block range;
    Index k;
  };
  /// What MPI does for a bucket now.
  struct Transfer {
    std::vector<MPI_Request> requests;
    bool added = false;  // of this rank's part: the sums are there
  };

  static Index slice_length(Index elements, Index ranks, std::size_t piece, GradientSyncSettings const& s);
  static std::size_t most_buckets(Index elements, Index slice, Index ranks);

  bool is_pending() const { return complete_ < buckets_.size(); }
  Transfer& transfer(std::size_t bucket) { return transfers_[bucket % most_under_way]; }
  T* received(std::size_t bucket) const;
  /// What messages of gradients or of `values` are read from and written to.
  T* messages(kernels::Vec<T> const& values) const;
  /// Hands MPI what may be under way now.
  void post();
  static bool arrived(Transfer& transfer);
  void add(std::size_t bucket);
  /// Does what can be done without waiting.
  void advance();

  /// Adds the time since `begin` to the exposed time, and closes the time under way when nothing is pending.
  void account(Clock::time_point begin);

  /// Of its own: ranks post their messages at different times, also between those of others.
  Communicator comm_;
  kernels::Vec<T> gradients_;
  Index unit_, slice_;
  SumsGoTo sums_go_to_;
  kernels::ExecSpace space_;  // of the sums, which must not wait for what else is computed
  StageVec<T> stage_;
  MessageVec<T> received_;
  std::vector<Block> ranges_;    // that were started
  std::vector<Bucket> buckets_;  // all of them
  std::size_t posted_ = 0;       // of those, from the first on
  std::size_t complete_ = 0;     // of those, from the first on
  std::array<Transfer, most_under_way> transfers_;
  Clock::time_point under_way_since_;
  double exposed_before_ = 0;  // when the sums under way began
  bool under_way_ = false;
  double exposed_seconds_ = 0, hidden_seconds_ = 0;
};

}  // namespace strata::parallel
