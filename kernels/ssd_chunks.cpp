// SPDX-License-Identifier: Apache-2.0
#include "kernels/ssd_chunks.hpp"

#include <algorithm>

#include "kernels/common/tasks.hpp"

namespace strata::kernels::ssd {

namespace {

/// Steps, decays and scores of a chunk.
template <class T>
struct Scores {
  Plan plan;
  SsdInputs<T> in;
  Pieces<T> pieces;

  KOKKOS_INLINE_FUNCTION static std::size_t scratch(Plan const& plan) {
    return static_cast<std::size_t>(plan.shape.state) * lanes_of<T>(plan);
  }

  KOKKOS_INLINE_FUNCTION void operator()(Member const& team) const {
    Place const at(plan, team.league_rank(), 1);
    int const lanes = lanes_of<T>(plan), states = static_cast<int>(plan.shape.state);
    int const heads = static_cast<int>(plan.shape.heads);
    T* const steps = pieces.step + at.chunk_id * heads * lanes;
    T* const sums = pieces.decay_sum + at.chunk_id * heads * lanes;
    for_elements(team, heads, at.count, [&](int const h, int const i) {
      steps[h * lanes + i] = math::softplus(in.dt(at.row + i, h) + in.dt_bias(h));
    });
    Scratch<T> memory(team, scratch(plan), large_level);
    T* const c_transposed = memory.take(states * lanes);
    copy_transposed(team, at.count, states, &in.c(at.row, 0), in.c.stride(0), T(1), lanes, c_transposed);
    team.team_barrier();
    for_elements(team, 1, heads, [&](int, int const h) {
      auto const a = -static_cast<double>(math::exp(in.a_log(h)));
      double sum = 0;
      for (int i = 0; i < at.count; ++i) {
        sum += static_cast<double>(steps[h * lanes + i]) * a;
        sums[h * lanes + i] = static_cast<T>(sum);
      }
      for (int i = at.count; i < lanes; ++i) steps[h * lanes + i] = sums[h * lanes + i] = T(0);
    });
    T* const scores = pieces.scores + at.chunk_id * plan.chunk * lanes;
    Index const step = in.b.stride(0);
    T const* const b = &in.b(at.row, 0);
    tiles::for_tiles<T>(team, at.count, lanes, [&](int const m, int const n) {
      if (n + tile_columns<T> <= m) return;  // positions before m see nothing of it
      multiply<Into::set>(Left<T>{b + m * step, step, 1}, c_transposed + n, lanes, states,
                          scores + m * lanes + n, lanes, least(tile_rows, at.count - m),
                          least(tile_columns<T>, lanes - n));
    });
  }
};

/// What a chunk adds to the state behind it: the sum over j of exp(L_last - L_j) step_j B_j x_j^T.
template <class T>
struct LocalStates {
  Plan plan;
  SsdInputs<T> in;
  Pieces<T> pieces;

  KOKKOS_INLINE_FUNCTION static std::size_t scratch(Plan const& plan) {
    return static_cast<std::size_t>(plan.chunk + 1) * features_of<T>(plan) + lanes_of<T>(plan);
  }

  KOKKOS_INLINE_FUNCTION void operator()(Member const& team) const {
    Place const at(plan, team.league_rank(), plan.head_blocks);
    if (!plan.state_behind(at.chunk)) return;
    int const lanes = lanes_of<T>(plan), width = features_of<T>(plan);
    int const states = static_cast<int>(plan.shape.state), p = static_cast<int>(plan.shape.head_width);
    Index const heads = plan.shape.heads, step = in.b.stride(0);
    Scratch<T> memory(team, scratch(plan), large_level);
    T* const x = memory.take(at.count * width);
    T* const weights = memory.take(lanes);
    T const* const b = &in.b(at.row, 0);
    for (Index h = at.first_head; h < at.end_head; ++h) {
      T const* const steps = pieces.step + (at.chunk_id * heads + h) * lanes;
      T const* const sums = pieces.decay_sum + (at.chunk_id * heads + h) * lanes;
      T* const to = pieces.borders +
                    ((at.sequence * (plan.chunks + 1) + at.chunk + 1) * heads + h) * state_size<T>(plan);
      team.team_barrier();
      for_elements(team, 1, at.count, [&](int, int const j) {
        weights[j] = math::exp(sums[at.count - 1] - sums[j]) * steps[j];
      });
      team.team_barrier();
      for_elements(team, at.count, width, [&](int const j, int const c) {
        x[j * width + c] = c < p ? weights[j] * in.x(at.row + j, h * p + c) : T(0);
      });
      team.team_barrier();
      tiles::for_tiles<T>(team, states, width, [&](int const m, int const n) {
        multiply<Into::set>(Left<T>{b + m, 1, step}, x + n, width, at.count, to + m * width + n, width,
                            least(tile_rows, states - m), least(tile_columns<T>, width - n));
      });
    }
  }
};

/// Turns what each chunk adds into the states at its borders, in time order, or into their gradients, in
/// reverse.
template <bool backward, class T>
struct PassStates {
  Plan plan;
  ConstMat<T> first;  ///< the state, or gradient, at the end that the pass starts from; empty: zero
  Mat<T> last;        ///< takes the one at the other end, unless empty; may be `first`
  Pieces<T> pieces;

