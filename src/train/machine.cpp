// SPDX-License-Identifier: Apache-2.0
#include "train/machine.hpp"

#include <algorithm>
#include <chrono>

#include "kernels/common/types.hpp"
#include "kernels/linear.hpp"

namespace strata::train {

using kernels::ExecSpace;
using kernels::Index;
using kernels::Vec;

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Shortest of repeated calls within `budget` seconds; the first call warms up and does not count.
template <class Call>
double shortest(ExecSpace const& space, double budget, Call const& call) {
  call();
  space.fence();
  double best = 1e30;
  Clock::time_point const begin = Clock::now();
  do {
    Clock::time_point const start = Clock::now();
    call();
    space.fence();
    best = std::min(best, seconds_since(start));
  } while (seconds_since(begin) < budget);
  return best;
}

struct Triad {
  Vec<float> a, b, c;
  KOKKOS_FUNCTION void operator()(Index i) const { a(i) = b(i) + 0.5F * c(i); }
};

double gemm_flops(ExecSpace const& space, double seconds) {
  constexpr Index n = kernels::on_device ? 4096 : 1024;
  Kokkos::View<float**, Kokkos::LayoutRight, kernels::MemSpace> const x("strata::peak_x", n, n),
      y("strata::peak_y", n, n);
  Kokkos::deep_copy(space, x, 0.5F);
  double const time = shortest(space, seconds, [&] {
    kernels::linear_forward<float>(space, x, x, kernels::ConstVec<float>(), kernels::Mat<float>(y));
  });
  return 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / time;
}

double triad_bandwidth(ExecSpace const& space) {
  constexpr Index n = Index{1} << (kernels::on_device ? 26 : 23);  // 32 MiB an array on a CPU
  Kokkos::View<float*, kernels::MemSpace> const a("strata::triad_a", n), b("strata::triad_b", n),
      c("strata::triad_c", n);
  double const time = shortest(space, 0.1, [&] {
    Kokkos::parallel_for("strata::machine::triad", Kokkos::RangePolicy<ExecSpace>(space, 0, n),
                         Triad{a, b, c});
  });
  return 3.0 * sizeof(float) * static_cast<double>(n) / time;
}

}  // namespace

double measure_gemm_flops(double seconds) { return gemm_flops(ExecSpace(), seconds); }

Machine measure_machine() {
  ExecSpace const space;
  Machine machine;
  machine.gemm_flops = gemm_flops(space, 0.4);
  machine.bandwidth = triad_bandwidth(space);
  return machine;
}

}  // namespace strata::train
