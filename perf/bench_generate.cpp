// SPDX-License-Identifier: Apache-2.0
// Generation through the carries: bytes appended one by one behind a prompt, each as soon as the logits
// before it are on the host. Choosing a byte from the logits is not part of it.
//
//   generate   bytes per second behind a prompt, for 1 and more lanes; per byte the weights are read once,
//   whatever
//              the number of lanes, and the outermost keys and values once per position, which gives the
//              limit
//   prefill    reading a prompt, against an evaluation of the same bytes in the same process
//   rerun      one byte by the cached path against the forward pass of its whole context

#include <algorithm>
#include <chrono>
#include <numeric>
#include <vector>

#include "generate/generator.hpp"
#include "model/device_batch.hpp"
#include "perf/perf.hpp"
#include "perf/perf_model.hpp"

namespace strata::perf {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> times) {
  auto const middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

double mean(std::vector<double> const& times) {
  return std::accumulate(times.begin(), times.end(), 0.0) / static_cast<double>(times.size());
}

/// Bytes of weights that one byte of text needs: every weight of a stage once per position of it, which is
/// what the multiply-adds outside attention and scans count.
double weight_traffic(model::Hierarchy<float> const& model) {
  model::ModelConfig const& config = model.config();
  double traffic = 0;
  for (model::ParameterInfo const& info : model.parameters().all()) {
    bool const table = info.name.starts_with("token_embs_rev.") && info.name.ends_with("0.weight");
    bool const positions = info.name.starts_with("pos_embs.");
    if (info.shape.size() < 2 || table || positions) continue;  // rows of them
    std::size_t stage = config.stages() - 1;
    for (std::size_t s = 0; s < config.stages(); ++s) {
      std::string const n = std::to_string(s) + ".", reversed = std::to_string(config.stages() - 1 - s) + ".";
      if (info.name.starts_with("stage_models." + n) || info.name.starts_with("to_next_stage_proj." + n) ||
          info.name.starts_with("token_embs_rev." + reversed))
        stage = s;
    }
    traffic += sizeof(float) * static_cast<double>(info.place.size()) /
               static_cast<double>(config.bytes_per_position(stage));
  }
  return traffic;
}

/// Bytes of keys and values that the outermost stage reads for one byte of text behind `context` bytes, per
/// lane.
double key_traffic(model::Hierarchy<float> const& model, Index context) {
  model::Block<float> const& block = model.stages()[0]->block();
  auto const outer = static_cast<double>(model.config().bytes_per_position(0));
  return sizeof(float) * static_cast<double>(block.layers() * block.history_width()) *
         static_cast<double>(context) / outer / outer;
}

/// Reads a prompt into every lane and then appends `length` bytes to each, timing every one.
std::vector<double> decode(model::Hierarchy<float> const& hierarchy, Index lanes, Index prompt,
                           Index length) {
  std::vector<std::uint8_t> const bytes = random_bytes(prompt + length);
  generate::Generator<float> generator(hierarchy, lanes, prompt + length);
  generator.read(0, std::span(bytes).first(static_cast<std::size_t>(prompt)));
  std::vector<Index> which(static_cast<std::size_t>(lanes));
  for (Index lane = 0; lane < lanes; ++lane) {
    which[static_cast<std::size_t>(lane)] = lane;
    generator.copy(0, lane);
  }
  std::vector<std::int32_t> tokens(which.size());
  std::vector<double> times;
  generator.logits(which);
  for (Index t = prompt; t < prompt + length; ++t) {
    std::fill(tokens.begin(), tokens.end(), bytes[static_cast<std::size_t>(t)]);
    Clock::time_point const start = Clock::now();
    generator.append(which, tokens);
    benchmark::DoNotOptimize(generator.logits(which).data());
    times.push_back(seconds_since(start));
  }
  return times;
}

void generation(benchmark::State& state, model::ModelConfig const& config, Index lanes, Index prompt,
                Index length) {
  model::Hierarchy<float> hierarchy(config, model::Chunking(), false);
  hierarchy.parameters().initialise(1);
  std::vector<double> times;
  for ([[maybe_unused]] auto _ : state) {
    std::vector<double> const run = decode(hierarchy, lanes, prompt, length);
    times.insert(times.end(), run.begin(), run.end());
    state.SetIterationTime(std::accumulate(run.begin(), run.end(), 0.0));
  }
  double const mean_time = mean(times);
  double const traffic =
      weight_traffic(hierarchy) + static_cast<double>(lanes) * key_traffic(hierarchy, prompt + length / 2);
  std::sort(times.begin(), times.end());
  state.counters["bytes/s"] = static_cast<double>(lanes) / mean_time;
  state.counters["us/step"] = 1e6 * mean_time;
  state.counters["us_median"] = 1e6 * median(times);
  state.counters["us_p99"] = 1e6 * times[times.size() * 99 / 100];
  state.counters["weights_MB"] = 1e-6 * weight_traffic(hierarchy);
  state.counters["keys_MB"] = 1e-6 * key_traffic(hierarchy, prompt + length / 2);
  state.counters["bandwidth_percent"] = 100 * traffic / mean_time / limits().bandwidth;
}

/// A window of random bytes, evaluated.
class Forward {
 public:
  Forward(model::Hierarchy<float>& model, Index length)
      : model_(model),
        bytes_(random_bytes(length)),
        lengths_{length},
        batch_(1, length, false, false),
        totals_("strata::totals", 2) {
    model::HostWindows windows;
    windows.bytes = bytes_.data();
    windows.lengths = lengths_;
    windows.stride = length;
    on_device_ = batch_.upload(space_, windows, model.config(), model.padded_length(length));
    space_.fence();
  }
  std::vector<std::uint8_t> const& bytes() const { return bytes_; }
  double seconds() {
    Clock::time_point const start = Clock::now();
    model_.evaluate(on_device_, Vec<double>(totals_.data(), 2));
    space_.fence();
    return seconds_since(start);
  }

