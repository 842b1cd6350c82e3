// SPDX-License-Identifier: Apache-2.0
#pragma once
// The ranks that work on one model. The only headers that name MPI are here and in core/runtime.

#include <mpi.h>

#include <cstddef>
#include <string>

#include "kernels/common/types.hpp"

namespace strata::parallel {

/// A duplicated communicator with errors returned, not fatal; every call is checked and throws std::runtime_error with
/// MPI's own message. Counts beyond 2^31 are sent in pieces.
class Communicator {
 public:
  explicit Communicator(MPI_Comm parent = MPI_COMM_WORLD);
  ~Communicator();
  Communicator(Communicator const&) = delete;
  Communicator& operator=(Communicator const&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool is_root() const { return rank_ == 0; }
  MPI_Comm get() const { return comm_; }

  double sum(double value) const;
  double max(double value) const;
  double min(double value) const;
  bool any(bool value) const;
  bool all(bool value) const { return !any(!value); }
  void sum_in_place(double* values, std::size_t count) const;
  void barrier() const;
  void broadcast(void* data, std::size_t bytes, int root = 0) const;
  std::string broadcast(std::string text, int root = 0) const;

 private:
  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
};

}  // namespace strata::parallel
