// SPDX-License-Identifier: Apache-2.0
// Log-probabilities of texts read byte by byte, against the evaluation of datasets made from them.
#include "generate/score.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "train/evaluation.hpp"
#include "unit_tests/model/small_model.hpp"
#include "unit_tests/train/tiny_run.hpp"

namespace strata::test {
namespace {

using generate::Score;

std::span<std::uint8_t const> bytes_of(std::string const& text) {
  return {reinterpret_cast<std::uint8_t const*>(text.data()), text.size()};
}

std::string noise(std::size_t size, std::uint64_t seed) {
  Random random(seed);
  std::string text(size, ' ');
  for (char& c : text) c = static_cast<char>(random.next());
  return text;
}

std::vector<Score> score_of(Hierarchy<float> const& model, std::vector<std::string> const& texts,
                            Index window, Index lanes, parallel::Communicator const& ranks) {
  std::vector<std::span<std::uint8_t const>> spans;
  for (std::string const& text : texts) spans.push_back(bytes_of(text));
  return generate::score(model, spans, window, lanes, ranks).value();
}

class Scores : public testing::Test {
 protected:
  parallel::Communicator const ranks_;
  parallel::Communicator const alone_{MPI_COMM_SELF};
  SharedFolder const folder_{ranks_};
};

/// Logits agree to 1e-5 of their range, so a byte's loss does to twice that. The range is below 20 here.
TEST_F(Scores, AreThoseOfAnEvaluation) {
  std::vector<std::string> const texts{words(1000, 3), noise(700, 4), noise(24, 5), "x"};
  auto const path_of = [&](std::size_t t) { return folder_ / ("data" + std::to_string(t) + ".h5"); };
  for (std::size_t t = 0; t < texts.size() && ranks_.is_root(); ++t)
    write_dataset(path_of(t), {texts[t]}, {texts[t]});
  ranks_.barrier();
  for (Head const head : {Head::complete, Head::reference})
    for (std::vector<Index> const& lens : {std::vector<Index>{24}, {6, 4}, {4, 2, 3}})
      for (Index const pad : {256, 'e' + 0})
        for (Index const window : {24, 10}) {
          SCOPED_TRACE(testing::PrintToString(lens) + (head == Head::complete ? " complete" : " reference") +
                       " pad " + std::to_string(pad) + " window " + std::to_string(window));
          Hierarchy<float> model(small_config(head, lens, Position::fixed, 257, pad), {}, false);
          randomise(model.parameters(), 71);
          std::vector<Score> const scores = score_of(model, texts, window, 0, ranks_);
          ASSERT_EQ(scores.size(), texts.size());
          for (std::size_t t = 0; t < texts.size(); ++t) {
            train::EvaluationSettings settings;
            settings.window = window;
            settings.batch_size = 5;
            io::DatasetFile const file(path_of(t));
            train::Evaluation const evaluation = train::Evaluator(model, file, ranks_, settings).run();
            EXPECT_EQ(scores[t].bytes, evaluation.total.bytes);
            EXPECT_NEAR(scores[t].nats, evaluation.total.nats, 4e-4 * static_cast<double>(scores[t].bytes));
          }
        }
}

/// To the last bit.
TEST_F(Scores, DoNotDependOnLanesOrRanks) {
  Hierarchy<float> model(small_config(Head::complete, {6, 4}, Position::rope, 257, 256), {}, false);
  randomise(model.parameters(), 72);
  std::vector<std::string> const texts{noise(901, 6), "", words(77, 1)};
  std::vector<Score> const wanted = score_of(model, texts, 30, 1, alone_);
  EXPECT_EQ(wanted[1].bytes, 0);
  EXPECT_EQ(wanted[1].nats, 0);
  for (Index const lanes : {3, 8, 0}) {
    std::vector<Score> const scores = score_of(model, texts, 30, lanes, ranks_);
    for (std::size_t t = 0; t < texts.size(); ++t) {
      EXPECT_EQ(scores[t].bytes, wanted[t].bytes);
      EXPECT_EQ(scores[t].nats, wanted[t].nats);
    }
  }
  EXPECT_EQ(score_of(model, {"", ""}, 30, 0, ranks_)[1].bytes, 0);
}

TEST_F(Scores, RefuseWhatTheModelHasNoPlaceFor) {
  Hierarchy<float> model(small_config(Head::complete, {6, 4}, Position::fixed, 120, 119), {}, false);
  randomise(model.parameters(), 73);
  EXPECT_EQ(message_of<core::InputError>([&] {
              score_of(model, {"abc", "xyz"}, 24, 0, alone_);
            }),
            "byte 120 is outside the model's vocabulary of 120");
  EXPECT_NE(message_of<core::InputError>([&] {
              score_of(model, {std::string(100, 'a')}, 25, 0, alone_);
            }).find("fixed positions end at 24"),
            std::string::npos);
  EXPECT_EQ(score_of(model, {"abc"}, 25, 0, alone_)[0].bytes, 3) << "the window is the text";
}

}  // namespace
}  // namespace strata::test
