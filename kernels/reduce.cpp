// SPDX-License-Identifier: Apache-2.0
#include "kernels/reduce.hpp"

#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/common/row_ops.hpp"

namespace strata::kernels {

template <class T>
void column_sums(ExecSpace const& space, ConstMat<T> m, Vec<T> sums, Vec<T> workspace) {
  KernelScope const timed("column_sums", [&] { return column_sums_cost<T>(m.extent(0), m.extent(1)); });
  Index const rows = m.extent(0), columns = m.extent(1);
  STRATA_REQUIRE(Index(sums.extent(0)) == columns, "m is (" << rows << ", " << columns << ")");
  STRATA_REQUIRE(Index(workspace.extent(0)) >= column_sums_workspace(rows, columns),
                 "workspace of " << workspace.extent(0));
  T* const partial = workspace.data();
  for_tiles(
      space, "strata::reduce::column_sums", rows, columns, KOKKOS_LAMBDA(Tile const& tile) {
        T total[tile_columns] = {};
        for (Index row = tile.row_begin; row < tile.row_end; ++row) {
          T const* const in = &m(row, tile.column);
          for (int i = 0; i < tile.width; ++i) total[i] += in[i];
        }
        for (int i = 0; i < tile.width; ++i) partial[tile.block * columns + tile.column + i] = total[i];
      });
  add_partial_sums(space, "strata::reduce::column_sums::blocks", rows, columns, partial, sums.data());
}

Index column_sums_workspace(Index rows, Index columns) { return partial_sums_size(rows, columns); }

template <class T>
void squared_norm(ExecSpace const& space, ConstVec<T> v, Vec<double> result, Vec<double> workspace) {
  Index const n = v.extent(0), blocks = squared_norm_workspace(n);
  STRATA_REQUIRE(result.extent(0) >= 1 && Index(workspace.extent(0)) >= blocks,
                 "workspace of " << workspace.extent(0) << " for " << n << " elements");
  block_squares<T>(space, v, workspace);
  sum(space, range<double const>(workspace, 0, blocks), result);
}

template <class T>
void block_squares(ExecSpace const& space, ConstVec<T> v, Vec<double> blocks) {
  KernelScope const timed("squared_norm", [&] { return squared_norm_cost<T>(v.extent(0)); });
  Index const n = v.extent(0), count = squared_norm_workspace(n);
  STRATA_REQUIRE(Index(blocks.extent(0)) >= count, blocks.extent(0) << " blocks of " << n << " elements");
  double* const partial = blocks.data();
  for_rows(
      space, "strata::reduce::block_squares", count, squares_per_block,
      KOKKOS_LAMBDA(Lanes const& lanes, Index block) {
        Index const begin = block * squares_per_block;
        T const* const x = v.data() + begin;
        double const total =
            lanes.template sum<double>(math::min(squares_per_block, n - begin), [&](Index i) {
              double const value = static_cast<double>(x[i]);
              return value * value;
            });
        lanes.once([&] { partial[block] = total; });
      });
}

void sum(ExecSpace const& space, Vec<double const> v, Vec<double> result) {
  Index const n = v.extent(0);
  KernelScope const timed("sum", [&] {
    return Cost{static_cast<double>(n) * sizeof(double), sizeof(double), static_cast<double>(n)};
  });
  double const* const term = v.data();
  double* const out = result.data();
  for_rows(
      space, "strata::reduce::sum", 1, n, KOKKOS_LAMBDA(Lanes const& lanes, Index) {
        double const total = lanes.template sum<double>(n, [&](Index i) { return term[i]; });
        lanes.once([&] { *out = total; });
      });
}

Index squared_norm_workspace(Index n) { return blocks_of(n, squares_per_block); }

template <class T>
void add_losses(ExecSpace const& space, ConstVec<T> losses, Vec<double> totals) {
  KernelScope const timed("add_losses", [&] {
    return Cost{double(losses.extent(0)) * sizeof(T), 0, double(losses.extent(0))};
  });
  STRATA_REQUIRE(totals.extent(0) >= 2, "totals of " << totals.extent(0));
  Index const n = losses.extent(0);
  T const* const loss = losses.data();
  double* const out = totals.data();
  for_rows(
      space, "strata::reduce::add_losses", 1, n, KOKKOS_LAMBDA(Lanes const& lanes, Index) {
        // A NaN is not below zero: it counts, and shows in the total.
        double const total = lanes.template sum<double>(
            n, [&](Index i) { return loss[i] < T(0) ? 0.0 : static_cast<double>(loss[i]); });
        double const counted =
            lanes.template sum<double>(n, [&](Index i) { return loss[i] < T(0) ? 0.0 : 1.0; });
        lanes.once([&] {
          out[0] += total;
          out[1] += counted;
        });
      });
}

template <class T>
Cost column_sums_cost(Index rows, Index columns) {
  double const n = static_cast<double>(rows) * static_cast<double>(columns),
               width = static_cast<double>(columns);
  return {(n + width) * sizeof(T), width * sizeof(T), n};
}

template <class T>
Cost squared_norm_cost(Index n) {
  return {static_cast<double>(n) * sizeof(T), sizeof(double), 2 * static_cast<double>(n)};
}

#define STRATA_REDUCE(T)                                                                  \
  template void column_sums<T>(ExecSpace const&, ConstMat<T>, Vec<T>, Vec<T>);            \
  template void squared_norm<T>(ExecSpace const&, ConstVec<T>, Vec<double>, Vec<double>); \
  template void block_squares<T>(ExecSpace const&, ConstVec<T>, Vec<double>);             \
  template void add_losses<T>(ExecSpace const&, ConstVec<T>, Vec<double>);                \
  template Cost column_sums_cost<T>(Index, Index);                                        \
  template Cost squared_norm_cost<T>(Index);
STRATA_INSTANTIATE(STRATA_REDUCE)

}  // namespace strata::kernels
