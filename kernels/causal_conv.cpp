// SPDX-License-Identifier: Apache-2.0
#include "kernels/causal_conv.hpp"

#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/common/row_ops.hpp"

namespace strata::kernels {
namespace {

/// Lengths W that have loops of their own: weights stand in registers or the first-level cache, and backward
/// is one pass. Other lengths take loops over w inside, and two passes.
constexpr bool has_own_loops(Index inputs) { return inputs >= 2 && inputs <= 4; }

/// What forward and backward read.
template <class T>
struct Operands {
  Sequences shape;
  Index length, channels, inputs;
  T const* x;
  Index x_stride;
  T const* previous;  // null: zeros
  Index previous_stride;
  T const* weight;
  Index weight_stride;
  T const* bias;

  /// Input t of a sequence from a column on, t >= 1 - W; null where it is zero.
  KOKKOS_INLINE_FUNCTION T const* input(Index sequence, Index t, Index column) const {
    if (t >= 0) return x + (sequence * length + t) * x_stride + column;
    if (previous == nullptr) return nullptr;
    return previous + shape.slot(sequence) * previous_stride + (inputs - 1 + t) * channels + column;
  }
  /// Row t before the SiLU for any W: sums[i], i in [0, width).
  KOKKOS_INLINE_FUNCTION void weighted_sums(Index sequence, Index t, Index column, int width, T* sums) const {
    for (int i = 0; i < width; ++i) sums[i] = bias[column + i];
    for (Index w = 0; w < inputs; ++w) {
      T const* const from = input(sequence, t - inputs + 1 + w, column);
      if (from == nullptr) continue;
      T const* const k = weight + column * weight_stride + w;
      STRATA_INDEPENDENT
      for (int i = 0; i < width; ++i) sums[i] += k[i * weight_stride] * from[i];
    }
  }
  /// dy of row t becomes the gradient before the SiLU.
  KOKKOS_INLINE_FUNCTION void pull_through_silu(Index sequence, Index t, Index column, int width,
                                                T* dy) const {
    T sums[tile_columns];
    weighted_sums(sequence, t, column, width, sums);
    STRATA_INDEPENDENT
    for (int i = 0; i < width; ++i) dy[i] *= math::silu_derivative(sums[i]);
  }
};

/// The weights and bias of a tile's columns, transposed, and a row of zeros.
template <class T, int W>
struct TileWeights {
  T weight[W][tile_columns];
  T bias[tile_columns];
  T zeros[tile_columns] = {};

  KOKKOS_INLINE_FUNCTION TileWeights(Operands<T> const& in, Tile const& tile) {
    for (int i = 0; i < tile.width; ++i) {
      T const* const k = in.weight + (tile.column + i) * in.weight_stride;
      for (int w = 0; w < W; ++w) weight[w][i] = k[w];
      bias[i] = in.bias[tile.column + i];
    }
  }
  /// The W inputs of row t.
  KOKKOS_INLINE_FUNCTION Kokkos::Array<T const*, W> inputs(Operands<T> const& in, Index sequence, Index t,
                                                           Index column) const {
    Kokkos::Array<T const*, W> from;
    for (int w = 0; w < W; ++w) {
      T const* const found = in.input(sequence, t - W + 1 + w, column);
      from[w] = found == nullptr ? zeros : found;
    }
    return from;
  }
  KOKKOS_FORCEINLINE_FUNCTION T sum(Kokkos::Array<T const*, W> const& from, int i) const {
    T result = bias[i];
    for (int w = 0; w < W; ++w) result += weight[w][i] * from[w][i];
    return result;
  }
};

template <class T, int W>
struct Forward {
  Operands<T> in;
  T* y;
  Index y_stride;

  KOKKOS_INLINE_FUNCTION void operator()(Tile const& tile) const {
    TileWeights<T, W> const k(in, tile);
    Index sequence = tile.row_begin / in.length, t = tile.row_begin - sequence * in.length;
    for (Index row = tile.row_begin; row < tile.row_end; ++row) {
      Kokkos::Array<T const*, W> const from = k.inputs(in, sequence, t, tile.column);
      T* const out = y + row * y_stride + tile.column;
      STRATA_INDEPENDENT
      for (int i = 0; i < tile.width; ++i) out[i] = math::silu(k.sum(from, i));
      if (++t == in.length) {
        t = 0;
        ++sequence;
      }
    }
  }
};

/// Any W.
template <class T>
struct Forward<T, 0> {
  Operands<T> in;
  T* y;
  Index y_stride;

