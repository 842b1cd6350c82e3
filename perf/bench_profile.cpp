// SPDX-License-Identifier: Apache-2.0
// What the scopes of kernels/common/profile.hpp cost: `off` while nobody listens, as in every run without
// --profile, `on` with a profiler. The time is that of opening and closing one scope.

#include <chrono>
#include <optional>

#include "core/profiler.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

using Clock = std::chrono::steady_clock;

template <class Open>
void time_scopes(benchmark::State& state, bool on, Open const& open) {
  int const scopes = on ? 2000 : 1000000;
  std::optional<core::Profiler> profiler;
  if (on) profiler.emplace();
  for ([[maybe_unused]] auto _ : state) {
    Clock::time_point const start = Clock::now();
    for (int i = 0; i < scopes; ++i) {
      open(i);
      benchmark::ClobberMemory();
    }
    state.SetIterationTime(std::chrono::duration<double>(Clock::now() - start).count() / scopes);
  }
}

Registration const registration([] {
  for (bool const on : {false, true}) {
    std::string const shape = on ? "on" : "off";
    add("profile_kernel", "scope", on ? "local" : "smoke", shape,
        [=](benchmark::State& state) {
          time_scopes(state, on, [](int i) {
            kernels::KernelScope const timed("kernel", [&] { return kernels::copy_cost<float>(i); });
          });
        })
        ->Iterations(10)
        ->Unit(benchmark::kNanosecond);
    add("profile_region", "scope", on ? "local" : "smoke", shape,
        [=](benchmark::State& state) {
          time_scopes(state, on, [](int) { kernels::Region const region("layer", 1); });
        })
        ->Iterations(10)
        ->Unit(benchmark::kNanosecond);
  }
});

}  // namespace
}  // namespace strata::perf
