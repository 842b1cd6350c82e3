// SPDX-License-Identifier: Apache-2.0
#include "kernels/selective_scan_sweep.hpp"

#include "kernels/common/profile.hpp"

namespace strata::kernels {
namespace selective_scan {

/// Where backward's intermediate results lie in the workspace.
template <class T>
struct Workspace {
  T* borders;  // Sweep::borders
  // dB and dC summed over a block of channels: (channel_blocks, count, pass_chunks, padded_state / together,
  // chunk, 2, together).
  T* partials;
  T* carry;       // (count, padded_channels / lanes, padded_state, lanes), from pass to pass
  T* a_log;       // (groups, channels, state): the gradient from a group of sequences
  T* delta_bias;  // (groups, channels)
  T* d;           // (groups, channels)
};

struct WorkspaceSizes {
  Index borders, partials, carry, a_log, channels;

  explicit WorkspaceSizes(Plan const& plan)
      : borders(plan.count * math::max(Index(0), plan.chunks - 1) * plan.kept_states()),
        partials(plan.channel_blocks * plan.count * plan.pass_chunks * plan.partials_per_chunk()),
        carry(plan.passes > 1 ? plan.count * plan.kept_states() : 0),
        a_log(plan.groups * plan.channels * plan.state),
        channels(plan.groups * plan.channels) {}
  Index total() const { return borders + partials + carry + a_log + 2 * channels; }
};

/// One pass over a range of chunks, last chunk first. A team rebuilds a chunk's states for a few n at a time
/// and goes back through them at once. It owns all elements it writes.
template <class T>
struct Backward {
  Plan plan;
  SelectiveScanInputs<T> in;
  Mat<T const> initial, dy;
  SelectiveScanGradients<T> out;
  Mat<T> dstate;  // or empty
  Workspace<T> memory;
  Index chunk_begin, chunk_end;

  KOKKOS_INLINE_FUNCTION static ScratchSize scratch(Plan const& plan) {
    return {
        plan.chunk * (Index(channel_block) * 5 + together * (4 * Index(lanes<T>) + 2)) + lanes<T> * lanes<T>,
        Index(channel_block) * (4 * plan.padded_state + 2)};
  }

  /// A team's scratch memory.
  struct Work {
    // Per lane block.
    T* step;        // (chunk, lanes)
    T* dx;          // (chunk, lanes): step x
    T* dy;          // (chunk, lanes)
    T* gb;          // (chunk, lanes): sum over n of g B
    T* ra;          // (chunk, lanes): sum over n of rho times the rate
    T* rates;       // (padded_state, lanes)
    T* initial;     // (padded_state, lanes): the state before the sequence
    T* carry;       // (padded_state, lanes): gradient of the state before the chunk last done
    T* da;          // (padded_state, lanes): sum over t of step rho
    T* delta_bias;  // (lanes)
    T* d;           // (lanes)
    // Once for all channels.
    T* decays;  // (chunk, together, lanes)
    T* before;  // (chunk, together, lanes): h[t - 1]
    T* sums;    // (chunk, 2, together, lanes): dB and dC, still to be summed over the lanes
    T* bc;      // (chunk, 2, together): B and C
  };

  KOKKOS_FORCEINLINE_FUNCTION T* of_block(T* states, int k) const {
    return states + Index(k) * plan.padded_state * lanes<T>;
  }
  KOKKOS_FORCEINLINE_FUNCTION T* chunk_of_block(T* buffer, int k) const {
    return buffer + k * plan.chunk * lanes<T>;
  }

