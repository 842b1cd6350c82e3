// SPDX-License-Identifier: Apache-2.0
// One optimiser step over as many parameters as a matrix of the table has elements; `long` also over the 22
// million of the two-stage model that doc/ quotes.

#include "kernels/adamw.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

template <class T>
void adamw(benchmark::State& state, Index n) {
  auto const gradient = random_vector<T>(n), parameter = random_vector<T>(n), first = random_vector<T>(n);
  Vector<T> const second("strata::perf_second_moment", n);
  kernels::AdamW settings;
  settings.weight_decay = 0.1;
  settings.step = 10;
  measure(state, kernels::adamw_cost<T>(n), gemm_limit<T>(), [=](ExecSpace const& space) {
    kernels::adamw_step<T>(space, settings, gradient, parameter, first, second);
  });
}

template <class T>
void add_adamw() {
  auto const add_size = [](char const* group, Index n) {
    add("adamw_step", type_name<T>(), group, std::to_string(n), [n](auto& s) { adamw<T>(s, n); });
  };
  for (RowShape const& shape : row_shapes()) add_size(shape.group, shape.rows * shape.width);
  add_size("long", 22'000'000);
}

Registration const registration([] {
  add_adamw<float>();
  add_adamw<double>();
});

}  // namespace
}  // namespace strata::perf
