// SPDX-License-Identifier: Apache-2.0
#include "kernels/ssd_chunks.hpp"

#include "kernels/common/profile.hpp"

namespace strata::kernels {
namespace ssd {

/// What the outputs of a chunk ask of the state before it: the sum over i of exp(L_i) C_i dy_i^T.
template <class T>
struct LocalGradients {
  Plan plan;
  SsdInputs<T> in;
  ConstMat<T> dy;
  Pieces<T> pieces;

  KOKKOS_INLINE_FUNCTION static std::size_t scratch(Plan const& plan) {
    return static_cast<std::size_t>(plan.chunk) * features_of<T>(plan) + lanes_of<T>(plan);
  }

  KOKKOS_INLINE_FUNCTION void operator()(Member const& team) const {
    Place const at(plan, team.league_rank(), plan.head_blocks);
    if (at.chunk == 0 && !plan.leaves) return;
    int const lanes = lanes_of<T>(plan), width = features_of<T>(plan);
    int const states = static_cast<int>(plan.shape.state), p = static_cast<int>(plan.shape.head_width);
    Index const heads = plan.shape.heads, step = in.c.stride(0);
    Scratch<T> memory(team, scratch(plan), large_level);
    T* const scaled = memory.take(at.count * width);
    T* const decay = memory.take(lanes);
    T const* const c_rows = &in.c(at.row, 0);
    for (Index h = at.first_head; h < at.end_head; ++h) {
      T const* const sums = pieces.decay_sum + (at.chunk_id * heads + h) * lanes;
      T* const to =
          pieces.dborders + ((at.sequence * (plan.chunks + 1) + at.chunk) * heads + h) * state_size<T>(plan);
      team.team_barrier();
      for_elements(team, 1, at.count, [&](int, int const i) { decay[i] = math::exp(sums[i]); });
      team.team_barrier();
      for_elements(team, at.count, width, [&](int const i, int const c) {
        scaled[i * width + c] = c < p ? decay[i] * dy(at.row + i, h * p + c) : T(0);
      });
      team.team_barrier();
      tiles::for_tiles<T>(team, states, width, [&](int const m, int const n) {
        multiply<Into::set>(Left<T>{c_rows + m, 1, step}, scaled + n, width, at.count, to + m * width + n,
                            width, least(tile_rows, states - m), least(tile_columns<T>, width - n));
      });
    }
  }
};

/// All gradients of a chunk, head after head. With X_j = step_j x_j, dX its gradient, W_ij = dy_i . x_j and
/// K_ij = exp(L_i - L_j):
///   dX_j = sum over i >= j of G_ij K_ij dy_i + exp(L_last - L_j) H^T B_j
///   dG_ij = K_ij step_j W_ij, summed over heads before it meets B and C
/// and the gradient of position j's decay collects every path across the border between j - 1 and j, with no
/// difference of large sums.
template <class T>
struct Gradients {
  Plan plan;
  SsdInputs<T> in;
  ConstMat<T> dy;
  SsdGradients<T> out;
  Pieces<T> pieces;

  struct Work {
    T *b, *c, *db, *dc;  // (count, states)
    T* product;          // (count, states)
    T* dscores;          // (count, lanes), row j
    T *weights,
        *pulls;      // (count, lanes), row j: G_ij K_ij; W_ij, then G_ij K_ij step_j W_ij summed up to row j
    T *x, *dy, *dx;  // (count, features)
    T* dy_transposed;                                       // (p, lanes)
    T* transposed;                                          // (p, states): a state
    T *decay, *rest, *entering, *leaving, *dstep, *across;  // (lanes)
  };

  KOKKOS_INLINE_FUNCTION static std::size_t scratch(Plan const& plan) {
    auto const count = static_cast<std::size_t>(plan.chunk),
               lanes = static_cast<std::size_t>(lanes_of<T>(plan)),
               states = static_cast<std::size_t>(padded<T>(plan.shape.state)),
               p = static_cast<std::size_t>(plan.shape.head_width);
    return 5 * count * states + 3 * count * lanes + 3 * count * features_of<T>(plan) + p * (lanes + states) +
           6 * lanes + 16 * 20;
  }

  KOKKOS_INLINE_FUNCTION static T* take(Scratch<T>& memory, int elements) {
    return memory.take((elements + 15) / 16 * 16);
  }

