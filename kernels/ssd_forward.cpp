// SPDX-License-Identifier: Apache-2.0
#include "kernels/ssd_chunks.hpp"

#include "kernels/common/profile.hpp"
#include "kernels/common/tasks.hpp"

namespace strata::kernels {
namespace ssd {

/// y_i = exp(L_i) S^T C_i + sum over j <= i of exp(L_i - L_j) (C_i . B_j) step_j x_j + D x_i, with S the
/// state before the chunk.
template <class T>
struct Output {
  Plan plan;
  SsdInputs<T> in;
  Pieces<T> pieces;
  Mat<T> y;

  KOKKOS_INLINE_FUNCTION static std::size_t scratch(Plan const& plan) {
    return static_cast<std::size_t>(plan.chunk) * (2 * features_of<T>(plan) + lanes_of<T>(plan)) +
           lanes_of<T>(plan);
  }

  KOKKOS_INLINE_FUNCTION void operator()(Member const& team) const {
    Place const at(plan, team.league_rank(), plan.head_blocks);
    int const lanes = lanes_of<T>(plan), width = features_of<T>(plan), count = at.count;
    int const states = static_cast<int>(plan.shape.state), p = static_cast<int>(plan.shape.head_width);
    Index const heads = plan.shape.heads, step = in.c.stride(0);
    Scratch<T> memory(team, scratch(plan), large_level);
    T* const x = memory.take(count * width);
    T* const out = memory.take(count * width);
    T* const weights = memory.take(count * lanes);
    T* const decay = memory.take(lanes);
    T const* const c_rows = &in.c(at.row, 0);
    T const* const scores = pieces.scores + at.chunk_id * plan.chunk * lanes;
    bool const continues = plan.state_before(at.chunk);
    for (Index h = at.first_head; h < at.end_head; ++h) {
      T const* const steps = pieces.step + (at.chunk_id * heads + h) * lanes;
      T const* const sums = pieces.decay_sum + (at.chunk_id * heads + h) * lanes;
      T const* const state =
          pieces.borders + ((at.sequence * (plan.chunks + 1) + at.chunk) * heads + h) * state_size<T>(plan);
      team.team_barrier();
      copy_rows(team, count, p, &in.x(at.row, h * p), in.x.stride(0), T(1), width, x);
      for_elements(team, 1, lanes, [&](int, int const i) { decay[i] = math::exp(sums[i]); });
      for_lanes(team, lanes, [&](int const begin, int const n) {
        for (int j = 0; j < count; ++j) {
          T const sum = sums[j], scale = steps[j];
          int const first = greatest(first_lane(j, Lanes<T>::width), begin);
          for (int i = first; i < begin + n; ++i) {
            T const weight = math::exp(math::min(sums[i] - sum, T(0))) * scale * scores[j * lanes + i];
            weights[j * lanes + i] = i >= j ? weight : T(0);
          }
        }
      });
      team.team_barrier();
      if (continues) {
        tiles::for_tiles<T>(team, count, width, [&](int const m, int const n) {
          multiply<Into::set>(Left<T>{c_rows + m * step, step, 1}, state + n, width, states,
                              out + m * width + n, width, least(tile_rows, count - m),
                              least(tile_columns<T>, width - n));
        });
        team.team_barrier();
      }
      tiles::for_tiles<T>(team, count, width, [&](int const m, int const n) {
        int const rows = least(tile_rows, count - m), columns = least(tile_columns<T>, width - n);
        Left<T> const left{weights + m, 1, lanes};
        T* const to = out + m * width + n;
        if (continues) {
          multiply<Into::scaled>(left, x + n, width, m + rows, to, width, rows, columns, decay + m);
        } else {
          multiply<Into::set>(left, x + n, width, m + rows, to, width, rows, columns);
        }
      });
      team.team_barrier();
      T const skip = in.d(h);
      for_elements(team, count, p, [&](int const i, int const c) {
        y(at.row + i, h * p + c) = out[i * width + c] + skip * x[i * width + c];
      });
    }
  }
};

/// One position from state to state.
template <class T>
struct Step {
  SsdShape shape;
  SsdInputs<T> in;
  Mat<T> state, y;

  /// A head of a sequence on the host; a feature of it on a GPU.
  Index tasks() const { return shape.sequences.count * shape.heads * (on_device ? shape.head_width : 1); }