  KOKKOS_INLINE_FUNCTION void operator()(Member const& team) const {
    Task<T> const task(plan, team.league_rank());
    Scratch<T> pieces(team, scratch(plan));
    Index const per_chunk = Index(plan.chunk) * channel_block,
                states = Index(plan.padded_state) * channel_block;
    Work work;
    work.step = pieces.take_chunk(per_chunk);
    work.dx = pieces.take_chunk(per_chunk);
    work.dy = pieces.take_chunk(per_chunk);
    work.gb = pieces.take_chunk(per_chunk);
    work.ra = pieces.take_chunk(per_chunk);
    work.decays = pieces.take_chunk(Index(plan.chunk) * together * lanes<T>);
    work.before = pieces.take_chunk(Index(plan.chunk) * together * lanes<T>);
    work.sums = pieces.take_chunk((Index(plan.chunk) * 2 * together + lanes<T>)*lanes<T>);
    work.bc = pieces.take_chunk(Index(plan.chunk) * 2 * together);
    work.rates = pieces.take_states(states);
    work.initial = pieces.take_states(states);
    work.carry = pieces.take_states(states);
    work.da = pieces.take_states(states);
    work.delta_bias = pieces.take_states(channel_block);
    work.d = pieces.take_states(channel_block);

    for (int k = 0; k < task.lane_blocks; ++k) {
      for_lanes<T>(team, [&](int const lane) {
        load_rates<T>(plan, task.channels(plan, k, lane), in.a_log.data(), lane, of_block(work.rates, k));
        for (int n = 0; n < plan.padded_state; ++n)
          store<T>(of_block(work.da, k) + n * lanes<T> + lane, Pack<T>{});
        store<T>(work.delta_bias + k * lanes<T> + lane, Pack<T>{});
        store<T>(work.d + k * lanes<T> + lane, Pack<T>{});
      });
    }
    for (Index s = task.begin; s < task.end; ++s) sequence(team, task, work, s);
    for (int k = 0; k < task.lane_blocks; ++k) {
      for_lanes<T>(team, [&](int const lane) { hand_out_sums(task, work, k, lane); });
    }
  }

  KOKKOS_INLINE_FUNCTION void sequence(Member const& team, Task<T> const& task, Work const& work,
                                       Index s) const {
    bool const is_first_pass = chunk_end == plan.chunks, is_last_pass = chunk_begin == 0;
    T* const outside = dstate.data() == nullptr ? nullptr : &dstate(s, 0);
    T* const between = memory.carry + s * plan.kept_states() + task.channel * plan.padded_state;
    T const* const before = initial.data() == nullptr ? nullptr : &initial(s, 0);
    for (int k = 0; k < task.lane_blocks; ++k) {
      for_lanes<T>(team, [&](int const lane) {
        Channels const channels = task.channels(plan, k, lane);
        if (is_first_pass) {
          load_states<T>(plan, channels, outside, lane, of_block(work.carry, k));
        } else {
          copy_states(of_block(between, k), lane, of_block(work.carry, k));
        }
        if (is_last_pass) load_states<T>(plan, channels, before, lane, of_block(work.initial, k));
      });
    }
    for (Index c = chunk_end - 1; c >= chunk_begin; --c) {
      T* const kept = c == 0 ? work.initial
                             : memory.borders + (s * (plan.chunks - 1) + c - 1) * plan.kept_states() +
                                   task.channel * plan.padded_state;
      chunk(team, task, work, s, c * plan.chunk, kept);
    }
    for (int k = 0; k < task.lane_blocks; ++k) {
      for_lanes<T>(team, [&](int const lane) {
        if (!is_last_pass) {
          copy_states(of_block(work.carry, k), lane, of_block(between, k));
        } else if (outside != nullptr) {
          store_states<T>(plan, task.channels(plan, k, lane), of_block(work.carry, k), lane, outside);
        }
      });
    }
  }

  KOKKOS_INLINE_FUNCTION void copy_states(T const* from, int lane, T* to) const {
    for (int n = 0; n < plan.padded_state; ++n)
      store<T>(to + n * lanes<T> + lane, load<T>(from + n * lanes<T> + lane));
  }

  /// The chunk from position `begin` on, whose state before it is `kept`.
  KOKKOS_INLINE_FUNCTION void chunk(Member const& team, Task<T> const& task, Work const& work, Index s,
                                    Index begin, T* kept) const {
    Index const row = s * plan.length + begin;
    int const n = static_cast<int>(math::min(Index(plan.chunk), plan.length - begin));
    for_lanes<T>(team, [&](int const lane) { prepare(task, work, row, n, begin, lane); });
    Index const chunk_of_pass = begin / plan.chunk - chunk_begin;
    T* const partials = memory.partials + ((task.block * plan.count + s) * plan.pass_chunks + chunk_of_pass) *
                                              plan.partials_per_chunk();
    for (int first = 0; first < plan.padded_state; first += together) {
      copy_bc<T>(team, plan, in, row, n, first, work.bc);
      team.team_barrier();
      for (int k = 0; k < task.lane_blocks; ++k) {
        for_lanes<T>(team, [&](int const lane) {
          rebuild(work, of_block(kept, k), k, first, n, lane);
          if (k == 0) {
            go_back<true>(work, k, first, n, lane);
          } else {
            go_back<false>(work, k, first, n, lane);
          }
        });
      }
      team.team_barrier();
      sum_lanes<T>(team, n * 2 * together, work.sums, partials + first * 2 * plan.chunk);
    }
    for_lanes<T>(team, [&](int const lane) { finish(task, work, row, n, lane); });
  }