  KOKKOS_INLINE_FUNCTION void operator()(Member const& team) const {
    Place const at(plan, team.league_rank(), plan.head_blocks);
    int const lanes = lanes_of<T>(plan), width = features_of<T>(plan), count = at.count;
    int const n_states = static_cast<int>(plan.shape.state), p = static_cast<int>(plan.shape.head_width);
    int const states = padded<T>(n_states);
    Scratch<T> memory(team, scratch(plan), large_level);
    Work w;
    w.b = take(memory, count * states);
    w.c = take(memory, count * states);
    w.db = take(memory, count * states);
    w.dc = take(memory, count * states);
    w.product = take(memory, count * states);
    w.dscores = take(memory, count * lanes);
    w.weights = take(memory, count * lanes);
    w.pulls = take(memory, count * lanes);
    w.x = take(memory, count * width);
    w.dy = take(memory, count * width);
    w.dx = take(memory, count * width);
    w.dy_transposed = take(memory, p * lanes);
    w.transposed = take(memory, p * states);
    w.decay = take(memory, lanes);
    w.rest = take(memory, lanes);
    w.entering = take(memory, lanes);
    w.leaving = take(memory, lanes);
    w.dstep = take(memory, lanes);
    w.across = take(memory, lanes);

    copy_rows(team, count, n_states, &in.b(at.row, 0), in.b.stride(0), T(1), states, w.b);
    copy_rows(team, count, n_states, &in.c(at.row, 0), in.c.stride(0), T(1), states, w.c);
    for_elements(team, count, states,
                 [&](int const i, int const n) { w.db[i * states + n] = w.dc[i * states + n] = T(0); });
    for_elements(team, count, lanes, [&](int const j, int const i) { w.dscores[j * lanes + i] = T(0); });
    for (Index h = at.first_head; h < at.end_head; ++h) head(team, at, w, h);

    team.team_barrier();
    tiles::for_tiles<T>(team, count, states, [&](int const m, int const n) {
      int const rows = least(tile_rows, count - m), columns = least(tile_columns<T>, states - n);
      multiply<Into::add>(Left<T>{w.dscores + m, 1, lanes}, w.b + n, states, m + rows, w.dc + m * states + n,
                          states, rows, columns);
      multiply<Into::add>(Left<T>{w.dscores + m * lanes + m, lanes, 1}, w.c + m * states + n, states,
                          count - m, w.db + m * states + n, states, rows, columns);
    });
    team.team_barrier();
    if (plan.head_blocks == 1) {
      for_elements(team, count, n_states, [&](int const i, int const n) {
        out.b(at.row + i, n) = w.db[i * states + n];
        out.c(at.row + i, n) = w.dc[i * states + n];
      });
    } else {
      Index const block = at.first_head / plan.heads_per_block;
      Index const offset = (block * plan.shape.sequences.rows() + at.row) * n_states;
      for_elements(team, count, n_states, [&](int const i, int const n) {
        pieces.db[offset + static_cast<Index>(i) * n_states + n] = w.db[i * states + n];
        pieces.dc[offset + static_cast<Index>(i) * n_states + n] = w.dc[i * states + n];
      });
    }
  }

