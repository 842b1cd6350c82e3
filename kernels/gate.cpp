// SPDX-License-Identifier: Apache-2.0
#include "kernels/gate.hpp"

#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/common/row_ops.hpp"

namespace strata::kernels {
namespace {

constexpr double epsilon = 1e-5;

template <class T>
void require_like(char const* name, ConstMat<T> wanted, ConstMat<T> m) {
  STRATA_REQUIRE(m.extent(0) == wanted.extent(0) && m.extent(1) == wanted.extent(1),
                 name << " is (" << m.extent(0) << ", " << m.extent(1) << ") instead of (" << wanted.extent(0)
                      << ", " << wanted.extent(1) << ")");
}

/// scales[i] = the factor of column tile.column + i: on the host the generator's calls, four columns each,
/// run side by side in vector registers (a tile begins at a multiple of four).
template <class T>
KOKKOS_INLINE_FUNCTION void fill_tile_scales(Dropout const& dropout, Index row, Tile const& tile, T* scales) {
  if constexpr (on_device) {
    scales[0] = dropout.scale<T>(row, tile.column);
  } else {
    static_assert(on_device || tile_columns % 4 == 0);
    std::uint64_t const id = dropout.stream_row(row);
    Index const first = tile.column / 4;
    int const quads = (tile.width + 3) / 4;
    STRATA_INDEPENDENT
    for (int q = 0; q < quads; ++q) {
      Kokkos::Array<T, 4> const drawn = dropout.quad_scales<T>(id, first + q);
      for (int lane = 0; lane < 4; ++lane) scales[4 * q + lane] = drawn[lane];
    }
  }
}

/// y = keep * x, added to y if asked for.
template <class T>
struct Dropped {
  Dropout dropout;
  ConstMat<T> x;
  Mat<T> y;
  bool adds;

