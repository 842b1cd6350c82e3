// SPDX-License-Identifier: Apache-2.0
// Plans of memory: what they are made of, which policy they take, and what they advise when nothing fits.
// test_memory.py compares them with the memory of runs.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.hpp"
#include "deck_support.hpp"
#include "kernels/reduce.hpp"
#include "model/hierarchy.hpp"
#include "parallel/deterministic_sum.hpp"
#include "train/checkpoint.hpp"
#include "train/plan.hpp"

namespace strata::train {
namespace {

using model::OuterTapes;

char const* const mamba = "{d_state: 16, d_conv: 4, expand: 2, headdim: 16}";
char const* const attention =
    "{block_type: transformer, attn_head_dims: 16, attn_num_heads: 2, attn_use_rot_embs: true}";

/// A long window in some hundred time chunks, of which each policy keeps a different amount.
Deck long_deck(std::vector<std::string> changes = {}, char const* outer = mamba) {
  std::vector<std::string> all = {"params.hidden_dims=[64, 32]",
                                  "params.num_layers=[3, 1]",
                                  "params.seq_lens=[100000, 8]",
                                  "params.input_seq_len=160000",
                                  std::string("params.block=[") + outer + ", " + attention + "]",
                                  "train.outer_chunk=100",
                                  "train.inner_rows=800",
                                  "train.batch_size=2"};
  all.insert(all.end(), changes.begin(), changes.end());
  return parse_deck(minimal, "deck.yaml", all);
}

MemoryLimit limit_of(double bytes, double base = 40e6) {
  MemoryLimit limit;
  limit.bytes = bytes;
  limit.base = base;
  return limit;
}

/// The least memory in which so much fits.
MemoryLimit just_enough(double planned) { return limit_of(40e6 + (1 + MemoryLimit::margin) * planned + 1); }

double total(Deck const& deck, OuterTapes policy, DataFacts const& data = {}) {
  return plan_with(deck, data, policy).total();
}

double bytes_of(MemoryPlan const& plan, std::string const& what) {
  double sum = 0;
  for (MemoryUse const& use : plan.uses)
    if (use.what == what) sum += use.bytes;
  return sum;
}

TEST(Plan, ConsistsOfParametersArenaAndBuffers) {
  Deck const deck = long_deck({"train.outer_tapes=keep"});
  MemoryPlan const plan = make_plan(deck, {}, {});
  model::Hierarchy<float> real(deck.params, chunking(deck), true);
  auto const flat = static_cast<double>(real.parameters().flat_size());
  EXPECT_EQ(bytes_of(plan, "parameters"), 4 * flat);
  EXPECT_EQ(bytes_of(plan, "gradients"), 4 * flat);
  EXPECT_EQ(bytes_of(plan, "optimiser: first moments"), 4 * flat);
  EXPECT_EQ(bytes_of(plan, "optimiser: second moments"), 4 * flat);
  EXPECT_EQ(plan.training_arena, static_cast<double>(real.arena_bytes(2, 160000, true)));
  EXPECT_EQ(plan.evaluation_arena, static_cast<double>(real.arena_bytes(2, 160000, false)));
  double sum = 0;
  double arena = 0;
  std::vector<std::string> seen;
  for (MemoryUse const& use : plan.uses) {
    EXPECT_GT(use.bytes, 0) << use.what;
    EXPECT_EQ(std::count(seen.begin(), seen.end(), use.what), 0) << use.what;
    seen.push_back(use.what);
    sum += use.bytes;
    if (use.what.starts_with("stage ") || use.what.starts_with("logits")) arena += use.bytes;
  }
  if (!kernels::on_device) {
    EXPECT_EQ(plan.total(), sum);
  }
  EXPECT_EQ(arena, plan.training_arena);
  EXPECT_FALSE(plan.evaluation_is_larger);
  // Two windows of bytes in each of three batches, for training and for validation.
  EXPECT_NEAR(bytes_of(plan, "windows read ahead: training"), 3 * 2 * 160000, 1000);
  EXPECT_NEAR(bytes_of(plan, "windows read ahead: validation"), 3 * 2 * 160000, 1000);
  EXPECT_EQ(plan.outer_chunk, 100);
  EXPECT_EQ(plan.outer_chunks, 200);
  EXPECT_EQ(plan.inner_rows, std::vector<Index>{800});
}

TEST(Plan, FollowsTheData) {
  Deck const deck = long_deck({"train.outer_tapes=rebuild"});
  DataFacts data;
  data.train_bytes = 1000;
  data.validation_bytes = 0;
  MemoryPlan const small = make_plan(deck, data, {});
  EXPECT_EQ(small.evaluation_arena, 0);
  EXPECT_EQ(bytes_of(small, "windows read ahead: validation"), 0);
  EXPECT_NEAR(bytes_of(small, "windows read ahead: training"), 6000, 500);
  EXPECT_EQ(small.outer_chunks, 2);
  data.wide = true;
  data.train_weights = true;
  EXPECT_NEAR(bytes_of(make_plan(deck, data, {}), "windows read ahead: training"), 6 * 6000, 500);
  Deck const validating =
      long_deck({"train.outer_tapes=rebuild", "train.eval_batch_size=200", "train.batch_size=1"});
  MemoryPlan const plan = make_plan(validating, {}, {});
  EXPECT_TRUE(plan.evaluation_is_larger);
  EXPECT_GT(plan.evaluation_arena, plan.training_arena);
}

TEST(Plan, CountsBuffersOfSums) {
  Deck const deck = long_deck({"train.deterministic=true", "train.gradient_accumulate_every=4"});
  MemoryPlan const plan = make_plan(deck, {}, {});
  auto const store = model::Hierarchy<float>::plan(deck.params, chunking(deck));
  double const flat = bytes_of(plan, "parameters") / 4;
  EXPECT_EQ(
      bytes_of(plan, "sums in fixed order"),
      static_cast<double>(parallel::DeterministicSum<float>::buffer_bytes(static_cast<Index>(flat), 8, 1)));
  EXPECT_GE(bytes_of(plan, "sums in fixed order"), 3 * 4 * flat);
  // Each window is its own batch then.
  EXPECT_EQ(plan.training_arena, static_cast<double>(store.arena_bytes(1, 160000, true)));
  EXPECT_EQ(bytes_of(make_plan(long_deck(), {}, {}), "messages between ranks"), 0);
  DataFacts ranks;
  ranks.ranks = 2;
  EXPECT_GT(bytes_of(make_plan(long_deck(), ranks, {}), "messages between ranks"), 0);
}

TEST(Plan, SharesTheMomentsOut) {
  DataFacts ranks;
  ranks.ranks = 4;
  MemoryPlan const whole = make_plan(long_deck(), ranks, {});
  MemoryPlan const shared = make_plan(long_deck({"train.shard_optimizer=true"}), ranks, {});
  for (char const* moment : {"optimiser: first moments", "optimiser: second moments"}) {
    EXPECT_EQ(bytes_of(whole, moment), bytes_of(whole, "parameters"));
    EXPECT_GE(bytes_of(shared, moment), bytes_of(whole, moment) / 4);
    EXPECT_LE(bytes_of(shared, moment), bytes_of(whole, moment) / 4 + 2 * 4 * 8192);
  }
  EXPECT_EQ(bytes_of(shared, "messages between ranks"), bytes_of(whole, "messages between ranks"));
  MemoryPlan const small = make_plan(long_deck({"train.bucket_size=4k"}), ranks, {});
  EXPECT_LT(bytes_of(small, "messages between ranks"), bytes_of(whole, "messages between ranks"));
  // Alone there is nobody to share with, in a fixed order all ranks still get all sums.
  EXPECT_EQ(make_plan(long_deck({"train.shard_optimizer=true"}), {}, {}).total(),
            make_plan(long_deck(), {}, {}).total());
  MemoryPlan const fixed = make_plan(long_deck({"train.shard_optimizer=true", "train.deterministic=true",
                                                "train.gradient_accumulate_every=4"}),
                                     ranks, {});
  EXPECT_EQ(bytes_of(fixed, "optimiser: first moments"), bytes_of(shared, "optimiser: first moments"));
  EXPECT_GT(bytes_of(fixed, "messages between ranks"), 0);
}

TEST(Plan, AutomaticPolicyIsTheFirstThatFits) {
  Deck const deck = long_deck();
  double const keep = total(deck, OuterTapes::keep);
  double const rebuild = total(deck, OuterTapes::rebuild);
  double const two_level = total(deck, OuterTapes::two_level);
  ASSERT_GT(keep, 1.2 * rebuild);
  ASSERT_GT(rebuild, 1.2 * two_level);
  auto const chosen = [&](double planned) { return make_plan(deck, {}, just_enough(planned)); };
  EXPECT_EQ(chosen(keep).chunking.outer_tapes, OuterTapes::keep);
  EXPECT_TRUE(chosen(keep).passed_over.empty());
  EXPECT_TRUE(chosen(keep).is_automatic);
  EXPECT_EQ(chosen(keep - 1000).chunking.outer_tapes, OuterTapes::rebuild);
  EXPECT_EQ(chosen(rebuild).chunking.outer_tapes, OuterTapes::rebuild);
  EXPECT_EQ(chosen(rebuild - 1000).chunking.outer_tapes, OuterTapes::two_level);
  EXPECT_EQ(chosen(two_level).chunking.outer_tapes, OuterTapes::two_level);
  EXPECT_EQ(chosen(two_level).passed_over.size(), 2U);
  EXPECT_EQ(chosen(two_level - 1000).chunking.outer_tapes, OuterTapes::two_level);
  std::string const line = describe(chosen(rebuild), just_enough(rebuild));
  EXPECT_TRUE(says(line, {"predicted", "available", "rebuild (auto; keep would take",
                          "200 time chunks of 100", "inner chunks of 800 rows"}));
  // A policy that the deck names is taken, whatever there is.
  Deck const pinned = long_deck({"train.outer_tapes=two_level", "train.border_interval=5"});
  MemoryPlan const plan = make_plan(pinned, {}, {});
  EXPECT_EQ(plan.chunking.outer_tapes, OuterTapes::two_level);
  EXPECT_EQ(plan.chunking.border_interval, 5);
  EXPECT_FALSE(plan.is_automatic);
  EXPECT_GT(plan.total(), two_level);
}

/// The deck with the advised changes.
Deck changed(Deck const& deck, std::vector<std::string> const& change) {
  return parse_deck(deck.text(), "changed", change);
}

/// The advice fits, and holds a change of each of these keys and of no other.
void expect_advice(Deck const& deck, MemoryLimit const& limit, std::vector<std::string> const& keys) {
  std::vector<std::string> const change = nearest_change(deck, {}, limit);
  ASSERT_EQ(change.size(), keys.size()) << testing::PrintToString(change);
  for (std::size_t i = 0; i < keys.size(); ++i)
    EXPECT_TRUE(change[i].starts_with(keys[i] + "=")) << change[i];
  Deck const after = changed(deck, change);
  EXPECT_TRUE(limit.fits(make_plan(after, {}, limit).total())) << testing::PrintToString(change);
  EXPECT_EQ(after.train.batch_size * after.train.gradient_accumulate_every,
            deck.train.batch_size * deck.train.gradient_accumulate_every);
  std::string const text = refusal(deck, {}, limit);
  EXPECT_TRUE(says(text, {"bytes predicted", fmt::format("({:.0f} bytes)", limit.bytes), change.front()}));
  EXPECT_THROW(checked_plan(deck, {}, limit), core::InputError);
  EXPECT_NO_THROW(checked_plan(after, {}, limit));
}

TEST(Plan, RefusalNamesAChangeThatFits) {
  Deck const keep = long_deck({"train.outer_tapes=keep"});
  double const rebuild = total(keep, OuterTapes::rebuild);
  double const two_level = total(keep, OuterTapes::two_level);
  expect_advice(keep, just_enough(rebuild), {"train.outer_tapes"});
  EXPECT_EQ(nearest_change(keep, {}, just_enough(rebuild)).front(), "train.outer_tapes=rebuild");
  EXPECT_EQ(nearest_change(keep, {}, just_enough(two_level)).front(), "train.outer_tapes=two_level");
  // The policy is free already: chunks come next.
  expect_advice(long_deck({"train.inner_rows=80000", "train.outer_chunk=10000"}),
                just_enough(total(long_deck({"train.inner_rows=1000", "train.outer_chunk=10000"}),
                                  OuterTapes::two_level)),
                {"train.inner_rows"});
  expect_advice(
      long_deck({"train.outer_chunk=20000", "train.inner_rows=64"}),
      just_enough(total(long_deck({"train.outer_chunk=3000", "train.inner_rows=64"}), OuterTapes::two_level)),
      {"train.outer_chunk"});
  // Many windows of few positions: only their number helps.
  std::vector<std::string> const short_windows = {"params.input_seq_len=64", "train.batch_size=512",
                                                  "train.inner_rows=64", "train.outer_chunk=1"};
  Deck const many = long_deck(short_windows, attention);
  Deck const one = changed(many, {"train.batch_size=1", "train.gradient_accumulate_every=512"});
  expect_advice(many, just_enough(1.01 * total(one, OuterTapes::two_level)),
                {"train.batch_size", "train.gradient_accumulate_every"});
  // Nothing but a shorter window.
  Deck const single = long_deck(
      {"train.batch_size=1", "train.inner_rows=64", "train.outer_chunk=64", "train.outer_tapes=two_level"},
      attention);
  Deck const shorter = changed(single, {"params.input_seq_len=8000"});
  MemoryLimit const limit = just_enough(total(shorter, OuterTapes::two_level));
  expect_advice(single, limit, {"params.input_seq_len"});
  EXPECT_EQ(changed(single, nearest_change(single, {}, limit)).input_seq_len, 8000);
}

TEST(Plan, RefusalNamesTheSmallestMemoryWhenNothingHelps) {
  Deck const deck = long_deck();
  MemoryLimit limit = limit_of(41e6);
  limit.is_given = true;
  EXPECT_TRUE(nearest_change(deck, {}, limit).empty());
  EXPECT_TRUE(says(refusal(deck, {}, limit), {"not even a window of 8 bytes", "train.memory="}));
  double const enough = smallest_memory(deck, {}, limit);
  EXPECT_TRUE(limit_of(enough).fits(make_plan(deck, {}, limit_of(enough)).total()));
  EXPECT_FALSE(limit_of(0.98 * enough).fits(make_plan(deck, {}, limit_of(0.98 * enough)).total()));
}

TEST(Plan, LongestContextIsTheLongest) {
  for (char const* outer : {mamba, attention}) {
    for (OuterTapes const policy : {OuterTapes::keep, OuterTapes::rebuild, OuterTapes::two_level}) {
      for (double const bytes : {80e6, 333e6, 2e9}) {
        Deck deck = long_deck({}, outer);
        MemoryLimit const limit = limit_of(bytes);
        Index const longest = longest_context(deck, {}, policy, limit);
        ASSERT_GT(longest, 0);
        EXPECT_EQ(longest % 8, 0);
        deck.input_seq_len = longest;
        EXPECT_TRUE(limit.fits(total(deck, policy))) << longest;
        deck.input_seq_len = longest + 1;
        EXPECT_FALSE(limit.fits(total(deck, policy))) << longest;
      }
    }
  }
  Deck const deck = long_deck();
  EXPECT_EQ(longest_context(deck, {}, OuterTapes::keep, limit_of(41e6)), 0);
  EXPECT_EQ(longest_context(deck, {}, OuterTapes::rebuild, limit_of(2e9), 4000), 4000);
  Deck const fixed = parse_deck(minimal, "fixed", {"params.block.pos_emb_type=fixed", "train.batch_size=1"});
  EXPECT_EQ(longest_context(fixed, {}, OuterTapes::keep, limit_of(2e9)), fixed.params.context());
}

TEST(Plan, LongContextsInShortChunks) {
  // A time chunk of one position, and more memory than there is.
  Deck const deck = long_deck({"train.outer_chunk=1"});
  EXPECT_GT(longest_context(deck, {}, OuterTapes::rebuild, limit_of(1e12)), Index{100000000});
  EXPECT_GT(longest_context(deck, {}, OuterTapes::keep, limit_of(1e12)), Index{1000000});
}

}  // namespace
}  // namespace strata::train