  KOKKOS_INLINE_FUNCTION void head(Member const& team, Place const& at, Work const& w, Index h) const {
    int const lanes = lanes_of<T>(plan), width = features_of<T>(plan), count = at.count;
    int const n_states = static_cast<int>(plan.shape.state), p = static_cast<int>(plan.shape.head_width);
    int const states = padded<T>(n_states);
    Index const heads = plan.shape.heads, size = state_size<T>(plan);
    T const* const steps = pieces.step + (at.chunk_id * heads + h) * lanes;
    T const* const sums = pieces.decay_sum + (at.chunk_id * heads + h) * lanes;
    T const* const scores = pieces.scores + at.chunk_id * plan.chunk * lanes;
    Index const border = ((at.sequence * (plan.chunks + 1) + at.chunk) * heads + h) * size;
    T const* const state = pieces.borders + border;                   // before the chunk
    T const* const dstate = pieces.dborders + border + heads * size;  // gradient of the state behind it
    bool const before = plan.state_before(at.chunk), behind = plan.state_behind(at.chunk);

    team.team_barrier();
    copy_rows(team, count, p, &in.x(at.row, h * p), in.x.stride(0), T(1), width, w.x);
    copy_rows(team, count, p, &dy(at.row, h * p), dy.stride(0), T(1), width, w.dy);
    copy_transposed(team, count, p, &dy(at.row, h * p), dy.stride(0), T(1), lanes, w.dy_transposed);
    for_elements(team, 1, lanes, [&](int, int const i) {
      w.decay[i] = math::exp(sums[i]);
      w.rest[i] = math::exp(math::min(sums[count - 1] - sums[i], T(0)));
      w.entering[i] = w.leaving[i] = T(0);
    });
    team.team_barrier();
    tiles::for_tiles<T>(team, count, lanes, [&](int const m, int const n) {
      if (n + tile_columns<T> <= m) return;
      multiply<Into::set>(Left<T>{w.x + m * width, width, 1}, w.dy_transposed + n, lanes, p,
                          w.pulls + m * lanes + n, lanes, least(tile_rows, count - m),
                          least(tile_columns<T>, lanes - n));
    });
    team.team_barrier();
    for_lanes(team, lanes, [&](int const begin, int const n) {
      for (int i = begin; i < begin + n; ++i) w.across[i] = T(0);
      for (int j = 0; j < count; ++j) {
        T const sum = sums[j], scale = steps[j];
        int const first = greatest(first_lane(j, Lanes<T>::width), begin), row = j * lanes;
        for (int i = first; i < begin + n; ++i) {
          T const decay = math::exp(math::min(sums[i] - sum, T(0)));
          T const weight = i >= j ? decay * scores[row + i] : T(0);
          T const dscore = i >= j ? decay * scale * w.pulls[row + i] : T(0);
          w.dscores[row + i] += dscore;
          w.weights[row + i] = weight;
          w.across[i] += dscore * scores_or_zero(scores[row + i], i >= j);
          w.pulls[row + i] = w.across[i];
        }
      }
    });
    if (behind) {
      tiles::for_tiles<T>(team, count, width, [&](int const m, int const n) {
        multiply<Into::set>(Left<T>{w.b + m * states, states, 1}, dstate + n, width, n_states,
                            w.dx + m * width + n, width, least(tile_rows, count - m),
                            least(tile_columns<T>, width - n));
      });
      team.team_barrier();
      for_elements(team, 1, count, [&](int, int const j) {
        w.leaving[j] = w.rest[j] * steps[j] * dot(p, w.x + j * width, w.dx + j * width);
      });
    }
    team.team_barrier();
    // How much of each position's output, and of each position's input, passes the border before position j.
    for_elements(team, 1, count, [&](int, int const j) {
      T sum = 0;
      if (j > 0) {
        T const* const row = w.pulls + (j - 1) * lanes;
#pragma omp simd reduction(+ : sum)
        for (int i = j; i < count; ++i) sum += row[i];
      }
      w.across[j] = sum;
    });
    tiles::for_tiles<T>(team, count, width, [&](int const m, int const n) {
      int const rows = least(tile_rows, count - m), columns = least(tile_columns<T>, width - n);
      Left<T> const left{w.weights + m * lanes + m, lanes, 1};
      T* const to = w.dx + m * width + n;
      if (behind) {
        multiply<Into::scaled>(left, w.dy + m * width + n, width, count - m, to, width, rows, columns,
                               w.rest + m);
      } else {
        multiply<Into::set>(left, w.dy + m * width + n, width, count - m, to, width, rows, columns);
      }
    });
    team.team_barrier();
    T const skip = in.d(h);
    for_elements(team, 1, count, [&](int, int const j) {
      w.dstep[j] = dot(p, w.x + j * width, w.dx + j * width);
      T const scale = steps[j];
      T* const to = &out.x(at.row + j, h * p);
      T const* const dx = w.dx + j * width;
      T const* const direct = w.dy + j * width;
      for (int c = 0; c < p; ++c) to[c] = scale * dx[c] + skip * direct[c];
    });
    if (before) {
      copy_transposed(team, n_states, p, state, width, T(1), states, w.transposed);
      team.team_barrier();
      through_state(team, w.dy, w, w.transposed, count, p, width, states);
      for_elements(team, 1, count, [&](int, int const i) {
        T const decay = w.decay[i];
        T const* const from = w.product + i * states;
        T* const to = w.dc + i * states;
        w.entering[i] = decay * dot(n_states, w.c + i * states, from);
        for (int n = 0; n < n_states; ++n) to[n] += decay * from[n];
      });
      team.team_barrier();
    }
    if (behind) {
      copy_transposed(team, n_states, p, dstate, width, T(1), states, w.transposed);
      team.team_barrier();
      through_state(team, w.x, w, w.transposed, count, p, width, states);
      for_elements(team, 1, count, [&](int, int const j) {
        T const weight = w.rest[j] * steps[j];
        T const* const from = w.product + j * states;
        T* const to = w.db + j * states;
        for (int n = 0; n < n_states; ++n) to[n] += weight * from[n];
      });
    }
    team.team_barrier();
    Kokkos::single(Kokkos::PerTeam(team), [&] {
      T whole = 0;  // from before the chunk to behind it
      if (before && behind) {
        for (int n = 0; n < n_states; ++n) whole += dot(p, state + n * width, dstate + n * width);
        whole *= w.decay[count - 1];
      }
      finish(at, w, h, whole);
    });
  }

