// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "kernels/triad.hpp"
#include "train/machine.hpp"
#include "unit_tests/support/owned.hpp"
#include "unit_tests/train/tiny_run.hpp"

namespace strata::train {
namespace {

TEST(Triad, AddsAScaledVector) {
  for (kernels::Index const n : {0, 1, 13, 4096, 10007}) {
    auto const b = test::OwnedVec<double>::random(n, 1), c = test::OwnedVec<double>::random(n, 2);
    test::OwnedVec<double> a(n);
    kernels::triad<double>(kernels::ExecSpace(), 0.5, b.span(), c.span(), a.span());
    std::vector<double> wanted = b.values();
    for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += 0.5 * c.values()[i];
    EXPECT_EQ(a.values(), wanted) << n;  // a product with 0.5 is exact, so a fused addition rounds alike
    EXPECT_TRUE(a.guards_intact());
  }
}

TEST(Machine, MeasuresWhatThereIsAndLeavesNothing) {
  parallel::Communicator const ranks;
  test::SharedFolder const folder(ranks);
  Machine machine = measure_machine(ranks);
  EXPECT_GT(machine.gemm_flops, 1e6);
  EXPECT_GT(machine.gemm_double_flops, 1e6);
  EXPECT_GT(machine.bandwidth, 1e6);
  bool const several = ranks.size() > 1;
  EXPECT_EQ(machine.mpi_latency > 0, several);
  EXPECT_EQ(machine.mpi_bandwidth > 0, several);
  EXPECT_EQ(ranks.max(machine.mpi_latency), ranks.min(machine.mpi_latency))
      << "the slowest pair's, everywhere";

  measure_files(machine, folder.path() + "/missing", ranks);
  EXPECT_EQ(machine.hdf5_write, 0);
  EXPECT_EQ(machine.hdf5_read, 0);
  auto const without_files = limits_json(machine);
  EXPECT_EQ(without_files.size(), several ? 5U : 3U) << without_files.dump();

  measure_files(machine, folder.path(), ranks);
  EXPECT_GT(machine.hdf5_write, 0);
  EXPECT_GT(machine.hdf5_read, 0);
  EXPECT_EQ(limits_json(machine).at("hdf5_read_bytes_per_second"), machine.hdf5_read);
  ranks.barrier();
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Machine, OriginNamesWhoMadeAResult) {
  auto const origin = origin_json();
  for (char const* key : {"time", "host", "version", "commit", "kokkos", "backend", "blas", "command"})
    EXPECT_FALSE(origin.at(key).get<std::string>().empty()) << key;
  EXPECT_EQ(origin.at("ranks"), parallel::Communicator().size());
  EXPECT_NE(origin.at("command").get<std::string>().find("test_machine"), std::string::npos);
}

}  // namespace
}  // namespace strata::train
