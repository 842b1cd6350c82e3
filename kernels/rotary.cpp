// SPDX-License-Identifier: Apache-2.0
#include "kernels/rotary.hpp"

#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/rotate_row.hpp"

namespace strata::kernels {

using rotary::copy;
using rotary::rotate;

namespace {

/// The shapes that both directions share; returns H * d.
template <class T>
Index require_shapes(Sequences shape, Index start, Index heads, ConstMat<T> table, ConstMat<T> q,
                     ConstMat<T> qkv, KeyValues<T> const& key_values) {
  Index const width = q.extent(1);
  STRATA_REQUIRE(heads > 0 && width % heads == 0, "width " << width << ", heads " << heads);
  STRATA_REQUIRE(Index(q.extent(0)) == shape.rows() && Index(qkv.extent(0)) == shape.rows() &&
                     Index(qkv.extent(1)) == 3 * width,
                 "q has width " << width << ", qkv " << qkv.extent(1));
  STRATA_REQUIRE(
      start >= 0 && key_values.before + start + shape.length <= key_values.capacity &&
          (shape.slots != nullptr || Index(key_values.data.extent(0)) >= shape.count * key_values.capacity) &&
          Index(key_values.data.extent(1)) == 2 * width,
      "positions " << start << " to " << start + shape.length << ", capacity " << key_values.capacity);
  if (table.data() != nullptr) {
    STRATA_REQUIRE(
        Index(table.extent(0)) >= (shape.starts == nullptr ? shape.length : shape.count) &&
            Index(table.extent(1)) == width / heads && width / heads % 2 == 0,
        "table (" << table.extent(0) << ", " << table.extent(1) << ") for heads of " << width / heads);
  }
  return width;
}

}  // namespace

template <class T>
void rotary_table(ExecSpace const& space, Index first, Mat<T> cosine_sine, Index const* positions) {
  KernelScope const timed("rotary_table", [&] {
    return Cost{0, double(cosine_sine.extent(0) * cosine_sine.extent(1)) * sizeof(T), 0};
  });
  Index const length = cosine_sine.extent(0), head_dim = cosine_sine.extent(1), pairs = head_dim / 2;
  STRATA_REQUIRE(head_dim % 2 == 0, "heads of " << head_dim);
  for_tiles(
      space, "strata::rotary::rotary_table", length, pairs, KOKKOS_LAMBDA(Tile const& tile) {
        T frequency[tile_columns];
        for (int i = 0; i < tile.width; ++i) {
          double const exponent = -2.0 * static_cast<double>(tile.column + i) / static_cast<double>(head_dim);
          frequency[i] = static_cast<T>(math::pow(10000.0, exponent));
        }
        for (Index row = tile.row_begin; row < tile.row_end; ++row) {
          for (int i = 0; i < tile.width; ++i) {
            Index const position = first + (positions == nullptr ? row : positions[row]);
            T const angle = static_cast<T>(position) * frequency[i];
            cosine_sine(row, tile.column + i) = math::cos(angle);
            cosine_sine(row, pairs + tile.column + i) = math::sin(angle);
          }
        }
      });
}

template <class T>
void split_rotate_forward(ExecSpace const& space, Sequences shape, Index start, Index heads,
                          ConstMat<T> cosine_sine, ConstMat<T> qkv, Mat<T> q, KeyValues<T> key_values) {
  KernelScope const timed("split_rotate_forward",
                          [&] { return split_rotate_cost<T>(shape, heads, q.extent(1) / heads); });
  Index const width = require_shapes<T>(shape, start, heads, cosine_sine, q, qkv, key_values);
  STRATA_REQUIRE(shape.starts == nullptr || shape.length == 1, "different starts for " << shape.length);
  Mat<T> const stored = key_values.data;
  Index const capacity = key_values.capacity, before = key_values.before;
  bool const turning = cosine_sine.data() != nullptr;
  for_rows(
      space, "strata::rotary::split_rotate_forward", shape.rows(), 3 * width,
      KOKKOS_LAMBDA(Lanes const& lanes, Index row) {
        Index const sequence = row / shape.length, position = row - sequence * shape.length;
        T const* const in = &qkv(row, 0);
        T* const query = &q(row, 0);
        T* const key =
            &stored(shape.slot(sequence) * capacity + before + shape.start(sequence, start) + position, 0);
        if (turning) {
          T const* const table = &cosine_sine(shape.starts == nullptr ? position : sequence, 0);
          rotate(lanes, heads, width / heads, T(1), table, in, query);
          rotate(lanes, heads, width / heads, T(1), table, in + width, key);
        } else {
          copy(lanes, width, in, query);
          copy(lanes, width, in + width, key);
        }
        copy(lanes, width, in + 2 * width, key + width);
      });
}

template <class T>
void split_rotate_backward(ExecSpace const& space, Sequences shape, Index start, Index heads,
                           ConstMat<T> cosine_sine, ConstMat<T> dq, KeyValues<T> dkey_values, Mat<T> dqkv) {
  KernelScope const timed("split_rotate_backward",
                          [&] { return split_rotate_cost<T>(shape, heads, dq.extent(1) / heads); });
  Index const width = require_shapes<T>(shape, start, heads, cosine_sine, dq, dqkv, dkey_values);
  Mat<T> const stored = dkey_values.data;
  Index const capacity = dkey_values.capacity, before = dkey_values.before;
  bool const turning = cosine_sine.data() != nullptr;
  for_rows(
      space, "strata::rotary::split_rotate_backward", shape.rows(), 3 * width,
      KOKKOS_LAMBDA(Lanes const& lanes, Index row) {
        Index const sequence = row / shape.length, position = row - sequence * shape.length;
        T* const out = &dqkv(row, 0);
        T const* const query = &dq(row, 0);
        T const* const key = &stored(sequence * capacity + before + start + position, 0);
        if (turning) {
          T const* const table = &cosine_sine(position, 0);
          rotate(lanes, heads, width / heads, T(-1), table, query, out);
          rotate(lanes, heads, width / heads, T(-1), table, key, out + width);
        } else {
          copy(lanes, width, query, out);
          copy(lanes, width, key, out + width);
        }
        copy(lanes, width, key + width, out + 2 * width);
      });
}

template <class T>
Cost split_rotate_cost(Sequences shape, Index heads, Index head_dim) {
  double const width = static_cast<double>(heads * head_dim), rows = static_cast<double>(shape.rows());
  double const table = static_cast<double>(shape.length * head_dim);
  return {(3 * rows * width + table) * sizeof(T), 3 * rows * width * sizeof(T), 6 * rows * width};
}

#define STRATA_ROTARY(T)                                                                                     \
  template void rotary_table<T>(ExecSpace const&, Index, Mat<T>, Index const*);                              \
  template void split_rotate_forward<T>(ExecSpace const&, Sequences, Index, Index, ConstMat<T>, ConstMat<T>, \
                                        Mat<T>, KeyValues<T>);                                               \
  template void split_rotate_backward<T>(ExecSpace const&, Sequences, Index, Index, ConstMat<T>,             \
                                         ConstMat<T>, KeyValues<T>, Mat<T>);                                 \
  template Cost split_rotate_cost<T>(Sequences, Index, Index);
STRATA_INSTANTIATE(STRATA_ROTARY)

}  // namespace strata::kernels