  KOKKOS_FORCEINLINE_FUNCTION static T scores_or_zero(T score, bool seen) { return seen ? score : T(0); }

  /// product (count, states) = rows (count, p) times a transposed state.
  KOKKOS_INLINE_FUNCTION static void through_state(Member const& team, T const* rows, Work const& w,
                                                   T const* transposed, int count, int p, int width,
                                                   int states) {
    tiles::for_tiles<T>(team, count, states, [&](int const m, int const n) {
      multiply<Into::set>(Left<T>{rows + m * width, width, 1}, transposed + n, states, p,
                          w.product + m * states + n, states, least(tile_rows, count - m),
                          least(tile_columns<T>, states - n));
    });
    team.team_barrier();
  }

  /// From the gradients of steps and decays to those of dt and of the head's parameters.
  KOKKOS_INLINE_FUNCTION void finish(Place const& at, Work const& w, Index h, T whole) const {
    int const lanes = lanes_of<T>(plan), width = features_of<T>(plan), count = at.count;
    int const p = static_cast<int>(plan.shape.head_width);
    Index const heads = plan.shape.heads;
    T const* const steps = pieces.step + (at.chunk_id * heads + h) * lanes;
    T const a = -math::exp(in.a_log(h));
    // What of the state before the chunk passes on to the outputs from each position on, and behind the
    // chunk.
    T passing = whole;
    for (int i = count - 1; i >= 0; --i) w.entering[i] = passing += w.entering[i];
    T left = 0;  // of the inputs before j: the state behind
    T da = 0, dd = 0, dbias = 0;
    for (int j = 0; j < count; ++j) {
      T const ddecay = w.entering[j] + left + w.across[j];
      left += w.leaving[j];
      da += steps[j] * ddecay;
      T const dstep = w.dstep[j] + a * ddecay;
      T const ddt = dstep * math::softplus_derivative(in.dt(at.row + j, h) + in.dt_bias(h));
      out.dt(at.row + j, h) = ddt;
      dbias += ddt;
      dd += dot(p, w.x + j * width, w.dy + j * width);
    }
    T* const parts = pieces.parameters + at.chunk_id * 3 * heads;
    parts[h] = dbias;
    parts[heads + h] = a * da;
    parts[2 * heads + h] = dd;
  }
};

/// db, dc = the sum over head blocks.
template <class T>
struct AddBlocks {
  Plan plan;
  Pieces<T> pieces;
  Mat<T> db, dc;

  KOKKOS_INLINE_FUNCTION void operator()(Index const row) const {
    Index const states = plan.shape.state, stride = plan.shape.sequences.rows() * states;
    for (Index n = 0; n < states; ++n) {
      T b = 0, c = 0;
      for (Index block = 0; block < plan.head_blocks; ++block) {
        b += pieces.db[block * stride + row * states + n];
        c += pieces.dc[block * stride + row * states + n];
      }
      db(row, n) = b;
      dc(row, n) = c;
    }
  }
};

/// The parameters' gradients += their parts of all chunks, in order.
template <class T>
struct AddParts {
  Plan plan;
  Pieces<T> pieces;
  SsdGradients<T> out;

