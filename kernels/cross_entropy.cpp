// SPDX-License-Identifier: Apache-2.0
#include "kernels/cross_entropy.hpp"

#include "kernels/common/check.hpp"
#include "kernels/common/math.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/common/tasks.hpp"

namespace strata::kernels {
namespace {

constexpr int warp = 32;
constexpr int rows_per_team = 4;
using TeamPolicy = Kokkos::TeamPolicy<ExecSpace>;
using Member = TeamPolicy::member_type;

/// Loss of each row and, if Backward, the gradient over the logits. A host takes a row per iteration, a
/// device a row per warp. Both go over the row three times: maximum, exponentials and their sum, gradient.
template <class T, bool Backward>
struct CrossEntropy {
  Targets targets;
  StageRows rows;
  ConstMat<T> logits;
  ConstVec<T> bias;
  Mat<T> gradient;  // shares the logits' storage; empty without Backward
  T scale;
  Vec<T> losses;

  struct Term {
    Index target;
    T weight;  ///< 0: the row does not count
  };
  KOKKOS_INLINE_FUNCTION Term term(Index r) const {
    Index const flat = targets.flat(rows, r);
    if (flat < 0) return {0, T(0)};
    Index const target = targets.tokens(flat);
    if (target == targets.ignored) return {0, T(0)};
    return {target, T(targets.weight(flat))};
  }
  /// The sum of exp(z - top) is at least 1, so the logarithm is harmless; rounding must not give a loss below
  /// 0, which would read as "no target". The comparison lets a NaN through.
  KOKKOS_INLINE_FUNCTION T loss(T sum, T top, T z, T weight) const {
    T const value = weight * (math::log(sum) + (top - z));
    return value < T(0) ? T(0) : value;
  }

  void operator()(Index r) const {
    Index const width = Index(logits.extent(1));
    T const* const z = &logits(r, 0);
    T const* const b = bias.data();
    T* const d = Backward ? &gradient(r, 0) : nullptr;
    Term const t = term(r);
    if (t.weight == T(0)) {
      losses(r) = T(-1);
      if constexpr (Backward) {
        for (Index v = 0; v < width; ++v) d[v] = T(0);
      }
      return;
    }
    T const at_target = z[t.target] + b[t.target];
    T top = at_target;
#pragma omp simd reduction(max : top)
    for (Index v = 0; v < width; ++v) {
      T const logit = z[v] + b[v];
      top = logit > top ? logit : top;
    }
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (Index v = 0; v < width; ++v) {
      T const logit = z[v] + b[v];
      T const e = math::exp(logit - top);
      if constexpr (Backward) d[v] = e;
      sum +=
          e + (logit - logit);  // NaN if the logit is infinite or NaN, though exp or the maximum may hide it
    }
    losses(r) = loss(sum, top, at_target, t.weight);
    if constexpr (Backward) {
      T const factor = scale * t.weight / sum;
      for (Index v = 0; v < width; ++v) d[v] *= factor;
      d[t.target] -= scale * t.weight;
    }
  }

  KOKKOS_INLINE_FUNCTION void operator()(Member const& team) const {
    int const width = int(logits.extent(1));
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team, rows_per_team), [&](int n) {
      Index const r = Index(team.league_rank()) * rows_per_team + n;
      if (r >= Index(losses.extent(0))) return;
      Term const t = term(r);
      auto const over_row = Kokkos::ThreadVectorRange(team, width);
      if (t.weight == T(0)) {
        Kokkos::single(Kokkos::PerThread(team), [&] { losses(r) = T(-1); });
        if constexpr (Backward) {
          Kokkos::parallel_for(over_row, [&](int v) { gradient(r, v) = T(0); });
        }
        return;
      }
      T const at_target = logits(r, t.target) + bias(t.target);
      T top = at_target;
      Kokkos::parallel_reduce(
          over_row,
          [&](int v, T& most) {
            T const logit = logits(r, v) + bias(v);
            most = logit > most ? logit : most;
          },
          Kokkos::Max<T>(top));
      T sum = 0;
      Kokkos::parallel_reduce(
          over_row,
          [&](int v, T& part) {
            T const logit = logits(r, v) + bias(v);
            part += math::exp(logit - top) + (logit - logit);
          },
          sum);
      Kokkos::single(Kokkos::PerThread(team), [&] { losses(r) = loss(sum, top, at_target, t.weight); });
      if constexpr (Backward) {
        T const factor = scale * t.weight / sum;
        T const hit = scale * t.weight;
        Kokkos::parallel_for(over_row, [&](int v) {
          T const probability = math::exp(logits(r, v) + bias(v) - top) * factor;
          gradient(r, v) = Index(v) == t.target ? probability - hit : probability;
        });
      }
    });
  }
};

