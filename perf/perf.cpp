// SPDX-License-Identifier: Apache-2.0
#include "perf/perf.hpp"

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "kernels/linear.hpp"
#include "parallel/communicator.hpp"
#include "train/machine.hpp"

namespace strata::perf {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// A number in [-1, 1) that depends on i alone: the mixing steps of SplitMix64.
KOKKOS_INLINE_FUNCTION double mixed(Index i) {
  auto z = static_cast<std::uint64_t>(i + 1) * 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return static_cast<double>((z ^ (z >> 31)) >> 11) / static_cast<double>(1ULL << 52) - 1;
}

template <class T>
struct Fill {
  T* data;
  double scale;
  KOKKOS_FUNCTION void operator()(Index i) const { data[i] = static_cast<T>(scale * mixed(i)); }
};

template <class T>
void fill(T* data, Index n, double scale) {
  ExecSpace const space;
  Kokkos::parallel_for("strata::perf::fill", Kokkos::RangePolicy<ExecSpace>(space, 0, n),
                       Fill<T>{data, scale});
  space.fence();
}

/// Best of the calls that fit a quarter of a second, at least two; the first is not counted.
template <class T>
double gemm_rate(Index n) {
  ExecSpace const space;
  Matrix<T> const x = random_matrix<T>(n, n), w = random_matrix<T>(n, n), y("strata::perf_product", n, n);
  double best = 1e30;
  Clock::time_point const begin = Clock::now();
  for (int call = 0; call < 3 || seconds_since(begin) < 0.25; ++call) {
    Clock::time_point const start = Clock::now();
    kernels::linear_forward<T>(space, x, w, ConstVec<T>(), Mat<T>(y));
    space.fence();
    if (call > 0) best = std::min(best, seconds_since(start));
  }
  auto const size = static_cast<double>(n);
  return 2 * size * size * size / best;
}

template <class T>
double gemm_peak() {
  constexpr Index largest = kernels::on_device ? 8192 : 2048;
  return std::max(gemm_rate<T>(largest / 2), gemm_rate<T>(largest));
}

Limits measure_limits() {
  parallel::Communicator const ranks;
  train::Machine machine = train::measure_machine(ranks);
  train::measure_files(machine, std::filesystem::temp_directory_path(), ranks);
  return {std::max(machine.gemm_flops, gemm_peak<float>()), gemm_peak<double>(), machine.bandwidth, machine};
}

}  // namespace

Limits const& limits() {
  static Limits const measured = measure_limits();
  return measured;
}

std::vector<RowShape> const& row_shapes() {
  static std::vector<RowShape> const shapes = {
      {"smoke", 16, 32}, {"small", 128, 128}, {"local", 512, 512}, {"long", 8192, 512}};
  return shapes;
}

benchmark::internal::Benchmark* add(std::string const& kernel, char const* type, char const* group,
                                    std::string const& shape,
                                    std::function<void(benchmark::State&)> const& body) {
  std::string const name = kernel + "/" + type + "/" + group + "/" + shape;
  auto const labelled = [shape, body](benchmark::State& state) {
    body(state);
    state.SetLabel(shape);
  };
  return benchmark::RegisterBenchmark(name.c_str(), labelled)->UseManualTime()->Unit(benchmark::kMicrosecond);
}

benchmark::internal::Benchmark* add(std::string const& kernel, char const* type, RowShape const& shape,
                                    std::function<void(benchmark::State&)> const& body) {
  return add(kernel, type, shape.group, std::to_string(shape.rows) + "x" + std::to_string(shape.width), body);
}

void measure(benchmark::State& state, Cost const& cost, double gemm_limit,
             std::function<void(ExecSpace const&)> const& call) {
  ExecSpace const space;
  call(space);
  space.fence();
  double best = 1e30;
  for ([[maybe_unused]] auto _ : state) {
    Clock::time_point const start = Clock::now();
    call(space);
    space.fence();
    double const seconds = seconds_since(start);
    best = std::min(best, seconds);
    state.SetIterationTime(seconds);
  }
  auto const rate = benchmark::Counter::kIsIterationInvariantRate;
  double const shortest = std::max(cost.bytes() / limits().bandwidth, cost.flops / gemm_limit);
  state.counters["GB/s"] = benchmark::Counter(1e-9 * cost.bytes(), rate);
  state.counters["GFLOP/s"] = benchmark::Counter(1e-9 * cost.flops, rate);
  state.counters["roof_percent"] = benchmark::Counter(100 * shortest, rate);
  state.counters["best_roof_percent"] = 100 * shortest / best;
}

template <class T>
Matrix<T> random_matrix(Index rows, Index columns, double scale) {
  Matrix<T> const result(Kokkos::view_alloc(Kokkos::WithoutInitializing, "strata::perf_matrix"), rows,
                         columns);
  fill(result.data(), rows * columns, scale);
  return result;
}

template <class T>
Vector<T> random_vector(Index n, double scale) {
  Vector<T> const result(Kokkos::view_alloc(Kokkos::WithoutInitializing, "strata::perf_vector"), n);
  fill(result.data(), n, scale);
  return result;
}

std::vector<std::uint8_t> random_bytes(Index n) {
  std::vector<std::uint8_t> result(static_cast<std::size_t>(n));
  for (Index i = 0; i < n; ++i)
    result[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(128 * (mixed(i) + 1));
  return result;
}

Window::Window(Index length) : bytes("strata::perf_bytes", length), lengths("strata::perf_lengths", 1) {
  auto const host = Kokkos::create_mirror_view(bytes);
  std::vector<std::uint8_t> const drawn = random_bytes(length);
  std::copy(drawn.begin(), drawn.end(), host.data());
  Kokkos::deep_copy(bytes, host);
  Kokkos::deep_copy(lengths, length);
}

#define STRATA_RANDOM(T)                                     \
  template Matrix<T> random_matrix<T>(Index, Index, double); \
  template Vector<T> random_vector<T>(Index, double);
STRATA_INSTANTIATE(STRATA_RANDOM)

}  // namespace strata::perf
