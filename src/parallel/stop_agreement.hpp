// SPDX-License-Identifier: Apache-2.0
#pragma once
// Ranks that work independently and end together when any of them is asked to stop.

#include <array>
#include <functional>
#include <memory>

#include "parallel/communicator.hpp"

namespace strata::parallel {

/// Agrees in rounds that run beside the work: poll() never waits for other ranks. Every rank must end with
/// finish(), or with an exception that ends the program.
class StopAgreement {
 public:
  /// `asked` tells whether this rank was asked to stop. The communicator must not be used otherwise until
  /// finish() has returned.
  StopAgreement(Communicator const& comm, std::function<bool()> asked);
  ~StopAgreement();
  StopAgreement(StopAgreement const&) = delete;
  StopAgreement& operator=(StopAgreement const&) = delete;

  /// Whether any rank is known to have been asked.
  bool poll();
  /// Waits until every rank is here; then says, the same on all ranks, whether any was asked before.
  bool finish();

 private:
  /// Largest values over the ranks: asked to stop, still at work.
  struct Round {
    std::array<int, 2> mine = {}, all = {};
  };
  void begin_round();
  bool round_ended();

  Communicator const& comm_;
  std::function<bool()> asked_;
  std::unique_ptr<Round> round_;
  MPI_Request request_ = MPI_REQUEST_NULL;
  bool stop_ = false, working_ = true, over_ = false;
};

}  // namespace strata::parallel
