// SPDX-License-Identifier: Apache-2.0
// The selective scan, and the exponentials it cannot do without: one per position, channel and state in
// forward. A scan's own limit is the time of those, to be compared within one run.

#include "kernels/common/row_ops.hpp"
#include "kernels/selective_scan.hpp"
#include "kernels/selective_scan_parts.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

struct Case {
  char const* group;
  Index sequences, length, channels, state;

  kernels::SelectiveScanShape shape() const { return {{sequences, length}, channels, state, 0}; }
};

constexpr Case cases[] = {
    {"smoke", 2, 9, 32, 4},        {"small", 16, 1, 256, 16},  {"local", 1, 1024, 1024, 16},
    {"local", 1, 1024, 1024, 128}, {"local", 512, 8, 512, 16}, {"long", 1, 4096, 1024, 16},
};

template <class T>
struct Arrays {
  explicit Arrays(Case const& size)
      : shape(size.shape()),
        delta(random_matrix<T>(shape.sequences.rows(), size.channels, 2)),
        x(random_matrix<T>(shape.sequences.rows(), size.channels)),
        b(random_matrix<T>(shape.sequences.rows(), size.state)),
        c(random_matrix<T>(shape.sequences.rows(), size.state)),
        a_log(random_matrix<T>(size.channels, size.state)),
        y(random_matrix<T>(shape.sequences.rows(), size.channels)),
        delta_bias(random_vector<T>(size.channels)),
        d(random_vector<T>(size.channels)) {}
  kernels::SelectiveScanInputs<T> inputs() const { return {delta, delta_bias, x, b, c, a_log, d}; }

  kernels::SelectiveScanShape shape;
  Matrix<T> delta, x, b, c, a_log, y;
  Vector<T> delta_bias, d;
};

template <class T>
void forward(benchmark::State& state, Case const& c) {
  Arrays<T> const a(c);
  auto const workspace = random_vector<T>(kernels::selective_scan_forward_workspace(a.shape));
  measure(state, kernels::selective_scan_forward_cost<T>(a.shape), gemm_limit<T>(),
          [=](ExecSpace const& space) {
            kernels::selective_scan_forward<T>(space, a.shape, a.inputs(), {}, a.y, workspace);
          });
}

template <class T>
void backward(benchmark::State& state, Case const& c) {
  Arrays<T> const in(c), out(c);
  auto const workspace = random_vector<T>(kernels::selective_scan_backward_workspace(in.shape));
  measure(state, kernels::selective_scan_backward_cost<T>(in.shape), gemm_limit<T>(),
          [=](ExecSpace const& space) {
            kernels::SelectiveScanGradients<T> const gradients{out.delta,      out.x,     out.b, out.c,
                                                               out.delta_bias, out.a_log, out.d};
            kernels::selective_scan_backward<T>(space, in.shape, in.inputs(), {}, in.y, gradients, {},
                                                workspace);
          });
}

/// Exponentials and nothing else: each thread goes over and over its own numbers, which stay in its
/// first-level cache.
template <class T>
struct Exponentials {
  static constexpr int numbers = 1024, rounds = 64;
  Vector<T> values;

  KOKKOS_INLINE_FUNCTION void operator()(Index i) const {
    namespace scan = kernels::selective_scan;
    constexpr int width = scan::pack_width<T>;
    scan::Pack<T> const minus_one = scan::Pack<T>{} - T(1);
    T* const mine = values.data() + i * numbers;
    for (int round = 0; round < rounds; ++round) {
      for (int at = 0; at < numbers; at += width)
        scan::store<T>(mine + at, scan::decay<T>(scan::load<T>(mine + at), minus_one));
    }
  }
};

template <class T>
void exponentials(benchmark::State& state, Case const& c) {
  using Kernel = Exponentials<T>;
  double const wanted =
      static_cast<double>(c.sequences * c.length) * static_cast<double>(c.channels * c.state);
  Index const tasks = static_cast<Index>(wanted / (Kernel::numbers * Kernel::rounds));
  auto const values = random_vector<T>(tasks * Kernel::numbers);
  Cost cost;
  cost.flops = static_cast<double>(tasks * Kernel::numbers * Kernel::rounds);
  measure(state, cost, gemm_limit<T>(), [=](ExecSpace const& space) {
    Kokkos::parallel_for("strata::perf::exponentials", Kokkos::RangePolicy<ExecSpace>(space, 0, tasks),
                         Kernel{values});
  });
}

template <class T>
void add_scans() {
  for (Case const& c : cases) {
    auto const text = [](Index n) { return std::to_string(n); };
    std::string const shape =
        text(c.sequences) + "x" + text(c.length) + "_channels" + text(c.channels) + "x" + text(c.state);
    add("selective_scan_forward", type_name<T>(), c.group, shape, [c](auto& s) { forward<T>(s, c); });
    add("selective_scan_backward", type_name<T>(), c.group, shape, [c](auto& s) { backward<T>(s, c); });
    if (std::string(c.group) != "smoke" && std::string(c.group) != "small")
      add("selective_scan_exponentials", type_name<T>(), c.group, shape,
          [c](auto& s) { exponentials<T>(s, c); });
  }
}

Registration const registration([] {
  add_scans<float>();
  add_scans<double>();
});

}  // namespace
}  // namespace strata::perf