  /// `before`: positions before these, which are next.
  KOKKOS_INLINE_FUNCTION void prepare(Task<T> const& task, Work const& work, Index row, int n, Index before,
                                      int lane) const {
    // What the loops use is copied out of `work`, which the compiler would read again after every store.
    Index const column = task.channel + lane, left = plan.channels - column;
    int const positions = plan.chunk;
    Rows<T const> const delta(in.delta, row, column), x(in.x, row, column), gradient(dy, row, column);
    Rows<T> const ddelta(out.delta, row, column), dx_rows(out.x, row, column);
    T const* const bias = in.delta_bias.data() + column;
    T* const step = work.step;
    T* const dx = work.dx;
    T* const dout = work.dy;
    T* const gb = work.gb;
    T* const ra = work.ra;
    for_positions<T>(n, task.lane_blocks, positions, lane, [=](int const t, int const k, int const at) {
      Index const here = left - k * lanes<T>;
      store<T>(step + at, load_first<T>(delta.at(t, k), here) + load_first<T>(bias + k * lanes<T>, here));
      store<T>(dout + at, load_first<T>(gradient.at(t, k), here));
      store<T>(gb + at, Pack<T>{});
      store<T>(ra + at, Pack<T>{});
    });
    for (int k = 0; k < task.lane_blocks; ++k)
      transform(step + k * positions * lanes<T>, n, lane, [](T raw) { return math::softplus(raw); });
    for_positions<T>(n, task.lane_blocks, positions, lane, [=](int const t, int const k, int const at) {
      store<T>(dx + at, load<T>(step + at) * load_first<T>(x.at(t, k), left - k * lanes<T>));
    });
    for (int t = 0; t < n; ++t) {
      ddelta.prefetch(t);
      dx_rows.prefetch(t);
    }
    for (Index t = 1; t <= math::min(before, Index(positions)); ++t) {
      delta.prefetch(-t);
      x.prefetch(-t);
      gradient.prefetch(-t);
    }
  }

  /// decays and before for states first .. first + together - 1 of a pack; behind the chunk's last position
  /// `before` holds the state there.
  KOKKOS_FORCEINLINE_FUNCTION void rebuild(Work const& work, T const* kept, int k, int first, int n,
                                           int lane) const {
    T const* const step = chunk_of_block(work.step, k) + lane;
    T const* const dx = chunk_of_block(work.dx, k) + lane;
    T const* const rates = of_block(work.rates, k) + first * lanes<T> + lane;
    T* const decays = work.decays + lane;
    T* const before = work.before + lane;
    T const* const bc = work.bc;
    Pack<T> h[together], rate[together];
    for (int q = 0; q < together; ++q) {
      h[q] = load<T>(kept + (first + q) * lanes<T> + lane);
      rate[q] = load<T>(rates + q * lanes<T>);
    }
    for (int t = 0; t < n; ++t) {
      Pack<T> const step_t = load<T>(step + t * lanes<T>), dx_t = load<T>(dx + t * lanes<T>);
      T const* const b = bc + t * 2 * together;
      for (int q = 0; q < together; ++q) {
        Pack<T> const a = decay<T>(step_t, rate[q]);
        store<T>(decays + (t * together + q) * lanes<T>, a);
        store<T>(before + (t * together + q) * lanes<T>, h[q]);
        h[q] = a * h[q] + dx_t * b[q];
      }
    }
  }

