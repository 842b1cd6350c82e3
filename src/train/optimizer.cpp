// SPDX-License-Identifier: Apache-2.0
#include "train/optimizer.hpp"

#include <cmath>

#include "kernels/adamw.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/reduce.hpp"

namespace strata::train {

Optimizer::Optimizer(model::ParameterStore<float>& parameters, OptimizerSettings const& settings)
    : parameters_(parameters),
      settings_(settings),
      first_("strata::first_moment", parameters.flat_size()),
      second_("strata::second_moment", parameters.flat_size()),
      norm_workspace_("strata::norm_workspace", kernels::squared_norm_workspace(parameters.flat_size())),
      norm_("strata::norm", 1),
      host_norm_("strata::host_norm", 1) {}

double Optimizer::gradient_norm(ExecSpace const& space, double divisor) const {
  kernels::Region const region("optimizer");
  kernels::Vec<double> const result(norm_.data(), norm_.extent(0));
  kernels::Vec<double> const workspace(norm_workspace_.data(), norm_workspace_.extent(0));
  kernels::squared_norm<float>(space, parameters_.gradients(), result, workspace);
  Kokkos::deep_copy(space, host_norm_, norm_);
  space.fence();
  return std::sqrt(host_norm_(0)) / divisor;
}

void Optimizer::step(ExecSpace const& space, Index step, double learning_rate, double divisor, double norm) {
  kernels::Region const region("optimizer");
  kernels::AdamW settings;
  settings.learning_rate = learning_rate;
  settings.beta1 = settings_.beta1;
  settings.beta2 = settings_.beta2;
  settings.epsilon = settings_.epsilon;
  settings.gradient_scale = 1 / divisor;
  bool const clip = settings_.gradient_clipping > 0 && norm > settings_.gradient_clipping;
  if (clip) settings.gradient_scale *= settings_.gradient_clipping / norm;
  settings.step = step;
  for (auto const& [range, decays] : parameters_.decay_ranges()) {
    settings.weight_decay = decays ? settings_.weight_decay : 0;
    kernels::adamw_step<float>(space, settings,
                               kernels::range(parameters_.gradients(), range.begin, range.end),
                               kernels::range(parameters_.values(), range.begin, range.end),
                               kernels::range(first_moment(), range.begin, range.end),
                               kernels::range(second_moment(), range.begin, range.end));
  }
  zero_gradients(space);
}

void Optimizer::zero_gradients(ExecSpace const& space) const {
  Kokkos::deep_copy(space, parameters_.gradients(), 0.0F);
}

}  // namespace strata::train
