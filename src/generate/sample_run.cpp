// SPDX-License-Identifier: Apache-2.0
#include "generate/sample_run.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "core/error.hpp"
#include "kernels/common/check.hpp"

namespace strata::generate {

namespace {

using Clock = std::chrono::steady_clock;

/// A prompt is read in pieces of about this many bytes, so that a stop request is noticed between them.
constexpr Index piece_bytes = 1 << 17;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

bool has_position_table(model::ModelConfig const& config) {
  return config.block[0].pos_emb_type == model::Position::fixed;
}

/// Tokens that remain when a full window slides.
Index kept_tokens(model::ModelConfig const& config) {
  Index const positions = config.seq_lens[0] / 2;
  return positions > 0 ? positions * config.bytes_per_position(0) : config.context() / 2;
}

}  // namespace

char const* name(End end) {
  switch (end) {
    case End::length:
      return "length";
    case End::stop:
      return "stop";
    case End::full:
      return "full";
    case End::interrupted:
      break;
  }
  return "interrupted";
}

Index window_start(model::ModelConfig const& config, Index length) {
  Index const context = config.context();
  Index const move = context - kept_tokens(config);
  return length < context ? 0 : (length - context) / move * move + move;
}

SampleRun::SampleRun(model::Hierarchy<float> const& model, RunSettings const& settings,
                     std::vector<std::string> prompts, std::optional<SavedState> start, Index first,
                     Index last)
    : model_(model),
      settings_(settings),
      prompts_(std::move(prompts)),
      start_(std::move(start)),
      first_(first),
      last_(last),
      window_(has_position_table(model.config()) ? model.config().context() : 0),
      sampler_(settings.sampling, model.config().num_tokens, 256) {
  STRATA_REQUIRE(settings_.samples > 0 && first_ >= 0 &&
                     last_ <= settings_.samples * static_cast<Index>(prompts_.size()),
                 "samples " << first_ << " to " << last_ << " of " << prompts_.size() << " prompts");
  Index longest = 0;
  for (Index p = 0; p < static_cast<Index>(prompts_.size()); ++p) {
    check_room(prompt_length(p));
    longest = std::max(longest, prompt_length(p));
  }
  if (first_ == last_) return;

  Index lanes = settings_.lanes > 0 ? settings_.lanes : RunSettings::default_lanes;
  lanes = std::min({lanes, Generator<float>::most_lanes(), last_ - first_});
  settings_.lanes = lanes;
  // A prompt that more than one sample here continues is kept in a lane of its own.
  bool shared = false;
  for (Index n = first_ + 1; n < last_; ++n) shared = shared || prompt_of(n) == prompt_of(n - 1);
  if (shared) spare_ = lanes;
  Index const needed = std::max<Index>(start_length() + longest + settings_.bytes, 1);
  generator_.emplace(model, lanes + (shared ? 1 : 0), window_ > 0 ? std::min(needed, window_) : needed);
  if (model.config().head == model::Head::reference) {
    std::vector<double> const logits = empty_prompt_logits(model);
    empty_logits_.assign(logits.begin(), logits.end());
  }
}

void SampleRun::check_room(Index prompt_bytes) const {
  if (window_ == 0 || (settings_.slide && !settings_.keep_state)) return;
  Index const before = start_length() + prompt_bytes;
  if (settings_.slide && before + settings_.bytes > window_)
    throw core::InputError(
        fmt::format("a state can be saved only up to the {} bytes of the model's position table, even with "
                    "--slide; {} and {} more to make are too many",
                    window_, before, settings_.bytes));
  if (before + std::min<Index>(settings_.bytes, 1) <= window_) return;
  throw core::InputError(
      fmt::format("after {} of {} bytes the model has no room for another one: its position table ends at {} "
                  "bytes; --slide goes on beyond it",
                  start_ ? "a state and a prompt" : "a prompt", before, window_));
}

/// What the model is to have seen, from byte `from` on: the start state's text, the prompt, the bytes made.
std::vector<std::uint8_t> SampleRun::text(Index which, std::vector<std::uint8_t> const& made,
                                          Index from) const {
  std::vector<std::uint8_t> out;
  auto const add = [&](auto const& part) {
    auto const size = static_cast<Index>(part.size());
    out.insert(out.end(), part.begin() + std::min(from, size), part.end());
    from = std::max<Index>(from - size, 0);
  };
  if (start_) add(start_->bytes);
  add(prompts_[static_cast<std::size_t>(which)]);
  add(made);
  return out;
}

bool SampleRun::stop_asked() {
  stopped_ = stopped_ || (events_.stop && events_.stop());
  return stopped_;
}

/// False if a stop request came first.
bool SampleRun::read(Index lane, std::span<std::uint8_t const> bytes) {
  Index const outer = model_.config().bytes_per_position(0);
  auto const piece = static_cast<std::size_t>((piece_bytes + outer - 1) / outer * outer);
  while (!bytes.empty() && !stop_asked()) {
    std::size_t const count = std::min(piece, bytes.size());
    generator_->read(lane, bytes.first(count));
    reading_.bytes += static_cast<Index>(count);
    bytes = bytes.subspan(count);
  }
  return bytes.empty();
}

bool SampleRun::read_prompt(Index lane, Index which) {
  Clock::time_point const begin = Clock::now();
  Index const length = start_length() + prompt_length(which);
  bool complete = false;
  if (window_ > 0 && length > window_) {
    generator_->reset(lane);
    complete = read(lane, text(which, {}, window_start(model_.config(), length)));
  } else {
    if (start_) {
      generator_->restore(lane, start_->lane);
    } else {
      generator_->reset(lane);
    }
    complete = read(lane, text(which, {}, start_length()));
  }
  reading_.seconds += seconds_since(begin);
  return complete;
}

/// Puts a sample into a lane, with its prompt read. False if a stop request came first.
bool SampleRun::begin(Index lane, Index number) {
  Index const which = prompt_of(number);
  Flight flight;
  flight.lane = lane;
  flight.prompt = which;
  flight.length = start_length() + prompt_length(which);
  flight.sample.number = number;
  bool const again = number + 1 < last_ && prompt_of(number + 1) == which;
  if (spare_prompt_ != which && again) {
    spare_prompt_ = -1;
    if (!read_prompt(spare_, which)) return false;
    spare_prompt_ = which;
  }
  if (spare_prompt_ == which) {
    generator_->copy(spare_, lane);
  } else if (!read_prompt(lane, which)) {
    return false;
  }
  auto const expected = static_cast<std::size_t>(std::min<Index>(settings_.bytes, 1 << 20));
  flight.sample.bytes.reserve(expected);
  if (settings_.log_probabilities) flight.sample.log_probabilities.reserve(expected);
  flights_.push_back(std::move(flight));
  if (settings_.bytes == 0) finish(flights_.size() - 1, End::length);
  return true;
}

void SampleRun::finish(std::size_t place, End end) {
  Flight& flight = flights_[place];
  flight.sample.end = end;
  if (settings_.keep_state) kept_text_ = text(flight.prompt, flight.sample.bytes, 0);
  if (events_.end) events_.end(flight.sample);
  samples_.push_back(std::move(flight.sample));
  flights_.erase(flights_.begin() + static_cast<std::ptrdiff_t>(place));
}

/// Logits of every sample that can go on, in the order of flights_; lanes at position 0 of head reference
/// have none of their own.
void SampleRun::predict() {
  for (std::size_t i = 0; window_ > 0 && i < flights_.size();) {
    if (generator_->position(flights_[i].lane) < window_) {
      ++i;
    } else if (settings_.slide) {
      Flight const& flight = flights_[i++];
      generator_->reset(flight.lane);
      generator_->read(flight.lane, text(flight.prompt, flight.sample.bytes,
                                         window_start(model_.config(), flight.length)));
    } else {
      finish(i, End::full);
    }
  }
  predicted_.clear();
  for (Flight const& flight : flights_)
    if (empty_logits_.empty() || generator_->position(flight.lane) > 0) predicted_.push_back(flight.lane);
  logits_ = predicted_.empty() ? std::span<float const>() : generator_->logits(predicted_);
}

/// One byte for every sample in flight.
void SampleRun::step() {
  predict();
  next_lanes_.clear();
  next_tokens_.clear();
  auto const width = static_cast<std::size_t>(model_.config().num_tokens);
  std::size_t row = 0;
  for (std::size_t i = 0; i < flights_.size();) {
    Flight& flight = flights_[i];
    bool const empty = row == predicted_.size() || predicted_[row] != flight.lane;
    std::span<float const> const logits =
        empty ? std::span<float const>(empty_logits_) : logits_.subspan(row++ * width, width);
    std::int32_t const byte = sampler_.draw(logits, static_cast<std::uint64_t>(flight.sample.number),
                                            static_cast<std::uint64_t>(flight.length));
    if (settings_.stop[static_cast<std::size_t>(byte)]) {
      finish(i, End::stop);
      continue;
    }
    flight.sample.bytes.push_back(static_cast<std::uint8_t>(byte));
    if (settings_.log_probabilities) flight.sample.log_probabilities.push_back(log_probability(logits, byte));
    ++flight.length;
    ++making_.bytes;
    if (events_.byte) events_.byte(flight.sample.number, static_cast<std::uint8_t>(byte));
    bool const last = static_cast<Index>(flight.sample.bytes.size()) == settings_.bytes;
    if (!last || settings_.keep_state) {
      next_lanes_.push_back(flight.lane);
      next_tokens_.push_back(byte);
    }
    if (last) {
      finish(i, End::length);
    } else {
      ++i;
    }
  }
  if (!next_lanes_.empty()) generator_->append(next_lanes_, next_tokens_);
}

std::vector<Sample> SampleRun::run(RunEvents const& events) {
  events_ = events;
  samples_.clear();
  Index next = first_;
  std::vector<Index> idle;  // lanes, lowest last
  for (Index lane = first_ == last_ ? 0 : settings_.lanes; lane > 0; --lane) idle.push_back(lane - 1);
  auto const busy = [&](Index lane) {
    return std::any_of(flights_.begin(), flights_.end(), [&](Flight const& f) { return f.lane == lane; });
  };
  while (true) {
    while (!idle.empty() && next < last_ && !stop_asked() && begin(idle.back(), next)) {
      ++next;
      if (busy(idle.back())) idle.pop_back();
    }
    if (flights_.empty() || stop_asked()) break;
    Clock::time_point const start = Clock::now();
    std::size_t const before = flights_.size();
    step();
    making_.seconds += seconds_since(start);
    if (flights_.size() < before) {
      idle.clear();
      for (Index lane = settings_.lanes; lane > 0; --lane)
        if (!busy(lane - 1)) idle.push_back(lane - 1);
    }
  }
  while (!flights_.empty()) finish(0, End::interrupted);
  for (; next < last_; ++next) {
    samples_.push_back({});
    samples_.back().number = next;
    if (events_.end) events_.end(samples_.back());
  }
  events_ = {};
  std::sort(samples_.begin(), samples_.end(),
            [](Sample const& a, Sample const& b) { return a.number < b.number; });
  return std::move(samples_);
}

std::optional<SavedState> SampleRun::state() {
  STRATA_REQUIRE(settings_.keep_state && last_ - first_ == 1, "one sample with keep_state");
  if (!kept_text_) return std::nullopt;
  return SavedState{*kept_text_, generator_->state(0)};
}

}  // namespace strata::generate
