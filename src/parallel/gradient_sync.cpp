// SPDX-License-Identifier: Apache-2.0
#include "parallel/gradient_sync.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <thread>

#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "parallel/mpi_type.hpp"

namespace strata::parallel {

using kernels::ExecSpace;
using kernels::Index;

template <class T>
GradientSync<T>::GradientSync(Communicator const& comm, kernels::Vec<T> gradients, Index bucket_elements)
    : comm_(comm.get(), comm.piece()),
      gradients_(gradients),
      bucket_elements_(std::min<Index>(bucket_elements, static_cast<Index>(comm.piece()))) {
  STRATA_REQUIRE(bucket_elements > 0, "bucket_elements = " << bucket_elements);
  if (comm_.size() == 1) return;
  if constexpr (through_host)
    stage_ = StageVec<T>(Kokkos::view_alloc(Kokkos::WithoutInitializing, "strata::gradient_sync"),
                         gradients.extent(0));
  std::size_t const expected = most_buckets(static_cast<Index>(gradients.extent(0)), bucket_elements_);
  buckets_.reserve(expected);
  requests_.reserve(expected);
}

template <class T>
std::size_t GradientSync<T>::buffer_bytes(Index elements, Index ranks, Index bucket_elements) {
  if (ranks == 1) return 0;
  return (through_host ? static_cast<std::size_t>(elements) * sizeof(T) : 0) +
         most_buckets(elements, bucket_elements) * (sizeof(Bucket) + sizeof(MPI_Request)) +
         static_cast<std::size_t>(std::min(elements, static_cast<Index>(most_under_way) * bucket_elements)) *
             sizeof(T);
}

template <class T>
GradientSync<T>::~GradientSync() {
  using Clock = std::chrono::steady_clock;
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
void GradientSync<T>::start(Index begin, Index end) {
  STRATA_REQUIRE(0 <= begin && begin <= end && end <= static_cast<Index>(gradients_.extent(0)),
                 "[" << begin << ", " << end << ") of " << gradients_.extent(0));
  if (comm_.size() == 1) return;
  ExecSpace const space;
  space.fence();
  for (Index at = begin; at < end; at += bucket_elements_) {
    Bucket const bucket = {at, std::min(end, at + bucket_elements_)};
    if constexpr (through_host) {
      std::pair<Index, Index> const part(bucket.begin, bucket.end);
      Kokkos::deep_copy(Kokkos::subview(stage_, part), Kokkos::subview(gradients_, part));
    }
    buckets_.push_back(bucket);
  }
  advance();
}

template <class T>
void GradientSync<T>::post() {
  while (requests_.size() < buckets_.size() && requests_.size() < complete_ + most_under_way) {
    Bucket const& bucket = buckets_[requests_.size()];
    T* const data = (through_host ? stage_.data() : gradients_.data()) + bucket.begin;
    MPI_Request request = MPI_REQUEST_NULL;
    kernels::CommunicationScope const timed("MPI_Iallreduce",
                                            static_cast<std::size_t>(bucket.end - bucket.begin) * sizeof(T));
    check_mpi(MPI_Iallreduce(MPI_IN_PLACE, data, static_cast<int>(bucket.end - bucket.begin), mpi_type<T>(),
                             MPI_SUM, comm_.get(), &request),
              "MPI_Iallreduce");
    requests_.push_back(request);
  }
}

template <class T>
void GradientSync<T>::advance() {
  post();
  while (complete_ < requests_.size()) {
    int complete = 0;
    {
      kernels::CommunicationScope const timed("MPI_Test", 0);
      check_mpi(MPI_Test(&requests_[complete_], &complete, MPI_STATUS_IGNORE), "MPI_Test");
    }
    if (complete == 0) return;
    ++complete_;
    post();
  }
}

template <class T>
void GradientSync<T>::poll() {
  if (is_pending()) advance();
}

template <class T>
void GradientSync<T>::finish() {
  if (buckets_.empty()) return;
  auto const begin = std::chrono::steady_clock::now();
  for (; is_pending(); ++complete_) {
    post();
    kernels::CommunicationScope const timed("MPI_Wait", 0);
    check_mpi(MPI_Wait(&requests_[complete_], MPI_STATUS_IGNORE), "MPI_Wait");
  }
  exposed_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if constexpr (through_host)
    for (Bucket const& bucket : buckets_) {
      std::pair<Index, Index> const part(bucket.begin, bucket.end);
      Kokkos::deep_copy(Kokkos::subview(gradients_, part), Kokkos::subview(stage_, part));
    }
  requests_.clear();
  buckets_.clear();
  complete_ = 0;
}

template class GradientSync<float>;
template class GradientSync<double>;

}  // namespace strata::parallel
