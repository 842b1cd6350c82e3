// SPDX-License-Identifier: Apache-2.0
#include "core/profiler.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
#include <optional>
#include <string>

namespace strata::core {
namespace {

using kernels::Cost;
using kernels::KernelScope;
using kernels::Region;
using kernels::ScopeKind;

Cost cost() { return {30, 12, 100, 60}; }

/// The one scope of that name and number below `parent`.
ProfileNode const& child(Profiler const& profiler, ProfileNode const& parent, std::string const& name,
                         kernels::Index number = 0) {
  for (std::size_t const at : parent.children) {
    ProfileNode const& node = profiler.nodes()[at];
    if (node.name == name && node.number == number) return node;
  }
  throw std::logic_error("no scope " + name);
}

void wait_a_millisecond() {
  auto const end = std::chrono::steady_clock::now() + std::chrono::milliseconds(1);
  while (std::chrono::steady_clock::now() < end) {
  }
}

TEST(Profiler, NobodyListensBeforeAndAfter) {
  EXPECT_EQ(kernels::profile_listener, nullptr);
  int asked = 0;
  auto const counted_cost = [&] {
    ++asked;
    return cost();
  };
  { KernelScope const off("kernel", counted_cost); }
  EXPECT_EQ(asked, 0);
  {
    Profiler profiler;
    { KernelScope const on("kernel", counted_cost); }
    EXPECT_THROW(Profiler(), std::logic_error);
    profiler.stop();
    { KernelScope const off("kernel", counted_cost); }
    EXPECT_EQ(child(profiler, profiler.nodes()[0], "kernel").calls, 1);
  }
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(kernels::profile_listener, nullptr);
}

TEST(Profiler, EveryMomentBelongsToOneScope) {
  Profiler profiler;
  for (int step = 0; step < 3; ++step) {
    Region const stage("stage", 2);
    wait_a_millisecond();
    for (kernels::Index layer = 1; layer <= 2; ++layer) {
      Region const region("layer", layer);
      KernelScope const timed("kernel", cost);
      wait_a_millisecond();
    }
  }
  wait_a_millisecond();
  profiler.stop();
  ProfileNode const& root = profiler.nodes()[0];
  ProfileNode const& stage = child(profiler, root, "stage", 2);
  ProfileNode const& kernel = child(profiler, child(profiler, stage, "layer", 2), "kernel");
  EXPECT_EQ(profiler.nodes().size(), 6U);  // the root, the stage, two layers with a kernel each
  EXPECT_EQ(stage.calls, 3);
  EXPECT_EQ(kernel.calls, 3);
  EXPECT_EQ(kernel.cost.flops, 300);
  EXPECT_EQ(kernel.cost.model_flops, 180);
  EXPECT_EQ(kernel.cost.bytes(), 126);
  EXPECT_GE(kernel.seconds(), 0.003);
  EXPECT_GE(stage.seconds(), 0.003);
  EXPECT_GE(root.seconds(), 0.001);
  std::int64_t sum = 0;
  for (ProfileNode const& node : profiler.nodes()) sum += node.nanoseconds;
  EXPECT_DOUBLE_EQ(1e-9 * static_cast<double>(sum), profiler.seconds());
}

TEST(Profiler, WhatAKernelCallsIsPartOfIt) {
  Profiler profiler;
  {
    KernelScope const outer("outer", cost);
    KernelScope const inner("inner", cost);
    Region const region("region");
    kernels::CommunicationScope const message("MPI_Test", 8);
  }
  { KernelScope const next("next", cost); }
  profiler.stop();
  ASSERT_EQ(profiler.nodes().size(), 3U);
  EXPECT_EQ(profiler.nodes()[1].name, std::string("outer"));
  EXPECT_EQ(profiler.nodes()[1].cost.flops, 100);
  EXPECT_TRUE(profiler.nodes()[1].children.empty());
  EXPECT_EQ(profiler.nodes()[2].parent, 0U);
  EXPECT_EQ(profiler.nodes()[2].kind, ScopeKind::kernel);
}

TEST(Profiler, EqualNamesInDifferentPlacesAreOneScope) {
  std::string const a = "name", b = "name";
  Profiler profiler;
  { Region const region(a.c_str()); }
  { Region const region(b.c_str()); }
  { Region const region(b.c_str(), 1); }
  profiler.stop();
  ASSERT_EQ(profiler.nodes().size(), 3U);
  EXPECT_EQ(profiler.nodes()[1].calls, 2);
}

TEST(Profiler, AScopeLeftByAnExceptionIsClosed) {
  Profiler profiler;
  try {
    Region const region("region");
    KernelScope const timed("kernel", cost);
    throw std::runtime_error("as from a check");
  } catch (std::runtime_error const&) {
  }
  { Region const region("next"); }
  profiler.stop();
  EXPECT_EQ(child(profiler, profiler.nodes()[0], "next").calls, 1);
}

}  // namespace
}  // namespace strata::core
