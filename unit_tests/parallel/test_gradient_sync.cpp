// SPDX-License-Identifier: Apache-2.0
// The non-blocking sum against its closed form, for several buckets and ways to cut the buffer into ranges.

#include <gtest/gtest.h>

#include <chrono>
#include <stdexcept>
#include <thread>
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
  for (Index const bucket : {Index(1) << 22, Index(1000), Index(999), Index(128), Index(7), Index(1)}) {
    for (Index const unit : {Index(8192), Index(16)}) {
      GradientSync<T> sync(comm, kernels::Vec<T>(buffer.data(), n), {bucket, unit});
      for (Ranges const& ranges : cuts) {
        TestFixture::fill(buffer, comm.rank());
        for (auto const& [begin, end] : ranges) {
          sync.start(begin, end);
          sync.poll();
        }
        sync.finish();
        EXPECT_TRUE(TestFixture::is_summed(buffer, ranges, comm))
            << "bucket " << bucket << ", unit " << unit << ", ranges " << ranges.size();
      }
    }
  }
}

/// Numbers whose sum depends on the order of the additions: every rank gets the bits of the sum by rank,
/// whatever the buckets, and so does the owner of a part when nobody else does.
TYPED_TEST(GradientSyncTest, AddsByRankWhoeverAdds) {
  using T = TypeParam;
  Communicator const comm;
  Index const n = 1003;
  auto const summand = [](Index i, int rank) {
    return static_cast<T>(1) / static_cast<T>(3 + (i * 7 + rank * 5) % 11) *
           static_cast<T>(rank % 2 == 0 ? 1 : -1);
  };
  typename TestFixture::Buffer const buffer("gradients", n);
  auto const host = Kokkos::create_mirror_view(buffer);
  for (SumsGoTo const to : {SumsGoTo::every_rank, SumsGoTo::owner}) {
    for (Index const bucket : {Index(1) << 22, Index(100), Index(3)}) {
      for (Index i = 0; i < n; ++i) host(i) = summand(i, comm.rank());
      Kokkos::deep_copy(buffer, host);
      GradientSync<T> sync(comm, kernels::Vec<T>(buffer.data(), n), {bucket, 16, to});
      Ranges const ranges = {{400, n}, {0, 400}};
      for (auto const& [begin, end] : ranges) sync.start(begin, end);
      sync.finish();
      Kokkos::deep_copy(host, buffer);
      for (auto const& [begin, end] : ranges) {
        Block const mine =
            to == SumsGoTo::owner ? sync.parts_of({begin, end}).of(comm.rank()) : Block{begin, end};
        for (Index i = mine.first; i < mine.last; ++i) {
          T sum = summand(i, 0);
          for (int r = 1; r < comm.size(); ++r) sum += summand(i, r);
          ASSERT_EQ(host(i), sum) << i << ", bucket " << bucket;
        }
      }
    }
  }
}

TYPED_TEST(GradientSyncTest, GathersWhatEachRankMade) {
  using T = TypeParam;
  Communicator const comm;
  for (Index const n : {Index(1), Index(3), Index(1003)}) {
    typename TestFixture::Buffer const gradients("gradients", n), values("values", n);
    GradientSync<T> sync(comm, kernels::Vec<T>(gradients.data(), n), {10, 1});
    auto const host = Kokkos::create_mirror_view(values);
    Ranges const ranges = {{0, n / 3}, {n / 3, n}};
    for (Index i = 0; i < n; ++i) host(i) = -1;
    for (auto const& [begin, end] : ranges) {
      Block const mine = sync.parts_of({begin, end}).of(comm.rank());
      for (Index i = mine.first; i < mine.last; ++i) host(i) = static_cast<T>(i);
    }
    Kokkos::deep_copy(values, host);
    for (auto const& [begin, end] : ranges) sync.gather(kernels::Vec<T>(values.data(), n), begin, end);
    Kokkos::deep_copy(host, values);
    for (Index i = 0; i < n; ++i) EXPECT_EQ(host(i), static_cast<T>(i)) << n;
    EXPECT_EQ(sync.hidden_seconds(), 0);
  }
}

