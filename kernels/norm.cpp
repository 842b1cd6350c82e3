// SPDX-License-Identifier: Apache-2.0
#include "kernels/norm.hpp"

#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/common/row_ops.hpp"

namespace strata::kernels {
namespace {

constexpr double norm_floor = 1e-8;  // RmsForm::clamped
constexpr double epsilon = 1e-5;     // RmsForm::epsilon and LayerNorm

/// Where the shifted features of a row come from: the row before, `previous` for a sequence's first row, or
/// nowhere (null).
template <class T>
KOKKOS_INLINE_FUNCTION T const* lender(Mat<T const> const& x, Mat<T const> const& previous, Index slot,
                                       Index t, Index row, Index kept) {
  if (t > 0) return x.data() + (row - 1) * static_cast<Index>(x.stride(0)) + kept;
  return previous.data() == nullptr ? nullptr
                                    : previous.data() + slot * static_cast<Index>(previous.stride(0));
}

template <class T>
void require_shift_shapes(Sequences shape, Index shifted, Index width, ConstMat<T> x, ConstMat<T> previous) {
  STRATA_REQUIRE(
      Index(x.extent(0)) == shape.rows() && Index(x.extent(1)) == width && shifted >= 0 && shifted <= width,
      "x is (" << x.extent(0) << ", " << x.extent(1) << "), gain " << width << ", shifted " << shifted);
  STRATA_REQUIRE(
      previous.data() == nullptr || (shape.fits(previous.extent(0)) && Index(previous.extent(1)) == shifted),
      "previous is (" << previous.extent(0) << ", " << previous.extent(1) << ")");
}

}  // namespace

template <class T>
void shift_rms_norm_forward(ExecSpace const& space, Sequences shape, RmsForm form, Index shifted,
                            ConstMat<T> x, ConstMat<T> previous, ConstVec<T> gain, Mat<T> y,
                            Vec<T> inverse_norm, Mat<T> residual, ConstVec<T> residual_bias) {
  KernelScope const timed("shift_rms_norm_forward",
                          [&] { return shift_rms_norm_forward_cost<T>(shape, gain.extent(0)); });
  Index const width = gain.extent(0), kept = width - shifted, length = shape.length;
  require_shift_shapes<T>(shape, shifted, width, x, previous);
  STRATA_REQUIRE(Index(y.extent(0)) == shape.rows() && Index(y.extent(1)) == width &&
                     Index(inverse_norm.extent(0)) == shape.rows(),
                 "y is (" << y.extent(0) << ", " << y.extent(1) << ")");
  bool const keeps_residual = residual.data() != nullptr, has_bias = residual_bias.data() != nullptr;
  for_rows(
      space, "strata::norm::shift_rms_norm_forward", shape.rows(), width,
      KOKKOS_LAMBDA(Lanes const& lanes, Index row) {
        Index const sequence = row / length, t = row - sequence * length;
        T const* const own = &x(row, 0);
        T const* const before =
            shifted > 0 ? lender<T>(x, previous, shape.slot(sequence), t, row, kept) : nullptr;
        T const* const k = gain.data();
        T* const out = &y(row, 0);

        T square = lanes.template sum<T>(kept, [&](Index j) { return own[j] * own[j]; });
        if (before != nullptr)
          square += lanes.template sum<T>(shifted, [&](Index j) { return before[j] * before[j]; });
        T const features = static_cast<T>(width);
        T const root = form == RmsForm::clamped
                           ? math::max(math::sqrt(square) / math::sqrt(features), T(norm_floor))
                           : math::sqrt(square / features + T(epsilon));
        T const r = T(1) / root;
        lanes.once([&] { inverse_norm(row) = r; });

        lanes.loop(kept, [&](Index j) { out[j] = own[j] * r * k[j]; });
        if (before != nullptr) {
          lanes.loop(shifted, [&](Index j) { out[kept + j] = before[j] * r * k[kept + j]; });
        } else {
          lanes.loop(shifted, [&](Index j) { out[kept + j] = T(0); });
        }
        if (keeps_residual) {
          T* const sum = &residual(row, 0);
          T const* const bias = residual_bias.data();
          if (has_bias) {
            lanes.loop(width, [&](Index j) { sum[j] = own[j] + bias[j]; });
          } else {
            lanes.loop(width, [&](Index j) { sum[j] = own[j]; });
          }
        }
      });
}

template <class T>
void shift_rms_norm_backward(ExecSpace const& space, Sequences shape, RmsForm form, Index shifted,
                             ConstMat<T> dy, ConstMat<T> x, ConstMat<T> previous, ConstVec<T> gain,
                             ConstVec<T> inverse_norm, ConstMat<T> dnext, Mat<T> dx, Mat<T> dprevious,
                             Vec<T> dgain, Vec<T> workspace) {
  KernelScope const timed("shift_rms_norm_backward",
                          [&] { return shift_rms_norm_backward_cost<T>(shape, gain.extent(0)); });
  Index const width = gain.extent(0), kept = width - shifted, length = shape.length, rows = shape.rows();
  require_shift_shapes<T>(shape, shifted, width, x, previous);
  require_shift_shapes<T>(shape, shifted, width, dy, dnext);
  require_shift_shapes<T>(shape, shifted, width, dx, dprevious);
  STRATA_REQUIRE(Index(inverse_norm.extent(0)) == rows && Index(dgain.extent(0)) == width &&
                     Index(workspace.extent(0)) >= shift_rms_norm_workspace(shape, width),
                 "workspace of " << workspace.extent(0));
  T* const pull = workspace.data();  // per row: r^3 / D * sum of dy * gain * s
  T* const partial = workspace.data() + rows;
  T const largest = T(1) / T(norm_floor);
  auto const row_sums = KOKKOS_LAMBDA(Lanes const& lanes, Index row) {
    Index const sequence = row / length, t = row - sequence * length;
    T const* const own = &x(row, 0);
    T const* const before = shifted > 0 ? lender<T>(x, previous, sequence, t, row, kept) : nullptr;
    T const* const g = &dy(row, 0);
    T const* const k = gain.data();
    T dot = lanes.template sum<T>(kept, [&](Index j) { return g[j] * k[j] * own[j]; });
    if (before != nullptr)
      dot += lanes.template sum<T>(shifted, [&](Index j) { return g[kept + j] * k[kept + j] * before[j]; });
    T const r = inverse_norm(row);
    // A clamped norm is a constant.
    bool const constant = form == RmsForm::clamped && r >= largest;
    lanes.once([&] { pull[row] = constant ? T(0) : r * r * (r * dot) / static_cast<T>(width); });
  };
  // Row t of the norm hands its gradient on to row t (features kept) and to row t - 1 (features lent), so
  // that every element of dx has one writer.
  auto const elements = KOKKOS_LAMBDA(Tile const& tile) {
    T sums[tile_columns] = {};
    int const own_width =
        static_cast<int>(math::max(Index(0), math::min(Index(tile.width), kept - tile.column)));
    Index const lent_column = tile.column + own_width;
    Index sequence = tile.row_begin / length, t = tile.row_begin - sequence * length;
    for (Index row = tile.row_begin; row < tile.row_end; ++row) {
      T const r = inverse_norm(row), c = pull[row];
      T const* const g = dy.data() + row * static_cast<Index>(dy.stride(0)) + tile.column;
      T const* const k = gain.data() + tile.column;
      {
        T const* const own = x.data() + row * static_cast<Index>(x.stride(0)) + tile.column;
        T* const out = dx.data() + row * static_cast<Index>(dx.stride(0)) + tile.column;
        STRATA_INDEPENDENT
        for (int i = 0; i < own_width; ++i) {
          out[i] += r * g[i] * k[i] - c * own[i];
          sums[i] += g[i] * (own[i] * r);
        }
      }
      if (own_width < tile.width) {
        Index const offset = lent_column - kept - own_width;
        if (t > 0) {
          T const* const before = x.data() + (row - 1) * static_cast<Index>(x.stride(0)) + tile.column;
          T* const out = dx.data() + (row - 1) * static_cast<Index>(dx.stride(0)) + tile.column;
          STRATA_INDEPENDENT
          for (int i = own_width; i < tile.width; ++i) {
            out[i] += r * g[i] * k[i] - c * before[i];
            sums[i] += g[i] * (before[i] * r);
          }
        } else {
          T const* const before = lender<T>(x, previous, sequence, t, row, kept);
          for (int i = own_width; i < tile.width; ++i) {
            T const s = before == nullptr ? T(0) : before[offset + i];
            if (dprevious.data() != nullptr) dprevious(sequence, offset + i) = r * g[i] * k[i] - c * s;
            sums[i] += g[i] * (s * r);
          }
        }
        if (t == length - 1 && dnext.data() != nullptr) {
          for (int i = own_width; i < tile.width; ++i)
            dx(row, tile.column + i) += dnext(sequence, offset + i);
        }
      }
      if (++t == length) {
        t = 0;
        ++sequence;
      }
    }
    for (int i = 0; i < tile.width; ++i) partial[tile.block * width + tile.column + i] = sums[i];
  };
  for_rows_then_tiles(space, "strata::norm::shift_rms_norm_backward", rows, width, row_sums, elements);
  add_partial_sums(space, "strata::norm::shift_rms_norm_backward::dgain", rows, width, partial, dgain.data());
}

Index shift_rms_norm_workspace(Sequences shape, Index width) {
  return shape.rows() + partial_sums_size(shape.rows(), width);
}

template <class T>
void last_rows(ExecSpace const& space, Sequences shape, ConstMat<T> x, Mat<T> border) {
  KernelScope const timed("last_rows", [&] { return copy_cost<T>(shape.count * Index(border.extent(1))); });
  Index const shifted = border.extent(1), kept = static_cast<Index>(x.extent(1)) - shifted,
              length = shape.length;
  STRATA_REQUIRE(
      Index(x.extent(0)) == shape.rows() && shape.fits(border.extent(0)) && kept >= 0 && length > 0,
      "border is (" << border.extent(0) << ", " << shifted << ")");
  if (shifted == 0) return;
  for_rows(
      space, "strata::norm::last_rows", shape.count, shifted,
      KOKKOS_LAMBDA(Lanes const& lanes, Index sequence) {
        T const* const in = &x((sequence + 1) * length - 1, kept);
        T* const out = &border(shape.slot(sequence), 0);
        lanes.loop(shifted, [&](Index j) { out[j] = in[j]; });
      });
}

template <class T>
Cost shift_rms_norm_forward_cost(Sequences shape, Index width) {
  double const rows = static_cast<double>(shape.rows()), d = static_cast<double>(width), n = rows * d;
  return {(n + d) * sizeof(T), (n + rows) * sizeof(T), 4 * n};
}

template <class T>
Cost shift_rms_norm_backward_cost(Sequences shape, Index width) {
  double const rows = static_cast<double>(shape.rows()), d = static_cast<double>(width), n = rows * d;
  return {(3 * n + rows + 2 * d) * sizeof(T), (n + d) * sizeof(T), 11 * n};
}

#define STRATA_SHIFT_RMS_NORM(T)                                                                            \
  template void shift_rms_norm_forward<T>(ExecSpace const&, Sequences, RmsForm, Index, ConstMat<T>,         \
                                          ConstMat<T>, ConstVec<T>, Mat<T>, Vec<T>, Mat<T>, ConstVec<T>);   \
  template void shift_rms_norm_backward<T>(ExecSpace const&, Sequences, RmsForm, Index, ConstMat<T>,        \
                                           ConstMat<T>, ConstMat<T>, ConstVec<T>, ConstVec<T>, ConstMat<T>, \
                                           Mat<T>, Mat<T>, Vec<T>, Vec<T>);                                 \
  template void last_rows<T>(ExecSpace const&, Sequences, ConstMat<T>, Mat<T>);                             \
  template Cost shift_rms_norm_forward_cost<T>(Sequences, Index);                                           \
  template Cost shift_rms_norm_backward_cost<T>(Sequences, Index);
STRATA_INSTANTIATE(STRATA_SHIFT_RMS_NORM)

}  // namespace strata::kernels
