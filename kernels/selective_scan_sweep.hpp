// SPDX-License-Identifier: Apache-2.0
#pragma once
// The recurrence forwards in time: as the forward pass, and in backward to find the states at chunk borders.

#include "kernels/selective_scan_parts.hpp"

namespace strata::kernels::selective_scan {

/// What a sweep is for.
enum class Purpose { outputs, borders };

template <Purpose purpose, class T>
struct Sweep {
  static constexpr bool writes_y = purpose == Purpose::outputs;
  /// Positions between two visits of a state in scratch.
  static constexpr int block = 32;

  Plan plan;
  SelectiveScanInputs<T> in;
  Mat<T const> initial;  // or empty
  Mat<T> y, last;        // of outputs; last may be empty, and may be initial
  T* borders;            // (count, chunks - 1, padded_channels / lanes, padded_state, lanes)

  KOKKOS_INLINE_FUNCTION static ScratchSize scratch(Plan const& plan) {
    return {block * (Index(channel_block) * (writes_y ? 3 : 2) + 2 * together),
            2 * Index(channel_block) * plan.padded_state};
  }

  /// A team's scratch memory; per lane block unless it says otherwise.
  struct Work {
    T* step;   // (block, lanes)
    T* dx;     // (block, lanes): step x
    T* y;      // (block, lanes)
    T* bc;     // (block, 2, together): B and C of the states in flight, once for all channels
    T* rates;  // (padded_state, lanes)
    T* h;      // (padded_state, lanes)
  };

  KOKKOS_INLINE_FUNCTION void operator()(Member const& team) const {
    Task<T> const task(plan, team.league_rank());
    Scratch<T> pieces(team, scratch(plan));
    Index const states = Index(channel_block) * plan.padded_state;
    Work const work{pieces.take_chunk(block * channel_block),
                    pieces.take_chunk(block * channel_block),
                    pieces.take_chunk(writes_y ? block * channel_block : 0),
                    pieces.take_chunk(block * 2 * together),
                    pieces.take_states(states),
                    pieces.take_states(states)};
    for (int k = 0; k < task.lane_blocks; ++k) {
      for_lanes<T>(team, [&](int const lane) {
        load_rates<T>(plan, task.channels(plan, k, lane), in.a_log.data(), lane, of_block(work.rates, k));
      });
    }
    for (Index s = task.begin; s < task.end; ++s) sequence(team, task, work, s);
  }

  KOKKOS_FORCEINLINE_FUNCTION T* of_block(T* states, int k) const {
    return states + Index(k) * plan.padded_state * lanes<T>;
  }

  KOKKOS_INLINE_FUNCTION void sequence(Member const& team, Task<T> const& task, Work const& work,
                                       Index s) const {
    Index const lane_of_state = plan.slots == nullptr ? s : plan.slots[s];
    T const* const before = initial.data() == nullptr ? nullptr : &initial(lane_of_state, 0);
    for (int k = 0; k < task.lane_blocks; ++k) {
      for_lanes<T>(team, [&](int const lane) {
        load_states<T>(plan, task.channels(plan, k, lane), before, lane, of_block(work.h, k));
      });
    }
    Index const end = writes_y ? plan.length : (plan.chunks - 1) * plan.chunk;
    Index begin = 0;
    for (Index border = writes_y ? end : Index(plan.chunk); begin < end; border += plan.chunk) {
      for (; begin < border; begin += block)
        positions(team, task, work, s, begin, static_cast<int>(math::min(Index(block), border - begin)));
      begin = border;
      if constexpr (!writes_y) keep(team, task, work, s, border / plan.chunk - 1);
    }
    if constexpr (writes_y) {
      if (last.data() == nullptr) return;
      for (int k = 0; k < task.lane_blocks; ++k) {
        for_lanes<T>(team, [&](int const lane) {
          store_states<T>(plan, task.channels(plan, k, lane), of_block(work.h, k), lane,
                          &last(lane_of_state, 0));
        });
      }
    }
  }

  KOKKOS_INLINE_FUNCTION void keep(Member const& team, Task<T> const& task, Work const& work, Index s,
                                   Index border) const {
    T* const to =
        borders + (s * (plan.chunks - 1) + border) * plan.kept_states() + task.channel * plan.padded_state;
    for (int k = 0; k < task.lane_blocks; ++k) {
      for_lanes<T>(team, [&](int const lane) {
        for (int n = 0; n < plan.padded_state; ++n)
          store<T>(of_block(to, k) + n * lanes<T> + lane, load<T>(of_block(work.h, k) + n * lanes<T> + lane));
      });
    }
  }

