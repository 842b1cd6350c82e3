// SPDX-License-Identifier: Apache-2.0
// Generation byte by byte through the carries: the first bytes of a sequence, each fed back as soon as its
// logits are on the host. Choosing a byte from the logits is not part of it.

#include <chrono>

#include "generate/generator.hpp"
#include "perf/perf.hpp"
#include "perf/perf_model.hpp"

namespace strata::perf {
namespace {

void generation(benchmark::State& state, model::ModelConfig const& config, Index batch, Index length) {
  using Clock = std::chrono::steady_clock;
  model::Hierarchy<float> hierarchy(config, model::Chunking(), false);
  hierarchy.parameters().initialise(1);
  std::vector<std::uint8_t> const bytes = random_bytes(length);
  auto const run = [&] {
    generate::Generator<float> generator(hierarchy, batch, length);
    Clock::time_point const start = Clock::now();
    for (std::uint8_t const byte : bytes) {
      generator.logits();
      generator.append(std::vector<std::int32_t>(static_cast<std::size_t>(batch), byte));
    }
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  double total = 0;
  for ([[maybe_unused]] auto _ : state) {
    double const seconds = run();
    state.SetIterationTime(seconds);
    total += seconds;
  }
  auto const drawn = static_cast<double>(batch * length);
  state.counters["bytes/s"] = benchmark::Counter(drawn, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["ms/byte"] =
      1e3 * total / (static_cast<double>(state.iterations()) * static_cast<double>(length));
}

void add_generation(char const* group, model::ModelConfig const& config, Index batch, Index length) {
  add("generate", "float", group, std::to_string(batch) + "x" + std::to_string(length), [=](auto& state) {
    generation(state, config, batch, length);
  })->Unit(benchmark::kMillisecond);
}

Registration const registration([] {
  add_generation("smoke", tiny_model(128), 1, 16);
  add_generation("small", small_model(8192), 1, 256);
  add_generation("local", model_22m(), 1, 256);
  add_generation("local", model_22m(), 16, 64);
  add_generation("long", small_model(8192), 1, 8192);
});

}  // namespace
}  // namespace strata::perf
