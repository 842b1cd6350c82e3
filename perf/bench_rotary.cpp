// SPDX-License-Identifier: Apache-2.0
// Split of a projection into queries, keys and values, with rotary positions; heads of 64 features.

#include <algorithm>

#include "kernels/rotary.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

struct Arrays {
  kernels::Sequences shape;
  Index heads, head_dim;
  Arrays(Index rows, Index width) : shape{1, rows}, heads(width / std::min<Index>(64, width / 2)) {
    head_dim = width / heads;
  }
};

template <class T>
void forward(benchmark::State& state, Index rows, Index width) {
  Arrays const a(rows, width);
  auto const qkv = random_matrix<T>(rows, 3 * width), table = random_matrix<T>(rows, a.head_dim),
             q = random_matrix<T>(rows, width), stored = random_matrix<T>(rows, 2 * width);
  measure(state, kernels::split_rotate_cost<T>(a.shape, a.heads, a.head_dim), gemm_limit<T>(),
          [=](ExecSpace const& space) {
            kernels::split_rotate_forward<T>(space, a.shape, 0, a.heads, table, qkv, q, {stored, rows});
          });
}

template <class T>
void backward(benchmark::State& state, Index rows, Index width) {
  Arrays const a(rows, width);
  auto const dqkv = random_matrix<T>(rows, 3 * width), table = random_matrix<T>(rows, a.head_dim),
             dq = random_matrix<T>(rows, width), dstored = random_matrix<T>(rows, 2 * width);
  measure(state, kernels::split_rotate_cost<T>(a.shape, a.heads, a.head_dim), gemm_limit<T>(),
          [=](ExecSpace const& space) {
            kernels::split_rotate_backward<T>(space, a.shape, 0, a.heads, table, dq, {dstored, rows}, dqkv);
          });
}

/// Has no cost function: each element is written once; a power, a product, a cosine and a sine make a pair.
template <class T>
void table(benchmark::State& state, Index rows, Index width) {
  auto const cosine_sine = random_matrix<T>(rows, width);
  double const elements = static_cast<double>(rows) * static_cast<double>(width);
  measure(state, {0, elements * sizeof(T), 2 * elements}, gemm_limit<T>(),
          [=](ExecSpace const& space) { kernels::rotary_table<T>(space, 0, Mat<T>(cosine_sine)); });
}

template <class T>
void add_rotary() {
  for (RowShape const& shape : row_shapes()) {
    Index const rows = shape.rows, width = shape.width;
    add("split_rotate_forward", type_name<T>(), shape, [=](auto& s) { forward<T>(s, rows, width); });
    add("split_rotate_backward", type_name<T>(), shape, [=](auto& s) { backward<T>(s, rows, width); });
    add("rotary_table", type_name<T>(), shape, [=](auto& s) { table<T>(s, rows, width); });
  }
}

Registration const registration([] {
  add_rotary<float>();
  add_rotary<double>();
});

}  // namespace
}  // namespace strata::perf
