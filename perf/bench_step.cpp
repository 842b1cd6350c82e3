// SPDX-License-Identifier: Apache-2.0
// Whole training steps: forward, loss, backward, gradient norm and AdamW, without reading data and without
// other ranks. `step` is the model that doc/ quotes, `length` a small model whose windows grow while a step
// keeps the same number of bytes, `context_mamba2` one whose only window grows.

#include <algorithm>
#include <chrono>

#include "core/runtime.hpp"
#include "model/device_batch.hpp"
#include "perf/perf.hpp"
#include "perf/perf_model.hpp"
#include "train/optimizer.hpp"

namespace strata::perf {
namespace {

constexpr double clipping = 1;

/// All that a step works with, built before the first one.
class Training {
 public:
  Training(model::ModelConfig const& config, Index windows, Index length, model::Chunking const& chunking)
      : bytes_(random_bytes(windows * length)),
        lengths_(static_cast<std::size_t>(windows), length),
        length_(length),
        hierarchy_(config, chunking, true),
        optimizer_(hierarchy_.parameters(), {.gradient_clipping = clipping}),
        batch_(windows, length, false, false),
        totals_("strata::perf_totals", 2) {
    hierarchy_.parameters().initialise(1);
    hierarchy_.reserve(windows, hierarchy_.padded_length(length), true);
  }

  void step() {
    Kokkos::deep_copy(space_, totals_, 0.0);
    model::HostWindows windows;
    windows.bytes = bytes_.data();
    windows.lengths = lengths_;
    windows.stride = length_;
    model::Batch const batch =
        batch_.upload(space_, windows, hierarchy_.config(), hierarchy_.padded_length(length_));
    hierarchy_.forward_backward(batch, 1.0F, Vec<double>(totals_.data(), 2));
    auto const divisor = static_cast<double>(bytes_.size());
    double const norm = optimizer_.gradient_norm(space_, divisor);
    optimizer_.step(space_, ++steps_, 1e-3, divisor, norm);
    space_.fence();
  }

  double bytes() const { return static_cast<double>(bytes_.size()); }
  double flops() const {
    return 3 *
           hierarchy_.forward_flops(static_cast<Index>(lengths_.size()), hierarchy_.padded_length(length_));
  }
  double parameters() const { return static_cast<double>(hierarchy_.parameters().count()); }
  double arena_bytes() const { return static_cast<double>(hierarchy_.arena_peak()); }

 private:
  ExecSpace space_;
  std::vector<std::uint8_t> bytes_;
  std::vector<Index> lengths_;
  Index length_;
  model::Hierarchy<float> hierarchy_;
  train::Optimizer optimizer_;
  model::DeviceBatch batch_;
  Vector<double> totals_;
  Index steps_ = 0;
};

void training_step(benchmark::State& state, model::ModelConfig const& config, Index windows, Index length,
                   model::Chunking const& chunking) {
  using Clock = std::chrono::steady_clock;
  Training training(config, windows, length, chunking);
  training.step();
  for ([[maybe_unused]] auto _ : state) {
    Clock::time_point const start = Clock::now();
    training.step();
    state.SetIterationTime(std::chrono::duration<double>(Clock::now() - start).count());
  }
  auto const rate = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["bytes/s"] = benchmark::Counter(training.bytes(), rate);
  state.counters["GFLOP/s"] = benchmark::Counter(1e-9 * training.flops(), rate);
  state.counters["gemm_percent"] = benchmark::Counter(100 * training.flops() / limits().gemm_float, rate);
  state.counters["parameters"] = training.parameters();
  state.counters["arena_MB"] = 1e-6 * training.arena_bytes();
  state.counters["peak_resident_MB"] = 1e-6 * core::peak_resident_bytes();
}

void add_step(char const* name, char const* group, model::ModelConfig const& config, Index windows,
              Index length, model::Chunking const& chunking = {}) {
  add(name, "float", group, std::to_string(windows) + "x" + std::to_string(length), [=](auto& state) {
    training_step(state, config, windows, length, chunking);
  })->Unit(benchmark::kMillisecond);
}

Registration const registration([] {
  add_step("step", "smoke", tiny_model(128), 2, 128);
  add_step("step_22m", "local", model_22m(), 1, 8192);
  add_step("length", "smoke", tiny_model(256), 1, 256);
  constexpr Index bytes_per_step = Index(1) << 16;
  for (Index length = 1 << 10; length <= bytes_per_step; length *= 2)
    add_step("length", "long", small_model(length), bytes_per_step / length, length);
  // One window from 64 KiB to 4 MiB, in time chunks of equal size that are rebuilt in backward.
  model::Chunking chunks;
  chunks.outer_positions = 4096;
  chunks.outer_tapes = model::OuterTapes::rebuild;
  add_step("context_mamba2", "smoke", small_hybrid(), 1, 512, chunks);
  for (Index length = 1 << 16; length <= 1 << 22; length *= 4)
    add_step("context_mamba2", "context", small_hybrid(), 1, length, chunks);
});

}  // namespace
}  // namespace strata::perf
