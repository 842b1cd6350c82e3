// SPDX-License-Identifier: Apache-2.0
// LayerNorm (Ba, Kiros, Hinton, arXiv 1607.06450), declared in norm.hpp.
#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/common/row_ops.hpp"
#include "kernels/norm.hpp"

namespace strata::kernels {
namespace {

constexpr double epsilon = 1e-5;

}  // namespace

template <class T>
void layer_norm_forward(ExecSpace const& space, ConstMat<T> x, ConstVec<T> gain, ConstVec<T> bias, Mat<T> y,
                        Vec<T> mean, Vec<T> inverse_std) {
  KernelScope const timed("layer_norm_forward",
                          [&] { return layer_norm_forward_cost<T>(x.extent(0), x.extent(1)); });
  Index const rows = x.extent(0), width = x.extent(1);
  STRATA_REQUIRE(Index(y.extent(0)) == rows && Index(y.extent(1)) == width &&
                     Index(gain.extent(0)) == width && Index(bias.extent(0)) == width &&
                     Index(mean.extent(0)) == rows && Index(inverse_std.extent(0)) == rows,
                 "x is (" << rows << ", " << width << ")");
  for_rows(
      space, "strata::norm::layer_norm_forward", rows, width, KOKKOS_LAMBDA(Lanes const& lanes, Index row) {
        T const* const in = &x(row, 0);
        T* const out = &y(row, 0);
        T const* const k = gain.data();
        T const* const b = bias.data();
        T const features = static_cast<T>(width);
        T const m = lanes.template sum<T>(width, [&](Index j) { return in[j]; }) / features;
        // Squares of differences, since the difference of squares would cancel.
        T const variance =
            lanes.template sum<T>(width, [&](Index j) { return (in[j] - m) * (in[j] - m); }) / features;
        T const r = T(1) / math::sqrt(variance + T(epsilon));
        lanes.once([&] {
          mean(row) = m;
          inverse_std(row) = r;
        });
        lanes.loop(width, [&](Index j) { out[j] = (in[j] - m) * r * k[j] + b[j]; });
      });
}

template <class T>
void layer_norm_backward(ExecSpace const& space, ConstMat<T> dy, ConstMat<T> x, ConstVec<T> gain,
                         ConstVec<T> mean, ConstVec<T> inverse_std, Mat<T> dx, Vec<T> dgain, Vec<T> dbias,
                         Vec<T> workspace) {
  KernelScope const timed("layer_norm_backward",
                          [&] { return layer_norm_backward_cost<T>(x.extent(0), x.extent(1)); });
  Index const rows = x.extent(0), width = x.extent(1);
  STRATA_REQUIRE(Index(dy.extent(0)) == rows && Index(dy.extent(1)) == width && Index(dx.extent(0)) == rows &&
                     Index(dx.extent(1)) == width && Index(gain.extent(0)) == width &&
                     Index(mean.extent(0)) == rows && Index(inverse_std.extent(0)) == rows &&
                     Index(dgain.extent(0)) == width && Index(dbias.extent(0)) == width,
                 "x is (" << rows << ", " << width << ")");
  STRATA_REQUIRE(Index(workspace.extent(0)) >= layer_norm_workspace(rows, width),
                 "workspace of " << workspace.extent(0));
  // Per row: the means over the features of g = dy * gain and of g * xhat. Per block: partial sums of dgain
  // and dbias.
  T* const mean_g = workspace.data();
  T* const mean_gx = mean_g + rows;
  T* const partial_gain = mean_gx + rows;
  T* const partial_bias = partial_gain + partial_sums_size(rows, width);
  auto const row_means = KOKKOS_LAMBDA(Lanes const& lanes, Index row) {
    T const* const in = &x(row, 0);
    T const* const d = &dy(row, 0);
    T const* const k = gain.data();
    T const m = mean(row), r = inverse_std(row), features = static_cast<T>(width);
    T const sum_g = lanes.template sum<T>(width, [&](Index j) { return d[j] * k[j]; });
    T const sum_gx = lanes.template sum<T>(width, [&](Index j) { return d[j] * k[j] * ((in[j] - m) * r); });
    lanes.once([&] {
      mean_g[row] = sum_g / features;
      mean_gx[row] = sum_gx / features;
    });
  };
  auto const elements = KOKKOS_LAMBDA(Tile const& tile) {
    T sums_gain[tile_columns] = {};
    T sums_bias[tile_columns] = {};
    T const* const k = gain.data() + tile.column;
    for (Index row = tile.row_begin; row < tile.row_end; ++row) {
      T const* const in = &x(row, tile.column);
      T const* const d = &dy(row, tile.column);
      T* const out = &dx(row, tile.column);
      T const m = mean(row), r = inverse_std(row), a = mean_g[row], b = mean_gx[row];
      STRATA_INDEPENDENT
      for (int i = 0; i < tile.width; ++i) {
        T const g = d[i], normal = (in[i] - m) * r;
        sums_gain[i] += g * normal;
        sums_bias[i] += g;
        out[i] = r * (g * k[i] - a - normal * b);
      }
    }
    Index const first = tile.block * width + tile.column;
    for (int i = 0; i < tile.width; ++i) partial_gain[first + i] = sums_gain[i];
    for (int i = 0; i < tile.width; ++i) partial_bias[first + i] = sums_bias[i];
  };
  for_rows_then_tiles(space, "strata::norm::layer_norm_backward", rows, width, row_means, elements);
  add_partial_sums(space, "strata::norm::layer_norm_backward::dgain", rows, width, partial_gain,
                   dgain.data());
  add_partial_sums(space, "strata::norm::layer_norm_backward::dbias", rows, width, partial_bias,
                   dbias.data());
}

Index layer_norm_workspace(Index rows, Index width) { return 2 * rows + 2 * partial_sums_size(rows, width); }

template <class T>
Cost layer_norm_forward_cost(Index rows, Index width) {
  double const n = static_cast<double>(rows) * static_cast<double>(width), d = static_cast<double>(width);
  return {(n + 2 * d) * sizeof(T), (n + 2 * static_cast<double>(rows)) * sizeof(T), 8 * n};
}

template <class T>
Cost layer_norm_backward_cost(Index rows, Index width) {
  double const n = static_cast<double>(rows) * static_cast<double>(width), d = static_cast<double>(width);
  return {(2 * n + 3 * d + 2 * static_cast<double>(rows)) * sizeof(T), (n + 2 * d) * sizeof(T), 17 * n};
}

#define STRATA_LAYER_NORM(T)                                                                                 \
  template void layer_norm_forward<T>(ExecSpace const&, ConstMat<T>, ConstVec<T>, ConstVec<T>, Mat<T>,       \
                                      Vec<T>, Vec<T>);                                                       \
  template void layer_norm_backward<T>(ExecSpace const&, ConstMat<T>, ConstMat<T>, ConstVec<T>, ConstVec<T>, \
                                       ConstVec<T>, Mat<T>, Vec<T>, Vec<T>, Vec<T>);                         \
  template Cost layer_norm_forward_cost<T>(Index, Index);                                                    \
  template Cost layer_norm_backward_cost<T>(Index, Index);
STRATA_INSTANTIATE(STRATA_LAYER_NORM)

}  // namespace strata::kernels
