// SPDX-License-Identifier: Apache-2.0
#include "kernels/cross_patch.hpp"

#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/common/tasks.hpp"
#include "kernels/rotate_row.hpp"

namespace strata::kernels {

using rotary::copy;
using rotary::rotate;

namespace {

/// Checks what the three directions share; `positions` of the table. Returns H * d.
template <class T>
Index require_shapes(Index heads, ConstMat<T> table, Index positions, KeyValues<T> const& key_values) {
  Index const width = Index(key_values.data.extent(1)) / 2;
  STRATA_REQUIRE(heads > 0 && width % heads == 0, "width " << width << ", heads " << heads);
  STRATA_REQUIRE(table.data() == nullptr ||
                     (Index(table.extent(0)) >= positions && Index(table.extent(1)) == width / heads),
                 "table (" << table.extent(0) << ", " << table.extent(1) << ") for " << positions
                           << " positions, heads of " << width / heads);
  return width;
}

template <class T>
void require_batch(Sequences shape, Index width, ConstMat<T> qkv, KeyValues<T> const& key_values) {
  STRATA_REQUIRE(shape.slots == nullptr && shape.starts == nullptr && key_values.before <= shape.length &&
                     key_values.before + shape.length <= key_values.capacity &&
                     Index(key_values.data.extent(0)) >= shape.count * key_values.capacity,
                 shape.count << " sequences of " << shape.length << " behind " << key_values.before);
  STRATA_REQUIRE(Index(qkv.extent(0)) == shape.rows() && Index(qkv.extent(1)) == 3 * width,
                 "qkv (" << qkv.extent(0) << ", " << qkv.extent(1) << ")");
}

/// A position's key and value, which lie side by side, in front of the next patch's. A key takes the place
/// that its row of the table turns it to.
template <class T>
KOKKOS_INLINE_FUNCTION void put_before(Lanes const& lanes, Index heads, Index width, T const* turn,
                                       T const* key_value, T* out) {
  if (turn != nullptr) {
    rotate(lanes, heads, width / heads, T(1), turn, key_value, out);
  } else {
    copy(lanes, width, key_value, out);
  }
  copy(lanes, width, key_value + width, out + width);
}

template <class T>
Cost cross_patch_cost(Index rows, Index width) {
  Cost cost = copy_cost<T>(2 * rows * width);
  cost.flops = 3 * static_cast<double>(rows * width);
  return cost;
}

}  // namespace

void mark_previous(ExecSpace const& space, Index first, Index period, Index r, Vec<Index> seen) {
  Index const count = seen.extent(0);
  KernelScope const timed("mark_previous", [&] { return Cost{0, double(count) * sizeof(Index), 0}; });
  STRATA_REQUIRE(period > 0, "period " << period);
  for_tasks(
      space, "strata::cross_patch::mark_previous", count, count,
      KOKKOS_LAMBDA(Index const k) { seen(k) = k > 0 && (first + k) % period != 0 ? r : 0; });
}

template <class T>
void cross_patch_forward(ExecSpace const& space, Sequences shape, Previous previous, Index heads,
                         ConstMat<T> cosine_sine, ConstMat<T> qkv, KeyValues<T> key_values) {
  KernelScope const timed("cross_patch_forward",
                          [&] { return cross_patch_cost<T>(previous.total, key_values.data.extent(1) / 2); });
  Index const before = key_values.before, capacity = key_values.capacity;
  Index const width = require_shapes<T>(heads, cosine_sine, before, key_values);
  require_batch<T>(shape, width, qkv, key_values);
  Mat<T> const stored = key_values.data;
  bool const turning = cosine_sine.data() != nullptr;
  for_rows(
      space, "strata::cross_patch::forward", shape.count * before, 2 * width,
      KOKKOS_LAMBDA(Lanes const& lanes, Index row) {
        Index const sequence = row / before, i = row - sequence * before;
        if (previous(sequence) == 0) return;
        put_before<T>(lanes, heads, width, turning ? &cosine_sine(i, 0) : nullptr,
                      &qkv(sequence * shape.length - before + i, width), &stored(sequence * capacity + i, 0));
      });
}

template <class T>
void cross_patch_backward(ExecSpace const& space, Sequences shape, Previous previous, Index heads,
                          ConstMat<T> cosine_sine, KeyValues<T> dkey_values, Mat<T> dqkv) {
  KernelScope const timed("cross_patch_backward", [&] {
    return cross_patch_cost<T>(previous.total, dkey_values.data.extent(1) / 2);
  });
  Index const before = dkey_values.before, capacity = dkey_values.capacity;
  Index const width = require_shapes<T>(heads, cosine_sine, before, dkey_values);
  require_batch<T>(shape, width, dqkv, dkey_values);
  Mat<T> const stored = dkey_values.data;
  bool const turning = cosine_sine.data() != nullptr;
  Index const pairs = width / heads / 2;
  for_rows(
      space, "strata::cross_patch::backward", shape.count * before, 2 * width,
      KOKKOS_LAMBDA(Lanes const& lanes, Index row) {
        Index const sequence = row / before, i = row - sequence * before;
        if (previous(sequence) == 0) return;
        T* const out = &dqkv(sequence * shape.length - before + i, 0);
        T const* const key = &stored(sequence * capacity + i, 0);
        if (turning) {
          T const* const table = &cosine_sine(i, 0);
          rotary::for_pairs(lanes, heads, pairs, [&](Index head, Index pair) {
            Index const first = 2 * head * pairs + pair, second = first + pairs;
            T const cosine = table[pair], sine = table[pairs + pair];
            out[width + first] += key[first] * cosine + key[second] * sine;
            out[width + second] += key[second] * cosine - key[first] * sine;
          });
        } else {
          lanes.loop(width, [&](Index c) { out[width + c] += key[c]; });
        }
        lanes.loop(width, [&](Index c) { out[2 * width + c] += key[width + c]; });
      });
}

template <class T>
void cross_patch_next(ExecSpace const& space, Sequences shape, Index rows, Index heads,
                      ConstMat<T> cosine_sine, KeyValues<T> key_values) {
  Index const before = key_values.before, capacity = key_values.capacity;
  KernelScope const timed("cross_patch_next", [&] {
    return cross_patch_cost<T>(shape.count * before, key_values.data.extent(1) / 2);
  });
  Index const width = require_shapes<T>(heads, cosine_sine, 1, key_values);
  STRATA_REQUIRE(before <= rows && before + rows <= capacity,
                 before << " of " << rows << " positions, capacity " << capacity);
  Mat<T> const stored = key_values.data;
  bool const turning = cosine_sine.data() != nullptr;
  for_rows(
      space, "strata::cross_patch::next", shape.count * before, 2 * width,
      KOKKOS_LAMBDA(Lanes const& lanes, Index row) {
        Index const sequence = row / before, i = row - sequence * before;
        Index const lane = shape.slot(sequence) * capacity;
        // From position rows - before + i, which is no row before.
        put_before<T>(lanes, heads, width, turning ? &cosine_sine(0, 0) : nullptr,
                      &stored(lane + rows + i, 0), &stored(lane + i, 0));
      });
}

#define STRATA_CROSS_PATCH(T)                                                                      \
  template void cross_patch_forward<T>(ExecSpace const&, Sequences, Previous, Index, ConstMat<T>,  \
                                       ConstMat<T>, KeyValues<T>);                                 \
  template void cross_patch_backward<T>(ExecSpace const&, Sequences, Previous, Index, ConstMat<T>, \
                                        KeyValues<T>, Mat<T>);                                     \
  template void cross_patch_next<T>(ExecSpace const&, Sequences, Index, Index, ConstMat<T>, KeyValues<T>);
STRATA_INSTANTIATE(STRATA_CROSS_PATCH)

}  // namespace strata::kernels
