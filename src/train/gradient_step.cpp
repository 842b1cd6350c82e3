// SPDX-License-Identifier: Apache-2.0
#include "train/gradient_step.hpp"

#include <algorithm>
#include <array>
#include <chrono>

#include "core/runtime.hpp"
#include "kernels/common/profile.hpp"
#include "train/evaluation.hpp"
#include "train/shards.hpp"

namespace strata::train {

parallel::GradientSyncSettings sync_settings(TrainConfig const& config) {
  parallel::GradientSyncSettings settings;
  settings.bucket_elements = std::max<Index>(config.bucket_size.bytes / static_cast<Index>(sizeof(float)), 1);
  settings.unit = shard_unit;
  if (config.shard_optimizer) settings.sums_go_to = parallel::SumsGoTo::owner;
  return settings;
}

GradientStep::GradientStep(model::Hierarchy<float>& model, io::DatasetFile const& file,
                           parallel::Communicator const& ranks, TrainConfig const& config,
                           Index window_length)
    : model_(model),
      ranks_(ranks),
      config_(config),
      window_length_(window_length),
      padded_length_(model.padded_length(window_length)),
      device_batch_(config.deterministic ? 1 : config.batch_size, window_length, file.wide(),
                    file.info(io::Split::train).weights),
      totals_("strata::step_totals", 2),
      host_totals_("strata::step_host_totals", 2) {
  if (model.config().has_dropout()) dropout_seed_ = config.seed;
  model_.reserve(config.deterministic ? 1 : config.batch_size, padded_length_, true);
  if (config.deterministic) {
    fixed_order_ = std::make_unique<parallel::DeterministicSum<float>>(
        ranks, model.parameters().flat_size(),
        ranks.size() * config.batch_size * config.gradient_accumulate_every);
  }
  if (!config.deterministic || config.shard_optimizer)
    sync_ = std::make_unique<parallel::GradientSync<float>>(ranks, model.parameters().gradients(),
                                                            sync_settings(config));
  if (!config.deterministic) {
    inner_ready_ = [this] {
      start(model::Ready::before_outer_backward);
      inner_started_ = true;
    };
    poll_ = [this] {
      kernels::Region const region("reduce gradients");
      sync_->poll();
    };
  }
}

StepResult GradientStep::run(data::Loader& loader) {
  return config_.deterministic ? run_deterministic(loader) : run_overlapped(loader);
}

void GradientStep::start(model::Ready ready) {
  kernels::Region const region("reduce gradients");
  model::FlatRange const range = model_.parameters().ready_range(ready);
  if (range.size() > 0) sync_->start(range.begin, range.end);
}

template <class F>
void GradientStep::wait(F const& f) {
  if (ranks_.size() == 1) return f();
  auto const begin = std::chrono::steady_clock::now();
  f();
  waited_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void GradientStep::gather_parameters() {
  kernels::Region const region("gather parameters");
  for (auto const ready : {model::Ready::before_outer_backward, model::Ready::at_end}) {
    model::FlatRange const range = model_.parameters().ready_range(ready);
    sync_->gather(model_.parameters().values(), range.begin, range.end);
  }
}

void GradientStep::accumulate(model::HostWindows const& windows, bool last) {
  model::Batch batch;
  {
    kernels::Region const region("read data");
    batch = device_batch_.upload(space_, windows, model_.config(), padded_length_);
  }
  static std::function<void()> const nothing;
  model_.forward_backward(batch, 1.0F, kernels::Vec<double>(totals_.data(), 2), dropout_seed_,
                          last ? inner_ready_ : nothing, last ? poll_ : nothing);
}

data::MicroBatch const& GradientStep::read(data::Loader& loader) {
  kernels::Region const region("read data");
  return loader.next();
}

void GradientStep::clear_totals() { Kokkos::deep_copy(space_, totals_, 0.0); }

parallel::DeterministicSum<float>::Losses GradientStep::fetch_totals() {
  Kokkos::deep_copy(space_, host_totals_, totals_);
  space_.fence();
  return {host_totals_(0), host_totals_(1)};
}

StepResult GradientStep::run_overlapped(data::Loader& loader) {
  StepResult result;
  clear_totals();
  inner_started_ = false;
  for (Index m = 0; m < config_.gradient_accumulate_every; ++m) {
    data::MicroBatch const& batch = read(loader);
    result.bytes = batch.step_bytes;
    result.next = batch.next_place;
    accumulate(host_windows(batch), m + 1 == config_.gradient_accumulate_every);
  }
  if (!inner_started_) start(model::Ready::before_outer_backward);
  start(model::Ready::at_end);
  auto const [nats, counted] = fetch_totals();
  std::array<double, 3> sums = {nats, counted, core::stop_requested() ? 1.0 : 0.0};
  kernels::Region const region("reduce gradients");
  sync_->finish();
  wait([&] { ranks_.sum_in_place(sums.data(), sums.size()); });
  result.nats = sums[0];
  result.counted = sums[1];
  result.stop = sums[2] > 0;
  return result;
}

StepResult GradientStep::run_deterministic(data::Loader& loader) {
  StepResult result;
  kernels::Vec<float> const gradients = model_.parameters().gradients();
  fixed_order_->begin(config_.batch_size * config_.gradient_accumulate_every);
  for (Index m = 0; m < config_.gradient_accumulate_every; ++m) {
    data::MicroBatch const& batch = read(loader);
    result.bytes = batch.step_bytes;
    result.next = batch.next_place;
    model::HostWindows const windows = host_windows(batch);
    for (Index r = 0; r < batch.rows; ++r) {
      clear_totals();
      Kokkos::deep_copy(space_, gradients, 0.0F);
      accumulate(windows.rows(r, r + 1), false);
      kernels::Region const region("reduce gradients");
      fixed_order_->add(gradients, fetch_totals());
    }
  }
  kernels::Region const region("reduce gradients");
  space_.fence();
  wait([&] {
    auto const [nats, counted] = fixed_order_->finish(gradients);
    result.nats = nats;
    result.counted = counted;
    result.stop = ranks_.any(core::stop_requested());
  });
  return result;
}

double GradientStep::flops(Index bytes) const {
  double const window = 3 * model_.forward_flops(1, padded_length_);
  return window * static_cast<double>(bytes) / static_cast<double>(window_length_);
}

}  // namespace strata::train