  KOKKOS_INLINE_FUNCTION void operator()(Index const h) const {
    Index const heads = plan.shape.heads;
    double bias = 0, a_log = 0, d = 0;
    for (Index c = 0; c < plan.all_chunks(); ++c) {
      T const* const parts = pieces.parameters + c * 3 * heads;
      bias += static_cast<double>(parts[h]);
      a_log += static_cast<double>(parts[heads + h]);
      d += static_cast<double>(parts[2 * heads + h]);
    }
    out.dt_bias(h) += static_cast<T>(bias);
    out.a_log(h) += static_cast<T>(a_log);
    out.d(h) += static_cast<T>(d);
  }
};

}  // namespace ssd

template <class T>
void ssd_backward(ExecSpace const& space, SsdShape const& shape, SsdInputs<T> const& in, ConstMat<T> initial,
                  ConstMat<T> dy, SsdGradients<T> const& out, Mat<T> dstate, Vec<T> workspace) {
  KernelScope const timed("ssd_backward", [&] { return ssd_backward_cost<T>(shape); });
  ssd::require_shapes<T>(shape, in, dy, initial);
  ssd::require_shapes<T>(shape, {out.x, out.b, out.c, out.dt, out.dt_bias, out.a_log, out.d}, dy, dstate);
  bool const keeps_state = dstate.data() != nullptr;
  STRATA_REQUIRE(keeps_state || initial.data() == nullptr, "a state before the span and no gradient for it");
  STRATA_REQUIRE(static_cast<Index>(workspace.extent(0)) >= ssd_backward_workspace<T>(shape, keeps_state),
                 "workspace of " << workspace.extent(0));
  if (shape.sequences.rows() == 0) return;
  ssd::Plan const plan = ssd::make_plan(shape, initial.data() != nullptr, keeps_state);
  ssd::Pieces<T> const pieces(workspace.data(), plan, true);
  ssd::prepare<T>(space, plan, in, initial, {}, pieces);
  Index const teams = plan.all_chunks() * plan.head_blocks;
  if (plan.has_states()) {
    ssd::LocalGradients<T> const local{plan, in, dy, pieces};
    Kokkos::parallel_for("strata::ssd::local_gradients",
                         tiles::make_policy<T, tiles::large_level>(space, teams, local.scratch(plan)), local);
    ssd::pass_gradients<T>(space, plan, dstate, pieces);
  }
  ssd::Gradients<T> const gradients{plan, in, dy, out, pieces};
  Kokkos::parallel_for("strata::ssd::gradients",
                       tiles::make_policy<T, tiles::large_level>(space, teams, gradients.scratch(plan)),
                       gradients);
  if (plan.head_blocks > 1)
    Kokkos::parallel_for("strata::ssd::add_blocks",
                         Kokkos::RangePolicy<ExecSpace>(space, 0, shape.sequences.rows()),
                         ssd::AddBlocks<T>{plan, pieces, out.b, out.c});
  Kokkos::parallel_for("strata::ssd::add_parts", Kokkos::RangePolicy<ExecSpace>(space, 0, shape.heads),
                       ssd::AddParts<T>{plan, pieces, out});
}

template <class T>
Index ssd_backward_workspace(SsdShape const& shape, bool keeps_state) {
  return ssd::Pieces<T>(nullptr, ssd::make_plan(shape, keeps_state, keeps_state), true).size;
}

template <class T>
Cost ssd_backward_cost(SsdShape const& shape) {
  Cost const forward = ssd_forward_cost<T>(shape);
  double const rows = shape.sequences.rows(), channels = shape.channels(), state = shape.state,
               heads = shape.heads;
  Cost cost;
  cost.bytes_read = forward.bytes_read + rows * channels * sizeof(T);
  cost.bytes_written = rows * (channels + 2 * state + heads) * sizeof(T);
  // Two products for each of the forward pass; what is computed again does not count.
  cost.flops = cost.model_flops = 2 * forward.flops;
  return cost;
}

#define STRATA_SSD_BACKWARD(T)                                                                       \
  template void ssd_backward<T>(ExecSpace const&, SsdShape const&, SsdInputs<T> const&, ConstMat<T>, \
                                ConstMat<T>, SsdGradients<T> const&, Mat<T>, Vec<T>);                \
  template Index ssd_backward_workspace<T>(SsdShape const&, bool);                                   \
  template Cost ssd_backward_cost<T>(SsdShape const&);
STRATA_INSTANTIATE(STRATA_SSD_BACKWARD)

}  // namespace strata::kernels
