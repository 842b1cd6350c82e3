// SPDX-License-Identifier: Apache-2.0
#pragma once
// One AdamW step over a model's flat buffers: norm, clipping and update read the gradients twice and copy
// nothing.

#include "kernels/common/types.hpp"
#include "model/parameters.hpp"

namespace strata::train {

using kernels::ExecSpace;
using kernels::Index;

struct OptimizerSettings {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0;       ///< of matrices and tables only; 0: Adam
  double gradient_clipping = 0;  ///< largest global L2 norm; 0: none
};

class Optimizer {
 public:
  /// Moments start at 0. The store must outlive the optimiser.
  Optimizer(model::ParameterStore<float>& parameters, OptimizerSettings const& settings);

  /// L2 norm of all gradients divided by `divisor`; the sum runs in double in an order that only the number
  /// of parameters decides. Waits for the device.
  double gradient_norm(ExecSpace const& space, double divisor) const;

  /// Step number `step` (from 1) with gradients / divisor, shrunk to the clipping norm if `norm` (of that
  /// quotient) is above it. Gradients are zero afterwards.
  void step(ExecSpace const& space, Index step, double learning_rate, double divisor, double norm);

  void zero_gradients(ExecSpace const& space) const;

  kernels::Vec<float> first_moment() const { return kernels::Vec<float>(first_.data(), first_.extent(0)); }
  kernels::Vec<float> second_moment() const { return kernels::Vec<float>(second_.data(), second_.extent(0)); }

 private:
  model::ParameterStore<float>& parameters_;
  OptimizerSettings settings_;
  Kokkos::View<float*, kernels::MemSpace> first_, second_;
  Kokkos::View<double*, kernels::MemSpace> norm_workspace_, norm_;
  Kokkos::View<double*, Kokkos::HostSpace> host_norm_;
};

}  // namespace strata::train
