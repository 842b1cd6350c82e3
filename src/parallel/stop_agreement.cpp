// SPDX-License-Identifier: Apache-2.0
#include "parallel/stop_agreement.hpp"

#include <chrono>
#include <thread>
#include <utility>

namespace strata::parallel {

StopAgreement::StopAgreement(Communicator const& comm, std::function<bool()> asked)
    : comm_(comm), asked_(std::move(asked)), round_(std::make_unique<Round>()) {
  if (comm_.size() > 1) begin_round();
}

StopAgreement::~StopAgreement() {
  // After an exception a round may be under way, and MPI still write its result.
  if (request_ != MPI_REQUEST_NULL) static_cast<void>(round_.release());
}

void StopAgreement::begin_round() {
  round_->mine = {stop_ || asked_() ? 1 : 0, working_ ? 1 : 0};
  check_mpi(
      MPI_Iallreduce(round_->mine.data(), round_->all.data(), 2, MPI_INT, MPI_MAX, comm_.get(), &request_),
      "MPI_Iallreduce");
}

bool StopAgreement::round_ended() {
  int ended = 0;
  check_mpi(MPI_Test(&request_, &ended, MPI_STATUS_IGNORE), "MPI_Test");
  if (ended == 0) return false;
  stop_ = stop_ || round_->all[0] != 0;
  over_ = round_->all[1] == 0;
  if (!over_) begin_round();
  return true;
}

bool StopAgreement::poll() {
  if (comm_.size() == 1) return stop_ = stop_ || asked_();
  round_ended();
  return stop_;
}

bool StopAgreement::finish() {
  working_ = false;
  if (comm_.size() == 1) return poll();
  while (!over_)
    if (!round_ended()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return stop_;
}

}  // namespace strata::parallel
