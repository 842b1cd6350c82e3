// SPDX-License-Identifier: Apache-2.0
// Sums in a fixed order.

#include "kernels/reduce.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

template <class T>
void column_sums(benchmark::State& state, Index rows, Index width) {
  auto const m = random_matrix<T>(rows, width);
  auto const sums = random_vector<T>(width),
             workspace = random_vector<T>(kernels::column_sums_workspace(rows, width));
  measure(state, kernels::column_sums_cost<T>(rows, width), gemm_limit<T>(),
          [=](ExecSpace const& space) { kernels::column_sums<T>(space, m, sums, workspace); });
}

template <class T>
void squared_norm(benchmark::State& state, Index n) {
  auto const v = random_vector<T>(n);
  auto const result = random_vector<double>(1),
             workspace = random_vector<double>(kernels::squared_norm_workspace(n));
  measure(state, kernels::squared_norm_cost<T>(n), gemm_limit<T>(),
          [=](ExecSpace const& space) { kernels::squared_norm<T>(space, v, result, workspace); });
}

/// Has no cost function: each loss is read once and added.
template <class T>
void add_losses(benchmark::State& state, Index n) {
  auto const losses = random_vector<T>(n);
  auto const totals = random_vector<double>(2);
  measure(state, {static_cast<double>(n) * sizeof(T), 0, static_cast<double>(n)}, gemm_limit<T>(),
          [=](ExecSpace const& space) { kernels::add_losses<T>(space, losses, totals); });
}

template <class T>
void add_sums() {
  for (RowShape const& shape : row_shapes()) {
    Index const rows = shape.rows, width = shape.width;
    add("column_sums", type_name<T>(), shape, [=](auto& s) { column_sums<T>(s, rows, width); });
    add("squared_norm", type_name<T>(), shape.group, std::to_string(rows * width),
        [=](auto& s) { squared_norm<T>(s, rows * width); });
    add("add_losses", type_name<T>(), shape.group, std::to_string(rows),
        [=](auto& s) { add_losses<T>(s, rows); });
  }
}

Registration const registration([] {
  add_sums<float>();
  add_sums<double>();
});

}  // namespace
}  // namespace strata::perf