  KOKKOS_INLINE_FUNCTION void operator()(Tile const& tile) const {
    T sums[tile_columns];
    for (Index row = tile.row_begin; row < tile.row_end; ++row) {
      Index const sequence = row / in.length;
      in.weighted_sums(sequence, row - sequence * in.length, tile.column, tile.width, sums);
      T* const out = y + row * y_stride + tile.column;
      STRATA_INDEPENDENT
      for (int i = 0; i < tile.width; ++i) out[i] = math::silu(sums[i]);
    }
  }
};

/// What backward reads and writes besides.
template <class T>
struct Gradients {
  T* dy;
  Index dy_stride;
  T* dx;
  Index dx_stride;
  T* dborder;  // null: zeros, not wanted
  Index dborder_stride;
  T* partial_weight;  // per block of rows: (C, W)
  T* partial_bias;    // per block of rows: (C)

  /// dx of row t += what the border behind the span hands back to it.
  KOKKOS_INLINE_FUNCTION void add_border(Operands<T> const& in, Index sequence, Index t, Index column,
                                         int width, T* out) const {
    Index const element = t - in.length + in.inputs - 1;
    if (dborder == nullptr || element < 0) return;
    T const* const border = dborder + sequence * dborder_stride + element * in.channels + column;
    STRATA_INDEPENDENT
    for (int i = 0; i < width; ++i) out[i] += border[i];
  }
};

/// dx and the partial sums of the parameters' gradients in one pass. dx of row t needs the gradient before
/// the SiLU of rows t to t + W - 1: rows are taken from the last to the first, the gradients of the W - 1
/// rows behind are kept, and those behind the tile are computed once more by the tile in front of them.
template <class T, int W>
struct Backward {
  Operands<T> in;
  Gradients<T> out;

  KOKKOS_INLINE_FUNCTION void operator()(Tile const& tile) const {
    TileWeights<T, W> const k(in, tile);
    T weight_sums[W][tile_columns] = {}, bias_sums[tile_columns] = {};
    T later[W - 1][tile_columns] = {};  // later[j]: the gradient before the SiLU of row + 1 + j
    int const width = tile.width;
    Index sequence = (tile.row_end - 1) / in.length;
    Index row = math::min(tile.row_end + W - 1, (sequence + 1) * in.length) - 1;
    Index t = row - sequence * in.length;
    for (; row >= tile.row_end; --row, --t) {
      Kokkos::Array<T const*, W> const from = k.inputs(in, sequence, t, tile.column);
      T const* const g = out.dy + row * out.dy_stride + tile.column;
      STRATA_INDEPENDENT
      for (int i = 0; i < width; ++i) shift(later, i, g[i] * math::silu_derivative(k.sum(from, i)));
    }
    for (; row >= tile.row_begin; --row, --t) {
      if (t < 0) {
        --sequence;
        t = in.length - 1;
        for (int j = 0; j < W - 1; ++j)
          for (int i = 0; i < width; ++i) later[j][i] = T(0);
      }
      Kokkos::Array<T const*, W> const from = k.inputs(in, sequence, t, tile.column);
      T const* const g = out.dy + row * out.dy_stride + tile.column;
      T* const dx = out.dx + row * out.dx_stride + tile.column;
      STRATA_INDEPENDENT
      for (int i = 0; i < width; ++i) {
        T const d = g[i] * math::silu_derivative(k.sum(from, i));
        T sum = k.weight[W - 1][i] * d;
        for (int j = 0; j < W - 1; ++j) sum += k.weight[W - 2 - j][i] * later[j][i];
        dx[i] = sum;
        for (int w = 0; w < W; ++w) weight_sums[w][i] += d * from[w][i];
        bias_sums[i] += d;
        shift(later, i, d);
      }
      out.add_border(in, sequence, t, tile.column, width, dx);
    }
    T* const weights = out.partial_weight + (tile.block * in.channels + tile.column) * W;
    T* const biases = out.partial_bias + tile.block * in.channels + tile.column;
    for (int i = 0; i < width; ++i) {
      for (int w = 0; w < W; ++w) weights[i * W + w] = weight_sums[w][i];
      biases[i] = bias_sums[i];
    }
  }

  KOKKOS_FORCEINLINE_FUNCTION static void shift(T (&later)[W - 1][tile_columns], int i, T d) {
    for (int j = W - 2; j > 0; --j) later[j][i] = later[j - 1][i];
    later[0][i] = d;
  }
};

/// Any W, first pass: dy through the SiLU, in place, and the partial sums.
template <class T>
struct PullThroughSilu {
  Operands<T> in;
  Gradients<T> out;

