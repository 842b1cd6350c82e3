// SPDX-License-Identifier: Apache-2.0
// The non-blocking sum against its closed form, for several buckets and ways to cut the buffer into ranges.

#include <gtest/gtest.h>

#include <stdexcept>
#include <utility>
#include <vector>

#include "parallel/gradient_sync.hpp"

namespace strata::parallel {
namespace {

using kernels::Index;
using Ranges = std::vector<std::pair<Index, Index>>;

template <class T>
class GradientSyncTest : public testing::Test {
 public:
  using Buffer = Kokkos::View<T*, Kokkos::LayoutRight, kernels::MemSpace>;

  /// Element i of rank r: small integers, whose sums are exact in any order.
  static T part(Index i, int rank) { return static_cast<T>((i % 17) * (rank + 1)); }

  static void fill(Buffer const& buffer, int rank) {
    auto const host = Kokkos::create_mirror_view(buffer);
    for (std::size_t i = 0; i < host.extent(0); ++i) host(i) = part(static_cast<Index>(i), rank);
    Kokkos::deep_copy(buffer, host);
  }

  /// True when the elements inside `ranges` are summed over the ranks and the others are this rank's own.
  static bool is_summed(Buffer const& buffer, Ranges const& ranges, Communicator const& comm) {
    auto const host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), buffer);
    int const n = comm.size();
    for (Index i = 0; i < static_cast<Index>(host.extent(0)); ++i) {
      bool inside = false;
      for (auto const& [begin, end] : ranges) inside = inside || (begin <= i && i < end);
      T const expected = inside ? static_cast<T>((i % 17) * (n * (n + 1) / 2)) : part(i, comm.rank());
      if (host(static_cast<std::size_t>(i)) != expected) return false;
    }
    return true;
  }
};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(GradientSyncTest, Scalars, );

TYPED_TEST(GradientSyncTest, EqualsTheClosedForm) {
  using T = TypeParam;
  Communicator const comm;
  Index const n = 1000;
  typename TestFixture::Buffer const buffer("gradients", n);
  std::vector<Ranges> const cuts = {
      {{0, n}}, {{700, n}, {300, 700}, {0, 300}}, {{0, 0}, {5, 6}, {6, 999}}, {{999, n}}, {}};
  for (Index const bucket : {Index(1) << 22, Index(1000), Index(999), Index(128), Index(7)}) {
    GradientSync<T> sync(comm, kernels::Vec<T>(buffer.data(), n), bucket);
    for (Ranges const& ranges : cuts) {
      TestFixture::fill(buffer, comm.rank());
      for (auto const& [begin, end] : ranges) {
        sync.start(begin, end);
        sync.poll();
      }
      sync.finish();
      EXPECT_TRUE(TestFixture::is_summed(buffer, ranges, comm))
          << "bucket " << bucket << ", ranges " << ranges.size();
    }
    EXPECT_GE(sync.exposed_seconds(), 0.0);
  }
}

TYPED_TEST(GradientSyncTest, SumsWhatTheKernelsBeforeItWrote) {
  using T = TypeParam;
  Communicator const comm;
  Index const n = 1 << 16;
  typename TestFixture::Buffer const buffer("gradients", n);
  GradientSync<T> sync(comm, kernels::Vec<T>(buffer.data(), n), 1 << 12);
  Kokkos::deep_copy(kernels::ExecSpace(), buffer, static_cast<T>(comm.rank() + 1));  // no fence
  sync.start(0, n);
  while (comm.any(false)) sync.poll();
  sync.finish();
  auto const host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), buffer);
  T const expected = static_cast<T>(comm.size() * (comm.size() + 1) / 2);
  bool equal = true;
  for (std::size_t i = 0; i < host.extent(0); ++i) equal = equal && host(i) == expected;
  EXPECT_TRUE(equal);
}