  KOKKOS_INLINE_FUNCTION void operator()(Index const task) const {
    Index const p = shape.head_width, pair = on_device ? task / p : task;
    Index const begin = on_device ? task % p : 0, end = on_device ? begin + 1 : p;
    Index const sequence = pair / shape.heads, h = pair % shape.heads;
    T const step = math::softplus(in.dt(sequence, h) + in.dt_bias(h));
    T const decay = math::exp(-step * math::exp(in.a_log(h)));
    T const* const x = &in.x(sequence, h * p);
    T const* const b = &in.b(sequence, 0);
    T const* const c = &in.c(sequence, 0);
    T* const s = &state(shape.sequences.slot(sequence), h * shape.state * p);
    T* const out = &y(sequence, h * p);
    for (Index f = begin; f < end; ++f) out[f] = in.d(h) * x[f];
    for (Index n = 0; n < shape.state; ++n) {
      T const in_scale = step * b[n], out_scale = c[n];
      T* const row = s + n * p;
      for (Index f = begin; f < end; ++f) {
        T const value = decay * row[f] + in_scale * x[f];
        row[f] = value;
        out[f] += out_scale * value;
      }
    }
  }
};

}  // namespace ssd

template <class T>
void ssd_forward(ExecSpace const& space, SsdShape const& shape, SsdInputs<T> const& in, Mat<T> state,
                 Mat<T> y, Vec<T> workspace) {
  KernelScope const timed("ssd_forward", [&] { return ssd_forward_cost<T>(shape); });
  bool const keeps_state = state.data() != nullptr;
  ssd::require_shapes<T>(shape, in, y, state);
  STRATA_REQUIRE(static_cast<Index>(workspace.extent(0)) >= ssd_forward_workspace<T>(shape, keeps_state),
                 "workspace of " << workspace.extent(0));
  if (shape.sequences.rows() == 0) return;
  if (shape.sequences.length == 1 && keeps_state) {
    ssd::Step<T> const step{shape, in, state, y};
    Index const elements = shape.sequences.count * shape.heads * shape.head_width * shape.state;
    for_tasks(space, "strata::ssd::step", step.tasks(), elements, step);
    return;
  }
  ssd::Plan const plan = ssd::make_plan(shape, keeps_state, keeps_state);
  ssd::Pieces<T> const pieces(workspace.data(), plan, false);
  ssd::prepare<T>(space, plan, in, state, state, pieces);
  ssd::Output<T> const output{plan, in, pieces, y};
  Kokkos::parallel_for("strata::ssd::output",
                       tiles::make_policy<T, tiles::large_level>(space, plan.all_chunks() * plan.head_blocks,
                                                                 output.scratch(plan)),
                       output);
}

template <class T>
Index ssd_forward_workspace(SsdShape const& shape, bool keeps_state) {
  if (shape.sequences.length == 1 && keeps_state) return 0;
  return ssd::Pieces<T>(nullptr, ssd::make_plan(shape, keeps_state, keeps_state), false).size;
}

template <class T>
Cost ssd_forward_cost(SsdShape const& shape) {
  ssd::Plan const plan = ssd::make_plan(shape, false, false);
  double const rows = shape.sequences.rows(), channels = shape.channels(), state = shape.state,
               heads = shape.heads;
  double const pairs = ssd::visible_pairs(plan);
  Cost cost;
  cost.bytes_read = rows * (channels + 2 * state + heads) * sizeof(T);
  cost.bytes_written = rows * channels * sizeof(T);
  // Scores, which all heads share; the product with x, a decay and its scaling per head; and through the
  // states at borders C S and B x^T.
  cost.flops = pairs * (2 * state + heads * (2.0 * shape.head_width + 3)) +
               4 * channels * state * ssd::rows_with_state(plan) + rows * (2 * channels + 4 * heads);
  cost.model_flops = cost.flops;
  return cost;
}

#define STRATA_SSD_FORWARD(T)                                                                          \
  template void ssd_forward<T>(ExecSpace const&, SsdShape const&, SsdInputs<T> const&, Mat<T>, Mat<T>, \
                               Vec<T>);                                                                \
  template Index ssd_forward_workspace<T>(SsdShape const&, bool);                                      \
  template Cost ssd_forward_cost<T>(SsdShape const&);
STRATA_INSTANTIATE(STRATA_SSD_FORWARD)

}  // namespace strata::kernels
