// SPDX-License-Identifier: Apache-2.0
#pragma once
// One AdamW step over a model's flat buffers: norm, clipping and update read the gradients twice and copy
// nothing. Ranks may share the work and the moments (ZeRO-1: Rajbhandari et al. 2020, arXiv 1910.02054).

#include <vector>

#include "kernels/common/types.hpp"
#include "model/parameters.hpp"
#include "parallel/communicator.hpp"
#include "train/shards.hpp"

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
  /// Moments start at 0. With `sharers` each of these ranks keeps the moments of its shard (train/shards.hpp)
  /// and updates that alone; the results are the same bits. The references must outlive the optimiser.
  Optimizer(model::ParameterStore<float>& parameters, OptimizerSettings const& settings,
            parallel::Communicator const* sharers = nullptr);

  /// L2 norm of all gradients divided by `divisor`; the sum runs in double in an order that only the layout
  /// of the parameters decides. Reads the gradients of this rank's shard. Waits for the device; collective
  /// over the sharers.
  double gradient_norm(ExecSpace const& space, double divisor) const;

  /// Step number `step` (from 1) with gradients / divisor, shrunk to the clipping norm if `norm` (of that
  /// quotient) is above it, of the shard's parameters: sharers have to hand them round
  /// (GradientSync::gather). All gradients are zero afterwards.
  void step(ExecSpace const& space, Index step, double learning_rate, double divisor, double norm);

  void zero_gradients(ExecSpace const& space) const;

  bool is_shared() const { return sharers_ != nullptr; }
  /// What this rank updates: all of the buffer, or its shard.
  std::vector<model::FlatRange> const& ranges() const { return ranges_; }
  /// Of the elements of ranges(), one range after the other.
  kernels::Vec<float> first_moment() const { return kernels::Vec<float>(first_.data(), first_.extent(0)); }
  kernels::Vec<float> second_moment() const { return kernels::Vec<float>(second_.data(), second_.extent(0)); }

  /// Seconds spent in messages about the norm so far.
  double exposed_seconds() const { return exposed_seconds_; }

  /// Numbers that the norm is added up from.
  static Index norm_blocks(model::ParameterStore<float> const& parameters);

 private:
  model::ParameterStore<float>& parameters_;
  OptimizerSettings settings_;
  parallel::Communicator const* sharers_;
  std::vector<model::FlatRange> ranges_;
  Kokkos::View<float*, kernels::MemSpace> first_, second_;
  Kokkos::View<double*, kernels::MemSpace> norm_blocks_, norm_;
  Kokkos::View<double*, Kokkos::HostSpace> host_norm_, host_norm_blocks_;
  mutable double exposed_seconds_ = 0;
};

}  // namespace strata::train
