// SPDX-License-Identifier: Apache-2.0
#pragma once
// Sum of the gradients over the ranks, begun as soon as a part of them is final and finished before the
// optimiser runs.

#include <mpi.h>

#include <vector>

#include "kernels/common/types.hpp"
#include "parallel/communicator.hpp"
#include "parallel/host_stage.hpp"

namespace strata::parallel {

/// Sums one flat gradient buffer over the ranks, in place, by non-blocking all-reduces of at most
/// `bucket_elements` each, of which a few are under way at a time: MPI may hold a second copy of each of
/// those. With one rank every function does nothing. The sum depends on the number of ranks in its last bits;
/// DeterministicSum does not.
///
/// A step: start(begin, end) for ranges that are disjoint and the same in the same order on every rank,
/// poll() now and then so that MPI makes progress, finish(). Nothing is allocated after the construction
/// unless a step starts more buckets than the whole buffer has.
template <class T>
class GradientSync {
 public:
  using Index = kernels::Index;

  /// Collective. `gradients` stays the caller's; its elements [begin, end) must not be touched between their
  /// start() and finish(). On a device without STRATA_GPU_AWARE_MPI the sums travel through a host copy of
  /// it, allocated here.
  GradientSync(Communicator const& comm, kernels::Vec<T> gradients, Index bucket_elements = Index(1) << 22);
  /// Waits for what is pending. When an exception on this rank alone abandoned the sums, ends the job after
  /// two seconds: MPI must not write into memory that is about to be given back.
  ~GradientSync();
  GradientSync(GradientSync const&) = delete;
  GradientSync& operator=(GradientSync const&) = delete;

  /// What summing a buffer of `elements` takes on the host at most: nothing with one rank, else the copy
  /// where there is one, the list of messages and what MPI holds of those under way.
  static std::size_t buffer_bytes(Index elements, Index ranks, Index bucket_elements = Index(1) << 22);

  /// Elements [begin, end) hold this rank's part. Fences the default execution space instance first, so the
  /// kernels that wrote them on it need no fence of the caller's.
  void start(Index begin, Index end);
  /// Lets MPI work on what is pending; never blocks.
  void poll();
  /// Returns when the elements of all start() calls hold the sums, visible to kernels on the default
  /// instance.
  void finish();

  /// Seconds spent waiting in finish() so far: communication that no computation hid.
  double exposed_seconds() const { return exposed_seconds_; }

 private:
  struct Bucket {
    Index begin, end;
  };

  bool is_pending() const { return complete_ < buckets_.size(); }
  /// Hands MPI what may be under way now.
  void post();
  /// Notes what is complete, from the first on, and posts what follows.
  void advance();
  /// Ranges seldom end at multiples of the bucket, hence room for twice as many.
  static std::size_t most_buckets(Index elements, Index bucket_elements) {
    return 2 * static_cast<std::size_t>(elements / bucket_elements) + 64;
  }

  static constexpr std::size_t most_under_way = 4;

  /// Of its own: ranks post their messages at different times, also between those of others.
  Communicator comm_;
  kernels::Vec<T> gradients_;
  Index bucket_elements_;
  StageVec<T> stage_;
  std::vector<Bucket> buckets_;        // all that were started
  std::vector<MPI_Request> requests_;  // of the first of them: those posted
  std::size_t complete_ = 0;           // of those, from the first on
  double exposed_seconds_ = 0;
};

}  // namespace strata::parallel