  KOKKOS_INLINE_FUNCTION void operator()(Tile const& tile) const {
    Index const taps = in.inputs;
    T* const weights = out.partial_weight + (tile.block * in.channels + tile.column) * taps;
    T* const biases = out.partial_bias + tile.block * in.channels + tile.column;
    for (Index i = 0; i < tile.width * taps; ++i) weights[i] = T(0);
    for (int i = 0; i < tile.width; ++i) biases[i] = T(0);
    for (Index row = tile.row_begin; row < tile.row_end; ++row) {
      Index const sequence = row / in.length, t = row - sequence * in.length;
      T* const g = out.dy + row * out.dy_stride + tile.column;
      in.pull_through_silu(sequence, t, tile.column, tile.width, g);
      for (int i = 0; i < tile.width; ++i) biases[i] += g[i];
      for (Index w = 0; w < taps; ++w) {
        T const* const from = in.input(sequence, t - taps + 1 + w, tile.column);
        if (from == nullptr) continue;
        STRATA_INDEPENDENT
        for (int i = 0; i < tile.width; ++i) weights[i * taps + w] += g[i] * from[i];
      }
    }
  }
};

/// Any W, second pass: dx.
template <class T>
struct GatherInputs {
  Operands<T> in;
  Gradients<T> out;

  KOKKOS_INLINE_FUNCTION void operator()(Tile const& tile) const {
    for (Index row = tile.row_begin; row < tile.row_end; ++row) {
      Index const sequence = row / in.length, t = row - sequence * in.length;
      T* const dx = out.dx + row * out.dx_stride + tile.column;
      for (int i = 0; i < tile.width; ++i) dx[i] = T(0);
      Index const end = math::min(in.inputs, in.length - t);
      for (Index j = 0; j < end; ++j) {
        T const* const g = out.dy + (row + j) * out.dy_stride + tile.column;
        T const* const k = in.weight + tile.column * in.weight_stride + in.inputs - 1 - j;
        STRATA_INDEPENDENT
        for (int i = 0; i < tile.width; ++i) dx[i] += k[i * in.weight_stride] * g[i];
      }
      out.add_border(in, sequence, t, tile.column, tile.width, dx);
    }
  }
};

/// The border's gradient, of a tile of sequences and channels, in place: element e stands for input
/// e - W + 1, which the rows t <= e saw with weight e - t, and which is element e - L behind the span if
/// e >= L. From the last element to the first, so that none is overwritten before it is read.
template <class T>
struct PullBorder {
  Operands<T> in;
  Gradients<T> out;
  bool through_silu;  // whether dy holds gradients before the SiLU already

  KOKKOS_INLINE_FUNCTION void operator()(Tile const& tile) const {
    Index const border = in.inputs - 1, near = math::min(border, in.length);
    T sums[tile_columns];
    for (Index sequence = tile.row_begin; sequence < tile.row_end; ++sequence) {
      T* const dy = out.dy + sequence * in.length * out.dy_stride + tile.column;
      T* const elements = out.dborder + sequence * out.dborder_stride + tile.column;
      if (!through_silu)
        for (Index t = 0; t < near; ++t)
          in.pull_through_silu(sequence, t, tile.column, tile.width, dy + t * out.dy_stride);
      for (Index e = border - 1; e >= 0; --e) {
        for (int i = 0; i < tile.width; ++i)
          sums[i] = e < in.length ? T(0) : elements[(e - in.length) * in.channels + i];
        for (Index t = 0; t <= e && t < near; ++t) {
          T const* const g = dy + t * out.dy_stride;
          T const* const k = in.weight + tile.column * in.weight_stride + e - t;
          for (int i = 0; i < tile.width; ++i) sums[i] += k[i * in.weight_stride] * g[i];
        }
        for (int i = 0; i < tile.width; ++i) elements[e * in.channels + i] = sums[i];
      }
    }
  }
};

/// Each thread shifts its channels' borders from the first element to the last: `next` may be `previous`.
template <class T>
struct MoveBorder {
  Operands<T> in;
  T* next;
  Index next_stride;

