// SPDX-License-Identifier: Apache-2.0
#include "kernels/activation.hpp"

#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/common/row_ops.hpp"

namespace strata::kernels {

template <class T>
void bias_gelu_forward(ExecSpace const& space, ConstMat<T> h, ConstVec<T> bias, Dropout const& dropout,
                       Mat<T> y) {
  KernelScope const timed("bias_gelu_forward",
                          [&] { return bias_gelu_forward_cost<T>(h.extent(0), h.extent(1)); });
  STRATA_REQUIRE(y.extent(0) == h.extent(0) && y.extent(1) == h.extent(1) && bias.extent(0) == h.extent(1),
                 "h is (" << h.extent(0) << ", " << h.extent(1) << ")");
  Dropout const drop = dropout;
  for_tiles(
      space, "strata::activation::bias_gelu_forward", h.extent(0), h.extent(1),
      KOKKOS_LAMBDA(Tile const& tile) {
        bool const dropping = drop.active();
        T const* const b = bias.data() + tile.column;
        T scales[tile_columns];
        for (Index row = tile.row_begin; row < tile.row_end; ++row) {
          T const* const in = &h(row, tile.column);
          T* const out = &y(row, tile.column);
          if (!dropping) {
            STRATA_INDEPENDENT
            for (int i = 0; i < tile.width; ++i) out[i] = math::gelu(in[i] + b[i]);
            continue;
          }
          drop.fill_scales(row, tile.column, tile.width, scales);
          STRATA_INDEPENDENT
          for (int i = 0; i < tile.width; ++i) out[i] = scales[i] * math::gelu(in[i] + b[i]);
        }
      });
}

template <class T>
void bias_gelu_backward(ExecSpace const& space, ConstMat<T> dy, ConstMat<T> h, ConstVec<T> bias,
                        Dropout const& dropout, Mat<T> dh, Vec<T> dbias, Vec<T> workspace) {
  KernelScope const timed("bias_gelu_backward",
                          [&] { return bias_gelu_backward_cost<T>(h.extent(0), h.extent(1)); });
  Index const rows = h.extent(0), width = h.extent(1);
  STRATA_REQUIRE(Index(dy.extent(0)) == rows && Index(dy.extent(1)) == width && Index(dh.extent(0)) == rows &&
                     Index(dh.extent(1)) == width && Index(bias.extent(0)) == width &&
                     Index(dbias.extent(0)) == width,
                 "h is (" << rows << ", " << width << ")");
  STRATA_REQUIRE(Index(workspace.extent(0)) >= bias_gelu_workspace(rows, width),
                 "workspace of " << workspace.extent(0));
  Dropout const drop = dropout;
  T* const partial = workspace.data();
  for_tiles(
      space, "strata::activation::bias_gelu_backward", rows, width, KOKKOS_LAMBDA(Tile const& tile) {
        bool const dropping = drop.active();
        T const* const b = bias.data() + tile.column;
        T scales[tile_columns];
        T sums[tile_columns] = {};
        for (Index row = tile.row_begin; row < tile.row_end; ++row) {
          T const* const g = &dy(row, tile.column);
          T const* const in = &h(row, tile.column);
          T* const out = &dh(row, tile.column);
          if (dropping) {
            drop.fill_scales(row, tile.column, tile.width, scales);
            STRATA_INDEPENDENT
            for (int i = 0; i < tile.width; ++i) {
              T const d = g[i] * scales[i] * math::gelu_derivative(in[i] + b[i]);
              out[i] = d;
              sums[i] += d;
            }
          } else {
            STRATA_INDEPENDENT
            for (int i = 0; i < tile.width; ++i) {
              T const d = g[i] * math::gelu_derivative(in[i] + b[i]);
              out[i] = d;
              sums[i] += d;
            }
          }
        }
        for (int i = 0; i < tile.width; ++i) partial[tile.block * width + tile.column + i] = sums[i];
      });
  add_partial_sums(space, "strata::activation::bias_gelu_backward::dbias", rows, width, partial,
                   dbias.data());
}

Index bias_gelu_workspace(Index rows, Index width) { return partial_sums_size(rows, width); }

template <class T>
Cost bias_gelu_forward_cost(Index rows, Index width) {
  double const n = static_cast<double>(rows) * static_cast<double>(width);
  // The bias (1), exp and a division (2), its polynomials and argument (8 + 9 multiply-adds), the product
  // (1).
  return {(n + static_cast<double>(width)) * sizeof(T), n * sizeof(T), 38 * n};
}

template <class T>
Cost bias_gelu_backward_cost(Index rows, Index width) {
  double const n = static_cast<double>(rows) * static_cast<double>(width);
  return {(2 * n + 2 * static_cast<double>(width)) * sizeof(T), (n + static_cast<double>(width)) * sizeof(T),
          43 * n};
}

#define STRATA_ACTIVATION(T)                                                                              \
  template void bias_gelu_forward<T>(ExecSpace const&, ConstMat<T>, ConstVec<T>, Dropout const&, Mat<T>); \
  template void bias_gelu_backward<T>(ExecSpace const&, ConstMat<T>, ConstMat<T>, ConstVec<T>,            \
                                      Dropout const&, Mat<T>, Vec<T>, Vec<T>);                            \
  template Cost bias_gelu_forward_cost<T>(Index, Index);                                                  \
  template Cost bias_gelu_backward_cost<T>(Index, Index);
STRATA_INSTANTIATE(STRATA_ACTIVATION)

}  // namespace strata::kernels