  /// A head of a sequence on the host; a number of its state on a GPU.
  Index tasks() const {
    return plan.shape.sequences.count * plan.shape.heads * (on_device ? state_size<T>(plan) : 1);
  }
  Index elements() const {
    return plan.shape.sequences.count * plan.shape.heads * plan.chunks * state_size<T>(plan);
  }

  KOKKOS_INLINE_FUNCTION void operator()(Index const task) const {
    Index const size = state_size<T>(plan), heads = plan.shape.heads, chunks = plan.chunks;
    Index const pair = on_device ? task / size : task;
    Index const begin = on_device ? task % size : 0, end = on_device ? begin + 1 : size;
    Index const sequence = pair / heads, h = pair % heads;
    T* const borders =
        (backward ? pieces.dborders : pieces.borders) + sequence * (chunks + 1) * heads * size + h * size;
    T const* const sums = pieces.decay_sum;
    int const lanes = lanes_of<T>(plan);

    Index const lane = plan.shape.sequences.slot(sequence);

    copy_in(borders + (backward ? chunks : 0) * heads * size, lane, h, begin, end);
    for (Index step = 0; step < chunks; ++step) {
      Index const c = backward ? chunks - 1 - step : step;
      if (backward ? c == 0 && !plan.leaves : !plan.state_behind(c)) continue;
      T const decay = math::exp(sums[((sequence * chunks + c) * heads + h) * lanes + plan.positions(c) - 1]);
      T const* const from = borders + (backward ? c + 1 : c) * heads * size;
      T* const to = borders + (backward ? c : c + 1) * heads * size;
      for (Index e = begin; e < end; ++e) to[e] += decay * from[e];
    }
    if (last.data() != nullptr)
      copy_out(borders + (backward ? 0 : chunks) * heads * size, lane, h, begin, end);
  }

