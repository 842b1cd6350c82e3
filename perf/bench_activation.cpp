// SPDX-License-Identifier: Apache-2.0
// Bias, GELU and dropout; with dropout the random numbers are drawn again in backward.

#include "kernels/activation.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

kernels::Dropout dropout_of(double probability, Index rows) {
  kernels::Dropout result;
  result.probability = probability;
  result.seed = 1;
  result.length = result.stride = rows;
  return result;
}

template <class T>
void forward(benchmark::State& state, Index rows, Index width, double probability) {
  auto const h = random_matrix<T>(rows, width), y = random_matrix<T>(rows, width);
  auto const bias = random_vector<T>(width);
  kernels::Dropout const dropout = dropout_of(probability, rows);
  measure(state, kernels::bias_gelu_forward_cost<T>(rows, width), gemm_limit<T>(),
          [=](ExecSpace const& space) { kernels::bias_gelu_forward<T>(space, h, bias, dropout, y); });
}

template <class T>
void backward(benchmark::State& state, Index rows, Index width, double probability) {
  auto const h = random_matrix<T>(rows, width), dy = random_matrix<T>(rows, width),
             dh = random_matrix<T>(rows, width);
  auto const bias = random_vector<T>(width), dbias = random_vector<T>(width);
  auto const workspace = random_vector<T>(kernels::bias_gelu_workspace(rows, width));
  kernels::Dropout const dropout = dropout_of(probability, rows);
  measure(state, kernels::bias_gelu_backward_cost<T>(rows, width), gemm_limit<T>(),
          [=](ExecSpace const& space) {
            kernels::bias_gelu_backward<T>(space, dy, h, bias, dropout, dh, dbias, workspace);
          });
}

template <class T>
void add_activations() {
  for (RowShape const& shape : row_shapes()) {
    Index const rows = shape.rows, width = shape.width;
    for (double const p : {0.0, 0.1}) {
      std::string const suffix = p > 0 ? "_dropout" : "";
      add("bias_gelu_forward" + suffix, type_name<T>(), shape,
          [=](auto& state) { forward<T>(state, rows, width, p); });
      add("bias_gelu_backward" + suffix, type_name<T>(), shape,
          [=](auto& state) { backward<T>(state, rows, width, p); });
    }
  }
}

Registration const registration([] {
  add_activations<float>();
  add_activations<double>();
});

}  // namespace
}  // namespace strata::perf