template <bool Backward, class T>
void launch(ExecSpace const& space, char const* label, CrossEntropy<T, Backward> const& functor) {
  Index const count = functor.rows.shape.rows();
  if (count == 0) return;
  STRATA_REQUIRE(Index(functor.logits.extent(0)) == count && Index(functor.losses.extent(0)) == count &&
                     functor.bias.extent(0) == functor.logits.extent(1) && functor.logits.extent(1) > 0,
                 count << " rows, logits (" << functor.logits.extent(0) << ", " << functor.logits.extent(1)
                       << "), bias (" << functor.bias.extent(0) << "), losses (" << functor.losses.extent(0)
                       << ")");
  Tokens const& tokens = functor.targets.tokens;
  STRATA_REQUIRE(tokens.padded_length > 0 && (tokens.bytes || tokens.ids) && tokens.lengths,
                 "tokens are incomplete");
  if constexpr (on_device) {
    Index const teams = (count + rows_per_team - 1) / rows_per_team;
    Kokkos::parallel_for(label, TeamPolicy(space, int(teams), rows_per_team, warp), functor);
  } else {
    for_tasks(space, label, count, Index(functor.logits.size()), functor);
  }
}

}  // namespace

template <class T>
void cross_entropy_forward(ExecSpace const& space, Targets const& targets, StageRows const& rows,
                           ConstMat<T> logits, ConstVec<T> bias, Vec<T> losses) {
  KernelScope const timed("cross_entropy_forward",
                          [&] { return cross_entropy_cost<T>(logits.extent(0), logits.extent(1)); });
  launch<false, T>(space, "strata::cross_entropy::forward", {targets, rows, logits, bias, {}, T(0), losses});
}

template <class T>
void cross_entropy_forward_backward(ExecSpace const& space, Targets const& targets, StageRows const& rows,
                                    Mat<T> logits, ConstVec<T> bias, std::type_identity_t<T> scale,
                                    Vec<T> losses) {
  KernelScope const timed("cross_entropy_forward_backward",
                          [&] { return cross_entropy_cost<T>(logits.extent(0), logits.extent(1)); });
  launch<true, T>(space, "strata::cross_entropy::forward_backward",
                  {targets, rows, logits, bias, logits, scale, losses});
}

template <class T>
Cost cross_entropy_cost(Index rows, Index vocabulary) {
  double const elements = double(rows) * double(vocabulary);
  // Bias, maximum, difference, exponential, sum and product: 6 per element with the gradient.
  return {elements * sizeof(T), elements * sizeof(T) + double(rows) * sizeof(T), 6 * elements};
}

#define STRATA_CROSS_ENTROPY(T)                                                                           \
  template void cross_entropy_forward<T>(ExecSpace const&, Targets const&, StageRows const&, ConstMat<T>, \
                                         ConstVec<T>, Vec<T>);                                            \
  template void cross_entropy_forward_backward<T>(ExecSpace const&, Targets const&, StageRows const&,     \
                                                  Mat<T>, ConstVec<T>, T, Vec<T>);                        \
  template Cost cross_entropy_cost<T>(Index, Index);
STRATA_INSTANTIATE(STRATA_CROSS_ENTROPY)

}  // namespace strata::kernels
