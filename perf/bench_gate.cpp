// SPDX-License-Identifier: Apache-2.0
// The gates of state-space layers and the dropout of their output.

#include "kernels/gate.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

template <class T>
struct Gate {
  Index rows, width;
  Matrix<T> y, z, o, dout, dz;
  Vector<T> gain, inverse_norm, dgain, workspace;

  Gate(Index r, Index e)
      : rows(r),
        width(e),
        y(random_matrix<T>(r, e)),
        z(random_matrix<T>(r, e, 4)),
        o(random_matrix<T>(r, e)),
        dout(random_matrix<T>(r, e)),
        dz(random_matrix<T>(r, e)),
        gain(random_vector<T>(e)),
        inverse_norm(random_vector<T>(r)),
        dgain(random_vector<T>(e)),
        workspace(random_vector<T>(kernels::gated_rms_norm_workspace(r, e))) {}
};

template <class T>
void silu_gate_forward(benchmark::State& state, Index rows, Index width) {
  Gate<T> const g(rows, width);
  measure(state, kernels::silu_gate_forward_cost<T>(rows, width), gemm_limit<T>(),
          [=](ExecSpace const& space) { kernels::silu_gate_forward<T>(space, g.y, g.z, g.o); });
}

template <class T>
void silu_gate_backward(benchmark::State& state, Index rows, Index width) {
  Gate<T> const g(rows, width);
  measure(
      state, kernels::silu_gate_backward_cost<T>(rows, width), gemm_limit<T>(),
      [=](ExecSpace const& space) { kernels::silu_gate_backward<T>(space, g.dout, g.y, g.z, g.o, g.dz); });
}

template <class T>
void gated_rms_norm_forward(benchmark::State& state, Index rows, Index width) {
  Gate<T> const g(rows, width);
  measure(state, kernels::gated_rms_norm_forward_cost<T>(rows, width), gemm_limit<T>(),
          [=](ExecSpace const& space) {
            kernels::gated_rms_norm_forward<T>(space, g.y, g.z, g.gain, g.o, g.inverse_norm);
          });
}

template <class T>
void gated_rms_norm_backward(benchmark::State& state, Index rows, Index width) {
  Gate<T> const g(rows, width);
  kernels::gated_rms_norm_forward<T>(ExecSpace(), g.y, g.z, g.gain, g.o, g.inverse_norm);
  measure(state, kernels::gated_rms_norm_backward_cost<T>(rows, width), gemm_limit<T>(),
          [=](ExecSpace const& space) {
            kernels::gated_rms_norm_backward<T>(space, g.dout, g.y, g.z, g.gain, g.inverse_norm, g.o, g.dz,
                                                g.dgain, g.workspace);
          });
}

/// Have no cost functions: x and y are read (drop: only x), y is written.
template <class T>
void dropout(benchmark::State& state, Index rows, Index width, bool adding, double probability) {
  Gate<T> const g(rows, width);
  kernels::Dropout drawn;
  drawn.probability = probability;
  double const bytes = static_cast<double>(rows * width) * sizeof(T);
  measure(state, {adding ? 2 * bytes : bytes, bytes, 0}, gemm_limit<T>(), [=](ExecSpace const& space) {
    if (adding) {
      kernels::add_dropped<T>(space, drawn, g.y, g.o);
    } else {
      kernels::drop<T>(space, drawn, g.y, g.o);
    }
  });
}

template <class T>
void add_gates() {
  for (RowShape const& shape :
       {RowShape{"smoke", 16, 32}, {"step", 1, 1280}, {"local", 512, 1280}, {"long", 4096, 1280}}) {
    Index const rows = shape.rows, width = shape.width;
    auto const with = [&](char const* name, auto const& body) { add(name, type_name<T>(), shape, body); };
    with("silu_gate_forward", [=](auto& state) { silu_gate_forward<T>(state, rows, width); });
    with("silu_gate_backward", [=](auto& state) { silu_gate_backward<T>(state, rows, width); });
    with("gated_rms_norm_forward", [=](auto& state) { gated_rms_norm_forward<T>(state, rows, width); });
    with("gated_rms_norm_backward", [=](auto& state) { gated_rms_norm_backward<T>(state, rows, width); });
    with("add_dropped_nothing", [=](auto& state) { dropout<T>(state, rows, width, true, 0); });
    with("add_dropped", [=](auto& state) { dropout<T>(state, rows, width, true, 0.1); });
    with("drop", [=](auto& state) { dropout<T>(state, rows, width, false, 0.1); });
  }
}

Registration const registration([] {
  add_gates<float>();
  add_gates<double>();
});

}  // namespace
}  // namespace strata::perf
