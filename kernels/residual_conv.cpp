// SPDX-License-Identifier: Apache-2.0
#include "kernels/residual_conv.hpp"

#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/common/row_ops.hpp"

namespace strata::kernels {
namespace {

/// What forward and backward read.
template <class T>
struct Operands {
  Index length;  // of y's sequences
  Index channels;
  T const* x;
  Index x_stride;
  T const* weight;
  Index weight_stride;
  T const* bias;
};

/// The weights, transposed, and the bias of a tile's columns.
template <class T, int F>
struct TileWeights {
  T weight[F][tile_columns];
  T bias[tile_columns];

  KOKKOS_INLINE_FUNCTION TileWeights(Operands<T> const& in, Tile const& tile) {
    for (int i = 0; i < tile.width; ++i) {
      T const* const k = in.weight + (tile.column + i) * in.weight_stride;
      for (int w = 0; w < F; ++w) weight[w][i] = k[w];
      bias[i] = in.bias[tile.column + i];
    }
  }
  /// Before the SiLU, from the F rows of x at `from`.
  KOKKOS_FORCEINLINE_FUNCTION T sum(T const* from, Index stride, int i) const {
    T result = bias[i];
    for (int w = 0; w < F; ++w) result += weight[w][i] * from[w * stride + i];
    return result;
  }
};

/// A tile of y.
template <class T, int F>
struct Forward {
  Operands<T> in;
  T* y;
  Index y_stride;

  KOKKOS_INLINE_FUNCTION void operator()(Tile const& tile) const {
    TileWeights<T, F> const k(in, tile);
    Index const stride = in.x_stride;
    for (Index row = tile.row_begin; row < tile.row_end; ++row) {
      T const* const from = in.x + (row + row / in.length * (F - 1)) * stride + tile.column;
      T* const out = y + row * y_stride + tile.column;
      STRATA_INDEPENDENT
      for (int i = 0; i < tile.width; ++i)
        out[i] = from[(F - 1) * stride + i] + math::silu(k.sum(from, stride, i));
    }
  }
};

/// dx and the partial sums of the parameters' gradients, of a tile of x, in one pass. Row u of a sequence of
/// x is the last input of row t = u - F + 1 of y, and dx[u] needs the gradients before the SiLU of rows t to
/// t + F - 1: rows are taken from the last to the first, the gradients of the F - 1 rows behind are kept, and
/// those behind the tile are computed once more by the tile in front of them.
template <class T, int F>
struct Backward {
  Operands<T> in;
  T const* dy;
  Index dy_stride;
  T* dx;
  Index dx_stride;
  T* partial_weight;  // per block of rows: (C, F)
  T* partial_bias;    // per block of rows: (C)

  KOKKOS_INLINE_FUNCTION void operator()(Tile const& tile) const {
    TileWeights<T, F> const k(in, tile);
    T weight_sums[F][tile_columns] = {}, bias_sums[tile_columns] = {};
    T kept[F - 1][tile_columns] = {};
    T* later[F - 1];  // later[j]: the gradient before the SiLU of row t + 1 + j
    for (int j = 0; j < F - 1; ++j) later[j] = kept[j];
    int const width = tile.width;
    Index const whole = in.length + F - 1, stride = in.x_stride;
    Index sequence = (tile.row_end - 1) / whole;
    Index row = math::min(tile.row_end + F - 1, (sequence + 1) * whole) - 1;
    Index t = row - sequence * whole - (F - 1);
    for (; row >= tile.row_begin; --row, --t) {
      if (t < 1 - F) {
        --sequence;
        t = in.length - 1;
        for (int j = 0; j < F - 1; ++j)
          for (int i = 0; i < width; ++i) kept[j][i] = T(0);
      }
      T* const d = later[F - 2];  // the oldest makes room for row t, once it has been read
      T* const to = dx + row * dx_stride + tile.column;
      bool const own = row < tile.row_end;
      if (own) pull(k, later, to, width);
      if (t < 0) {
        for (int i = 0; i < width; ++i) d[i] = T(0);
      } else {
        T const* const from = in.x + (row - (F - 1)) * stride + tile.column;
        T const* const g = dy + (sequence * in.length + t) * dy_stride + tile.column;
        STRATA_INDEPENDENT
        for (int i = 0; i < width; ++i) d[i] = g[i] * math::silu_derivative(k.sum(from, stride, i));
        if (own) {
          STRATA_INDEPENDENT
          for (int i = 0; i < width; ++i) {
            to[i] += g[i] + k.weight[F - 1][i] * d[i];
            for (int w = 0; w < F; ++w) weight_sums[w][i] += d[i] * from[w * stride + i];
            bias_sums[i] += d[i];
          }
        }
      }
      for (int j = F - 2; j > 0; --j) later[j] = later[j - 1];
      later[0] = d;
    }
    T* const weights = partial_weight + (tile.block * in.channels + tile.column) * F;
    T* const biases = partial_bias + tile.block * in.channels + tile.column;
    for (int i = 0; i < width; ++i) {
      for (int w = 0; w < F; ++w) weights[i * F + w] = weight_sums[w][i];
      biases[i] = bias_sums[i];
    }
  }

