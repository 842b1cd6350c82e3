// SPDX-License-Identifier: Apache-2.0
#pragma once
// Prompts continued byte by byte, several samples in flight. A sample's bytes are a function of the model,
// its prompt, the settings and its number: the number of lanes, threads or ranks changes none of them.

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "generate/generator.hpp"
#include "generate/sampling.hpp"
#include "generate/state_file.hpp"

namespace strata::generate {

struct RunSettings {
  Sampling sampling;
  Index samples = 1;                ///< of every prompt; sample n continues prompt n / samples
  Index bytes = 0;                  ///< to make, per sample
  std::array<bool, 256> stop = {};  ///< bytes that end a sample; they are not part of it
  Index lanes = 0;                  ///< samples in flight; 0: default_lanes
  bool slide = false;               ///< past the position table, forget the older half (window_start)
  bool log_probabilities = false;   ///< keep them with each sample
  bool keep_state = false;          ///< also read the last byte made, so that state() has seen everything

  static constexpr Index default_lanes = 16;
};

/// length: all bytes asked for. stop: a stop byte came up. full: the position table ended first.
enum class End { length, stop, interrupted, full };
char const* name(End end);

struct Sample {
  Index number = 0;
  std::vector<std::uint8_t> bytes;
  std::vector<double> log_probabilities;  ///< nats, of the model's whole softmax at temperature 1; or empty
  End end = End::interrupted;
};

struct Throughput {
  Index bytes = 0;
  double seconds = 0;
};

/// Where the window of a text of `length` bytes begins when it slides: at 0 while that many bytes and one
/// more fit the position table; whenever the window is full its start moves, so that the last half, in whole
/// outermost positions, remains. A function of the length alone, so that it does not matter how the text
/// came.
Index window_start(model::ModelConfig const& config, Index length);

/// What run() reports, always from the calling thread. Any of them may be empty.
struct RunEvents {
  std::function<void(Index number, std::uint8_t byte)> byte;
  std::function<void(Sample const&)> end;
  std::function<bool()> stop;  ///< asked between bytes and while reading; true ends everything
};

class SampleRun {
 public:
  /// Of prompts.size() * settings.samples samples, those numbered first to last - 1, each after the text of
  /// `start`, if there is one, and its prompt. A sample ends where the model's position table does, unless
  /// settings.slide is true; throws core::InputError when that leaves no room for a single byte. A state that
  /// slid cannot be kept and is refused likewise.
  SampleRun(model::Hierarchy<float> const& model, RunSettings const& settings,
            std::vector<std::string> prompts, std::optional<SavedState> start, Index first, Index last);

  /// All samples, by number; those that a stop request kept from starting are empty.
  std::vector<Sample> run(RunEvents const& events);

  /// After run() of a single sample with keep_state: what it has read, or nothing if its prompt was not read
  /// to the end.
  std::optional<SavedState> state();

  /// Bytes of prompts that went through the model, and bytes made. A prompt that several samples share is
  /// read once.
  Throughput const& reading() const { return reading_; }
  Throughput const& making() const { return making_; }

 private:
  /// A sample in flight.
  struct Flight {
    Index lane = 0;
    Index prompt = 0;
    Index length = 0;  ///< bytes of its text so far
    Sample sample;
  };

  void check_room(Index prompt_bytes) const;
  std::vector<std::uint8_t> text(Index prompt, std::vector<std::uint8_t> const& made, Index from) const;
  bool read(Index lane, std::span<std::uint8_t const> bytes);
  bool read_prompt(Index lane, Index prompt);
  bool begin(Index lane, Index number);
  void predict();
  void step();
  void finish(std::size_t place, End end);
  bool stop_asked();
  Index prompt_of(Index number) const { return number / settings_.samples; }
  Index prompt_length(Index which) const {
    return static_cast<Index>(prompts_[static_cast<std::size_t>(which)].size());
  }
  Index start_length() const { return start_ ? static_cast<Index>(start_->bytes.size()) : 0; }

  model::Hierarchy<float> const& model_;
  RunSettings settings_;
  std::vector<std::string> prompts_;
  std::optional<SavedState> start_;
  Index first_, last_;
  Index window_;  ///< tokens that a lane can take, with a position table; else 0: no limit
  Sampler sampler_;
  std::optional<Generator<float>> generator_;
  RunEvents events_;
  std::vector<Flight> flights_;
  std::vector<Sample> samples_;
  Index spare_ = -1;                                    ///< lane that keeps a prompt for later samples
  Index spare_prompt_ = -1;                             ///< the prompt it keeps
  std::optional<std::vector<std::uint8_t>> kept_text_;  ///< what lane 0 has read, for state()
  std::vector<float> empty_logits_;                     ///< prediction for an empty text, head reference
  std::vector<Index> predicted_, next_lanes_;           ///< lanes with logits in this step; lanes that go on
  std::vector<std::int32_t> next_tokens_;
  std::span<float const> logits_;
  bool stopped_ = false;
  Throughput reading_, making_;
};

}  // namespace strata::generate
