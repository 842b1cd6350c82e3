// SPDX-License-Identifier: Apache-2.0
// Prompts read at once, lanes with pasts of their own, and lanes copied, saved and brought back.
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.hpp"
#include "generate/generator.hpp"
#include "generate/model_digest.hpp"
#include "generate/state_file.hpp"
#include "unit_tests/io/temp_folder.hpp"
#include "unit_tests/model/small_model.hpp"

namespace strata::test {
namespace {

using generate::Generator;

struct Case {
  std::vector<Index> lens;
  char const* letters;
  Position position;
  bool convolutions = false;
  std::vector<Index> seen = {};  ///< by cross-patch attention, of two layers where it is
};

std::vector<Case> cases() {
  return {{{13}, "T", Position::fixed},
          {{13}, "1", Position::none},
          {{13}, "2", Position::rope},
          {{5, 3}, "TT", Position::fixed},
          {{5, 3}, "2T", Position::rope},
          {{5, 3}, "12", Position::none},
          {{3, 2, 3}, "2TT", Position::none},
          {{3, 2, 3}, "T21", Position::rope},
          {{2, 2, 2, 3}, "T12T", Position::fixed},
          {{5, 3}, "TT", Position::fixed, true},
          {{2, 16}, "2T", Position::none, true},
          {{3, 2, 3}, "T21", Position::rope, true},
          {{7, 3}, "TT", Position::none, false, {0, 2}},
          {{5, 2, 2}, "TTT", Position::none, true, {0, 1, 2}}};
}

template <class T>
Hierarchy<T> make_model(Case const& c, Head head, std::uint64_t seed = 71) {
  ModelConfig config = with_blocks(small_config(head, c.lens, c.position, 40, 39), c.letters);
  if (!c.seen.empty() && head == Head::complete) config = with_cross_patch(config, c.seen);
  Hierarchy<T> model(c.convolutions ? with_convolutions(config) : config, {2, 7}, false);
  randomise(model.parameters(), seed);
  return model;
}

std::string name_of(Case const& c, Head head) {
  return testing::PrintToString(c.lens) + " " + c.letters +
         (head == Head::complete ? " complete" : " reference") + (c.convolutions ? " convolutions" : "");
}

Index context_of(Case const& c) {
  Index context = 1;
  for (Index const n : c.lens) context *= n;
  return context;
}

std::vector<std::int32_t> tokens_of(Index count, std::uint64_t seed) {
  Windows const windows({count}, 40, seed);
  return {windows.ids.begin(), windows.ids.end()};
}

template <class T>
std::vector<T> logits_of(Generator<T>& generator, Index lane) {
  std::span<T const> const logits = generator.logits(std::span<Index const>(&lane, 1));
  return {logits.begin(), logits.end()};
}

template <class T>
void append(Generator<T>& generator, Index lane, std::int32_t token) {
  generator.append(std::span<Index const>(&lane, 1), std::span<std::int32_t const>(&token, 1));
}

template <class T>
double difference(std::vector<T> const& a, std::vector<T> const& b) {
  double low = 1e300, high = -1e300, worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    low = std::min(low, static_cast<double>(b[i]));
    high = std::max(high, static_cast<double>(b[i]));
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return std::isnan(worst) ? 1e30 : worst / (high - low);
}

template <class T>
class Lanes : public testing::Test {
 protected:
  static constexpr double tolerance = std::is_same_v<T, double> ? 1e-11 : 1e-5;
};
using Precisions = testing::Types<float, double>;
TYPED_TEST_SUITE(Lanes, Precisions);

/// Every length of prompt, cut at every place, and then on token by token.
TYPED_TEST(Lanes, ReadPromptsAtOnce) {
  for (Head const head : {Head::complete, Head::reference})
    for (Case const& c : cases()) {
      SCOPED_TRACE(name_of(c, head));
      Hierarchy<TypeParam> const model = make_model<TypeParam>(c, head);
      Index const length = context_of(c);
      std::vector<std::int32_t> const tokens = tokens_of(length, 72);
      Generator<TypeParam> stepwise(model, 1);
      std::vector<std::vector<TypeParam>> wanted{logits_of(stepwise, 0)};
      for (Index t = 0; t + 1 < length; ++t) {
        append(stepwise, 0, tokens[static_cast<std::size_t>(t)]);
        wanted.push_back(logits_of(stepwise, 0));
      }
      Generator<TypeParam> reading(model, 1);
      std::span<std::int32_t const> const all(tokens);
      for (Index prompt = 0; prompt < length; ++prompt)
        for (Index cut = 0; cut <= prompt; ++cut) {
          reading.reset(0);
          reading.read(0, all.subspan(0, static_cast<std::size_t>(cut)));
          if (cut % 2 == 1) reading.logits(std::vector<Index>{0});
          reading.read(0, all.subspan(static_cast<std::size_t>(cut), static_cast<std::size_t>(prompt - cut)));
          ASSERT_EQ(reading.position(), prompt);
          for (Index t = prompt; t < std::min(prompt + 3, length); ++t) {
            ASSERT_LE(difference(logits_of(reading, 0), wanted[static_cast<std::size_t>(t)]), this->tolerance)
                << "prompt " << prompt << " cut at " << cut << ", token " << t;
            if (t + 1 < length) append(reading, 0, tokens[static_cast<std::size_t>(t)]);
          }
        }
    }
}

/// Lanes at different places give, to the bit, what each gives alone.
TYPED_TEST(Lanes, DoNotDependOnEachOther) {
  for (Head const head : {Head::complete, Head::reference})
    for (Case const& c : cases()) {
      SCOPED_TRACE(name_of(c, head));
      Hierarchy<TypeParam> const model = make_model<TypeParam>(c, head);
      Index const length = context_of(c);
      std::vector<Index> const prompts{0, 1, 4, 7};
      Generator<TypeParam> together(model, 4);
      std::vector<std::vector<std::int32_t>> tokens;
      std::vector<Generator<TypeParam>> alone;
      for (Index lane = 0; lane < 4; ++lane) {
        tokens.push_back(tokens_of(length, 80 + static_cast<std::uint64_t>(lane)));
        auto const prompt =
            std::span<std::int32_t const>(tokens.back())
                .subspan(0, static_cast<std::size_t>(prompts[static_cast<std::size_t>(lane)]));
        together.read(lane, prompt);
        alone.emplace_back(model, 1);
        alone.back().read(0, prompt);
      }
      for (Index step = 0;; ++step) {
        std::vector<Index> which;  // in an order of its own, and fewer and fewer
        std::vector<std::int32_t> next;
        for (Index lane = 3; lane >= 0; --lane) {
          Index const at = together.position(lane);
          if (at >= length || (lane == 2 && step > 2)) continue;
          which.push_back(lane);
          next.push_back(tokens[static_cast<std::size_t>(lane)][static_cast<std::size_t>(at)]);
        }
        if (which.empty()) break;
        std::span<TypeParam const> const span = together.logits(which);
        std::vector<TypeParam> const logits(span.begin(), span.end());
        for (std::size_t k = 0; k < which.size(); ++k) {
          auto& own = alone[static_cast<std::size_t>(which[k])];
          std::vector<TypeParam> const mine(logits.begin() + static_cast<std::ptrdiff_t>(40 * k),
                                            logits.begin() + static_cast<std::ptrdiff_t>(40 * (k + 1)));
          ASSERT_EQ(mine, logits_of(own, 0)) << "lane " << which[k] << " step " << step;
          append(own, 0, next[k]);
        }
        together.append(which, next);
      }
    }
}

TYPED_TEST(Lanes, AreCopiedAndEmptied) {
  for (Head const head : {Head::complete, Head::reference})
    for (Case const& c : cases()) {
      SCOPED_TRACE(name_of(c, head));
      Hierarchy<TypeParam> const model = make_model<TypeParam>(c, head);
      Index const length = context_of(c);
      std::vector<std::int32_t> const tokens = tokens_of(length, 90);
      for (Index cut = 0; cut < length; ++cut) {
        Generator<TypeParam> generator(model, 3);
        generator.read(2, std::span<std::int32_t const>(tokens).subspan(1, 2));
        std::vector<TypeParam> const untouched = logits_of(generator, 2);
        generator.read(1, std::span<std::int32_t const>(tokens).subspan(0, static_cast<std::size_t>(cut)));
        generator.read(0, std::span<std::int32_t const>(tokens).subspan(2, 3));
        generator.copy(1, 0);
        EXPECT_EQ(generator.position(0), cut);
        for (Index t = cut; t < length; ++t) {
          std::vector<Index> const both{0, 1};
          std::span<TypeParam const> const logits = generator.logits(both);
          ASSERT_TRUE(std::equal(logits.begin(), logits.begin() + 40, logits.begin() + 40)) << "token " << t;
          generator.append(both, std::vector<std::int32_t>(2, tokens[static_cast<std::size_t>(t)]));
        }
        EXPECT_EQ(logits_of(generator, 2), untouched);
        generator.reset(0);
        EXPECT_EQ(generator.position(0), 0);
        Generator<TypeParam> fresh(model, 1);
        EXPECT_EQ(logits_of(generator, 0), logits_of(fresh, 0));
      }
    }
}

/// A state goes on, to the bit, in another generator.
TYPED_TEST(Lanes, GoOnFromASavedState) {
  for (Head const head : {Head::complete, Head::reference})
    for (Case const& c : cases()) {
      SCOPED_TRACE(name_of(c, head));
      Hierarchy<TypeParam> const model = make_model<TypeParam>(c, head);
      Index const length = context_of(c);
      std::vector<std::int32_t> const tokens = tokens_of(length, 91);
      for (Index cut = 0; cut < length; ++cut) {
        Generator<TypeParam> first(model, 2), second(model, 3);
        first.read(1, std::span<std::int32_t const>(tokens).subspan(0, static_cast<std::size_t>(cut)));
        second.restore(2, first.state(1));
        for (Index t = cut; t < length; ++t) {
          ASSERT_EQ(logits_of(first, 1), logits_of(second, 2)) << "token " << t;
          append(first, 1, tokens[static_cast<std::size_t>(t)]);
          append(second, 2, tokens[static_cast<std::size_t>(t)]);
        }
      }
    }
}

TYPED_TEST(Lanes, RefuseStatesOfOtherModels) {
  Case const small{{5, 3}, "2T", Position::none}, other{{5, 3}, "T2", Position::none},
      longer{{9, 3}, "TT", Position::fixed}, shorter{{4, 3}, "TT", Position::fixed};
  Hierarchy<TypeParam> const a = make_model<TypeParam>(small, Head::complete),
                             b = make_model<TypeParam>(other, Head::complete),
                             c = make_model<TypeParam>(longer, Head::complete),
                             d = make_model<TypeParam>(shorter, Head::complete);
  Generator<TypeParam> from(a, 1), to(b, 1), much(c, 1), little(d, 1);
  from.read(0, std::span<std::int32_t const>(tokens_of(7, 92)));
  EXPECT_THROW(to.restore(0, from.state(0)), core::InputError);
  much.read(0, std::span<std::int32_t const>(tokens_of(20, 93)));
  EXPECT_THROW(little.restore(0, much.state(0)), core::InputError);
  generate::LaneState<TypeParam> damaged = from.state(0);
  damaged.stages[1].values.pop_back();
  EXPECT_THROW(from.restore(0, damaged), core::InputError);
  damaged = from.state(0);
  damaged.stages[0].rows += 1;
  EXPECT_THROW(from.restore(0, damaged), core::InputError);
  EXPECT_NO_THROW(to.logits());
}

/// The outermost stage without keys and positions takes any number of tokens and no memory for them.
TYPED_TEST(Lanes, GoOnWithoutLimitInStateSpaceModels) {
  Hierarchy<TypeParam> const model =
      make_model<TypeParam>({{3, 2, 3}, "2TT", Position::rope}, Head::complete);
  Hierarchy<TypeParam> const longer =
      make_model<TypeParam>({{40, 2, 3}, "2TT", Position::rope}, Head::complete);
  std::vector<std::int32_t> const tokens = tokens_of(200, 94);
  Generator<TypeParam> short_one(model, 1), long_one(longer, 1, 240);
  for (std::int32_t const token : tokens) append(short_one, 0, token);
  long_one.read(0, tokens);
  EXPECT_LE(difference(logits_of(short_one, 0), logits_of(long_one, 0)), this->tolerance);
}

TEST(StateFile, KeepsAStateAndKnowsItsModel) {
  TempFolder const folder;
  Hierarchy<float> const model = make_model<float>({{5, 3}, "2T", Position::none}, Head::complete);
  Hierarchy<float> const other = make_model<float>({{5, 3}, "2T", Position::none}, Head::complete, 5);
  std::string const path = folder / "state.h5";
  std::string const digest = generate::model_digest(model);
  EXPECT_NE(digest, generate::model_digest(other));
  for (Index const length : {0, 1, 8, 11}) {
    std::vector<std::int32_t> const tokens = tokens_of(length, 95);
    std::vector<std::uint8_t> const bytes(tokens.begin(), tokens.end());
    Generator<float> first(model, 1), second(model, 1);
    first.read(0, bytes);
    generate::save_state(path, digest, {bytes, first.state(0)});
    generate::SavedState const loaded = generate::load_state(path, digest);
    EXPECT_EQ(loaded.bytes, bytes);
    second.restore(0, loaded.lane);
    EXPECT_EQ(first.logits(), second.logits());
    EXPECT_THROW(generate::load_state(path, generate::model_digest(other)), core::InputError);
  }
  EXPECT_THROW(generate::load_state(folder / "none.h5", digest), core::InputError);
}

}  // namespace
}  // namespace strata::test
