// SPDX-License-Identifier: Apache-2.0
// Token by token with carries, against the forward pass of whole windows.
#include "generate/generator.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/error.hpp"
#include "model/predictions.hpp"
#include "unit_tests/model/small_model.hpp"

namespace strata::test {
namespace {

using generate::Generator;

std::vector<std::int64_t> random_ids(Index count, std::uint64_t seed) {
  Windows const windows({count}, 40, seed);
  return {windows.ids.begin(), windows.ids.end()};
}

std::vector<std::int32_t> column(std::vector<std::int64_t> const& ids, Index batch, Index length, Index t) {
  std::vector<std::int32_t> tokens;
  for (Index b = 0; b < batch; ++b)
    tokens.push_back(static_cast<std::int32_t>(ids[static_cast<std::size_t>(b * length + t)]));
  return tokens;
}

/// Largest error of the logits of token t as a fraction of the range of all logits.
template <class T>
double error(std::vector<T> const& got, model::Predictions const& wanted, Index t) {
  double low = 1e300, high = -1e300, worst = 0;
  for (double const z : wanted.logits) {
    if (std::isnan(z)) continue;
    low = std::min(low, z);
    high = std::max(high, z);
  }
  for (Index b = 0; b < wanted.windows; ++b)
    for (Index v = 0; v < wanted.vocabulary; ++v) {
      double const d = std::abs(
          static_cast<double>(got[static_cast<std::size_t>(b * wanted.vocabulary + v)]) - wanted.at(b, t)[v]);
      worst = std::isnan(d) ? 1e30 : std::max(worst, d);
    }
  return worst / (high - low);
}

std::vector<std::vector<Index>> stage_lists() { return {{13}, {4, 3}, {3, 2, 3}, {2, 2, 2, 3}}; }

Index product(std::vector<Index> const& lens) {
  Index context = 1;
  for (Index const n : lens) context *= n;
  return context;
}

template <class T>
class Generation : public testing::Test {
 protected:
  static constexpr double tolerance = std::is_same_v<T, double> ? 1e-11 : 1e-5;
};
using Precisions = testing::Types<float, double>;
TYPED_TEST_SUITE(Generation, Precisions);

TYPED_TEST(Generation, GivesTheLogitsOfTheWholeWindow) {
  for (Head const head : {Head::complete, Head::reference}) {
    for (std::vector<Index> const& lens : stage_lists()) {
      for (Position const position : {Position::none, Position::fixed, Position::rope}) {
        SCOPED_TRACE(testing::PrintToString(lens) + (head == Head::complete ? " complete" : " reference") +
                     " position " + std::to_string(static_cast<int>(position)));
        Hierarchy<TypeParam> model(small_config(head, lens, position, 40, 39), {2, 7}, false);
        randomise(model.parameters(), 41);
        Index const length = product(lens);
        std::vector<std::int64_t> const ids = random_ids(3 * length, 42);
        model::Predictions const p = model::predict(model, ids, 3);
        Generator<TypeParam> generator(model, 3);
        EXPECT_LE(error(generator.logits(), p, 0), this->tolerance);
        for (Index t = 1; t <= length; ++t) {
          EXPECT_EQ(generator.position(), t - 1);
          std::vector<TypeParam> const logits = generator.step(column(ids, 3, length, t - 1));
          if (t < length || head == Head::reference) {
            EXPECT_LE(error(logits, p, t), this->tolerance) << "token " << t;
          }
          // Asking twice changes nothing.
          EXPECT_EQ(generator.logits(), logits);
        }
        EXPECT_THROW(generator.append({1, 2, 3}), core::InputError);
        EXPECT_EQ(generator.position(), length);
      }
    }
  }
}

/// Every block continues from its carry, as the outermost stage and further in.
TYPED_TEST(Generation, GivesTheLogitsOfTheWholeWindowWithEveryBlock) {
  struct Mix {
    std::vector<Index> lens;
    char const* letters;
  };
  for (Head const head : {Head::complete, Head::reference})
    for (Mix const& mix : {Mix{{13}, "1"},
                           {{13}, "2"},
                           {{4, 3}, "2T"},
                           {{4, 3}, "12"},
                           {{3, 2, 3}, "2T1"},
                           {{3, 2, 3}, "T21"},
                           {{2, 2, 2, 3}, "212T"}}) {
      SCOPED_TRACE(mix.letters + std::string(head == Head::complete ? " complete" : " reference"));
      Hierarchy<TypeParam> model(
          with_blocks(small_config(head, mix.lens, Position::none, 40, 39), mix.letters), {2, 7}, false);
      randomise(model.parameters(), 51);
      Index const length = product(mix.lens);
      std::vector<std::int64_t> const ids = random_ids(3 * length, 52);
      model::Predictions const p = model::predict(model, ids, 3);
      Generator<TypeParam> generator(model, 3);
      for (Index t = 0; t < length; ++t) {
        EXPECT_LE(error(generator.logits(), p, t), this->tolerance) << "token " << t;
        generator.append(column(ids, 3, length, t));
      }
    }
}

/// The bytes before a patch that its convolutions reach for are at hand when it is complete.
TYPED_TEST(Generation, GivesTheLogitsOfTheWholeWindowWithConvolutions) {
  for (Head const head : {Head::complete, Head::reference})
    for (std::vector<Index> const& lens :
         std::vector<std::vector<Index>>{{14, 1}, {9, 4}, {3, 16}, {3, 2, 3}, {4, 4, 2}}) {
      SCOPED_TRACE(testing::PrintToString(lens) + (head == Head::complete ? " complete" : " reference"));
      Hierarchy<TypeParam> model(with_convolutions(small_config(head, lens, Position::fixed, 40, 39)), {2, 7},
                                 false);
      randomise(model.parameters(), 55);
      Index const length = product(lens);
      std::vector<std::int64_t> const ids = random_ids(3 * length, 56);
      model::Predictions const p = model::predict(model, ids, 3);
      Generator<TypeParam> generator(model, 3);
      for (Index t = 0; t < length; ++t) {
        EXPECT_LE(error(generator.logits(), p, t), this->tolerance) << "token " << t;
        generator.append(column(ids, 3, length, t));
      }
      // A lane that starts anew has forgotten what stood in it.
      generator.reset(1);
      for (Index t = 0; t < length; ++t) {
        Index const lane = 1;
        std::int32_t const token = column(ids, 3, length, t)[1];
        std::span<TypeParam const> const logits = generator.logits(std::span<Index const>(&lane, 1));
        for (Index v = 0; v < p.vocabulary; ++v)
          EXPECT_NEAR(logits[static_cast<std::size_t>(v)], p.at(1, t)[v], 100 * this->tolerance)
              << "token " << t;
        generator.append(std::span<Index const>(&lane, 1), std::span<std::int32_t const>(&token, 1));
      }
    }
}

/// Keys and values of the patch before are still there when the next one begins.
TYPED_TEST(Generation, GivesTheLogitsOfTheWholeWindowWithCrossPatchAttention) {
  struct Stages {
    std::vector<Index> lens, seen;
  };
  for (Stages const& c :
       {Stages{{7, 3}, {0, 2}}, {{5, 2}, {0, 2}}, {{4, 3, 4}, {0, 1, 3}}, {{3, 2, 3}, {0, 2, 0}}})
    for (bool const rotary : {true, false}) {
      SCOPED_TRACE(testing::PrintToString(c.lens) + (rotary ? " rotary" : ""));
      ModelConfig config =
          with_cross_patch(small_config(Head::complete, c.lens, Position::none, 40, 39), c.seen);
      config.block[1].attn_use_rot_embs = rotary;
      Hierarchy<TypeParam> model(config, {2, 7}, false);
      randomise(model.parameters(), 53);
      Index const length = product(c.lens);
      std::vector<std::int64_t> const ids = random_ids(3 * length, 54);
      model::Predictions const p = model::predict(model, ids, 3);
      Generator<TypeParam> generator(model, 3);
      for (Index t = 0; t < length; ++t) {
        EXPECT_LE(error(generator.logits(), p, t), this->tolerance) << "token " << t;
        generator.append(column(ids, 3, length, t));
      }
      ModelConfig const without = with_cross_patch(config, std::vector<Index>(c.lens.size(), 0));
      Hierarchy<TypeParam> other(without, {2, 7}, false);
      randomise(other.parameters(), 53);
      EXPECT_GT(relative_difference(p.logits, model::predict(other, ids, 3).logits), 1e-3);
    }
}

/// Reading a prompt without asking for logits leads to the same place.
TYPED_TEST(Generation, ReadsPromptsSilently) {
  for (Head const head : {Head::complete, Head::reference}) {
    Hierarchy<TypeParam> model(small_config(head, {3, 2, 3}, Position::fixed, 40, 39), {}, false);
    randomise(model.parameters(), 43);
    std::vector<std::int64_t> const ids = random_ids(18, 44);
    Generator<TypeParam> asked(model, 1), silent(model, 1);
    std::vector<TypeParam> logits;
    for (Index t = 0; t < 17; ++t) {
      logits = asked.step(column(ids, 1, 18, t));
      silent.append(column(ids, 1, 18, t));
    }
    EXPECT_EQ(silent.logits(), logits);
  }
}

/// The token after a full window, which head `complete` predicts by one more row of the outermost stage.
TYPED_TEST(Generation, PredictsTheTokenAfterAFullWindow) {
  for (std::vector<Index> const& lens : stage_lists()) {
    SCOPED_TRACE(testing::PrintToString(lens));
    Hierarchy<TypeParam> model(small_config(Head::complete, lens, Position::rope, 40, 39), {}, false);
    std::vector<Index> longer = lens;
    ++longer[0];
    Hierarchy<TypeParam> reference(small_config(Head::complete, longer, Position::rope, 40, 39), {}, false);
    randomise(model.parameters(), 45);
    randomise(reference.parameters(), 45);
    Index const length = product(lens);
    std::vector<std::int64_t> const ids = random_ids(product(longer), 46);
    Generator<TypeParam> generator(model, 1);
    for (Index t = 0; t < length; ++t) generator.append(column(ids, 1, product(longer), t));
    EXPECT_LE(error(generator.logits(), model::predict(reference, ids, 1), length), this->tolerance);
  }
}

/// Without a position table a sequence may be longer than the model's context, and as short as asked for.
TYPED_TEST(Generation, KeepsToTheLengthAskedFor) {
  Hierarchy<TypeParam> free(small_config(Head::complete, {4, 3}, Position::rope, 40, 39), {}, false);
  Hierarchy<TypeParam> table(small_config(Head::complete, {4, 3}, Position::fixed, 40, 39), {}, false);
  randomise(free.parameters(), 47);
  randomise(table.parameters(), 47);
  std::vector<std::int64_t> const ids = random_ids(20, 48);
  model::Predictions const p = model::predict(free, ids, 1);
  Generator<TypeParam> longer(free, 1, 20), shorter(free, 1, 5), capped(table, 1, 20);
  for (Index t = 0; t < 20; ++t) {
    EXPECT_LE(error(longer.logits(), p, t), this->tolerance) << "token " << t;
    longer.append(column(ids, 1, 20, t));
    if (t < 5) shorter.append(column(ids, 1, 20, t));
    if (t < 12) capped.append(column(ids, 1, 20, t));
  }
  EXPECT_LE(error(shorter.logits(), p, 5), this->tolerance);
  EXPECT_THROW(longer.append({1}), core::InputError);
  EXPECT_THROW(shorter.append({1}), core::InputError);
  EXPECT_THROW(capped.append({1}), core::InputError);
}

TYPED_TEST(Generation, StartsFromAnEmptyPrompt) {
  for (std::vector<Index> const& lens : stage_lists()) {
    for (Head const head : {Head::complete, Head::reference}) {
      Hierarchy<TypeParam> model(small_config(head, lens, Position::fixed, 40, 39), {}, false);
      randomise(model.parameters(), 49);
      std::vector<TypeParam> const first = Generator<TypeParam>(model, 1).logits();
      std::vector<double> const start = generate::empty_prompt_logits(model);
      double const difference = relative_difference(std::vector<double>(first.begin(), first.end()), start);
      if (head == Head::complete || lens.size() == 1) {
        EXPECT_LE(difference, this->tolerance);
      } else {
        EXPECT_GT(difference, 1e-3) << "the package's two paths differ";
      }
    }
  }
}

TYPED_TEST(Generation, RefusesWhatItCannotDo) {
  ModelConfig config = small_config(Head::reference, {4, 3}, Position::fixed, 40, 39);
  Hierarchy<TypeParam> const causal(config, {}, false);
  Generator<TypeParam> generator(causal, 2);
  EXPECT_THROW(generator.append({1, 40}), core::InputError);
  EXPECT_THROW(generator.append({-1, 1}), core::InputError);
  EXPECT_THROW(generator.append({1}), std::logic_error);
  EXPECT_EQ(generator.position(), 0);
  config.block[0].block_type = model::BlockType::transformer_encoder;
  Hierarchy<TypeParam> const encoder(config, {}, false);
  EXPECT_THROW(Generator<TypeParam>(encoder, 1), core::InputError);
}

}  // namespace
}  // namespace strata::test