  /// What the rows of y behind this one hand back.
  KOKKOS_FORCEINLINE_FUNCTION static void pull(TileWeights<T, F> const& k, T* const (&later)[F - 1], T* to,
                                               int width) {
    STRATA_INDEPENDENT
    for (int i = 0; i < width; ++i) {
      T sum = k.weight[F - 2][i] * later[0][i];
      for (int j = 1; j < F - 1; ++j) sum += k.weight[F - 2 - j][i] * later[j][i];
      to[i] = sum;
    }
  }
};

template <class M>
Index row_stride(M const& m) {
  return static_cast<Index>(m.stride(0));
}

template <class T>
void require_matrix(char const* name, Index rows, Index columns, ConstMat<T> m) {
  STRATA_REQUIRE(Index(m.extent(0)) == rows && Index(m.extent(1)) == columns,
                 name << " is (" << m.extent(0) << ", " << m.extent(1) << ") instead of (" << rows << ", "
                      << columns << ")");
}

Index input_rows(Sequences shape, Index inputs) { return shape.count * (shape.length + inputs - 1); }

template <class T>
Operands<T> operands(Sequences shape, ConstMat<T> x, ConstMat<T> weight, ConstVec<T> bias) {
  Index const channels = x.extent(1), inputs = weight.extent(1);
  STRATA_REQUIRE(inputs == 3 || inputs == 5 || inputs == 7, "filter of " << inputs << " rows");
  require_matrix<T>("x", input_rows(shape, inputs), channels, x);
  require_matrix<T>("weight", channels, inputs, weight);
  STRATA_REQUIRE(Index(bias.extent(0)) == channels, "bias of " << bias.extent(0));
  return {shape.length, channels, x.data(), row_stride(x), weight.data(), row_stride(weight), bias.data()};
}

}  // namespace

template <class T>
void residual_conv_forward(ExecSpace const& space, Sequences shape, ConstMat<T> x, ConstMat<T> weight,
                           ConstVec<T> bias, Mat<T> y) {
  KernelScope const timed("residual_conv_forward", [&] {
    return residual_conv_forward_cost<T>(shape, x.extent(1), weight.extent(1));
  });
  Operands<T> const in = operands<T>(shape, x, weight, bias);
  require_matrix<T>("y", shape.rows(), in.channels, y);
  char const* const label = "strata::residual_conv::residual_conv_forward";
  Index const rows = shape.rows(), channels = in.channels;
  switch (weight.extent(1)) {
    case 3:
      return for_tiles(space, label, rows, channels, Forward<T, 3>{in, y.data(), row_stride(y)});
    case 5:
      return for_tiles(space, label, rows, channels, Forward<T, 5>{in, y.data(), row_stride(y)});
    default:
      for_tiles(space, label, rows, channels, Forward<T, 7>{in, y.data(), row_stride(y)});
  }
}

template <class T>
void residual_conv_backward(ExecSpace const& space, Sequences shape, ConstMat<T> dy, ConstMat<T> x,
                            ConstMat<T> weight, ConstVec<T> bias, Mat<T> dx, Mat<T> dweight, Vec<T> dbias,
                            Vec<T> workspace) {
  KernelScope const timed("residual_conv_backward", [&] {
    return residual_conv_backward_cost<T>(shape, x.extent(1), weight.extent(1));
  });
  Operands<T> const in = operands<T>(shape, x, weight, bias);
  Index const inputs = weight.extent(1), rows = input_rows(shape, inputs), channels = in.channels;
  require_matrix<T>("dy", shape.rows(), channels, dy);
  require_matrix<T>("dx", rows, channels, dx);
  require_matrix<T>("dweight", channels, inputs, dweight);
  STRATA_REQUIRE(Index(dbias.extent(0)) == channels && (channels < 2 || row_stride(dweight) == inputs),
                 "dbias of " << dbias.extent(0) << ", dweight with row stride " << row_stride(dweight));
  STRATA_REQUIRE(Index(workspace.extent(0)) >= residual_conv_workspace(rows, channels, inputs),
                 "workspace of " << workspace.extent(0));
  T* const weights = workspace.data();
  T* const biases = weights + partial_sums_size(rows, channels * inputs);
  char const* const label = "strata::residual_conv::residual_conv_backward";
  Index const dy_stride = row_stride(dy), dx_stride = row_stride(dx);
  switch (inputs) {
    case 3:
      for_tiles(space, label, rows, channels,
                Backward<T, 3>{in, dy.data(), dy_stride, dx.data(), dx_stride, weights, biases});
      break;
    case 5:
      for_tiles(space, label, rows, channels,
                Backward<T, 5>{in, dy.data(), dy_stride, dx.data(), dx_stride, weights, biases});
      break;
    default:
      for_tiles(space, label, rows, channels,
                Backward<T, 7>{in, dy.data(), dy_stride, dx.data(), dx_stride, weights, biases});
  }
  add_partial_sums(space, "strata::residual_conv::residual_conv_backward::dweight", rows, channels * inputs,
                   weights, dweight.data());
  add_partial_sums(space, "strata::residual_conv::residual_conv_backward::dbias", rows, channels, biases,
                   dbias.data());
}

Index residual_conv_workspace(Index rows, Index channels, Index inputs) {
  return partial_sums_size(rows, channels * (inputs + 1));
}

template <class T>
Cost residual_conv_forward_cost(Sequences shape, Index channels, Index inputs) {
  double const c = static_cast<double>(channels), f = static_cast<double>(inputs);
  double const n = static_cast<double>(shape.rows()) * c,
               of_x = static_cast<double>(input_rows(shape, inputs)) * c;
  // F multiply-adds, the SiLU (4), the input (1).
  return {(of_x + (f + 1) * c) * sizeof(T), n * sizeof(T), (2 * f + 5) * n, 2 * f * n};
}

template <class T>
Cost residual_conv_backward_cost(Sequences shape, Index channels, Index inputs) {
  double const c = static_cast<double>(channels), f = static_cast<double>(inputs);
  double const n = static_cast<double>(shape.rows()) * c,
               of_x = static_cast<double>(input_rows(shape, inputs)) * c;
  // F multiply-adds each for the sum, dx and dweight; the SiLU's derivative (8), its product, dbias, dy (1).
  return {(n + of_x + 2 * (f + 1) * c) * sizeof(T), (of_x + (f + 1) * c) * sizeof(T), (6 * f + 11) * n,
          4 * f * n};
}

#define STRATA_RESIDUAL_CONV(T)                                                                              \
  template void residual_conv_forward<T>(ExecSpace const&, Sequences, ConstMat<T>, ConstMat<T>, ConstVec<T>, \
                                         Mat<T>);                                                            \
  template void residual_conv_backward<T>(ExecSpace const&, Sequences, ConstMat<T>, ConstMat<T>,             \
                                          ConstMat<T>, ConstVec<T>, Mat<T>, Mat<T>, Vec<T>, Vec<T>);         \
  template Cost residual_conv_forward_cost<T>(Sequences, Index, Index);                                      \
  template Cost residual_conv_backward_cost<T>(Sequences, Index, Index);
STRATA_INSTANTIATE(STRATA_RESIDUAL_CONV)

}  // namespace strata::kernels
