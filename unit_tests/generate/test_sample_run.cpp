// SPDX-License-Identifier: Apache-2.0
// Samples in flight together against one sequence at a time: lanes, ranks, prompts, stop bytes, sliding,
// states.
#include "generate/sample_run.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/error.hpp"
#include "generate/sample_gather.hpp"
#include "unit_tests/model/small_model.hpp"

namespace strata::test {
namespace {

using generate::End;
using generate::Generator;
using generate::RunEvents;
using generate::RunSettings;
using generate::Sample;
using generate::SampleRun;
using generate::SavedState;
using Bytes = std::vector<std::uint8_t>;
using Model = std::unique_ptr<Hierarchy<float>>;

Model make_model(Head head, std::vector<Index> const& lens, Position position,
                 std::string const& letters = "") {
  ModelConfig config = small_config(head, lens, position, 257, 256);
  if (!letters.empty()) config = with_blocks(config, letters);
  auto model = std::make_unique<Hierarchy<float>>(config, Chunking(), false);
  randomise(model->parameters(), 61);
  return model;
}

std::string random_text(std::size_t length, std::uint64_t seed) {
  Random random(seed);
  std::string text;
  for (std::size_t i = 0; i < length; ++i) text.push_back(static_cast<char>(random.next()));
  return text;
}

RunSettings settings_of(Index bytes, Index samples = 1, Index lanes = 0) {
  RunSettings settings;
  settings.bytes = bytes;
  settings.samples = samples;
  settings.lanes = lanes;
  settings.log_probabilities = true;
  return settings;
}

std::vector<Sample> run(Model const& model, RunSettings const& settings,
                        std::vector<std::string> const& prompts, std::optional<SavedState> const& start = {},
                        RunEvents const& events = {}) {
  Index const total = settings.samples * static_cast<Index>(prompts.size());
  return SampleRun(*model, settings, prompts, start, 0, total).run(events);
}

/// One sample by itself: the text so far decides the window, and with it everything.
Sample alone(Model const& model, RunSettings const& settings, std::string const& prompt, Index number) {
  ModelConfig const& config = model->config();
  bool const table = config.block[0].pos_emb_type == Position::fixed;
  Sample sample;
  sample.number = number;
  Bytes text(prompt.begin(), prompt.end());
  auto const length = [&] { return static_cast<Index>(text.size()); };
  Generator<float> generator(*model, 1, length() + settings.bytes);
  generate::Sampler sampler(settings.sampling, 257, 256);
  auto const from = [&] { return table ? generate::window_start(config, length()) : 0; };
  Index start = from();
  generator.read(0, std::span(text).subspan(static_cast<std::size_t>(start)));
  sample.end = End::length;
  while (static_cast<Index>(sample.bytes.size()) < settings.bytes) {
    if (from() != start) {
      start = from();
      generator.reset(0);
      generator.read(0, std::span(text).subspan(static_cast<std::size_t>(start)));
    }
    std::vector<float> logits = generator.logits();
    if (config.head == Head::reference && text.empty()) {
      std::vector<double> const empty = generate::empty_prompt_logits(*model);
      logits.assign(empty.begin(), empty.end());
    }
    std::int32_t const byte = sampler.draw(logits, static_cast<std::uint64_t>(number), text.size());
    if (settings.stop[static_cast<std::size_t>(byte)]) {
      sample.end = End::stop;
      break;
    }
    sample.bytes.push_back(static_cast<std::uint8_t>(byte));
    sample.log_probabilities.push_back(generate::log_probability(logits, byte));
    text.push_back(static_cast<std::uint8_t>(byte));
    if (static_cast<Index>(sample.bytes.size()) < settings.bytes) generator.append({byte});
  }
  return sample;
}

std::vector<Sample> one_by_one(Model const& model, RunSettings const& settings,
                               std::vector<std::string> const& prompts) {
  std::vector<Sample> samples;
  for (std::size_t p = 0; p < prompts.size(); ++p)
    for (Index i = 0; i < settings.samples; ++i)
      samples.push_back(alone(model, settings, prompts[p], static_cast<Index>(p) * settings.samples + i));
  return samples;
}

void expect_same(std::vector<Sample> const& got, std::vector<Sample> const& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (std::size_t n = 0; n < got.size(); ++n) {
    SCOPED_TRACE("sample " + std::to_string(n));
    EXPECT_EQ(got[n].number, static_cast<Index>(n));
    EXPECT_EQ(got[n].bytes, wanted[n].bytes);
    EXPECT_EQ(got[n].log_probabilities, wanted[n].log_probabilities);
    EXPECT_EQ(generate::name(got[n].end), std::string(generate::name(wanted[n].end)));
  }
}

/// Lengths around the borders of patches, and empty ones.
std::vector<std::string> some_prompts() {
  return {random_text(5, 1), "", random_text(24, 2), random_text(12, 3), "x"};
}

std::string refusal(Model const& model, RunSettings const& settings, std::vector<std::string> const& prompts,
                    std::optional<SavedState> const& start = {}) {
  try {
    SampleRun(*model, settings, prompts, start, 0, settings.samples * static_cast<Index>(prompts.size()));
  } catch (core::InputError const& error) {
    return error.what();
  }
  return "accepted";
}

TEST(SampleRun, BytesDoNotDependOnTheLanes) {
  struct Mix {
    std::vector<Index> lens;
    char const* letters;
  };
  for (Head const head : {Head::complete, Head::reference})
    for (Mix const& mix : {Mix{{13}, "T"}, Mix{{4, 3}, "TT"}, Mix{{4, 3}, "2T"}, Mix{{3, 2, 3}, "1TT"}}) {
      Model const model = make_model(head, mix.lens, Position::rope, mix.letters);
      RunSettings const settings = settings_of(21, 3);
      std::vector<Sample> const wanted = one_by_one(model, settings, some_prompts());
      for (Index const lanes : {0, 1, 3, 8}) {
        SCOPED_TRACE(std::string(mix.letters) + " lanes " + std::to_string(lanes));
        expect_same(run(model, settings_of(21, 3, lanes), some_prompts()), wanted);
      }
    }
}

TEST(SampleRun, StopBytesEndASampleAndAreNotPartOfIt) {
  Model const model = make_model(Head::complete, {4, 3}, Position::rope);
  RunSettings settings = settings_of(60, 4);
  std::vector<Sample> const whole = run(model, settings, some_prompts());
  for (std::size_t byte = 0; byte < 256; byte += 64) settings.stop[byte] = true;
  std::vector<Sample> const wanted = one_by_one(model, settings, some_prompts());
  int stopped = 0, complete = 0;
  for (std::size_t n = 0; n < wanted.size(); ++n) {
    auto const& bytes = whole[n].bytes;
    auto const first =
        std::find_if(bytes.begin(), bytes.end(), [&](std::uint8_t b) { return settings.stop[b]; });
    EXPECT_EQ(wanted[n].bytes, Bytes(bytes.begin(), first));
    ++(wanted[n].end == End::stop ? stopped : complete);
  }
  EXPECT_GT(stopped, 0);
  EXPECT_GT(complete, 0);
  for (Index const lanes : {1, 3, 8}) {
    settings.lanes = lanes;
    expect_same(run(model, settings, some_prompts()), wanted);
  }
}

TEST(SampleRun, PartsOfTheSamplesAreThoseOfTheWhole) {
  Model const model = make_model(Head::reference, {4, 3}, Position::rope);
  RunSettings const settings = settings_of(9, 3, 2);
  std::vector<Sample> const whole = run(model, settings, some_prompts());
  std::vector<Sample> parts;
  for (Index first = 0; first < 15; first += 5) {
    SampleRun part(*model, settings, some_prompts(), {}, first, first + 5);
    for (Sample& sample : part.run({})) parts.push_back(std::move(sample));
  }
  expect_same(parts, whole);
  EXPECT_TRUE(SampleRun(*model, settings, some_prompts(), {}, 7, 7).run({}).empty());
}

TEST(SampleRun, RanksMakeTheSameSamplesTogether) {
  parallel::Communicator const ranks;
  Model const model = make_model(Head::complete, {4, 3}, Position::rope);
  for (Index const samples : {1, 3}) {
    RunSettings const settings = settings_of(9, samples, 2);
    Index const total = samples * 5;
    SampleRun part(*model, settings, some_prompts(), {},
                   generate::first_sample(total, ranks.rank(), ranks.size()),
                   generate::first_sample(total, ranks.rank() + 1, ranks.size()));
    std::vector<Sample> const all = generate::gather(ranks, part.run({}));
    if (ranks.is_root()) {
      expect_same(all, run(model, settings, some_prompts()));
    } else {
      EXPECT_TRUE(all.empty());
    }
  }
}

TEST(FirstSample, DealsThemAllOut) {
  for (int const ranks : {1, 2, 3, 4, 7})
    for (Index const total : {1, 2, 5, 16}) {
      EXPECT_EQ(generate::first_sample(total, 0, ranks), 0);
      EXPECT_GT(generate::first_sample(total, 1, ranks), 0) << "the root has sample 0";
      EXPECT_EQ(generate::first_sample(total, ranks, ranks), total);
      for (int rank = 0; rank < ranks; ++rank) {
        Index const mine =
            generate::first_sample(total, rank + 1, ranks) - generate::first_sample(total, rank, ranks);
        EXPECT_GE(mine, total / ranks);
        EXPECT_LE(mine, (total + ranks - 1) / ranks);
      }
    }
}

TEST(WindowStart, KeepsTheLastHalfOfAFullWindow) {
  ModelConfig const even = small_config(Head::complete, {4, 3}, Position::fixed, 257, 256);
  Index const starts[] = {0, 0, 6, 6, 6, 6, 6, 6, 12, 12};
  for (Index i = 0; i < 10; ++i) EXPECT_EQ(generate::window_start(even, 10 + i), starts[i]) << 10 + i;
  // Whole positions of the outermost stage: 2 of 5; half of the bytes where there is only one.
  EXPECT_EQ(generate::window_start(small_config(Head::complete, {5, 3}, Position::fixed, 257, 256), 15), 9);
  EXPECT_EQ(generate::window_start(small_config(Head::complete, {1, 6}, Position::fixed, 257, 256), 6), 3);
  for (std::vector<Index> const& lens : {std::vector<Index>{1}, {2}, {1, 5}, {4, 3}, {3, 2, 3}}) {
    ModelConfig const config = small_config(Head::complete, lens, Position::fixed, 257, 256);
    for (Index length = 0; length < 5 * config.context(); ++length) {
      Index const start = generate::window_start(config, length);
      EXPECT_LE(start, length);
      EXPECT_LT(length - start, config.context()) << "there is room for the next byte";
      EXPECT_GE(start, length == 0 ? 0 : generate::window_start(config, length - 1));
    }
  }
}

TEST(SampleRun, SlidesAlongATextLongerThanThePositionTable) {
  for (Head const head : {Head::complete, Head::reference})
    for (std::vector<Index> const& lens : {std::vector<Index>{13}, {4, 3}, {3, 2, 3}, {1, 6}}) {
      SCOPED_TRACE(testing::PrintToString(lens));
      Model const model = make_model(head, lens, Position::fixed);
      RunSettings settings = settings_of(50, 2);
      settings.slide = true;
      std::vector<std::string> prompts = some_prompts();
      prompts.push_back(random_text(static_cast<std::size_t>(model->config().context()), 4));
      prompts.push_back(random_text(40, 5));
      std::vector<Sample> const wanted = one_by_one(model, settings, prompts);
      for (Index const lanes : {1, 3, 8}) {
        settings.lanes = lanes;
        expect_same(run(model, settings, prompts), wanted);
      }
    }
}

TEST(SampleRun, SlidingLeavesModelsWithoutTableAlone) {
  Model const model = make_model(Head::complete, {4, 3}, Position::rope);
  RunSettings settings = settings_of(50, 2);
  std::vector<Sample> const wanted = run(model, settings, some_prompts());
  settings.slide = true;
  expect_same(run(model, settings, some_prompts()), wanted);
}

TEST(SampleRun, ThePositionTableEndsASample) {
  Model const model = make_model(Head::complete, {4, 3}, Position::fixed);
  std::string const message = refusal(model, settings_of(9), {"", random_text(12, 1)});
  EXPECT_NE(message.find("after a prompt of 12 bytes the model has no room"), std::string::npos) << message;
  EXPECT_NE(message.find("ends at 12 bytes; --slide"), std::string::npos) << message;
  EXPECT_EQ(refusal(model, settings_of(9), {"", random_text(11, 1)}), "accepted");
  RunSettings settings = settings_of(1000, 2);
  settings.sampling.top_k = 1;
  std::vector<Sample> const samples = run(model, settings, {"four", ""});
  for (Sample const& sample : samples) {
    EXPECT_EQ(sample.end, End::full);
    EXPECT_EQ(sample.bytes.size(), sample.number < 2 ? 8U : 12U);
  }
}

TEST(SampleRun, AStateContinuesAsIfNothingHadHappened) {
  for (Head const head : {Head::complete, Head::reference})
    for (char const* letters : {"TT", "2T", "1T"})
      for (Index const before : {0, 1, 7}) {
        SCOPED_TRACE(std::string(letters) + " after " + std::to_string(before));
        Model const model = make_model(head, {4, 3}, Position::rope, letters);
        std::vector<Sample> const whole = run(model, settings_of(20), {"a prompt"});
        RunSettings first = settings_of(before);
        first.keep_state = true;
        SampleRun run_of_first(*model, first, {"a prompt"}, {}, 0, 1);
        Bytes bytes = run_of_first.run({}).at(0).bytes;
        std::optional<SavedState> const state = run_of_first.state();
        ASSERT_TRUE(state);
        std::string const text(state->bytes.begin(), state->bytes.end());
        EXPECT_EQ(text, "a prompt" + std::string(bytes.begin(), bytes.end()));
        std::vector<Sample> const rest = run(model, settings_of(20 - before), {""}, state);
        bytes.insert(bytes.end(), rest.at(0).bytes.begin(), rest.at(0).bytes.end());
        EXPECT_EQ(bytes, whole.at(0).bytes);
        // Sample 0 of several is the same one.
        EXPECT_EQ(run(model, settings_of(20 - before, 4, 3), {""}, state).at(0).bytes, rest.at(0).bytes);
      }
}

TEST(SampleRun, APromptFollowsAState) {
  Model const model = make_model(Head::complete, {4, 3}, Position::rope, "2T");
  RunSettings nothing = settings_of(0);
  nothing.keep_state = true;
  SampleRun reading(*model, nothing, {"a long "}, {}, 0, 1);
  reading.run({});
  EXPECT_EQ(reading.reading().bytes, 7);
  EXPECT_EQ(reading.making().bytes, 0);
  SavedState const state = reading.state().value();
  // Two prompts of 3 samples: each is read once, after the state.
  SampleRun more(*model, settings_of(5, 3, 2), {"one", "four"}, state, 0, 6);
  std::vector<Sample> const got = more.run({});
  EXPECT_EQ(more.reading().bytes, 7);
  EXPECT_EQ(more.making().bytes, 30);
  std::vector<Sample> const wanted = run(model, settings_of(5, 3), {"a long one", "a long four"});
  ASSERT_EQ(got.size(), 6U);
  // The same text in two calls differs by rounding only, which no draw here notices.
  for (std::size_t n = 0; n < 6; ++n) EXPECT_EQ(got[n].bytes, wanted[n].bytes) << n;
}

TEST(SampleRun, AStateSlidesToo) {
  Model const model = make_model(Head::complete, {4, 3}, Position::fixed);
  RunSettings first = settings_of(4);
  first.keep_state = true;
  SampleRun run_of_first(*model, first, {"eight by"}, {}, 0, 1);
  Bytes bytes = run_of_first.run({}).at(0).bytes;
  SavedState const state = run_of_first.state().value();
  RunSettings rest = settings_of(30);
  EXPECT_NE(refusal(model, rest, {""}, state).find("a state and a prompt of 12 bytes"), std::string::npos);
  rest.slide = true;
  Bytes const more = run(model, rest, {""}, state).at(0).bytes;
  bytes.insert(bytes.end(), more.begin(), more.end());
  rest.bytes = 34;
  EXPECT_EQ(bytes, run(model, rest, {"eight by"}).at(0).bytes);
  // A prompt that does not fit beside the state.
  rest.bytes = 8;
  std::string const text(state.bytes.begin(), state.bytes.end());
  EXPECT_EQ(run(model, rest, {"and more"}, state).at(0).bytes,
            run(model, rest, {text + "and more"}).at(0).bytes);
  first.slide = true;
  first.bytes = 5;
  EXPECT_NE(refusal(model, first, {"eight by"}).find("a state can be saved only up to the 12 bytes"),
            std::string::npos);
}

TEST(SampleRun, AStopRequestKeepsWhatWasMade) {
  Model const model = make_model(Head::complete, {4, 3}, Position::rope);
  std::vector<Sample> const whole = run(model, settings_of(30, 3), some_prompts());
  for (int const patience : {0, 1, 4, 9, 40}) {
    int asked = 0;
    RunEvents events;
    events.stop = [&] { return ++asked > patience; };
    std::vector<Sample> const got = run(model, settings_of(30, 3, 2), some_prompts(), {}, events);
    ASSERT_EQ(got.size(), whole.size());
    std::size_t made = 0;
    for (std::size_t n = 0; n < got.size(); ++n) {
      Bytes const& bytes = got[n].bytes;
      made += bytes.size();
      EXPECT_EQ(bytes, Bytes(whole[n].bytes.begin(),
                             whole[n].bytes.begin() + static_cast<std::ptrdiff_t>(bytes.size())));
      EXPECT_EQ(got[n].log_probabilities.size(), bytes.size());
      EXPECT_EQ(got[n].end == End::length, bytes.size() == 30);
    }
    EXPECT_EQ(made > 0, patience > 3) << patience;
    EXPECT_EQ(got.back().end, End::interrupted);
  }
}

TEST(SampleRun, AnInterruptedPromptLeavesNoState) {
  Model const model = make_model(Head::complete, {4, 3}, Position::rope);
  RunSettings settings = settings_of(9);
  settings.keep_state = true;
  for (int const patience : {1, 5}) {
    int asked = 0;
    RunEvents events;
    events.stop = [&] { return ++asked > patience; };
    SampleRun interrupted(*model, settings, {"text"}, {}, 0, 1);
    Bytes const bytes = interrupted.run(events).at(0).bytes;
    std::optional<SavedState> const state = interrupted.state();
    EXPECT_EQ(state.has_value(), patience == 5);
    if (state) {
      EXPECT_EQ(state->bytes.size(), 4 + bytes.size());
      EXPECT_EQ(state->lane.position, static_cast<Index>(state->bytes.size()));
      EXPECT_GT(bytes.size(), 0U);
    }
  }
}

TEST(SampleRun, ReportsEveryByteAndEnd) {
  Model const model = make_model(Head::complete, {4, 3}, Position::rope);
  RunSettings settings = settings_of(12, 2, 3);
  for (std::size_t byte = 0; byte < 256; byte += 20) settings.stop[byte] = true;
  std::vector<Bytes> seen(10);
  int ends = 0;
  RunEvents events;
  events.byte = [&](Index number, std::uint8_t byte) {
    seen[static_cast<std::size_t>(number)].push_back(byte);
  };
  events.end = [&](Sample const& sample) {
    ++ends;
    EXPECT_EQ(sample.bytes, seen[static_cast<std::size_t>(sample.number)]);
  };
  std::vector<Sample> const samples = run(model, settings, some_prompts(), {}, events);
  EXPECT_EQ(ends, 10);
  for (std::size_t n = 0; n < 10; ++n) EXPECT_EQ(seen[n], samples[n].bytes);
}

}  // namespace
}  // namespace strata::test
