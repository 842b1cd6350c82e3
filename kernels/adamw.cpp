// SPDX-License-Identifier: Apache-2.0
#include "kernels/adamw.hpp"

#include <cmath>

#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/common/row_ops.hpp"

namespace strata::kernels {

template <class T>
void adamw_step(ExecSpace const& space, AdamW const& settings, ConstVec<T> gradient, Vec<T> parameter,
                Vec<T> first_moment, Vec<T> second_moment) {
  KernelScope const timed("adamw_step", [&] { return adamw_cost<T>(parameter.extent(0)); });
  Index const n = parameter.extent(0);
  STRATA_REQUIRE(Index(gradient.extent(0)) == n && Index(first_moment.extent(0)) == n &&
                     Index(second_moment.extent(0)) == n,
                 "parameter has " << n << " elements");
  STRATA_REQUIRE(settings.step >= 1, "steps count from 1, got " << settings.step);
  // Everything that is the same for all elements is worked out in double, once:
  //   p -= rate * m / (sqrt(v) + epsilon') + shrink * p,  with both bias corrections moved into rate and
  //   epsilon'.
  double const step = static_cast<double>(settings.step);
  double const correction1 = 1 - std::pow(settings.beta1, step);
  double const root2 = std::sqrt(1 - std::pow(settings.beta2, step));
  T const rate = static_cast<T>(settings.learning_rate * root2 / correction1);
  T const epsilon = static_cast<T>(settings.epsilon * root2);
  T const shrink = static_cast<T>(settings.learning_rate * settings.weight_decay);
  T const beta1 = static_cast<T>(settings.beta1), one_less_beta1 = static_cast<T>(1 - settings.beta1);
  T const beta2 = static_cast<T>(settings.beta2), one_less_beta2 = static_cast<T>(1 - settings.beta2);
  T const scale = static_cast<T>(settings.gradient_scale);
  T const* const gradients = gradient.data();
  T* const p = parameter.data();
  T* const m = first_moment.data();
  T* const v = second_moment.data();
  for_spans(
      space, "strata::adamw::adamw_step", n, KOKKOS_LAMBDA(Index begin, Index end) {
        STRATA_INDEPENDENT
        for (Index i = begin; i < end; ++i) {
          T const g = scale * gradients[i];
          T const mean = beta1 * m[i] + one_less_beta1 * g;
          T const square = beta2 * v[i] + one_less_beta2 * (g * g);
          m[i] = mean;
          v[i] = square;
          p[i] -= rate * mean / (math::sqrt(square) + epsilon) + shrink * p[i];
        }
      });
}

template <class T>
Cost adamw_cost(Index n) {
  double const count = static_cast<double>(n);
  return {4 * count * sizeof(T), 3 * count * sizeof(T), 16 * count};
}

#define STRATA_ADAMW(T)                                                                             \
  template void adamw_step<T>(ExecSpace const&, AdamW const&, ConstVec<T>, Vec<T>, Vec<T>, Vec<T>); \
  template Cost adamw_cost<T>(Index);
STRATA_INSTANTIATE(STRATA_ADAMW)

}  // namespace strata::kernels
