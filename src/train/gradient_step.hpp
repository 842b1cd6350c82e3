// SPDX-License-Identifier: Apache-2.0
#pragma once
// The gradient of one global batch: all micro-batches of all ranks.

#include <functional>
#include <memory>

#include "data/loader.hpp"
#include "model/device_batch.hpp"
#include "model/hierarchy.hpp"
#include "parallel/deterministic_sum.hpp"
#include "parallel/gradient_sync.hpp"
#include "train/deck.hpp"

namespace strata::train {

/// What a step found, the same on all ranks.
struct StepResult {
  double nats = 0;     ///< summed weighted loss
  double counted = 0;  ///< bytes it was summed over
  Index bytes = 0;     ///< bytes of data consumed
  data::Place next;    ///< where the next step begins
  bool stop = false;   ///< a signal to stop has reached some rank
};

/// How gradients are summed over the ranks, as the deck asks for it.
parallel::GradientSyncSettings sync_settings(TrainConfig const& config);

class GradientStep {
 public:
  /// Takes all memory of its steps, the model's included. window_length: of the loader. The references must
  /// outlive this.
  GradientStep(model::Hierarchy<float>& model, io::DatasetFile const& file,
               parallel::Communicator const& ranks, TrainConfig const& config, Index window_length);

  /// Adds up the gradients of the loss sum (not yet divided by the bytes counted) in the model's gradient
  /// buffer, which must be zero. With config.deterministic each window is its own batch and all sums run in
  /// an order that the global batch alone decides, so the bits do not depend on the number of ranks; else
  /// sums over ranks hide behind the outermost stage's backward. With config.shard_optimizer only this
  /// rank's shard of the buffer (train/shards.hpp) holds the sums for certain.
  StepResult run(data::Loader& loader);

  /// Hands the parameters that each rank has updated to all others (config.shard_optimizer).
  void gather_parameters();

  /// Seconds so far in which this rank waited for sums over ranks or for parameters of others, or moved them,
  /// and in which such sums were under way behind other work (GradientSync).
  double exposed_seconds() const { return waited_seconds_ + (sync_ ? sync_->exposed_seconds() : 0); }
  double hidden_seconds() const { return sync_ ? sync_->hidden_seconds() : 0; }

  /// Useful operations of a step of all ranks that trains on `bytes` bytes.
  double flops(Index bytes) const;

 private:
  StepResult run_overlapped(data::Loader& loader);
  StepResult run_deterministic(data::Loader& loader);
  void start(model::Ready ready);
  /// Runs f, whose time is that of waiting for other ranks.
  template <class F>
  void wait(F const& f);
  void accumulate(model::HostWindows const& windows, bool last);
  parallel::DeterministicSum<float>::Losses fetch_totals();
  static data::MicroBatch const& read(data::Loader& loader);
  void clear_totals();

  model::Hierarchy<float>& model_;
  parallel::Communicator const& ranks_;
  TrainConfig const& config_;
  Index window_length_, padded_length_;
  kernels::ExecSpace space_;
  std::optional<std::uint64_t> dropout_seed_;
  model::DeviceBatch device_batch_;
  Kokkos::View<double*, kernels::MemSpace> totals_;
  Kokkos::View<double*, Kokkos::HostSpace> host_totals_;
  std::unique_ptr<parallel::GradientSync<float>> sync_;  // null: a fixed order, with nothing to hand round
  std::unique_ptr<parallel::DeterministicSum<float>> fixed_order_;
  bool inner_started_ = false;
  double waited_seconds_ = 0;
  std::function<void()> inner_ready_, poll_;
};

}  // namespace strata::train