  KOKKOS_INLINE_FUNCTION void operator()(Tile const& tile) const {
    for (Index sequence = tile.row_begin; sequence < tile.row_end; ++sequence)
      for (Index e = 0; e < in.inputs - 1; ++e) {
        T const* const from = in.input(sequence, in.length - in.inputs + 1 + e, tile.column);
        T* const to = next + in.shape.slot(sequence) * next_stride + e * in.channels + tile.column;
        if (from == nullptr) {
          for (int i = 0; i < tile.width; ++i) to[i] = T(0);
        } else {
          STRATA_INDEPENDENT
          for (int i = 0; i < tile.width; ++i) to[i] = from[i];
        }
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

/// Rows that a border has to have: a lane for every sequence.
template <class M>
Index lanes_of(Sequences shape, M const& border) {
  return shape.fits(border.extent(0)) ? Index(border.extent(0)) : shape.count;
}

template <class T>
Operands<T> operands(Sequences shape, Index inputs, ConstMat<T> x, ConstMat<T> previous) {
  Index const channels = x.extent(1);
  require_matrix<T>("x", shape.rows(), channels, x);
  if (previous.data() != nullptr)
    require_matrix<T>("previous", lanes_of(shape, previous), (inputs - 1) * channels, previous);
  return {shape,           shape.length,         channels, inputs, x.data(), row_stride(x),
          previous.data(), row_stride(previous), nullptr,  0,      nullptr};
}

template <class T>
Operands<T> operands(Sequences shape, ConstMat<T> x, ConstMat<T> previous, ConstMat<T> weight,
                     ConstVec<T> bias) {
  STRATA_REQUIRE(weight.extent(1) > 0 && bias.extent(0) == x.extent(1),
                 "weight of " << weight.extent(1) << " inputs, bias of " << bias.extent(0));
  require_matrix<T>("weight", x.extent(1), weight.extent(1), weight);
  Operands<T> in = operands<T>(shape, weight.extent(1), x, previous);
  in.weight = weight.data();
  in.weight_stride = row_stride(weight);
  in.bias = bias.data();
  return in;
}

}  // namespace

template <class T>
void causal_conv_silu_forward(ExecSpace const& space, Sequences shape, ConstMat<T> x, ConstMat<T> previous,
                              ConstMat<T> weight, ConstVec<T> bias, Mat<T> y) {
  KernelScope const timed("causal_conv_silu_forward", [&] {
    return causal_conv_silu_forward_cost<T>(shape, x.extent(1), weight.extent(1));
  });
  Operands<T> const in = operands<T>(shape, x, previous, weight, bias);
  require_matrix<T>("y", shape.rows(), in.channels, y);
  char const* const label = "strata::causal_conv::causal_conv_silu_forward";
  Index const rows = shape.rows(), channels = in.channels;
  switch (in.inputs) {
    case 2:
      return for_tiles(space, label, rows, channels, Forward<T, 2>{in, y.data(), row_stride(y)});
    case 3:
      return for_tiles(space, label, rows, channels, Forward<T, 3>{in, y.data(), row_stride(y)});
    case 4:
      return for_tiles(space, label, rows, channels, Forward<T, 4>{in, y.data(), row_stride(y)});
    default:
      for_tiles(space, label, rows, channels, Forward<T, 0>{in, y.data(), row_stride(y)});
  }
}

template <class T>
void causal_conv_border(ExecSpace const& space, Sequences shape, ConstMat<T> x, ConstMat<T> previous,
                        Mat<T> next) {
  KernelScope const timed("causal_conv_border",
                          [&] { return copy_cost<T>(next.extent(0) * next.extent(1)); });
  Index const channels = x.extent(1), border = channels == 0 ? 0 : Index(next.extent(1)) / channels;
  require_matrix<T>("next", lanes_of(shape, next), border * channels, next);
  for_tiles(space, "strata::causal_conv::causal_conv_border", shape.count, channels,
            MoveBorder<T>{operands<T>(shape, border + 1, x, previous), next.data(), row_stride(next)});
}

template <class T>
void causal_conv_silu_backward(ExecSpace const& space, Sequences shape, Mat<T> dy, ConstMat<T> x,
                               ConstMat<T> previous, ConstMat<T> weight, ConstVec<T> bias, Mat<T> dx,
                               Mat<T> dborder, Mat<T> dweight, Vec<T> dbias, Vec<T> workspace) {
  KernelScope const timed("causal_conv_silu_backward", [&] {
    return causal_conv_silu_backward_cost<T>(shape, x.extent(1), weight.extent(1));
  });
  Operands<T> const in = operands<T>(shape, x, previous, weight, bias);
  Index const rows = shape.rows(), channels = in.channels, inputs = in.inputs;
  require_matrix<T>("dy", rows, channels, dy);
  require_matrix<T>("dx", rows, channels, dx);
  require_matrix<T>("dweight", channels, inputs, dweight);
  if (dborder.data() != nullptr) require_matrix<T>("dborder", shape.count, (inputs - 1) * channels, dborder);
  STRATA_REQUIRE(Index(dbias.extent(0)) == channels && (channels < 2 || row_stride(dweight) == inputs),
                 "dbias of " << dbias.extent(0) << ", dweight with row stride " << row_stride(dweight));
  STRATA_REQUIRE(Index(workspace.extent(0)) >= causal_conv_workspace(shape, channels, inputs),
                 "workspace of " << workspace.extent(0));
  T* const partial_bias = workspace.data() + partial_sums_size(rows, channels * inputs);
  Gradients<T> const out{dy.data(),      row_stride(dy),      dx.data(),        row_stride(dx),
                         dborder.data(), row_stride(dborder), workspace.data(), partial_bias};
  char const* const label = "strata::causal_conv::causal_conv_silu_backward";
  switch (inputs) {
    case 2:
      for_tiles(space, label, rows, channels, Backward<T, 2>{in, out});
      break;
    case 3:
      for_tiles(space, label, rows, channels, Backward<T, 3>{in, out});
      break;
    case 4:
      for_tiles(space, label, rows, channels, Backward<T, 4>{in, out});
      break;
    default:
      for_tiles(space, "strata::causal_conv::causal_conv_silu_backward::silu", rows, channels,
                PullThroughSilu<T>{in, out});
      for_tiles(space, label, rows, channels, GatherInputs<T>{in, out});
  }
  // Only now: dx has read the border's old gradient and, in one pass, dy.
  if (dborder.data() != nullptr && inputs > 1)
    for_tiles(space, "strata::causal_conv::causal_conv_silu_backward::border", shape.count, channels,
              PullBorder<T>{in, out, !has_own_loops(inputs)});
  add_partial_sums(space, "strata::causal_conv::causal_conv_silu_backward::dweight", rows, channels * inputs,
                   workspace.data(), dweight.data());
  add_partial_sums(space, "strata::causal_conv::causal_conv_silu_backward::dbias", rows, channels,
                   partial_bias, dbias.data());
}

Index causal_conv_workspace(Sequences shape, Index channels, Index inputs) {
  return partial_sums_size(shape.rows(), channels * (inputs + 1));
}

template <class T>
Cost causal_conv_silu_forward_cost(Sequences shape, Index channels, Index inputs) {
  double const c = static_cast<double>(channels), n = static_cast<double>(shape.rows()) * c,
               w = static_cast<double>(inputs);
  // W multiply-adds, the SiLU (4).
  return {(n + (w + 1) * c) * sizeof(T), n * sizeof(T), (2 * w + 4) * n, 2 * w * n};
}

template <class T>
Cost causal_conv_silu_backward_cost(Sequences shape, Index channels, Index inputs) {
  double const c = static_cast<double>(channels), n = static_cast<double>(shape.rows()) * c,
               w = static_cast<double>(inputs), again = has_own_loops(inputs) ? 0 : n;
  // W multiply-adds each for the sum, dx and dweight; the SiLU's derivative (8), its product (1), dbias (1).
  return {(2 * n + again + 2 * (w + 1) * c) * sizeof(T), (n + again + (w + 1) * c) * sizeof(T),
          (6 * w + 10) * n, 4 * w * n};
}

#define STRATA_CAUSAL_CONV(T)                                                                               \
  template void causal_conv_silu_forward<T>(ExecSpace const&, Sequences, ConstMat<T>, ConstMat<T>,          \
                                            ConstMat<T>, ConstVec<T>, Mat<T>);                              \
  template void causal_conv_border<T>(ExecSpace const&, Sequences, ConstMat<T>, ConstMat<T>, Mat<T>);       \
  template void causal_conv_silu_backward<T>(ExecSpace const&, Sequences, Mat<T>, ConstMat<T>, ConstMat<T>, \
                                             ConstMat<T>, ConstVec<T>, Mat<T>, Mat<T>, Mat<T>, Vec<T>,      \
                                             Vec<T>);                                                       \
  template Cost causal_conv_silu_forward_cost<T>(Sequences, Index, Index);                                  \
  template Cost causal_conv_silu_backward_cost<T>(Sequences, Index, Index);
STRATA_INSTANTIATE(STRATA_CAUSAL_CONV)

}  // namespace strata::kernels