  /// The recurrence of the gradient g of the states, backwards in time.
  template <bool first_lanes>
  KOKKOS_FORCEINLINE_FUNCTION void go_back(Work const& work, int k, int first, int n, int lane) const {
    T const* const step = chunk_of_block(work.step, k) + lane;
    T const* const dx = chunk_of_block(work.dx, k) + lane;
    T const* const dout = chunk_of_block(work.dy, k) + lane;
    T* const gb = chunk_of_block(work.gb, k) + lane;
    T* const ra = chunk_of_block(work.ra, k) + lane;
    T const* const decays = work.decays + lane;
    T const* const befores = work.before + lane;
    T* const sums = work.sums + lane;
    T const* const bc = work.bc;
    int const at = first * lanes<T> + lane;
    Pack<T> h[together], rate[together], carry[together], da[together];
    for (int q = 0; q < together; ++q) {
      rate[q] = load<T>(of_block(work.rates, k) + at + q * lanes<T>);
      carry[q] = load<T>(of_block(work.carry, k) + at + q * lanes<T>);
      da[q] = Pack<T>{};
      // The chunk's last state, from the one before it.
      int const end = ((n - 1) * together + q) * lanes<T>;
      h[q] = load<T>(decays + end) * load<T>(befores + end) +
             load<T>(dx + (n - 1) * lanes<T>) * bc[(n - 1) * 2 * together + q];
    }
    for (int t = n - 1; t >= 0; --t) {
      Pack<T> const step_t = load<T>(step + t * lanes<T>), dx_t = load<T>(dx + t * lanes<T>),
                    dy_t = load<T>(dout + t * lanes<T>);
      Pack<T> gb_t = load<T>(gb + t * lanes<T>), ra_t = load<T>(ra + t * lanes<T>);
      T const* const b = bc + t * 2 * together;
      T const* const c = b + together;
      for (int q = 0; q < together; ++q) {
        int const here = (t * together + q) * lanes<T>;
        T* const db = sums + (t * 2 * together + q) * lanes<T>;
        T* const dc = db + together * lanes<T>;
        Pack<T> const g = dy_t * c[q] + carry[q], before = load<T>(befores + here);
        if constexpr (first_lanes) {
          store<T>(db, g * dx_t);
          store<T>(dc, dy_t * h[q]);
        } else {
          store<T>(db, load<T>(db) + g * dx_t);
          store<T>(dc, load<T>(dc) + dy_t * h[q]);
        }
        gb_t += g * b[q];
        carry[q] = load<T>(decays + here) * g;
        Pack<T> const rho = carry[q] * before;
        ra_t += rho * rate[q];
        da[q] += step_t * rho;
        h[q] = before;
      }
      store<T>(gb + t * lanes<T>, gb_t);
      store<T>(ra + t * lanes<T>, ra_t);
    }
    for (int q = 0; q < together; ++q) {
      T* const total = of_block(work.da, k) + at + q * lanes<T>;
      store<T>(of_block(work.carry, k) + at + q * lanes<T>, carry[q]);
      store<T>(total, load<T>(total) + da[q]);
    }
  }

  KOKKOS_INLINE_FUNCTION void finish(Task<T> const& task, Work const& work, Index row, int n,
                                     int lane) const {
    Index const column = task.channel + lane, left = plan.channels - column;
    int const positions = plan.chunk;
    Rows<T const> const delta(in.delta, row, column), x(in.x, row, column);
    Rows<T> const ddelta(out.delta, row, column), dx(out.x, row, column);
    T const* const bias = in.delta_bias.data() + column;
    T const* const d = in.d.data() + column;
    T const* const step = work.step;
    T const* const dout = work.dy;
    T const* const gb = work.gb;
    T const* const ra = work.ra;
    T* const slope = work.dx;  // step x is not needed any more
    T* const bias_sums = work.delta_bias + lane;
    T* const d_sums = work.d + lane;
    for_positions<T>(n, task.lane_blocks, positions, lane, [=](int const t, int const k, int const at) {
      Index const here = left - k * lanes<T>;
      store<T>(slope + at, load_first<T>(delta.at(t, k), here) + load_first<T>(bias + k * lanes<T>, here));
    });
    for (int k = 0; k < task.lane_blocks; ++k)
      transform(slope + k * positions * lanes<T>, n, lane,
                [](T raw) { return math::softplus_derivative(raw); });
    for_positions<T>(n, task.lane_blocks, positions, lane, [=](int const t, int const k, int const at) {
      Index const here = left - k * lanes<T>;
      Pack<T> const x_t = load_first<T>(x.at(t, k), here), dy_t = load<T>(dout + at), gb_t = load<T>(gb + at);
      Pack<T> const dstep = x_t * gb_t + load<T>(ra + at) * (T(1) / rate_unit<T>);
      Pack<T> const ddelta_t = load<T>(slope + at) * dstep;
      store_first<T>(dx.at(t, k), load_first<T>(d + k * lanes<T>, here) * dy_t + load<T>(step + at) * gb_t,
                     here);
      store_first<T>(ddelta.at(t, k), ddelta_t, here);
      store<T>(bias_sums + k * lanes<T>, load<T>(bias_sums + k * lanes<T>) + ddelta_t);
      store<T>(d_sums + k * lanes<T>, load<T>(d_sums + k * lanes<T>) + dy_t * x_t);
    });
  }

