// SPDX-License-Identifier: Apache-2.0
// The causal convolution of state-space layers, W = 4, as one sequence of all rows; "step" is generation.

#include "kernels/causal_conv.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

constexpr Index inputs = 4;

template <class T>
void forward(benchmark::State& state, Index rows, Index channels) {
  kernels::Sequences const shape{1, rows};
  auto const x = random_matrix<T>(rows, channels), y = random_matrix<T>(rows, channels),
             weight = random_matrix<T>(channels, inputs),
             previous = random_matrix<T>(1, (inputs - 1) * channels);
  auto const bias = random_vector<T>(channels);
  measure(state, kernels::causal_conv_silu_forward_cost<T>(shape, channels, inputs), gemm_limit<T>(),
          [=](ExecSpace const& space) {
            kernels::causal_conv_silu_forward<T>(space, shape, x, previous, weight, bias, y);
          });
}

template <class T>
void backward(benchmark::State& state, Index rows, Index channels) {
  kernels::Sequences const shape{1, rows};
  auto const x = random_matrix<T>(rows, channels), dy = random_matrix<T>(rows, channels),
             dx = random_matrix<T>(rows, channels), weight = random_matrix<T>(channels, inputs),
             dweight = random_matrix<T>(channels, inputs);
  auto const bias = random_vector<T>(channels), dbias = random_vector<T>(channels);
  auto const workspace = random_vector<T>(kernels::causal_conv_workspace(shape, channels, inputs));
  measure(state, kernels::causal_conv_silu_backward_cost<T>(shape, channels, inputs), gemm_limit<T>(),
          [=](ExecSpace const& space) {
            kernels::causal_conv_silu_backward<T>(space, shape, dy, x, ConstMat<T>(), weight, bias, dx,
                                                  Mat<T>(), dweight, dbias, workspace);
          });
}

/// Has no cost function: reads and writes the border of one sequence.
template <class T>
void border(benchmark::State& state, Index rows, Index channels) {
  auto const x = random_matrix<T>(rows, channels), next = random_matrix<T>(1, (inputs - 1) * channels);
  double const bytes = static_cast<double>(next.extent(1) * sizeof(T));
  measure(state, {bytes, bytes, 0}, gemm_limit<T>(), [=](ExecSpace const& space) {
    kernels::causal_conv_border<T>(space, {1, rows}, x, next, next);
  });
}

template <class T>
void add_convolutions() {
  for (RowShape const& shape :
       {RowShape{"smoke", 16, 32}, {"step", 1, 1280}, {"local", 512, 1280}, {"long", 4096, 1280}}) {
    Index const rows = shape.rows, width = shape.width;
    add("causal_conv_silu_forward", type_name<T>(), shape,
        [=](benchmark::State& state) { forward<T>(state, rows, width); });
    add("causal_conv_silu_backward", type_name<T>(), shape,
        [=](benchmark::State& state) { backward<T>(state, rows, width); });
    add("causal_conv_border", type_name<T>(), shape,
        [=](benchmark::State& state) { border<T>(state, rows, width); });
  }
}

Registration const registration([] {
  add_convolutions<float>();
  add_convolutions<double>();
});

}  // namespace
}  // namespace strata::perf
