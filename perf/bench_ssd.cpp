// SPDX-License-Identifier: Apache-2.0
// The state-space dual form of Mamba-2, of many short sequences and of one long one.

#include "kernels/ssd.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

struct Case {
  char const* group;
  Index sequences, length, heads, head_width, state, chunk;
};

constexpr Case cases[] = {
    {"smoke", 2, 9, 2, 16, 8, 0},        {"smoke", 1, 70, 2, 16, 8, 0},
    {"small", 16, 8, 4, 32, 16, 0},      {"local", 64, 8, 16, 64, 128, 0},
    {"local", 1, 1024, 16, 64, 16, 0},   {"long", 1, 4096, 16, 64, 128, 32},
    {"long", 1, 4096, 16, 64, 128, 64},  {"long", 1, 4096, 16, 64, 128, 128},
    {"long", 1, 4096, 16, 64, 128, 256},
};

template <class T>
struct Arrays {
  explicit Arrays(Case const& of)
      : shape{{of.sequences, of.length}, of.heads, of.head_width, of.state, of.chunk},
        x(random_matrix<T>(shape.sequences.rows(), shape.channels())),
        b(random_matrix<T>(shape.sequences.rows(), of.state)),
        c(random_matrix<T>(shape.sequences.rows(), of.state)),
        dt(random_matrix<T>(shape.sequences.rows(), of.heads)),
        y(random_matrix<T>(shape.sequences.rows(), shape.channels())),
        dt_bias(random_vector<T>(of.heads)),
        a_log(random_vector<T>(of.heads)),
        d(random_vector<T>(of.heads)),
        workspace(random_vector<T>(kernels::ssd_backward_workspace<T>(shape, false))) {}
  kernels::SsdInputs<T> inputs() const { return {x, b, c, dt, dt_bias, a_log, d}; }

  kernels::SsdShape shape;
  Matrix<T> x, b, c, dt, y;
  Vector<T> dt_bias, a_log, d, workspace;
};

template <class T>
void forward(benchmark::State& state, Case const& c) {
  Arrays<T> const a(c);
  measure(state, kernels::ssd_forward_cost<T>(a.shape), gemm_limit<T>(), [=](ExecSpace const& space) {
    kernels::ssd_forward<T>(space, a.shape, a.inputs(), {}, a.y, a.workspace);
  });
}

template <class T>
void backward(benchmark::State& state, Case const& c) {
  Arrays<T> const a(c), g(c);
  measure(state, kernels::ssd_backward_cost<T>(a.shape), gemm_limit<T>(), [=](ExecSpace const& space) {
    kernels::ssd_backward<T>(space, a.shape, a.inputs(), {}, a.y,
                             {g.x, g.b, g.c, g.dt, g.dt_bias, g.a_log, g.d}, {}, a.workspace);
  });
}

template <class T>
void add_ssd() {
  for (Case const& c : cases) {
    auto const text = [](Index n) { return std::to_string(n); };
    std::string const shape = text(c.sequences) + "x" + text(c.length) + "_heads" + text(c.heads) + "x" +
                              text(c.head_width) + "_state" + text(c.state) +
                              (c.chunk > 0 ? "_chunk" + text(c.chunk) : "");
    add("ssd_forward", type_name<T>(), c.group, shape, [c](auto& s) { forward<T>(s, c); });
    add("ssd_backward", type_name<T>(), c.group, shape, [c](auto& s) { backward<T>(s, c); });
  }
}

Registration const registration([] {
  add_ssd<float>();
  add_ssd<double>();
});

}  // namespace
}  // namespace strata::perf
