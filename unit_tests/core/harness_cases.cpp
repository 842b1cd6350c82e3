// SPDX-License-Identifier: Apache-2.0
// Tests that must fail, so that we know that a failing test is seen: registered with ctest as WILL_FAIL.

#include <gtest/gtest.h>
#include <mpi.h>

#include <stdexcept>

namespace {

TEST(Harness, Passes) {}

TEST(Harness, FailsOnTheLastRank) {
  int rank = 0;
  int size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  EXPECT_NE(rank, size - 1);
}

TEST(Harness, Throws) { throw std::runtime_error("thrown by a test"); }

}  // namespace
