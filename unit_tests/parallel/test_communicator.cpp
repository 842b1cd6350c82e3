// SPDX-License-Identifier: Apache-2.0
// Closed forms of every collective, long arrays in pieces, empty arrays, and MPI errors as exceptions.

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "parallel/communicator.hpp"

namespace strata::parallel {
namespace {

TEST(Communicator, ReductionsHaveTheirClosedForms) {
  Communicator const comm;
  double const n = comm.size();
  EXPECT_EQ(comm.sum(comm.rank() + 1.0), n * (n + 1) / 2);
  EXPECT_EQ(comm.max(comm.rank()), n - 1);
  EXPECT_EQ(comm.min(-comm.rank()), 1 - n);
  EXPECT_EQ(comm.is_root(), comm.rank() == 0);
  comm.barrier();
}

TEST(Communicator, AnyAndAllSeeOneRank) {
  Communicator const comm;
  bool const last = comm.rank() == comm.size() - 1;
  EXPECT_TRUE(comm.any(last));
  EXPECT_FALSE(comm.any(false));
  EXPECT_TRUE(comm.all(true));
  EXPECT_FALSE(comm.all(!last));
}

TEST(Communicator, SumsArraysInPieces) {
  for (std::size_t const piece : {std::size_t(1), std::size_t(3), std::size_t(7), Communicator::max_piece}) {
    Communicator const comm(MPI_COMM_WORLD, piece);
    double const n = comm.size();
    for (std::size_t const count : {std::size_t(0), std::size_t(1), std::size_t(7), std::size_t(20)}) {
      std::vector<double> values(count + 1, -5.0);  // the last one guards the end
      for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<double>(i) * (comm.rank() + 1);
      comm.sum_in_place(values.data(), count);
      bool right = values[count] == -5.0;
      for (std::size_t i = 0; i < count; ++i)
        right = right && values[i] == static_cast<double>(i) * n * (n + 1) / 2;
      EXPECT_TRUE(right) << "piece " << piece << ", count " << count;
    }
  }
}

TEST(Communicator, GathersInPiecesOnEveryRank) {
  auto const text_of = [](int rank) {
    // Nothing from rank 1, and zeros among the bytes.
    return rank == 1 ? std::string() : std::string(static_cast<std::size_t>(3 * rank + 1), '\0') + "end";
  };
  for (std::size_t const piece : {std::size_t(1), std::size_t(5), Communicator::max_piece}) {
    Communicator const comm(MPI_COMM_WORLD, piece);
    for (int root = 0; root < comm.size(); ++root) {
      std::vector<std::string> expected;
      for (int rank = 0; rank < comm.size() && comm.rank() == root; ++rank) expected.push_back(text_of(rank));
      EXPECT_EQ(comm.gather(text_of(comm.rank()), root), expected);
    }
  }
}

TEST(Communicator, BroadcastsInPiecesFromEveryRank) {
  for (std::size_t const piece : {std::size_t(1), std::size_t(5), Communicator::max_piece}) {
    Communicator const comm(MPI_COMM_WORLD, piece);
    for (int root = 0; root < comm.size(); ++root) {
      std::string const expected = "text of rank " + std::to_string(root);
      std::string const mine = comm.rank() == root ? expected : "another length";
      EXPECT_EQ(comm.broadcast(mine, root), expected);
      EXPECT_EQ(comm.broadcast(std::string(comm.rank() == root ? "" : "x"), root), "");
    }
  }
}

TEST(Communicator, IsSeparateFromItsParent) {
  Communicator const comm;
  int result = MPI_UNEQUAL;
  MPI_Comm_compare(MPI_COMM_WORLD, comm.get(), &result);
  EXPECT_EQ(result, MPI_CONGRUENT);
}

TEST(Communicator, ThrowsInsteadOfEndingTheJob) {
  Communicator const comm;
  double value = 1;
  // A root that does not exist: found before any message is sent, on every rank.
  try {
    comm.broadcast(&value, sizeof value, comm.size());
    ADD_FAILURE() << "no exception";
  } catch (std::runtime_error const& error) {
    EXPECT_NE(std::string(error.what()).find("MPI_Bcast: MPI_ERR_ROOT"), std::string::npos) << error.what();
  }
  EXPECT_THROW(Communicator(MPI_COMM_WORLD, 0), std::logic_error);
  EXPECT_THROW(Communicator(MPI_COMM_WORLD, Communicator::max_piece + 1), std::logic_error);
}

}  // namespace
}  // namespace strata::parallel