 private:
  ExecSpace space_;
  model::Hierarchy<float>& model_;
  std::vector<std::uint8_t> bytes_;
  std::vector<Index> lengths_;
  model::DeviceBatch batch_;
  Vector<double> totals_;
  model::Batch on_device_;
};

void prefill(benchmark::State& state, model::ModelConfig const& config, Index length) {
  model::Hierarchy<float> hierarchy(config, model::Chunking(), false);
  hierarchy.parameters().initialise(1);
  Forward forward(hierarchy, length);
  generate::Generator<float> generator(hierarchy, 1, length);
  std::vector<double> reading, evaluating;
  auto const read = [&] {
    generator.reset(0);
    Clock::time_point const start = Clock::now();
    generator.read(0, forward.bytes());
    benchmark::DoNotOptimize(generator.logits(std::vector<Index>{0}).data());
    return seconds_since(start);
  };
  read();
  forward.seconds();
  for ([[maybe_unused]] auto _ : state) {
    for (int repetition = 0; repetition < 3; ++repetition) {  // side by side
      reading.push_back(read());
      evaluating.push_back(forward.seconds());
    }
    state.SetIterationTime(reading.back());
  }
  auto const bytes = static_cast<double>(length);
  state.counters["bytes/s"] = bytes / median(reading);
  state.counters["evaluate_bytes/s"] = bytes / median(evaluating);
  state.counters["times_as_fast"] = median(evaluating) / median(reading);
}

void rerun(benchmark::State& state, model::ModelConfig const& config, Index context) {
  model::Hierarchy<float> hierarchy(config, model::Chunking(), false);
  hierarchy.parameters().initialise(1);
  Forward forward(hierarchy, context);
  forward.seconds();
  std::vector<double> rerunning, cached;
  for ([[maybe_unused]] auto _ : state) {
    for (int repetition = 0; repetition < 3; ++repetition) {
      rerunning.push_back(forward.seconds());
      cached.push_back(mean(decode(hierarchy, 1, context - 64, 64)));  // of whole patches
    }
    state.SetIterationTime(cached.back());
  }
  state.counters["rerun_ms"] = 1e3 * median(rerunning);
  state.counters["cached_us"] = 1e6 * median(cached);
  state.counters["ratio"] = median(rerunning) / median(cached);
}

void add_generation(char const* kind, char const* group, model::ModelConfig const& config, Index lanes,
                    Index prompt, Index length) {
  add(std::string("generate_") + kind, "float", group,
      std::to_string(lanes) + "x" + std::to_string(prompt) + "+" + std::to_string(length),
      [=](auto& state) { generation(state, config, lanes, prompt, length); })
      ->Unit(benchmark::kMillisecond)
      ->Iterations(1);
}

Registration const registration([] {
  add_generation("transformer", "smoke", tiny_model(128), 2, 33, 16);
  add_generation("hybrid", "smoke", small_hybrid(), 3, 100, 20);
  // Context, with an outermost stage of either kind.
  for (Index const prompt : {1'000, 64'000, 1'000'000}) {
    add_generation("hybrid", "context", small_hybrid(), 1, prompt, 4096);
    add_generation("transformer", "context", small_model(prompt + 8192), 1, prompt, 4096);
  }
  // Lanes, with weights that fit the last-level cache, and with ones that do not.
  for (Index const lanes : {1, 8, 32}) {
    add_generation("22m", "lanes", model_22m(), lanes, 1000, 256);
    add_generation("152m", "lanes", two_stages(1024, 16, 8, 8, 8192), lanes, 1000, 64);
  }
  for (Index const length : {Index(512), Index(1'000'000)})
    add("prefill", "float", length < 1000 ? "smoke" : "context", std::to_string(length),
        [=](auto& state) { prefill(state, small_hybrid(), length); })
        ->Unit(benchmark::kMillisecond)
        ->Iterations(1);
  for (Index const context : {256, 1 << 10, 1 << 13, 1 << 16})
    add("rerun", "float", context < 1000 ? "smoke" : "context", std::to_string(context),
        [=](auto& state) { rerun(state, small_model(context), context); })
        ->Unit(benchmark::kMillisecond)
        ->Iterations(1);
});

}  // namespace
}  // namespace strata::perf