  /// The task's part of the gradients of parameters. Earlier passes of the same task may have left theirs.
  KOKKOS_INLINE_FUNCTION void hand_out_sums(Task<T> const& task, Work const& work, int k, int lane) const {
    Channels const channels = task.channels(plan, k, lane);
    bool const adds = chunk_end != plan.chunks;
    Index const first = task.group * plan.channels + channels.first;
    T* const da = of_block(work.da, k);
    T const* const rates = of_block(work.rates, k);
    for (int n = 0; n < plan.padded_state; ++n) {  // dA_log = A dA
      int const at = n * lanes<T> + lane;
      store<T>(da + at, load<T>(da + at) * load<T>(rates + at) * (T(1) / rate_unit<T>));
    }
    for (int l = 0; l < pack_width<T> && l < channels.left; ++l) {
      T* const a_log = memory.a_log + (first + l) * plan.state;
      for (int n = 0; n < plan.state; ++n) a_log[n] = (adds ? a_log[n] : T(0)) + da[n * lanes<T> + lane + l];
      T& delta_bias = memory.delta_bias[first + l];
      T& d = memory.d[first + l];
      delta_bias = (adds ? delta_bias : T(0)) + work.delta_bias[k * lanes<T> + lane + l];
      d = (adds ? d : T(0)) + work.d[k * lanes<T> + lane + l];
    }
  }
};

/// b, c = the partial sums of all blocks of channels, for `together` states at one position.
template <class T>
struct AddPartials {
  Plan plan;
  Index chunk_begin, positions;  // of a pass
  T const* partials;
  Mat<T> b, c;