TYPED_TEST(GradientSyncTest, ObeysTheCommunicatorsPiece) {
  using T = TypeParam;
  Communicator const comm(MPI_COMM_WORLD, 3);
  Index const n = 100;
  typename TestFixture::Buffer const buffer("gradients", n);
  TestFixture::fill(buffer, comm.rank());
  GradientSync<T> sync(comm, kernels::Vec<T>(buffer.data(), n));
  sync.start(0, n);
  sync.finish();
  EXPECT_TRUE(TestFixture::is_summed(buffer, {{0, n}}, comm));
}

TYPED_TEST(GradientSyncTest, WaitsForWhatIsPendingWhenItEnds) {
  using T = TypeParam;
  Communicator const comm;
  Index const n = 5000;
  typename TestFixture::Buffer const buffer("gradients", n);
  TestFixture::fill(buffer, comm.rank());
  {
    GradientSync<T> sync(comm, kernels::Vec<T>(buffer.data(), n), 100);
    sync.start(0, n);
  }
  // Through host memory the sums stay in the stage; in place they are complete.
  EXPECT_TRUE(
      TestFixture::is_summed(buffer, through_host && comm.size() > 1 ? Ranges{} : Ranges{{0, n}}, comm));
}

TYPED_TEST(GradientSyncTest, SaysWhatItAllocates) {
  using T = TypeParam;
  constexpr kernels::Index elements = 5000000000;
  EXPECT_EQ(GradientSync<T>::buffer_bytes(elements, 1), 0U);
  std::size_t const copy = through_host ? elements * sizeof(T) : 0;
  std::size_t const lists = (2 * (elements >> 22) + 64) * (16 + sizeof(MPI_Request));
  std::size_t const under_way = (4 << 22) * sizeof(T);
  EXPECT_EQ(GradientSync<T>::buffer_bytes(elements, 2), copy + lists + under_way);
  EXPECT_EQ(GradientSync<T>::buffer_bytes(elements, 64), copy + lists + under_way);
  std::size_t const small = GradientSync<T>::buffer_bytes(1000, 2);
  EXPECT_EQ(small, (through_host ? 2 : 1) * 1000 * sizeof(T) + 64 * (16 + sizeof(MPI_Request)));
}

/// Ranks that poll at different times, with other sums of the same communicator in between.
TYPED_TEST(GradientSyncTest, OtherSumsMayComeInBetween) {
  using T = TypeParam;
  Communicator const comm;
  Index const n = 5000;
  typename TestFixture::Buffer const buffer("gradients", n);
  GradientSync<T> sync(comm, kernels::Vec<T>(buffer.data(), n), 100);
  for (int round = 0; round < 20; ++round) {
    TestFixture::fill(buffer, comm.rank());
    sync.start(0, n / 2);
    for (int i = 0; i < (comm.rank() + round) % 3 * 10; ++i) sync.poll();
    double one = 1;
    comm.sum_in_place(&one, 1);
    EXPECT_EQ(one, comm.size());
    sync.start(n / 2, n);
    for (int i = 0; i < (comm.rank() * round) % 5 * 10; ++i) sync.poll();
    one = 1;
    comm.sum_in_place(&one, 1);
    EXPECT_EQ(one, comm.size());
    sync.finish();
    ASSERT_TRUE(TestFixture::is_summed(buffer, {{0, n}}, comm)) << round;
  }
}

TYPED_TEST(GradientSyncTest, RefusesWrongRanges) {
  using T = TypeParam;
  Communicator const comm;
  typename TestFixture::Buffer const buffer("gradients", 10);
  kernels::Vec<T> const gradients(buffer.data(), 10);
  GradientSync<T> sync(comm, gradients);
  EXPECT_THROW(sync.start(0, 11), std::logic_error);
  EXPECT_THROW(sync.start(-1, 5), std::logic_error);
  EXPECT_THROW(sync.start(6, 5), std::logic_error);
  EXPECT_THROW(GradientSync<T>(comm, gradients, 0), std::logic_error);
}

}  // namespace
}  // namespace strata::parallel
