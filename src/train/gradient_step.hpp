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

class GradientStep {
 public:
  /// Takes all memory of its steps, the model's included. window_length: of the loader. The references must
  /// outlive this.
  GradientStep(model::Hierarchy<float>& model, io::DatasetFile const& file,
               parallel::Communicator const& ranks, TrainConfig const& config, Index window_length);

  /// Adds up the gradients of the loss sum (not yet divided by the bytes counted) in the model's gradient
  /// buffer, which must be zero. With config.deterministic each window is its own batch and all sums run in
  /// an order that the global batch alone decides, so the bits do not depend on the number of ranks; else
  /// sums over ranks hide behind the outermost stage's backward.
  StepResult run(data::Loader& loader);

  /// Useful operations of a step of all ranks that trains on `bytes` bytes.
  double flops(Index bytes) const;

 private:
  StepResult run_overlapped(data::Loader& loader);
  StepResult run_deterministic(data::Loader& loader);
  void start(model::Ready ready);
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
  std::unique_ptr<parallel::GradientSync<float>> sync_;
  std::unique_ptr<parallel::DeterministicSum<float>> fixed_order_;
  bool inner_started_ = false;
  std::function<void()> inner_ready_, poll_;
};

}  // namespace strata::train
