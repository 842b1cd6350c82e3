// SPDX-License-Identifier: Apache-2.0
// Ranks with different amounts of work, one of which is asked to stop.

#include "parallel/stop_agreement.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace strata::parallel {
namespace {

/// Polls until told to stop, at most `steps` times; returns how often.
int work(StopAgreement& agreement, int steps) {
  int done = 0;
  while (done < steps && !agreement.poll()) {
    ++done;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return done;
}

TEST(StopAgreement, NobodyStopsUnasked) {
  Communicator const comm;
  StopAgreement agreement(comm, [] { return false; });
  int const steps = 5 + 40 * comm.rank();
  EXPECT_EQ(work(agreement, steps), steps);
  EXPECT_FALSE(agreement.finish());
}

TEST(StopAgreement, OneRankStopsAll) {
  Communicator const comm;
  for (int asked = 0; asked < comm.size(); ++asked) {
    int polls = 0;
    StopAgreement agreement(comm, [&] { return comm.rank() == asked && ++polls > 3; });
    constexpr int endless = 100000;
    EXPECT_LT(work(agreement, endless), endless);
    EXPECT_TRUE(agreement.finish());
  }
}

TEST(StopAgreement, ARankThatHasFinishedCanStillStopTheOthers) {
  Communicator const comm;
  int polls = 0;
  StopAgreement agreement(comm, [&] { return comm.is_root() && ++polls > 10; });
  if (!comm.is_root()) work(agreement, 100000);
  if (comm.size() > 1) {
    EXPECT_TRUE(agreement.finish());
  } else {
    EXPECT_FALSE(agreement.finish());
  }
}

TEST(StopAgreement, TheCommunicatorIsFreeAfterwards) {
  Communicator const comm;
  for (int round = 0; round < 20; ++round) {
    StopAgreement agreement(comm, [] { return false; });
    work(agreement, comm.rank());
    EXPECT_FALSE(agreement.finish());
    EXPECT_EQ(comm.sum(1), comm.size());
  }
}

}  // namespace
}  // namespace strata::parallel
