// SPDX-License-Identifier: Apache-2.0
// The stack of device memory: sizes, alignment, frames, and agreement of a measuring arena with a real one.

#include <gtest/gtest.h>

#include <cstdint>
#include <stdexcept>

#include "core/arena.hpp"

namespace strata::core {
namespace {

using kernels::Index;

TEST(Arena, HandsOutDisjointAlignedSpans) {
  Arena arena(1 << 16);
  auto const a = arena.vector<float>(3);
  auto const b = arena.matrix<double>(5, 7);
  auto const c = arena.vector<std::uint8_t>(1);
  EXPECT_EQ(a.extent(0), 3u);
  EXPECT_EQ(b.extent(0), 5u);
  EXPECT_EQ(b.extent(1), 7u);
  for (void const* p : {static_cast<void const*>(b.data()), static_cast<void const*>(c.data())})
    EXPECT_EQ((reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(a.data())) % 256, 0u);
  EXPECT_GE(reinterpret_cast<char const*>(b.data()), reinterpret_cast<char const*>(a.data() + 3));
  EXPECT_GE(reinterpret_cast<char const*>(c.data()), reinterpret_cast<char const*>(b.data() + 35));
  EXPECT_EQ(arena.used(), 256u + 512u + 256u);
}

TEST(Arena, FramesGiveBackAndThePeakStays) {
  Arena arena(4096);
  arena.vector<char>(256);
  char const* first = nullptr;
  {
    Arena::Frame const outer(arena);
    first = arena.vector<char>(1024).data();
    {
      Arena::Frame const inner(arena);
      arena.vector<char>(2048);
      EXPECT_EQ(arena.used(), 256u + 1024u + 2048u);
    }
    EXPECT_EQ(arena.used(), 256u + 1024u);
  }
  EXPECT_EQ(arena.used(), 256u);
  EXPECT_EQ(arena.peak(), 256u + 1024u + 2048u);
  EXPECT_EQ(arena.vector<char>(1024).data(), first);
}

TEST(Arena, RefusesMoreThanItHas) {
  Arena arena(1024);
  arena.vector<char>(512);
  EXPECT_THROW(arena.vector<char>(513), std::logic_error);
  EXPECT_NO_THROW(arena.vector<char>(512));
}

TEST(Arena, MeasuringTellsTheSizeTheRealOneNeeds) {
  auto const use = [](Arena& arena) {
    arena.matrix<float>(10, 33);
    Arena::Frame const frame(arena);
    arena.vector<double>(77);
    arena.vector<float>(0);
  };
  Arena measuring = Arena::measuring();
  EXPECT_TRUE(measuring.is_measuring());
  use(measuring);
  EXPECT_EQ(measuring.matrix<float>(2, 3).data(), nullptr);
  Arena plan = Arena::measuring();
  use(plan);
  Arena real(plan.peak());
  EXPECT_NO_THROW(use(real));
  EXPECT_EQ(real.peak(), plan.peak());
  Arena small(plan.peak() - 1);
  EXPECT_THROW(use(small), std::logic_error);
}

}  // namespace
}  // namespace strata::core
