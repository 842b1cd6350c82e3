// SPDX-License-Identifier: Apache-2.0
#pragma once
// Independent tasks, a thread each. Little work stays in the calling host thread: the result is the same, and
// sooner there.

#include "kernels/common/types.hpp"

namespace strata::kernels {

/// Elements that a host thread is done with before others have been woken to help (some 10 us if they sleep).
inline constexpr Index little_work = 4096;

/// Whether work on so many elements stays in the calling thread. A loaded Kokkos Tools library sees every
/// launch.
inline bool is_little(Index elements) {
  return !on_device && elements <= little_work && !Kokkos::Profiling::profileLibraryLoaded();
}

/// f(task) for each task in [0, tasks), which together touch about `elements` numbers.
template <class F>
void for_tasks(ExecSpace const& space, char const* label, Index tasks, Index elements, F const& f) {
  if constexpr (!on_device) {
    if (is_little(elements)) {
      for (Index task = 0; task < tasks; ++task) f(task);
      return;
    }
  }
  Kokkos::parallel_for(label, Kokkos::RangePolicy<ExecSpace>(space, 0, tasks), f);
}

}  // namespace strata::kernels