  KOKKOS_INLINE_FUNCTION void operator()(Index i) const {
    Index const packs = plan.padded_state / together;
    Index const t = i % positions, pack = i / positions % packs, s = i / positions / packs;
    Index const step = plan.count * plan.pass_chunks * plan.partials_per_chunk();
    T const* from = partials + (s * plan.pass_chunks + t / plan.chunk) * plan.partials_per_chunk() +
                    (pack * plan.chunk + t % plan.chunk) * 2 * together;
    T sums[2 * together] = {};
    for (Index block = 0; block < plan.channel_blocks; ++block, from += step)
      for (int j = 0; j < 2 * together; ++j) sums[j] += from[j];
    Index const row = s * plan.length + chunk_begin * plan.chunk + t, first = pack * together;
    for (int q = 0; q < together && first + q < plan.state; ++q) {
      b(row, first + q) = sums[q];
      c(row, first + q) = sums[together + q];
    }
  }
};

}  // namespace selective_scan

template <class T>
void selective_scan_backward(ExecSpace const& space, SelectiveScanShape const& shape,
                             SelectiveScanInputs<T> const& in, ConstMat<T> initial, ConstMat<T> dy,
                             SelectiveScanGradients<T> const& out, Mat<T> dstate, Vec<T> workspace) {
  KernelScope const timed("selective_scan_backward", [&] { return selective_scan_backward_cost<T>(shape); });
  using namespace selective_scan;
  Index const rows = shape.sequences.rows(), channels = shape.channels, state = shape.state;
  require_inputs<T>(shape, in);
  require_states<T>(shape, initial);
  require_states<T>(shape, dstate);
  // The gradients have the shapes of what they are gradients of.
  require_inputs<T>(shape, {out.delta, out.delta_bias, out.x, out.b, out.c, out.a_log, out.d});
  STRATA_REQUIRE(static_cast<Index>(dy.extent(0)) == rows && static_cast<Index>(dy.extent(1)) == channels,
                 "dy is (" << dy.extent(0) << ", " << dy.extent(1) << ")");
  STRATA_REQUIRE(static_cast<Index>(workspace.extent(0)) >= selective_scan_backward_workspace(shape),
                 "workspace of " << workspace.extent(0));
  if (rows == 0) return;

  Plan const plan = make_plan(shape);
  WorkspaceSizes const sizes(plan);
  Workspace<T> memory;
  memory.borders = workspace.data();
  memory.partials = memory.borders + sizes.borders;
  memory.carry = memory.partials + sizes.partials;
  memory.a_log = memory.carry + sizes.carry;
  memory.delta_bias = memory.a_log + sizes.a_log;
  memory.d = memory.delta_bias + sizes.channels;

  if (plan.chunks > 1) {
    run_sweep(space, Sweep<Purpose::borders, T>{plan, in, initial, {}, {}, memory.borders},
              "strata::selective_scan::backward_borders");
  }
  for (Index end = plan.chunks; end > 0;) {
    Index const begin = std::max<Index>(0, end - plan.pass_chunks);
    Kokkos::parallel_for("strata::selective_scan::backward",
                         make_policy<T>(space, plan.tasks(), Backward<T>::scratch(plan)),
                         Backward<T>{plan, in, initial, dy, out, dstate, memory, begin, end});
    Index const positions = std::min(plan.length, end * Index(plan.chunk)) - begin * plan.chunk;
    Kokkos::parallel_for(
        "strata::selective_scan::backward_bc",
        Kokkos::RangePolicy<ExecSpace>(space, 0, plan.count * positions * (plan.padded_state / together)),
        AddPartials<T>{plan, begin, positions, memory.partials, out.b, out.c});
    end = begin;
  }
  Index const group_rows = plan.groups * rows_per_block;  // add_partial_sums wants as many blocks as groups
  add_partial_sums(space, "strata::selective_scan::backward_a_log", group_rows, channels * state,
                   memory.a_log, out.a_log.data());
  add_partial_sums(space, "strata::selective_scan::backward_delta_bias", group_rows, channels,
                   memory.delta_bias, out.delta_bias.data());
  add_partial_sums(space, "strata::selective_scan::backward_d", group_rows, channels, memory.d, out.d.data());
}

Index selective_scan_backward_workspace(SelectiveScanShape const& shape) {
  return selective_scan::WorkspaceSizes(selective_scan::make_plan(shape)).total();
}

template <class T>
Cost selective_scan_backward_cost(SelectiveScanShape const& shape) {
  double const rows = static_cast<double>(shape.sequences.rows()),
               count = static_cast<double>(shape.sequences.count), e = static_cast<double>(shape.channels),
               n = static_cast<double>(shape.state);
  // Per state: the decay and the state once more (5), g, dB, dC, g B, rho, rho A, dA (14). Per channel: step
  // and its derivative (9), step x, dx, ddelta, the sums of parameters' gradients (12).
  return {(rows * (3 * e + 2 * n) + 2 * count * e * n + 2 * (e * n + 2 * e)) * sizeof(T),
          (rows * (2 * e + 2 * n) + count * e * n + e * n + 2 * e) * sizeof(T), rows * e * (19 * n + 21),
          2 * selective_scan_forward_cost<T>(shape).model_flops};
}

#define STRATA_SELECTIVE_SCAN_BACKWARD(T)                                                           \
  template void selective_scan_backward<T>(ExecSpace const&, SelectiveScanShape const&,             \
                                           SelectiveScanInputs<T> const&, ConstMat<T>, ConstMat<T>, \
                                           SelectiveScanGradients<T> const&, Mat<T>, Vec<T>);       \
  template Cost selective_scan_backward_cost<T>(SelectiveScanShape const&);
STRATA_INSTANTIATE(STRATA_SELECTIVE_SCAN_BACKWARD)

}  // namespace strata::kernels
