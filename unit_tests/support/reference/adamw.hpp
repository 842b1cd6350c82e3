// SPDX-License-Identifier: Apache-2.0
#pragma once
// Naive AdamW on one parameter, as its formula reads (Loshchilov and Hutter, arXiv 1711.05101).

#include <cmath>

#include "kernels/adamw.hpp"

namespace strata::test::reference {

struct AdamWState {
  double parameter = 0, first_moment = 0, second_moment = 0;
};

inline AdamWState adamw_step(kernels::AdamW const& a, AdamWState s, double gradient) {
  double const g = a.gradient_scale * gradient, step = static_cast<double>(a.step);
  s.first_moment = a.beta1 * s.first_moment + (1 - a.beta1) * g;
  s.second_moment = a.beta2 * s.second_moment + (1 - a.beta2) * g * g;
  double const mean = s.first_moment / (1 - std::pow(a.beta1, step));
  double const square = s.second_moment / (1 - std::pow(a.beta2, step));
  s.parameter -= a.learning_rate * (mean / (std::sqrt(square) + a.epsilon) + a.weight_decay * s.parameter);
  return s;
}

}  // namespace strata::test::reference
