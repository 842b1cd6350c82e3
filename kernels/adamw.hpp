// SPDX-License-Identifier: Apache-2.0
#pragma once
// One AdamW step over a flat range of parameters, in a single pass (decay 0 is Adam):
//   g = gradient_scale * gradient;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
//   p -= learning_rate * ( (m / (1 - b1^step)) / (sqrt(v / (1 - b2^step)) + epsilon) + weight_decay * p )

#include "kernels/common/types.hpp"

namespace strata::kernels {

struct AdamW {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0;
  double gradient_scale = 1;  ///< clipping and the loss's normaliser, folded in
  Index step = 1;             ///< counts from 1
};

/// All (n). gradient is left as it is.
template <class T>
void adamw_step(ExecSpace const& space, AdamW const& settings, ConstVec<T> gradient, Vec<T> parameter,
                Vec<T> first_moment, Vec<T> second_moment);

template <class T>
Cost adamw_cost(Index n);

}  // namespace strata::kernels
