// SPDX-License-Identifier: Apache-2.0
// LayerNorm and the RMS norms with token shift, as one sequence of all rows.

#include "kernels/norm.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

template <class T>
void layer_norm_forward(benchmark::State& state, Index rows, Index width) {
  auto const x = random_matrix<T>(rows, width), y = random_matrix<T>(rows, width);
  auto const gain = random_vector<T>(width), bias = random_vector<T>(width);
  auto const mean = random_vector<T>(rows), inverse_std = random_vector<T>(rows);
  measure(state, kernels::layer_norm_forward_cost<T>(rows, width), gemm_limit<T>(),
          [=](ExecSpace const& space) {
            kernels::layer_norm_forward<T>(space, x, gain, bias, y, mean, inverse_std);
          });
}

template <class T>
void layer_norm_backward(benchmark::State& state, Index rows, Index width) {
  auto const x = random_matrix<T>(rows, width), y = random_matrix<T>(rows, width),
             dy = random_matrix<T>(rows, width), dx = random_matrix<T>(rows, width);
  auto const gain = random_vector<T>(width), bias = random_vector<T>(width);
  auto const dgain = random_vector<T>(width), dbias = random_vector<T>(width);
  auto const mean = random_vector<T>(rows), inverse_std = random_vector<T>(rows);
  auto const workspace = random_vector<T>(kernels::layer_norm_workspace(rows, width));
  kernels::layer_norm_forward<T>(ExecSpace(), x, gain, bias, y, mean, inverse_std);
  measure(
      state, kernels::layer_norm_backward_cost<T>(rows, width), gemm_limit<T>(), [=](ExecSpace const& space) {
        kernels::layer_norm_backward<T>(space, dy, x, gain, mean, inverse_std, dx, dgain, dbias, workspace);
      });
}

template <class T>
void rms_norm_forward(benchmark::State& state, Index rows, Index width, kernels::RmsForm form) {
  kernels::Sequences const shape{1, rows};
  auto const x = random_matrix<T>(rows, width), y = random_matrix<T>(rows, width);
  auto const gain = random_vector<T>(width), inverse_norm = random_vector<T>(rows);
  Index const shifted = form == kernels::RmsForm::clamped ? width / 2 : 0;
  measure(state, kernels::shift_rms_norm_forward_cost<T>(shape, width), gemm_limit<T>(),
          [=](ExecSpace const& space) {
            kernels::shift_rms_norm_forward<T>(space, shape, form, shifted, x, ConstMat<T>(), gain, y,
                                               inverse_norm, Mat<T>(), ConstVec<T>());
          });
}

template <class T>
void rms_norm_backward(benchmark::State& state, Index rows, Index width, kernels::RmsForm form) {
  kernels::Sequences const shape{1, rows};
  auto const x = random_matrix<T>(rows, width), y = random_matrix<T>(rows, width),
             dy = random_matrix<T>(rows, width), dx = random_matrix<T>(rows, width);
  auto const gain = random_vector<T>(width), dgain = random_vector<T>(width);
  auto const inverse_norm = random_vector<T>(rows);
  auto const workspace = random_vector<T>(kernels::shift_rms_norm_workspace(shape, width));
  Index const shifted = form == kernels::RmsForm::clamped ? width / 2 : 0;
  kernels::shift_rms_norm_forward<T>(ExecSpace(), shape, form, shifted, x, ConstMat<T>(), gain, y,
                                     inverse_norm, Mat<T>(), ConstVec<T>());
  measure(state, kernels::shift_rms_norm_backward_cost<T>(shape, width), gemm_limit<T>(),
          [=](ExecSpace const& space) {
            kernels::shift_rms_norm_backward<T>(space, shape, form, shifted, dy, x, ConstMat<T>(), gain,
                                                inverse_norm, ConstMat<T>(), dx, Mat<T>(), dgain, workspace);
          });
}

/// Has no cost function: half of one row of each sequence is read and written.
template <class T>
void last_rows(benchmark::State& state, Index rows, Index width) {
  kernels::Sequences const shape{rows / 8, 8};
  auto const x = random_matrix<T>(rows, width), border = random_matrix<T>(shape.count, width / 2);
  double const bytes = static_cast<double>(border.extent(0) * border.extent(1) * sizeof(T));
  measure(state, {bytes, bytes, 0}, gemm_limit<T>(),
          [=](ExecSpace const& space) { kernels::last_rows<T>(space, shape, x, border); });
}

template <class T>
void add_norms() {
  using kernels::RmsForm;
  for (RowShape const& shape : row_shapes()) {
    Index const rows = shape.rows, width = shape.width;
    auto const with = [&](char const* name, auto const& body) { add(name, type_name<T>(), shape, body); };
    with("layer_norm_forward", [=](auto& state) { layer_norm_forward<T>(state, rows, width); });
    with("layer_norm_backward", [=](auto& state) { layer_norm_backward<T>(state, rows, width); });
    with("shift_rms_norm_forward",
         [=](auto& state) { rms_norm_forward<T>(state, rows, width, RmsForm::clamped); });
    with("shift_rms_norm_backward",
         [=](auto& state) { rms_norm_backward<T>(state, rows, width, RmsForm::clamped); });
    with("rms_norm_forward", [=](auto& state) { rms_norm_forward<T>(state, rows, width, RmsForm::epsilon); });
    with("rms_norm_backward",
         [=](auto& state) { rms_norm_backward<T>(state, rows, width, RmsForm::epsilon); });
    with("last_rows", [=](auto& state) { last_rows<T>(state, rows, width); });
  }
}

Registration const registration([] {
  add_norms<float>();
  add_norms<double>();
});

}  // namespace
}  // namespace strata::perf
