// SPDX-License-Identifier: Apache-2.0
// Loss over the logits of the last stage, patches of eight bytes and 257 tokens.

#include "kernels/cross_entropy.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

constexpr Index vocabulary = 257;

struct Input {
  explicit Input(Index row_count) : window(row_count) {
    rows.shape = {row_count / 8, 8};
    rows.patches = 8;
    targets.tokens = {window.bytes.data(), nullptr, window.lengths.data(), 1, row_count, row_count, 256};
    targets.ignored = 256;
  }
  Window window;
  kernels::StageRows rows;
  kernels::Targets targets;
};

template <class T>
void forward(benchmark::State& state, Index rows) {
  Input const in(rows);
  auto const logits = random_matrix<T>(rows, vocabulary, 4);
  auto const bias = random_vector<T>(vocabulary), losses = random_vector<T>(rows);
  measure(state, kernels::cross_entropy_cost<T>(rows, vocabulary), gemm_limit<T>(),
          [=](ExecSpace const& space) {
            kernels::cross_entropy_forward<T>(space, in.targets, in.rows, logits, bias, losses);
          });
}

template <class T>
void forward_backward(benchmark::State& state, Index rows) {
  Input const in(rows);
  auto const logits = random_matrix<T>(rows, vocabulary, 4);
  auto const bias = random_vector<T>(vocabulary), losses = random_vector<T>(rows);
  measure(
      state, kernels::cross_entropy_cost<T>(rows, vocabulary), gemm_limit<T>(), [=](ExecSpace const& space) {
        kernels::cross_entropy_forward_backward<T>(space, in.targets, in.rows, logits, bias, T(1), losses);
      });
}

template <class T>
void add_losses() {
  for (RowShape const& shape : row_shapes()) {
    Index const rows = shape.rows;
    RowShape const logits{shape.group, rows, vocabulary};
    add("cross_entropy_forward", type_name<T>(), logits, [=](auto& s) { forward<T>(s, rows); });
    add("cross_entropy_forward_backward", type_name<T>(), logits,
        [=](auto& s) { forward_backward<T>(s, rows); });
  }
}

Registration const registration([] {
  add_losses<float>();
  add_losses<double>();
});

}  // namespace
}  // namespace strata::perf
