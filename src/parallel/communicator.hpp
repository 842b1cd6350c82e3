// SPDX-License-Identifier: Apache-2.0
#pragma once
// The ranks that work on one model. The only headers that name MPI are here and in core/runtime.

#include <mpi.h>

#include <climits>
#include <cstddef>
#include <string>
#include <vector>

#include "kernels/common/types.hpp"

namespace strata::parallel {

/// Throws std::runtime_error with MPI's own message unless `code`, returned by the function `call`, is
/// MPI_SUCCESS.
void check_mpi(int code, char const* call);

/// A duplicated communicator with errors returned, not fatal; every call is checked and throws
/// std::runtime_error with MPI's own message. All functions but the getters, send() and
/// receive() are collective.
class Communicator {
 public:
  /// MPI counts in int.
  static constexpr std::size_t max_piece = INT_MAX;

  /// Arrays longer than `piece` elements are sent in pieces; tests make it small.
  explicit Communicator(MPI_Comm parent = MPI_COMM_WORLD, std::size_t piece = max_piece);
  ~Communicator();
  Communicator(Communicator const&) = delete;
  Communicator& operator=(Communicator const&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool is_root() const { return rank_ == 0; }
  MPI_Comm get() const { return comm_; }
  std::size_t piece() const { return piece_; }

  /// Ranks that share this rank's memory.
  int size_on_node() const;

  double sum(double value) const;
  double max(double value) const;
  double min(double value) const;
  bool any(bool value) const;
  bool all(bool value) const { return !any(!value); }
  /// Sum over the ranks, element by element.
  void sum_in_place(double* values, std::size_t count) const;
  void barrier() const;
  /// `root`'s bytes, or its text, on every rank.
  void broadcast(void* data, std::size_t bytes, int root = 0) const;
  std::string broadcast(std::string text, int root = 0) const;
  /// One rank's bytes to another, which receives as many.
  void send(void const* data, std::size_t bytes, int to) const;
  void receive(void* data, std::size_t bytes, int from) const;
  /// Every rank's bytes by rank on `root`; nothing on the others.
  std::vector<std::string> gather(std::string const& mine, int root = 0) const;

 private:
  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
  std::size_t piece_ = max_piece;
};

}  // namespace strata::parallel
