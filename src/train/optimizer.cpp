// SPDX-License-Identifier: Apache-2.0
#include "train/optimizer.hpp"

#include <chrono>
#include <cmath>

#include "kernels/adamw.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/reduce.hpp"

namespace strata::train {

namespace {

Index elements(std::vector<model::FlatRange> const& ranges) {
  Index sum = 0;
  for (model::FlatRange const& range : ranges) sum += range.size();
  return sum;
}

}  // namespace

Optimizer::Optimizer(model::ParameterStore<float>& parameters, OptimizerSettings const& settings,
                     parallel::Communicator const* sharers)
    : parameters_(parameters),
      settings_(settings),
      sharers_(sharers != nullptr && sharers->size() > 1 ? sharers : nullptr),
      ranges_(shard_ranges(parameters, sharers_ ? sharers_->rank() : 0, sharers_ ? sharers_->size() : 1)),
      first_("strata::first_moment", elements(ranges_)),
      second_("strata::second_moment", elements(ranges_)),
      norm_blocks_("strata::norm_blocks", norm_blocks(parameters)),
      norm_("strata::norm", 1),
      host_norm_("strata::host_norm", 1),
      host_norm_blocks_("strata::host_norm_blocks", sharers_ ? norm_blocks(parameters) : 0) {}

Index Optimizer::norm_blocks(model::ParameterStore<float> const& parameters) {
  Index blocks = 0;
  for (model::FlatRange const& range : shard_ranges(parameters, 0, 1))
    blocks += kernels::squared_norm_workspace(range.size());
  return blocks;
}

double Optimizer::gradient_norm(ExecSpace const& space, double divisor) const {
  kernels::Region const region("optimizer");
  kernels::Vec<double> const blocks(norm_blocks_.data(), norm_blocks_.extent(0));
  if (sharers_ != nullptr) Kokkos::deep_copy(space, norm_blocks_, 0.0);
  Index first = 0;  // block of the whole range that a shard's range is in
  std::vector<model::FlatRange> const whole = shard_ranges(parameters_, 0, 1);
  for (std::size_t i = 0; i < ranges_.size(); ++i) {
    auto const [begin, end] = ranges_[i];
    Index const at = first + (begin - whole[i].begin) / kernels::squares_per_block;
    kernels::block_squares<float>(
        space, kernels::range(parameters_.gradients(), begin, end),
        kernels::range(blocks, at, at + kernels::squared_norm_workspace(end - begin)));
    first += kernels::squared_norm_workspace(whole[i].size());
  }
  if (sharers_ != nullptr) {
    Kokkos::deep_copy(space, host_norm_blocks_, norm_blocks_);
    space.fence();
    auto const start = std::chrono::steady_clock::now();
    // Every block is one rank's number and zero on all others: the sum is exact.
    sharers_->sum_in_place(host_norm_blocks_.data(), host_norm_blocks_.extent(0));
    exposed_seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    Kokkos::deep_copy(space, norm_blocks_, host_norm_blocks_);
  }
  kernels::sum(space, kernels::Vec<double const>(norm_blocks_.data(), norm_blocks_.extent(0)),
               kernels::Vec<double>(norm_.data(), norm_.extent(0)));
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
    for_elements_of(ranges_, range, [&](Index begin, Index end, Index place) {
      Index const last = place + end - begin;
      kernels::adamw_step<float>(space, settings, kernels::range(parameters_.gradients(), begin, end),
                                 kernels::range(parameters_.values(), begin, end),
                                 kernels::range(first_moment(), place, last),
                                 kernels::range(second_moment(), place, last));
    });
  }
  zero_gradients(space);
}

void Optimizer::zero_gradients(ExecSpace const& space) const {
  Kokkos::deep_copy(space, parameters_.gradients(), 0.0F);
}

}  // namespace strata::train
