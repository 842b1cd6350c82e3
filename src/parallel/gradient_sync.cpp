// SPDX-License-Identifier: Apache-2.0
#include "parallel/gradient_sync.hpp"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <thread>
#include <utility>

#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"

namespace strata::parallel {

using kernels::ExecSpace;

namespace {

/// On a GPU an instance beside the default one, where backward passes queue.
ExecSpace instance_for_sums() {
#if KOKKOS_VERSION >= 40000
  if (kernels::on_device) return Kokkos::Experimental::partition_space(ExecSpace(), 1)[0];
#endif
  return ExecSpace();
}

template <class A, class B>
void copy(A const& to, B const& from, Block const& range) {
  std::pair<Index, Index> const part(range.first, range.last);
  Kokkos::deep_copy(Kokkos::subview(to, part), Kokkos::subview(from, part));
}

}  // namespace

template <class T>
GradientSync<T>::GradientSync(Communicator const& comm, kernels::Vec<T> gradients,
                              GradientSyncSettings settings)
    : comm_(comm.get(), comm.piece()),
      gradients_(gradients),
      unit_(settings.unit),
      slice_(slice_length(static_cast<Index>(gradients.extent(0)), comm.size(), comm.piece(), settings)),
      sums_go_to_(settings.sums_go_to),
      space_(instance_for_sums()) {
  STRATA_REQUIRE(settings.bucket_elements > 0 && settings.unit > 0,
                 "bucket_elements = " << settings.bucket_elements << ", unit = " << settings.unit);
  if (comm_.size() == 1) return;
  auto const label = [](char const* name) {
    return Kokkos::view_alloc(Kokkos::WithoutInitializing, std::string(name));
  };
  if constexpr (through_host)
    stage_ = StageVec<T>(label("strata::gradient_sync::stage"), gradients.extent(0));
  received_ = MessageVec<T>(label("strata::gradient_sync::received"),
                            static_cast<Index>(most_under_way) * (comm_.size() - 1) * slice_);
  ranges_.reserve(8);
  buckets_.reserve(most_buckets(static_cast<Index>(gradients.extent(0)), slice_, comm_.size()));
  for (Transfer& transfer : transfers_)
    transfer.requests.reserve(2 * static_cast<std::size_t>(comm_.size() - 1));
}

template <class T>
Index GradientSync<T>::slice_length(Index elements, Index ranks, std::size_t piece,
                                    GradientSyncSettings const& s) {
  Index const longest =
      std::max<Index>(Parts{{0, elements}, std::max<Index>(s.unit, 1), ranks}.of(0).size(), 1);
  return std::clamp<Index>(s.bucket_elements / ranks, 1, std::min(longest, static_cast<Index>(piece)));
}

/// Ranges seldom end where a bucket does, hence room for twice as many.
template <class T>
std::size_t GradientSync<T>::most_buckets(Index elements, Index slice, Index ranks) {
  return 2 * static_cast<std::size_t>(elements / (slice * ranks)) + 64;
}

template <class T>
std::size_t GradientSync<T>::buffer_bytes(Index elements, Index ranks, GradientSyncSettings const& settings) {
  if (ranks == 1) return 0;
  Index const slice = slice_length(elements, ranks, Communicator::max_piece, settings);
  auto const others = static_cast<std::size_t>(ranks - 1);
  return (through_host ? static_cast<std::size_t>(elements) * sizeof(T) : 0) +
         most_under_way * others * static_cast<std::size_t>(slice) * sizeof(T) +
         most_under_way * 2 * others * sizeof(MPI_Request) +
         most_buckets(elements, slice, ranks) * sizeof(Bucket);
}

template <class T>
GradientSync<T>::~GradientSync() {
  bool const unwinding = std::uncaught_exceptions() > 0;
  auto const deadline = Clock::now() + std::chrono::seconds(2);
  while (is_pending()) {
    bool failed = false;
    try {
      advance();
    } catch (std::exception const&) {
      failed = true;
    }
    if (failed || (unwinding && is_pending() && Clock::now() > deadline)) {
      std::fprintf(stderr, "strata: rank %d failed while gradients were being summed\n", comm_.rank());
      MPI_Abort(comm_.get(), 1);
    }
    std::this_thread::yield();
  }
}

template <class T>
T* GradientSync<T>::received(std::size_t bucket) const {
  return received_.data() + static_cast<Index>(bucket % most_under_way) * (comm_.size() - 1) * slice_;
}

template <class T>
T* GradientSync<T>::messages(kernels::Vec<T> const& values) const {
  return through_host ? stage_.data() : values.data();
}

template <class T>
void GradientSync<T>::start(Index begin, Index end) {
  STRATA_REQUIRE(0 <= begin && begin <= end && end <= static_cast<Index>(gradients_.extent(0)),
                 "[" << begin << ", " << end << ") of " << gradients_.extent(0));
  if (comm_.size() == 1 || begin == end) return;
  ExecSpace const space;
  space.fence();
  Clock::time_point const now = Clock::now();
  if (!under_way_) {
    under_way_ = true;
    under_way_since_ = now;
    exposed_before_ = exposed_seconds_;
  }
  Block const range = {begin, end};
  if constexpr (through_host) copy(stage_, gradients_, range);
  ranges_.push_back(range);
  Index const slices = parts_of(range).slices();
  for (Index k = 0; k < slices; ++k) buckets_.push_back({range, k});
  advance();
  account(now);
}

template <class T>
void GradientSync<T>::post() {
  for (; posted_ < buckets_.size() && posted_ < complete_ + most_under_way; ++posted_) {
    Bucket const& bucket = buckets_[posted_];
    Transfer& next = transfer(posted_);
    next.requests.clear();
    next.added = false;
    post_summands<T>(comm_, parts_of(bucket.range), bucket.k, messages(gradients_), received(posted_),
                     next.requests);
  }
}

template <class T>
bool GradientSync<T>::arrived(Transfer& transfer) {
  int complete = 0;
  kernels::CommunicationScope const timed("MPI_Testall", 0);
  check_mpi(MPI_Testall(static_cast<int>(transfer.requests.size()), transfer.requests.data(), &complete,
                        MPI_STATUSES_IGNORE),
            "MPI_Testall");
  return complete != 0;
}

template <class T>
void GradientSync<T>::add(std::size_t number) {
  Bucket const& bucket = buckets_[number];
  Transfer& here = transfer(number);
  Parts const parts = parts_of(bucket.range);
  Block const mine = parts.slice_of(comm_.rank(), bucket.k);
  add_by_rank<T>(space_, messages(gradients_) + mine.first, received(number), mine.size(), slice_,
                 comm_.rank(), comm_.size());
  here.added = true;
  here.requests.clear();
  if (sums_go_to_ == SumsGoTo::every_rank)
    post_results<T>(comm_, parts, bucket.k, messages(gradients_), here.requests);
}

template <class T>
void GradientSync<T>::advance() {
  post();
  // All ranks post the results in the order of the buckets, so that messages between two meet their like.
  for (std::size_t b = complete_; b < posted_; ++b) {
    if (transfer(b).added) continue;
    if (!arrived(transfer(b))) break;
    add(b);
  }
  while (complete_ < posted_ && transfer(complete_).added && arrived(transfer(complete_))) {
    ++complete_;
    post();
  }
}

template <class T>
void GradientSync<T>::account(Clock::time_point begin) {
  Clock::time_point const now = Clock::now();
  auto const seconds = [](Clock::duration d) { return std::chrono::duration<double>(d).count(); };
  exposed_seconds_ += seconds(now - begin);
  if (!under_way_ || is_pending()) return;
  under_way_ = false;
  hidden_seconds_ += seconds(now - under_way_since_) - (exposed_seconds_ - exposed_before_);
}

template <class T>
void GradientSync<T>::poll() {
  if (!is_pending()) return;
  Clock::time_point const begin = Clock::now();
  advance();
  account(begin);
}

template <class T>
void GradientSync<T>::finish() {
  if (buckets_.empty()) return;
  Clock::time_point const begin = Clock::now();
  for (advance(); is_pending(); advance()) {
    Transfer& first = transfer(complete_);
    kernels::CommunicationScope const timed("MPI_Waitall", 0);
    check_mpi(
        MPI_Waitall(static_cast<int>(first.requests.size()), first.requests.data(), MPI_STATUSES_IGNORE),
        "MPI_Waitall");
  }
  if constexpr (through_host)
    for (Block const& range : ranges_)
      copy(gradients_, stage_, sums_go_to_ == SumsGoTo::owner ? parts_of(range).of(comm_.rank()) : range);
  ranges_.clear();
  buckets_.clear();
  posted_ = complete_ = 0;
  account(begin);
}

template <class T>
void GradientSync<T>::gather(kernels::Vec<T> values, Index begin, Index end) {
  STRATA_REQUIRE(buckets_.empty() && values.extent(0) == gradients_.extent(0) && 0 <= begin && begin <= end &&
                     end <= static_cast<Index>(values.extent(0)),
                 "[" << begin << ", " << end << ") of " << values.extent(0));
  if (comm_.size() == 1 || begin == end) return;
  ExecSpace const space;
  space.fence();
  Clock::time_point const now = Clock::now();
  Parts const parts = parts_of({begin, end});
  Block const mine = parts.of(comm_.rank());
  if constexpr (through_host) copy(stage_, values, mine);
  Index const slices = parts.slices();
  for (Index k = 0; k < slices + static_cast<Index>(most_under_way); ++k) {
    Transfer& here = transfer(static_cast<std::size_t>(k));
    if (k >= static_cast<Index>(most_under_way)) {
      kernels::CommunicationScope const timed("MPI_Waitall", 0);
      check_mpi(
          MPI_Waitall(static_cast<int>(here.requests.size()), here.requests.data(), MPI_STATUSES_IGNORE),
          "MPI_Waitall");
    }
    here.requests.clear();
    if (k < slices) post_results<T>(comm_, parts, k, messages(values), here.requests);
  }
  if constexpr (through_host) {
    copy(values, stage_, {begin, mine.first});
    copy(values, stage_, {mine.last, end});
  }
  account(now);
}

template class GradientSync<float>;
template class GradientSync<double>;

}  // namespace strata::parallel
