// SPDX-License-Identifier: Apache-2.0
#pragma once
// How a team works on a block of a matrix that fits its core's cache or a GPU's shared memory: its scratch,
// and loops over elements, lanes and tiles. A host team is one thread, whose loops vectorise; the threads of
// a GPU team share the elements. The code between two loops that depend on each other calls team_barrier.

#include <limits>

#include "kernels/common/check.hpp"
#include "kernels/common/register_tiles.hpp"

namespace strata::kernels::tiles {

using Policy = Kokkos::TeamPolicy<ExecSpace, Kokkos::Schedule<Kokkos::Dynamic>>;
using Member = Policy::member_type;

/// Scratch that fits a GPU's shared memory, and scratch that may not. Kokkos' OpenMP back end calls 32 KB
/// "level 0" and the rest "level 1"; to it both are the same heap memory.
inline constexpr int shared_level = on_device ? 0 : 1;
inline constexpr int large_level = 1;

/// Teams with `elements` numbers of scratch each. A host team is one thread, which fills the registers
/// itself; a GPU team shares the tiles of a block.
template <class T, int level = shared_level>
Policy make_policy(ExecSpace const& space, Index league, std::size_t elements) {
  STRATA_REQUIRE(league <= std::numeric_limits<int>::max(), league << " teams");
  auto const bytes = Kokkos::PerTeam(static_cast<int>(elements * sizeof(T)) + 64);
  if constexpr (on_device) {
    return Policy(space, static_cast<int>(league), Kokkos::AUTO).set_scratch_size(level, bytes);
  } else {
    return Policy(space, static_cast<int>(league), 1).set_scratch_size(level, bytes);
  }
}

/// Hands out pieces of a team's scratch memory.
template <class T>
struct Scratch {
  T* next;

  KOKKOS_INLINE_FUNCTION Scratch(Member const& team, std::size_t elements, int level = shared_level) {
    auto const bytes = static_cast<int>(elements * sizeof(T)) + 64;
    auto* const block = static_cast<char*>(team.team_scratch(level).get_shmem(bytes));
    next = reinterpret_cast<T*>(block + (64 - reinterpret_cast<std::uintptr_t>(block) % 64) % 64);
  }
  KOKKOS_INLINE_FUNCTION T* take(int elements) {
    T* const taken = next;
    next += elements;
    return taken;
  }
};

/// f(row, column) for every element.
template <class F>
KOKKOS_INLINE_FUNCTION void for_elements(Member const& team, int rows, int columns, F const& f) {
  if constexpr (on_device) {
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team, rows * columns),
                         [&](int const element) { f(element / columns, element % columns); });
  } else {
    for (int row = 0; row < rows; ++row) {
      for (int column = 0; column < columns; ++column) f(row, column);
    }
  }
}

/// f(first row, first column) for every tile.
template <class T, class F>
KOKKOS_INLINE_FUNCTION void for_tiles(Member const& team, int rows, int columns, F const& f) {
  if constexpr (on_device) {
    int const across = (columns + tile_columns<T> - 1) / tile_columns<T>;
    int const down = (rows + tile_rows - 1) / tile_rows;
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team, down * across), [&](int const tile) {
      f(tile / across * tile_rows, tile % across * tile_columns<T>);
    });
  } else {
    for (int row = 0; row < rows; row += tile_rows) {
      for (int column = 0; column < columns; column += tile_columns<T>) f(row, column);
    }
  }
}

/// f(first lane, number of lanes), together all lanes: the queries of a block, which walk down its keys side
/// by side.
template <class F>
KOKKOS_INLINE_FUNCTION void for_lanes(Member const& team, int lanes, F const& f) {
  if constexpr (on_device) {
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team, lanes), [&](int const lane) { f(lane, 1); });
  } else {
    f(0, lanes);
  }
}

/// to (rows, lanes) = scale * from (rows, columns) and zeros beyond column `columns`.
template <class T>
KOKKOS_INLINE_FUNCTION void copy_rows(Member const& team, int rows, int columns, T const* from, Index step,
                                      T scale, int lanes, T* to) {
  for_elements(team, rows, columns, [&](int const row, int const column) {
    to[row * lanes + column] = scale * from[row * step + column];
  });
  if (columns == lanes) return;
  for_elements(team, rows, lanes - columns,
               [&](int const row, int const column) { to[row * lanes + columns + column] = T(0); });
}

/// to (columns, lanes) = scale * the transpose of from (rows, columns) and zeros beyond lane `rows`.
template <class T>
KOKKOS_INLINE_FUNCTION void copy_transposed(Member const& team, int rows, int columns, T const* from,
                                            Index step, T scale, int lanes, T* to) {
  if constexpr (on_device) {  // neighbouring threads read neighbouring elements
    for_elements(team, rows, columns, [&](int const row, int const column) {
      to[column * lanes + row] = scale * from[row * step + column];
    });
    for_elements(team, columns, lanes - rows,
                 [&](int const column, int const row) { to[column * lanes + rows + row] = T(0); });
  } else {  // neighbouring iterations write neighbouring elements
    if (rows < lanes) {
      for (int i = 0; i < columns * lanes; ++i) to[i] = T(0);
    }
    for_elements(team, columns, rows, [&](int const column, int const row) {
      to[column * lanes + row] = scale * from[row * step + column];
    });
  }
}

KOKKOS_INLINE_FUNCTION constexpr int least(int a, int b) { return a < b ? a : b; }
KOKKOS_INLINE_FUNCTION constexpr int greatest(int a, int b) { return a > b ? a : b; }

}  // namespace strata::kernels::tiles