  KOKKOS_INLINE_FUNCTION void copy_in(T* to, Index lane, Index h, Index begin, Index end) const {
    Index const width = features_of<T>(plan), p = plan.shape.head_width;
    Index const offset = h * plan.shape.state * p;
    for (Index e = begin; e < end; ++e) {
      Index const n = e / width, c = e % width;
      to[e] = c < p && first.data() != nullptr ? first(lane, offset + n * p + c) : T(0);
    }
  }
  KOKKOS_INLINE_FUNCTION void copy_out(T const* from, Index lane, Index h, Index begin, Index end) const {
    Index const width = features_of<T>(plan), p = plan.shape.head_width;
    Index const offset = h * plan.shape.state * p;
    for (Index e = begin; e < end; ++e) {
      Index const n = e / width, c = e % width;
      if (c < p) last(lane, offset + n * p + c) = from[e];
    }
  }
};

}  // namespace

Plan make_plan(SsdShape const& shape, bool enters, bool leaves) {
  // Work within a chunk grows with its length, work on its states shrinks: they balance near the state's
  // size.
  constexpr Index least_chunk = 64, most_chunk = 256;
  Index const wanted = shape.chunk > 0 ? shape.chunk : std::clamp(shape.state, least_chunk, most_chunk);
  Plan plan{};
  plan.shape = shape;
  plan.chunk = std::max<Index>(1, std::min(wanted, shape.sequences.length));
  plan.chunks = (shape.sequences.length + plan.chunk - 1) / plan.chunk;
  Index const chunks = std::max<Index>(1, plan.all_chunks());
  Index const blocks = std::clamp<Index>((enough_teams + chunks - 1) / chunks, 1, shape.heads);
  plan.heads_per_block = (shape.heads + blocks - 1) / blocks;
  plan.head_blocks = (shape.heads + plan.heads_per_block - 1) / plan.heads_per_block;
  plan.enters = enters;
  plan.leaves = leaves;
  return plan;
}

double visible_pairs(Plan const& plan) {
  double pairs = 0;
  for (Index c = 0; c < plan.chunks; ++c) {
    double const count = plan.positions(c);
    pairs += count * (count + 1) / 2;
  }
  return pairs * static_cast<double>(plan.shape.sequences.count);
}

double rows_with_state(Plan const& plan) {
  return static_cast<double>(plan.shape.sequences.count) *
         static_cast<double>((plan.chunks - 1) * plan.chunk);
}

template <class T>
void prepare(ExecSpace const& space, Plan const& plan, SsdInputs<T> const& in, ConstMat<T> initial,
             Mat<T> last, Pieces<T> const& pieces) {
  Kokkos::parallel_for("strata::ssd::scores",
                       make_policy<T, large_level>(space, plan.all_chunks(), Scores<T>::scratch(plan)),
                       Scores<T>{plan, in, pieces});
  if (!plan.has_states()) return;
  Kokkos::parallel_for(
      "strata::ssd::local_states",
      make_policy<T, large_level>(space, plan.all_chunks() * plan.head_blocks, LocalStates<T>::scratch(plan)),
      LocalStates<T>{plan, in, pieces});
  PassStates<false, T> const pass{plan, initial, last, pieces};
  for_tasks(space, "strata::ssd::pass_states", pass.tasks(), pass.elements(), pass);
}

template <class T>
void pass_gradients(ExecSpace const& space, Plan const& plan, Mat<T> dstate, Pieces<T> const& pieces) {
  PassStates<true, T> const pass{plan, dstate, dstate, pieces};
  for_tasks(space, "strata::ssd::pass_gradients", pass.tasks(), pass.elements(), pass);
}

template <class T>
void require_shapes(SsdShape const& shape, SsdInputs<T> const& in, ConstMat<T> y, ConstMat<T> state) {
  Index const rows = shape.sequences.rows();
  auto const is = [](auto const& m, Index r, Index c) {
    return static_cast<Index>(m.extent(0)) == r && static_cast<Index>(m.extent(1)) == c;
  };
  STRATA_REQUIRE(shape.heads >= 1 && shape.head_width >= 1 && shape.state >= 1 && shape.chunk >= 0,
                 shape.heads << " heads of " << shape.head_width << ", state " << shape.state);
  STRATA_REQUIRE(is(in.x, rows, shape.channels()) && is(y, rows, shape.channels()),
                 "x (" << in.x.extent(0) << ", " << in.x.extent(1) << "), y (" << y.extent(0) << ", "
                       << y.extent(1) << "), expected (" << rows << ", " << shape.channels() << ")");
  STRATA_REQUIRE(is(in.b, rows, shape.state) && is(in.c, rows, shape.state) && is(in.dt, rows, shape.heads),
                 "b (" << in.b.extent(0) << ", " << in.b.extent(1) << "), c (" << in.c.extent(0) << ", "
                       << in.c.extent(1) << "), dt (" << in.dt.extent(0) << ", " << in.dt.extent(1) << ")");
  auto const heads = static_cast<std::size_t>(shape.heads);
  STRATA_REQUIRE(
      in.dt_bias.extent(0) == heads && in.a_log.extent(0) == heads && in.d.extent(0) == heads,
      "dt_bias " << in.dt_bias.extent(0) << ", a_log " << in.a_log.extent(0) << ", d " << in.d.extent(0));
  STRATA_REQUIRE(state.data() == nullptr || (shape.sequences.fits(state.extent(0)) &&
                                             is(state, state.extent(0), shape.channels() * shape.state)),
                 "state (" << state.extent(0) << ", " << state.extent(1) << ")");
}

#define STRATA_SSD_CHUNKS(T)                                                                        \
  template void prepare<T>(ExecSpace const&, Plan const&, SsdInputs<T> const&, ConstMat<T>, Mat<T>, \
                           Pieces<T> const&);                                                       \
  template void pass_gradients<T>(ExecSpace const&, Plan const&, Mat<T>, Pieces<T> const&);         \
  template void require_shapes<T>(SsdShape const&, SsdInputs<T> const&, ConstMat<T>, ConstMat<T>);
STRATA_INSTANTIATE(STRATA_SSD_CHUNKS)

}  // namespace strata::kernels::ssd
