// SPDX-License-Identifier: Apache-2.0
// Input rows of an inner stage of sequences of eight, with the parent's context and either a learnt position
// table or a rotation.

#include "kernels/rotary.hpp"
#include "kernels/stage_input.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

constexpr Index patches = 8;

kernels::StageRows stage_rows(Index rows) {
  kernels::StageRows result;
  result.shape = {rows / patches, patches};
  result.patches = patches;
  return result;
}

/// Either positions or rotation is filled, the other empty.
template <class T>
struct Positions {
  Positions(Index width, bool rotates) {
    if (!rotates) {
      positions = random_matrix<T>(patches, width);
      return;
    }
    rotation = Matrix<T>("strata::perf_rotation", patches, width);
    kernels::rotary_table<T>(ExecSpace(), 0, Mat<T>(rotation));
  }
  Matrix<T> positions, rotation;
};

template <class T>
void forward(benchmark::State& state, Index rows, Index width, bool rotates) {
  kernels::StageRows const at = stage_rows(rows);
  auto const embedded = random_matrix<T>(at.embedded_rows(), width), x = random_matrix<T>(rows, width),
             context = random_matrix<T>(at.shape.count * patches, width);
  auto const start = random_vector<T>(width);
  Positions<T> const p(width, rotates);
  measure(state, kernels::stage_input_cost<T>(at, width), gemm_limit<T>(), [=](ExecSpace const& space) {
    kernels::stage_input_forward<T>(space, at, embedded, start, p.positions, p.rotation, context, 0, x);
  });
}

template <class T>
void backward(benchmark::State& state, Index rows, Index width, bool rotates) {
  kernels::StageRows const at = stage_rows(rows);
  auto const dembedded = random_matrix<T>(at.embedded_rows(), width), dx = random_matrix<T>(rows, width),
             dcontext = random_matrix<T>(at.shape.count * patches, width);
  auto const dstart = random_vector<T>(width);
  auto const workspace = random_vector<T>(kernels::stage_input_workspace(at, width));
  Positions<T> const p(width, rotates);
  measure(state, kernels::stage_input_cost<T>(at, width), gemm_limit<T>(), [=](ExecSpace const& space) {
    kernels::stage_input_backward<T>(space, at, dx, p.rotation, 0, dembedded, dstart, p.positions, dcontext,
                                     workspace);
  });
}

template <class T>
void add_stage_inputs() {
  for (RowShape const& shape : row_shapes()) {
    Index const rows = shape.rows, width = shape.width;
    for (bool const rotates : {false, true}) {
      std::string const suffix = rotates ? "_rope" : "_fixed";
      add("stage_input_forward" + suffix, type_name<T>(), shape,
          [=](auto& s) { forward<T>(s, rows, width, rotates); });
      add("stage_input_backward" + suffix, type_name<T>(), shape,
          [=](auto& s) { backward<T>(s, rows, width, rotates); });
    }
  }
}

Registration const registration([] {
  add_stage_inputs<float>();
  add_stage_inputs<double>();
});

}  // namespace
}  // namespace strata::perf