  /// n <= block positions from `begin` on.
  KOKKOS_INLINE_FUNCTION void positions(Member const& team, Task<T> const& task, Work const& work, Index s,
                                        Index begin, int n) const {
    Index const row = s * plan.length + begin;
    for_lanes<T>(team, [&](int const lane) { prepare(task, work, row, n, plan.length - begin - n, lane); });
    for (int first = 0; first < plan.padded_state; first += together) {
      copy_bc<T>(team, plan, in, row, n, first, work.bc);
      team.team_barrier();
      for (int k = 0; k < task.lane_blocks; ++k)
        for_lanes<T>(team, [&](int const lane) { states(work, k, first, n, lane); });
      team.team_barrier();
    }
    if constexpr (writes_y) {
      for_lanes<T>(team, [&](int const lane) {
        Rows<T> const out(y, row, task.channel + lane);
        T const* const from = work.y;
        Index const left = plan.channels - task.channel - lane;
        for_positions<T>(n, task.lane_blocks, block, lane, [=](int const t, int const k, int const at) {
          store_first<T>(out.at(t, k), load<T>(from + at), left - k * lanes<T>);
        });
      });
    }
  }

  /// step, dx and the part of y that passes the states by. `rest`: positions that follow these.
  KOKKOS_INLINE_FUNCTION void prepare(Task<T> const& task, Work const& work, Index row, int n, Index rest,
                                      int lane) const {
    // What the loops use is copied out of `work`, which the compiler would read again after every store.
    Index const column = task.channel + lane, left = plan.channels - column;
    Rows<T const> const delta(in.delta, row, column), x(in.x, row, column);
    T const* const bias = in.delta_bias.data() + column;
    T const* const d = in.d.data() + column;
    T* const step = work.step;
    T* const dx = work.dx;
    T* const out = work.y;
    for_positions<T>(n, task.lane_blocks, block, lane, [=](int const t, int const k, int const at) {
      Index const here = left - k * lanes<T>;
      store<T>(step + at, load_first<T>(delta.at(t, k), here) + load_first<T>(bias + k * lanes<T>, here));
    });
    if constexpr (writes_y) {
      Rows<T> const y_rows(y, row, column);
      for (int t = 0; t < n; ++t) y_rows.prefetch(t);
    }
    for (int t = n; t < n + math::min(rest, Index(n)); ++t) {
      delta.prefetch(t);
      x.prefetch(t);
    }
    for (int k = 0; k < task.lane_blocks; ++k)
      transform(step + k * block * lanes<T>, n, lane, [](T raw) { return math::softplus(raw); });
    for_positions<T>(n, task.lane_blocks, block, lane, [=](int const t, int const k, int const at) {
      Index const here = left - k * lanes<T>;
      Pack<T> const x_t = load_first<T>(x.at(t, k), here);
      store<T>(dx + at, load<T>(step + at) * x_t);
      if constexpr (writes_y) store<T>(out + at, load_first<T>(d + k * lanes<T>, here) * x_t);
    });
  }

  /// States first .. first + together - 1 of a pack over n positions.
  KOKKOS_FORCEINLINE_FUNCTION void states(Work const& work, int k, int first, int n, int lane) const {
    T* const kept = of_block(work.h, k) + first * lanes<T> + lane;
    T const* const rates = of_block(work.rates, k) + first * lanes<T> + lane;
    T const* const step = work.step + k * block * lanes<T> + lane;
    T const* const dx = work.dx + k * block * lanes<T> + lane;
    T* const out = work.y + k * block * lanes<T> + lane;
    T const* const bc = work.bc;
    Pack<T> h[together], rate[together];
    for (int q = 0; q < together; ++q) {
      h[q] = load<T>(kept + q * lanes<T>);
      rate[q] = load<T>(rates + q * lanes<T>);
    }
    for (int t = 0; t < n; ++t) {
      Pack<T> const step_t = load<T>(step + t * lanes<T>), dx_t = load<T>(dx + t * lanes<T>);
      T const* const b = bc + t * 2 * together;
      if constexpr (writes_y) {
        Pack<T> sum = load<T>(out + t * lanes<T>);
        for (int q = 0; q < together; ++q) {
          h[q] = decay<T>(step_t, rate[q]) * h[q] + dx_t * b[q];
          sum += h[q] * b[together + q];
        }
        store<T>(out + t * lanes<T>, sum);
      } else {
        for (int q = 0; q < together; ++q) h[q] = decay<T>(step_t, rate[q]) * h[q] + dx_t * b[q];
      }
    }
    for (int q = 0; q < together; ++q) store<T>(kept + q * lanes<T>, h[q]);
  }
};

template <Purpose purpose, class T>
void run_sweep(ExecSpace const& space, Sweep<purpose, T> const& sweep, char const* label) {
  Kokkos::parallel_for(label, make_policy<T>(space, sweep.plan.tasks(), sweep.scratch(sweep.plan)), sweep);
}

}  // namespace strata::kernels::selective_scan
