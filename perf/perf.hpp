// SPDX-License-Identifier: Apache-2.0
#pragma once
// What all benchmarks share: the machine's limits, the timed loop, the table of shapes and the data.
// perf/README.md says what the counters mean.

#include <benchmark/benchmark.h>

#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/common/types.hpp"
#include "train/machine.hpp"

namespace strata::perf {

using kernels::ConstMat;
using kernels::ConstVec;
using kernels::Cost;
using kernels::ExecSpace;
using kernels::Index;
using kernels::Mat;
using kernels::MemSpace;
using kernels::Vec;

/// What this process can reach at best on its cores, measured once before the first benchmark.
struct Limits {
  double gemm_float = 0;   ///< floating-point operations per second of a large matrix product
  double gemm_double = 0;  ///< the same in double
  double bandwidth = 0;    ///< bytes per second of a triad
  train::Machine machine;  ///< MPI and HDF5, the latter in a folder below TMPDIR
};
/// Measured at the first call, which all ranks make.
Limits const& limits();

template <class T>
double gemm_limit() {
  return std::is_same_v<T, float> ? limits().gemm_float : limits().gemm_double;
}
template <class T>
char const* type_name() {
  return std::is_same_v<T, float> ? "float" : "double";
}

/// A row of a table of shapes. `group` (smoke, small, local or long) is what filters choose by.
struct RowShape {
  char const* group;
  Index rows, width;
};
/// smoke 16 x 32, small 128 x 128, local 512 x 512, long 8192 x 512.
std::vector<RowShape> const& row_shapes();

/// Registers a benchmark named <kernel>/<type>/<group>/<shape> with manual time in microseconds.
benchmark::internal::Benchmark* add(std::string const& kernel, char const* type, char const* group,
                                    std::string const& shape,
                                    std::function<void(benchmark::State&)> const& body);
/// As above for a shape of the table, label "<rows> x <width>".
benchmark::internal::Benchmark* add(std::string const& kernel, char const* type, RowShape const& shape,
                                    std::function<void(benchmark::State&)> const& body);

/// Times `call`, which launches one kernel and does not wait: once unmeasured, then in the timed loop with a
/// fence after each call. Sets the counters GB/s, GFLOP/s, roof_percent and best_roof_percent from `cost`;
/// `gemm_limit` is that of the kernel's scalar type.
void measure(benchmark::State& state, Cost const& cost, double gemm_limit,
             std::function<void(ExecSpace const&)> const& call);

/// Runs its argument before main; benchmarks are registered so.
struct Registration {
  explicit Registration(void (*register_benchmarks)()) { register_benchmarks(); }
};

template <class T>
using Matrix = Kokkos::View<T**, Kokkos::LayoutRight, MemSpace>;
template <class T>
using Vector = Kokkos::View<T*, Kokkos::LayoutRight, MemSpace>;

/// Numbers in [-scale, scale), the same in every run.
template <class T>
Matrix<T> random_matrix(Index rows, Index columns, double scale = 1);
template <class T>
Vector<T> random_vector(Index n, double scale = 1);
/// Bytes 0 .. 255, the same in every run.
std::vector<std::uint8_t> random_bytes(Index n);

/// One window of random bytes on the device, as embeddings and losses read it.
struct Window {
  explicit Window(Index length);
  Vector<std::uint8_t> bytes;
  Vector<Index> lengths;
};

}  // namespace strata::perf