/// What passes between start() and finish() with nothing in the way is hidden, what finish() takes exposed.
TYPED_TEST(GradientSyncTest, TellsHiddenFromExposedTime) {
  using T = TypeParam;
  using Clock = std::chrono::steady_clock;
  Communicator const comm;
  Index const n = 1000;
  typename TestFixture::Buffer const buffer("gradients", n);
  GradientSync<T> sync(comm, kernels::Vec<T>(buffer.data(), n), {10, 1});
  constexpr double pause = 0.02;
  comm.barrier();
  Clock::time_point const begin = Clock::now();
  sync.start(0, n);  // a hundred buckets, of which only some are under way at first
  std::this_thread::sleep_for(std::chrono::duration<double>(pause));
  sync.finish();
  double const all = std::chrono::duration<double>(Clock::now() - begin).count();
  if (comm.size() == 1) {
    EXPECT_EQ(sync.exposed_seconds(), 0);
    EXPECT_EQ(sync.hidden_seconds(), 0);
    return;
  }
  EXPECT_GE(sync.hidden_seconds(), pause);
  EXPECT_GT(sync.exposed_seconds(), 0);
  EXPECT_LE(sync.hidden_seconds() + sync.exposed_seconds(), all);
  double const hidden = sync.hidden_seconds(), exposed = sync.exposed_seconds();
  sync.poll();
  sync.finish();
  EXPECT_EQ(sync.hidden_seconds(), hidden);
  EXPECT_EQ(sync.exposed_seconds(), exposed);
}

TYPED_TEST(GradientSyncTest, SumsWhatTheKernelsBeforeItWrote) {
  using T = TypeParam;
  Communicator const comm;
  Index const n = 1 << 16;
  typename TestFixture::Buffer const buffer("gradients", n);
  GradientSync<T> sync(comm, kernels::Vec<T>(buffer.data(), n), {1 << 12, 64});
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
  GradientSync<T> sync(comm, kernels::Vec<T>(buffer.data(), n), {1000, 1});
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
    GradientSync<T> sync(comm, kernels::Vec<T>(buffer.data(), n), {100, 16});
    sync.start(0, n);
  }
  // Through host memory the sums stay in the stage; in place they are complete.
  EXPECT_TRUE(
      TestFixture::is_summed(buffer, through_host && comm.size() > 1 ? Ranges{} : Ranges{{0, n}}, comm));
}

TYPED_TEST(GradientSyncTest, SaysWhatItAllocates) {
  using T = TypeParam;
  constexpr kernels::Index elements = 5000000000;
  constexpr std::size_t bucket = 1 << 22, lists = 24;
  auto const bytes = [](Index n, Index ranks, GradientSyncSettings const& s = {}) {
    return GradientSync<T>::buffer_bytes(n, ranks, s);
  };
  EXPECT_EQ(bytes(elements, 1), 0U);
  std::size_t const copy = through_host ? elements * sizeof(T) : 0;
  auto const expect = [&](std::size_t all, std::size_t summands, std::size_t ranks, std::size_t buckets) {
    EXPECT_EQ(all, copy + summands * sizeof(T) + 8 * (ranks - 1) * sizeof(MPI_Request) + buckets * lists);
  };
  // Room for what the others send of four buckets.
  expect(bytes(elements, 2), 4 * bucket / 2, 2, 2 * (elements / bucket) + 64);
  expect(bytes(elements, 64), 4 * bucket / 64 * 63, 64, 2 * (elements / bucket) + 64);
  expect(bytes(elements, 4, {1 << 20}), 4 * bucket / 16 * 3, 4, 2 * (4 * elements / bucket) + 64);
  EXPECT_EQ(bytes(1000, 2), (through_host ? 1000 * sizeof(T) : 0) + 4 * 1000 * sizeof(T) +
                                8 * sizeof(MPI_Request) + 64 * lists);
}

/// Ranks that poll at different times, with other sums of the same communicator in between.
TYPED_TEST(GradientSyncTest, OtherSumsMayComeInBetween) {
  using T = TypeParam;
  Communicator const comm;
  Index const n = 5000;
  typename TestFixture::Buffer const buffer("gradients", n);
  GradientSync<T> sync(comm, kernels::Vec<T>(buffer.data(), n), {100, 16});
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
  EXPECT_THROW(GradientSync<T>(comm, gradients, {0}), std::logic_error);
}

}  // namespace
}  // namespace strata::parallel
