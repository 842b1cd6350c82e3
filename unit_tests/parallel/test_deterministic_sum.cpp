// SPDX-License-Identifier: Apache-2.0
// The tree sum against the same tree added in plain loops on one rank: equal bits on every number of ranks.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <stdexcept>
#include <vector>

#include "core/error.hpp"
#include "parallel/deterministic_sum.hpp"

namespace strata::parallel {
namespace {

using kernels::Index;

/// Gradient of one sample: values of very different size, so that another order of additions gives other
/// bits.
template <class T>
std::vector<T> sample(Index index, Index elements) {
  std::mt19937_64 random(1000 + static_cast<std::uint64_t>(index));
  std::normal_distribution<double> normal;
  std::vector<T> values(static_cast<std::size_t>(elements));
  for (T& value : values) value = static_cast<T>(normal(random) * std::exp(3 * normal(random)));
  return values;
}

template <class T>
std::vector<T> tree(Index lo, Index hi, Index elements) {
  if (hi - lo == 1) return sample<T>(lo, elements);
  Index const mid = lo + (hi - lo) / 2;
  auto sum = tree<T>(lo, mid, elements);
  auto const right = tree<T>(mid, hi, elements);
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += right[i];
  return sum;
}

template <class T>
std::vector<T> in_order(Index n, Index elements) {
  auto sum = sample<T>(0, elements);
  for (Index k = 1; k < n; ++k) {
    auto const next = sample<T>(k, elements);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += next[i];
  }
  return sum;
}

template <class T>
bool same_bits(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

/// The sum of samples [0, global) by this rank's share of them; losses are the first two elements in double.
template <class T>
std::vector<T> sum_over_ranks(DeterministicSum<T>& sum, Communicator const& comm, Index global,
                              Index elements, typename DeterministicSum<T>::Losses& losses) {
  using Buffer = Kokkos::View<T*, Kokkos::LayoutRight, kernels::MemSpace>;
  using Host =
      Kokkos::View<T*, Kokkos::LayoutRight, Kokkos::HostSpace, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;
  Buffer const gradient("gradient", static_cast<std::size_t>(elements));
  Index const local = global / comm.size();
  sum.begin(local);
  for (Index k = 0; k < local; ++k) {
    Index const index = comm.rank() * local + k;
    auto values = sample<T>(index, elements);
    Kokkos::deep_copy(gradient, Host(values.data(), values.size()));
    auto const doubles = sample<double>(index, 2);
    sum.add(kernels::Vec<T>(gradient.data(), elements), {doubles[0], doubles[1]});
  }
  losses = sum.finish(kernels::Vec<T>(gradient.data(), elements));
  std::vector<T> result(static_cast<std::size_t>(elements));
  Kokkos::deep_copy(Host(result.data(), result.size()), gradient);
  return result;
}

template <class T>
class DeterministicSumTest : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(DeterministicSumTest, Scalars, );

TYPED_TEST(DeterministicSumTest, HasTheBitsOfTheTreeOnAnyNumberOfRanks) {
  using T = TypeParam;
  Index const elements = 10007;
  // Pieces of the exchange that do and do not divide the buffer.
  for (std::size_t const piece : {Communicator::max_piece, std::size_t(1000)}) {
    Communicator const comm(MPI_COMM_WORLD, piece);
    for (Index const global : {4, 8, 12, 16, 28}) {
      DeterministicSum<T> sum(comm, elements, global);
      typename DeterministicSum<T>::Losses losses = {};
      auto const result = sum_over_ranks(sum, comm, global, elements, losses);
      EXPECT_TRUE(same_bits(result, tree<T>(0, global, elements))) << global << " samples";
      EXPECT_TRUE(same_bits({losses[0], losses[1]}, tree<double>(0, global, 2))) << global << " samples";
    }
  }
}

TYPED_TEST(DeterministicSumTest, TheTestCanTellOrdersApart) {
  using T = TypeParam;
  EXPECT_FALSE(same_bits(tree<T>(0, 8, 10007), in_order<T>(8, 10007)));
}

TYPED_TEST(DeterministicSumTest, CanBeUsedAgainAndForSmallerBatches) {
  using T = TypeParam;
  Communicator const comm;
  DeterministicSum<T> sum(comm, 100, 16);
  typename DeterministicSum<T>::Losses losses = {};
  for (Index const global : {16, 4, 8, 16})
    EXPECT_TRUE(same_bits(sum_over_ranks(sum, comm, global, 100, losses), tree<T>(0, global, 100))) << global;
}

TYPED_TEST(DeterministicSumTest, RefusesWrongUse) {
  using T = TypeParam;
  Communicator const comm;
  Index const ranks = comm.size();
  Kokkos::View<T*, Kokkos::LayoutRight, kernels::MemSpace> const buffer("gradient", 8);
  kernels::Vec<T> const gradient(buffer.data(), 8);
  DeterministicSum<T> sum(comm, 8, ranks * 2);
  EXPECT_THROW(sum.begin(3), std::logic_error);
  EXPECT_THROW(sum.begin(0), std::logic_error);
  EXPECT_THROW(sum.add(gradient, {}), std::logic_error);
  sum.begin(2);
  sum.add(gradient, {});
  EXPECT_THROW(sum.finish(gradient), std::logic_error);
  EXPECT_THROW(sum.add(kernels::Vec<T>(buffer.data(), 7), {}), std::logic_error);
  EXPECT_THROW(DeterministicSum<T>(comm, 8, 0), core::InputError);
  if (ranks > 1) {
    EXPECT_THROW(DeterministicSum<T>(comm, 8, ranks + 1), core::InputError);
  }
}

/// Sums of 1, 2, 3, 4 and 1000 samples have 1, 1, 2, 2 and 10 subtrees open.
TYPED_TEST(DeterministicSumTest, SaysWhatItAllocates) {
  using T = TypeParam;
  constexpr kernels::Index elements = 5000000000, piece = kernels::Index(1) << 22;
  auto const bytes = [](kernels::Index samples, kernels::Index ranks) {
    return DeterministicSum<T>::buffer_bytes(elements, samples, ranks);
  };
  for (auto const& [samples, open] :
       {std::pair(1, 1), std::pair(2, 1), std::pair(3, 2), std::pair(4, 2), std::pair(1000, 10)}) {
    std::size_t const sums = static_cast<std::size_t>(open) * (elements * sizeof(T) + 16);
    EXPECT_EQ(bytes(samples, 1), sums) << samples;
    EXPECT_EQ(bytes(4 * samples, 4), sums + (through_host ? 3 : 1) * piece * sizeof(T)) << samples;
  }
}

TYPED_TEST(DeterministicSumTest, RefusesThreeRanks) {
  using T = TypeParam;
  Communicator const world;
  if (world.size() < 3) return;  // the registration with 4 ranks runs the rest
  MPI_Comm three = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, world.rank() < 3 ? 0 : 1, world.rank(), &three);
  {
    Communicator const comm(three);
    bool refused = false;
    try {
      DeterministicSum<T> const sum(comm, 8, 6);
    } catch (core::InputError const&) {
      refused = true;
    }
    EXPECT_EQ(refused, comm.size() == 3);
  }
  MPI_Comm_free(&three);
}

}  // namespace
}  // namespace strata::parallel