  KOKKOS_INLINE_FUNCTION void operator()(Tile const& tile) const {
    T scales[tile_columns];
    for (int i = 0; i < tile.width; ++i) scales[i] = T(1);
    for (Index row = tile.row_begin; row < tile.row_end; ++row) {
      T const* const in = &x(row, tile.column);
      T* const out = &y(row, tile.column);
      if (dropout.active()) fill_tile_scales(dropout, row, tile, scales);
      if (adds) {
        STRATA_INDEPENDENT
        for (int i = 0; i < tile.width; ++i) out[i] += scales[i] * in[i];
      } else {
        STRATA_INDEPENDENT
        for (int i = 0; i < tile.width; ++i) out[i] = scales[i] * in[i];
      }
    }
  }
};

}  // namespace

template <class T>
void silu_gate_forward(ExecSpace const& space, ConstMat<T> y, ConstMat<T> z, Mat<T> o) {
  KernelScope const timed("silu_gate_forward",
                          [&] { return silu_gate_forward_cost<T>(y.extent(0), y.extent(1)); });
  require_like<T>("z", y, z);
  require_like<T>("o", y, o);
  for_tiles(
      space, "strata::gate::silu_gate_forward", y.extent(0), y.extent(1), KOKKOS_LAMBDA(Tile const& tile) {
        for (Index row = tile.row_begin; row < tile.row_end; ++row) {
          T const* const in = &y(row, tile.column);
          T const* const gate = &z(row, tile.column);
          T* const out = &o(row, tile.column);
          STRATA_INDEPENDENT
          for (int i = 0; i < tile.width; ++i) out[i] = in[i] * math::silu(gate[i]);
        }
      });
}

template <class T>
void silu_gate_backward(ExecSpace const& space, ConstMat<T> dout, ConstMat<T> y, ConstMat<T> z, Mat<T> dy,
                        Mat<T> dz) {
  KernelScope const timed("silu_gate_backward",
                          [&] { return silu_gate_backward_cost<T>(y.extent(0), y.extent(1)); });
  require_like<T>("dout", y, dout);
  require_like<T>("z", y, z);
  require_like<T>("dy", y, dy);
  require_like<T>("dz", y, dz);
  for_tiles(
      space, "strata::gate::silu_gate_backward", y.extent(0), y.extent(1), KOKKOS_LAMBDA(Tile const& tile) {
        for (Index row = tile.row_begin; row < tile.row_end; ++row) {
          T const* const g = &dout(row, tile.column);
          T const* const in = &y(row, tile.column);
          T const* const gate = &z(row, tile.column);
          T* const to_y = &dy(row, tile.column);
          T* const to_z = &dz(row, tile.column);
          STRATA_INDEPENDENT
          for (int i = 0; i < tile.width; ++i) {
            T const d = g[i], s = math::sigmoid(gate[i]);
            to_z[i] = d * in[i] * (s * (T(1) + gate[i] * (T(1) - s)));
            to_y[i] = d * (gate[i] * s);
          }
        }
      });
}

template <class T>
void gated_rms_norm_forward(ExecSpace const& space, ConstMat<T> y, ConstMat<T> z, ConstVec<T> gain, Mat<T> o,
                            Vec<T> inverse_norm) {
  KernelScope const timed("gated_rms_norm_forward",
                          [&] { return gated_rms_norm_forward_cost<T>(y.extent(0), y.extent(1)); });
  Index const rows = y.extent(0), width = y.extent(1);
  require_like<T>("z", y, z);
  require_like<T>("o", y, o);
  STRATA_REQUIRE(Index(gain.extent(0)) == width && Index(inverse_norm.extent(0)) == rows,
                 "gain of " << gain.extent(0) << ", inverse_norm of " << inverse_norm.extent(0));
  for_rows(
      space, "strata::gate::gated_rms_norm_forward", rows, width,
      KOKKOS_LAMBDA(Lanes const& lanes, Index row) {
        T const* const in = &y(row, 0);
        T const* const gate = &z(row, 0);
        T const* const k = gain.data();
        T* const out = &o(row, 0);
        // The gated row waits in `out`. A team's loops give a thread the same columns each time, so that it
        // reads what it wrote itself.
        lanes.loop(width, [&](Index j) { out[j] = in[j] * math::silu(gate[j]); });
        T const square = lanes.template sum<T>(width, [&](Index j) { return out[j] * out[j]; });
        T const r = T(1) / math::sqrt(square / static_cast<T>(width) + T(epsilon));
        lanes.once([&] { inverse_norm(row) = r; });
        lanes.loop(width, [&](Index j) { out[j] *= r * k[j]; });
      });
}

template <class T>
void gated_rms_norm_backward(ExecSpace const& space, ConstMat<T> dout, ConstMat<T> y, ConstMat<T> z,
                             ConstVec<T> gain, ConstVec<T> inverse_norm, Mat<T> dy, Mat<T> dz, Vec<T> dgain,
                             Vec<T> workspace) {
  KernelScope const timed("gated_rms_norm_backward",
                          [&] { return gated_rms_norm_backward_cost<T>(y.extent(0), y.extent(1)); });
  Index const rows = y.extent(0), width = y.extent(1);
  require_like<T>("dout", y, dout);
  require_like<T>("z", y, z);
  require_like<T>("dy", y, dy);
  require_like<T>("dz", y, dz);
  STRATA_REQUIRE(Index(gain.extent(0)) == width && Index(dgain.extent(0)) == width &&
                     Index(inverse_norm.extent(0)) == rows,
                 "gain of " << gain.extent(0) << ", dgain of " << dgain.extent(0) << ", inverse_norm of "
                            << inverse_norm.extent(0));
  STRATA_REQUIRE(Index(workspace.extent(0)) >= gated_rms_norm_workspace(rows, width),
                 "workspace of " << workspace.extent(0));
  T* const pull = workspace.data();  // per row: r^2 / E * sum of gain * dout * g
  T* const partial = workspace.data() + rows;
  // On the host the logistic function of z waits in dz, in cache, for the second part.
  auto const row_sums = KOKKOS_LAMBDA(Lanes const& lanes, Index row) {
    T const* const d = &dout(row, 0);
    T const* const in = &y(row, 0);
    T const* const gate = &z(row, 0);
    T const* const k = gain.data();
    T* const s = &dz(row, 0);
    Index const n = width;  // nvcc wants it captured before the branch
    T dot;
    if constexpr (on_device) {
      dot = lanes.template sum<T>(n, [&](Index j) { return k[j] * d[j] * (in[j] * math::silu(gate[j])); });
    } else {
      lanes.loop(n, [&](Index j) { s[j] = math::sigmoid(gate[j]); });
      dot = lanes.template sum<T>(n, [&](Index j) { return k[j] * d[j] * (in[j] * (gate[j] * s[j])); });
    }
    T const r = inverse_norm(row);
    lanes.once([&] { pull[row] = r * (r * dot) / static_cast<T>(width); });
  };
  auto const elements = KOKKOS_LAMBDA(Tile const& tile) {
    T sums[tile_columns] = {};
    T const* const k = gain.data() + tile.column;
    for (Index row = tile.row_begin; row < tile.row_end; ++row) {
      T const r = inverse_norm(row), c = pull[row];
      T const* const d = &dout(row, tile.column);
      T const* const in = &y(row, tile.column);
      T const* const gate = &z(row, tile.column);
      T* const to_y = &dy(row, tile.column);
      T* const to_z = &dz(row, tile.column);
      STRATA_INDEPENDENT
      for (int i = 0; i < tile.width; ++i) {
        T const s = on_device ? math::sigmoid(gate[i]) : to_z[i];
        T const silu = gate[i] * s, g = in[i] * silu;
        T const dg = r * (k[i] * d[i] - c * g);
        sums[i] += d[i] * (g * r);
        to_y[i] = dg * silu;
        to_z[i] = dg * in[i] * (s * (T(1) + gate[i] * (T(1) - s)));
      }
    }
    for (int i = 0; i < tile.width; ++i) partial[tile.block * width + tile.column + i] = sums[i];
  };
  for_rows_then_tiles(space, "strata::gate::gated_rms_norm_backward", rows, width, row_sums, elements);
  add_partial_sums(space, "strata::gate::gated_rms_norm_backward::dgain", rows, width, partial, dgain.data());
}

Index gated_rms_norm_workspace(Index rows, Index width) { return rows + partial_sums_size(rows, width); }

template <class T>
void add_dropped(ExecSpace const& space, Dropout const& dropout, ConstMat<T> x, Mat<T> y) {
  KernelScope const timed("add_dropped", [&] { return copy_cost<T>(y.extent(0) * y.extent(1)); });
  require_like<T>("x", y, x);
  for_tiles(space, "strata::gate::add_dropped", y.extent(0), y.extent(1), Dropped<T>{dropout, x, y, true});
}

template <class T>
void drop(ExecSpace const& space, Dropout const& dropout, ConstMat<T> x, Mat<T> y) {
  KernelScope const timed("drop", [&] { return copy_cost<T>(y.extent(0) * y.extent(1)); });
  require_like<T>("x", y, x);
  for_tiles(space, "strata::gate::drop", y.extent(0), y.extent(1), Dropped<T>{dropout, x, y, false});
}

template <class T>
Cost silu_gate_forward_cost(Index rows, Index width) {
  double const n = static_cast<double>(rows) * static_cast<double>(width);
  return {2 * n * sizeof(T), n * sizeof(T), 5 * n};
}

template <class T>
Cost silu_gate_backward_cost(Index rows, Index width) {
  double const n = static_cast<double>(rows) * static_cast<double>(width);
  return {3 * n * sizeof(T), 2 * n * sizeof(T), 13 * n};
}

template <class T>
Cost gated_rms_norm_forward_cost(Index rows, Index width) {
  double const r = static_cast<double>(rows), e = static_cast<double>(width), n = r * e;
  return {(2 * n + e) * sizeof(T), (n + r) * sizeof(T), 9 * n};
}

template <class T>
Cost gated_rms_norm_backward_cost(Index rows, Index width) {
  double const r = static_cast<double>(rows), e = static_cast<double>(width), n = r * e;
  return {(3 * n + r + 2 * e) * sizeof(T), (2 * n + e) * sizeof(T), 25 * n};
}

#define STRATA_GATE(T)                                                                                     \
  template void silu_gate_forward<T>(ExecSpace const&, ConstMat<T>, ConstMat<T>, Mat<T>);                  \
  template void silu_gate_backward<T>(ExecSpace const&, ConstMat<T>, ConstMat<T>, ConstMat<T>, Mat<T>,     \
                                      Mat<T>);                                                             \
  template void gated_rms_norm_forward<T>(ExecSpace const&, ConstMat<T>, ConstMat<T>, ConstVec<T>, Mat<T>, \
                                          Vec<T>);                                                         \
  template void gated_rms_norm_backward<T>(ExecSpace const&, ConstMat<T>, ConstMat<T>, ConstMat<T>,        \
                                           ConstVec<T>, ConstVec<T>, Mat<T>, Mat<T>, Vec<T>, Vec<T>);      \
  template void add_dropped<T>(ExecSpace const&, Dropout const&, ConstMat<T>, Mat<T>);                     \
  template void drop<T>(ExecSpace const&, Dropout const&, ConstMat<T>, Mat<T>);                            \
  template Cost silu_gate_forward_cost<T>(Index, Index);                                                   \
  template Cost silu_gate_backward_cost<T>(Index, Index);                                                  \
  template Cost gated_rms_norm_forward_cost<T>(Index, Index);                                              \
  template Cost gated_rms_norm_backward_cost<T>(Index, Index);
STRATA_INSTANTIATE(STRATA_GATE)

}  // namespace strata::kernels
