// SPDX-License-Identifier: Apache-2.0
#pragma once
// Dot products on a host: one register of partial sums each, added up in a fixed tree. Whether one product
// is computed or several side by side, each is added in the same order.

#include "kernels/common/register_tiles.hpp"

namespace strata::kernels::tiles {

#if !(defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP) || defined(KOKKOS_ENABLE_SYCL))

template <class T>
using Register = typename Lanes<T>::Register;

template <class T>
__attribute__((always_inline)) inline Register<T> load(T const* from) {
  return Lanes<T>::load(from).value;
}

/// The first n elements, n less than a register's width, and zeros.
template <class T>
inline Register<T> load_some(T const* from, Index n) {
  T part[Lanes<T>::width] = {};
  for (Index l = 0; l < n; ++l) part[l] = from[l];
  return load(part);
}

template <int width, int group, std::size_t... lane, class R>
__attribute__((always_inline)) inline R add_halves(R a, R b, std::index_sequence<lane...>) {
  constexpr int half = group / 2;
  return __builtin_shufflevector(a, b, int(lane) / half * group + int(lane) % half...) +
         __builtin_shufflevector(a, b, int(lane) / half * group + half + int(lane) % half...);
}

/// a and b hold sums of `group` neighbouring lanes each: adds the upper half of each group to the lower one.
/// Those of a come first, then those of b.
template <class T, int group>
__attribute__((always_inline)) inline Register<T> add_halves(Register<T> a, Register<T> b) {
  constexpr int width = Lanes<T>::width;
  return add_halves<width, group>(a, b, std::make_index_sequence<width>());
}

template <class T, int group>
__attribute__((always_inline)) inline Register<T> add_groups(Register<T> sums) {
  if constexpr (group == 1) {
    return sums;
  } else {
    return add_groups<T, group / 2>(add_halves<T, group>(sums, sums));
  }
}

/// to[i] = the sum of the lanes of sums[i]: lane l and lane l + width / 2, then quarters, and so on.
template <class T>
__attribute__((always_inline)) inline void sum_lanes(Register<T> const (&sums)[4], T* to) {
  constexpr int width = Lanes<T>::width;
  if constexpr (width == 2) {
    for (int i = 0; i < 4; ++i) to[i] = sums[i][0] + sums[i][1];
  } else {
    Register<T> const four = add_groups<T, width / 4>(add_halves<T, width / 2>(
        add_halves<T, width>(sums[0], sums[1]), add_halves<T, width>(sums[2], sums[3])));
    __builtin_memcpy(to, &four, 4 * sizeof(T));
  }
}

#endif

}  // namespace strata::kernels::tiles
