// SPDX-License-Identifier: Apache-2.0
// Entry of every test program: MPI and Kokkos around GoogleTest. A failure on any rank fails the test on all
// of them, and only rank 0 prints unless another rank failed.

#include <gtest/gtest.h>
#include <mpi.h>

#include <Kokkos_Core.hpp>

namespace {

/// After each test all ranks agree whether it passed, so that no rank runs ahead into the next test's
/// collectives.
class AgreeAcrossRanks : public testing::EmptyTestEventListener {
  void OnTestEnd(testing::TestInfo const& info) override {
    int failed = info.result()->Failed() ? 1 : 0;
    int any = 0;
    MPI_Allreduce(&failed, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    if (any != 0 && failed == 0) ADD_FAILURE() << "failed on another rank";
  }
};

}  // namespace

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  int status = 1;
  {
    Kokkos::ScopeGuard const kokkos(argc, argv);
    testing::InitGoogleTest(&argc, argv);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    if (rank != 0) delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new AgreeAcrossRanks);
    status = RUN_ALL_TESTS();
    if (testing::UnitTest::GetInstance()->test_to_run_count() == 0) status = 1;
    int any = 0;
    MPI_Allreduce(&status, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    status = any;
  }
  MPI_Finalize();
  return status;
}
