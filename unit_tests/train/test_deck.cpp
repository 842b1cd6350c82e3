// SPDX-License-Identifier: Apache-2.0
// Decks: what is read, what is refused and in which words, what is written.
#include <gtest/gtest.h>

#include <sstream>

#include "deck_support.hpp"
#include "train/conflicts.hpp"
#include "train/scalars.hpp"

namespace strata::train {
namespace {

std::string const two_blocks = replaced(minimal, R"(  block:
    block_type: transformer
    attn_head_dims: 8
    attn_num_heads: 2
    attn_use_rot_embs: true
)",
                                        R"(  block:
    - &t {block_type: transformer, attn_head_dims: 8, attn_num_heads: 2, attn_use_rot_embs: true}
    - *t
)");

std::string const mamba2 = "{d_state: 128, d_conv: 4, expand: 2, headdim: 8}";

TEST(Deck, FillsInDefaults) {
  Deck const deck = parse_deck(minimal, "deck.yaml");
  EXPECT_EQ(deck.params.num_tokens, 257);
  EXPECT_EQ(deck.params.pad_token_id, 256);
  EXPECT_EQ(deck.params.head, model::Head::complete);
  ASSERT_EQ(deck.params.block.size(), 2U);
  EXPECT_EQ(deck.params.block[1].attn_num_heads, 2);
  EXPECT_EQ(deck.params.block[1].ff_multiplier, 2);
  EXPECT_EQ(deck.params.block[0].pos_emb_type, model::Position::none);
  EXPECT_TRUE(deck.train_checkpoint_chunks.empty());
  EXPECT_EQ(deck.train.target_elements, 8000000);
  EXPECT_EQ(deck.train.target_elements_strategy, TrainConfig::Strategy::sequence);
  EXPECT_DOUBLE_EQ(deck.train.warmup_steps_perc, 0.1);
  EXPECT_DOUBLE_EQ(deck.train.beta2, 0.95);
  EXPECT_EQ(deck.train.gradient_accumulate_every, 1);
  EXPECT_FALSE(deck.train.gradient_clipping.has_value());
  EXPECT_FALSE(deck.train.max_eval_steps.has_value());
  EXPECT_FALSE(deck.io.dataset.has_value());
  EXPECT_FALSE(deck.train.init_from.has_value());
  EXPECT_EQ(deck.run_folder(), std::filesystem::path("runs/small"));
  EXPECT_TRUE(deck.warnings.empty()) << deck.warnings.front();
}

TEST(Deck, TextReadsBackToTheSameDeck) {
  Deck const deck = parse_deck(
      minimal, "deck.yaml",
      {"train.gradient_clipping=0.1", "train.max_eval_steps=7", "train.seed=12345678901234567",
       "train.epsilon=1.5e-9", "io.description=\"two \\\"words\\\"\\nand a # sign: x\"",
       "io.dataset=data/ä b.h5", "params.block.pos_emb_type=fixed", "params.train_checkpoint_chunks=[3]",
       "params.head=reference", "resume.checkpoint_file=old.h5", "train.target_elements_strategy=batch",
       "io.name_model=null-ish", "params.block.attn_dropout=0.30000000000000004"});
  std::string const text = deck.text();
  Deck const again = parse_deck(text, "text");
  EXPECT_EQ(again.text(), text);
  EXPECT_TRUE(again.warnings.empty()) << again.warnings.front();
  EXPECT_EQ(again.train.seed, 12345678901234567U);
  EXPECT_EQ(again.train.max_eval_steps, 7);
  EXPECT_EQ(again.train.epsilon, 1.5e-9);
  EXPECT_EQ(again.params.block[1].attn_dropout, 0.30000000000000004);
  EXPECT_EQ(again.io.description, "two \"words\"\nand a # sign: x");
  EXPECT_EQ(again.io.dataset, "data/ä b.h5");
  EXPECT_EQ(again.train.init_from, "old.h5");
  EXPECT_EQ(again.params.head, model::Head::reference);
  EXPECT_EQ(again.params.block[0].pos_emb_type, model::Position::fixed);
  EXPECT_EQ(again.train_checkpoint_chunks, std::vector<Index>{3});
  Deck const plain = parse_deck(minimal, "deck.yaml");
  EXPECT_NE(plain.text(), text);
  EXPECT_EQ(parse_deck(plain.text(), "text").text(), plain.text());
}

TEST(Deck, TextNamesEveryKeyThatHasAMeaning) {
  std::string const text =
      parse_deck(two_blocks, "deck.yaml", {"resume.checkpoint_file=a.h5", "params.block.1=" + mamba2}).text();
  std::string const reference = key_reference();
  std::istringstream lines(reference);
  int rows = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("| `", 0) != 0) continue;
    ++rows;
    std::string const key = line.substr(3, line.find('`', 3) - 3);
    bool const without_effect = line.find("Accepted, without effect") != std::string::npos ||
                                line.find("Other form:") != std::string::npos ||
                                line.find("Refused:") != std::string::npos;
    EXPECT_EQ(text.find(key + ":") == std::string::npos, without_effect) << line;
  }
  EXPECT_GT(rows, 50);
}

TEST(Deck, NumbersInEverySpelling) {
  auto const target = [](std::string const& word) {
    return parse_deck(minimal, "deck.yaml", {"train.target_elements=" + word}).train.target_elements;
  };
  EXPECT_EQ(target("8_000_000"), 8000000);
  EXPECT_EQ(target("30e9"), 30000000000);
  EXPECT_EQ(target("30_000_000_000"), 30000000000);
  EXPECT_EQ(target("1.5e3"), 1500);
  EXPECT_EQ(target("2e+2"), 200);
  EXPECT_EQ(target("+7"), 7);
  EXPECT_EQ(target("7.0"), 7);
  EXPECT_EQ(target("4611686018427387903"), 4611686018427387903);
  for (std::string const word :
       {"1e-3",  "1.5", "abc",  "'8'", "1__0",   "_1", "1_",   "010",  "0x10",
        "1e400", "nan", ".inf", "[1]", "{a: 1}", "",   "null", "true", "99999999999999999999",
        "1e19",  "--1", "1e",   "9,5"})
    EXPECT_TRUE(says(refusal_with("train.target_elements=" + word),
                     {"deck.yaml", "train.target_elements", "whole number"}))
        << word;
  EXPECT_DOUBLE_EQ(parse_deck(minimal, "d", {"train.learning_rate=3"}).train.learning_rate, 3);
  EXPECT_DOUBLE_EQ(parse_deck(minimal, "d", {"train.learning_rate=5e-4"}).train.learning_rate, 5e-4);
  for (std::string const word : {"fast", "nan", ".inf", "1e999", "'0.1'", "null", "[0.1]", "0.1.2"})
    EXPECT_TRUE(
        says(refusal_with("train.learning_rate=" + word), {"train.learning_rate", "must be a number"}))
        << word;
}

TEST(Deck, SizesInEverySpelling) {
  auto const memory = [](std::string const& word) {
    return parse_deck(minimal, "deck.yaml", {"train.memory=" + word}).train.memory.value().bytes;
  };
  EXPECT_EQ(memory("1000"), 1000);
  EXPECT_EQ(memory("80G"), 80'000'000'000);
  EXPECT_EQ(memory("80 GB"), 80'000'000'000);
  EXPECT_EQ(memory("600M"), 600'000'000);
  EXPECT_EQ(memory("1.5GiB"), 1'610'612'736);
  EXPECT_EQ(memory("1.5Gi"), 1'610'612'736);
  EXPECT_EQ(memory("2kB"), 2000);
  EXPECT_EQ(memory("2KiB"), 2048);
  EXPECT_EQ(memory("0.5t"), 500'000'000'000);
  EXPECT_EQ(memory("3e9"), 3'000'000'000);
  EXPECT_EQ(memory("4096B"), 4096);
  EXPECT_FALSE(parse_deck(minimal, "d", {"train.memory=null"}).train.memory.has_value());
  EXPECT_FALSE(parse_deck(minimal, "d").train.memory.has_value());
  for (std::string const word :
       {"G", "80X", "8iB", "80 G B", "1e", "-5G", "'80G'", "true", "[1]", "80GG", "9e18T"})
    EXPECT_TRUE(says(refusal_with("train.memory=" + word), {"train.memory", "bytes"})) << word;
  EXPECT_TRUE(says(refusal_with("train.memory=0"), {"train.memory must be at least 1"}));
  Deck const deck = parse_deck(minimal, "d", {"train.memory=1.5GiB"});
  EXPECT_EQ(parse_deck(deck.text(), "text").train.memory.value().bytes, 1'610'612'736);
  EXPECT_EQ(size_text(999), "999 bytes");
  EXPECT_EQ(size_text(1234), "1.23 kB");
  EXPECT_EQ(size_text(999'600), "1.00 MB");
  EXPECT_EQ(size_text(12'345'678), "12.3 MB");
  EXPECT_EQ(size_text(123.4e12), "123 TB");
}

TEST(Deck, PolicyOfTheOutermostStagesTapes) {
  auto const tapes = [](std::vector<std::string> const& overrides) {
    return parse_deck(minimal, "d", overrides).train.outer_tapes;
  };
  EXPECT_EQ(tapes({}), std::nullopt);
  EXPECT_EQ(tapes({"train.outer_tapes=auto"}), std::nullopt);
  EXPECT_EQ(tapes({"train.outer_tapes=keep"}), model::OuterTapes::keep);
  EXPECT_EQ(tapes({"train.outer_tapes=rebuild"}), model::OuterTapes::rebuild);
  EXPECT_EQ(tapes({"train.outer_tapes=two_level"}), model::OuterTapes::two_level);
  EXPECT_TRUE(
      says(refusal_with("train.outer_tapes=drop"), {"train.outer_tapes", "auto, keep, rebuild, two_level"}));
  EXPECT_EQ(parse_deck(minimal, "d", {"train.border_interval=7"}).train.border_interval, 7);
  EXPECT_TRUE(says(refusal_with("train.border_interval=-1"), {"train.border_interval must be at least 0"}));
  // The older key.
  EXPECT_EQ(tapes({"train.outer_recompute=true"}), model::OuterTapes::rebuild);
  EXPECT_EQ(tapes({"train.outer_recompute=false"}), model::OuterTapes::keep);
  EXPECT_EQ(tapes({"train.outer_recompute=true", "train.outer_tapes=rebuild"}), model::OuterTapes::rebuild);
  for (std::string const other : {"auto", "keep", "two_level"})
    EXPECT_TRUE(says(refusal(minimal, {"train.outer_recompute=true", "train.outer_tapes=" + other}),
                     {"train.outer_recompute is true", "remove outer_recompute"}));
  std::string const text = parse_deck(minimal, "d", {"train.outer_recompute=true"}).text();
  EXPECT_NE(text.find("outer_tapes: rebuild"), std::string::npos);
  EXPECT_EQ(text.find("outer_recompute"), std::string::npos);
}

TEST(Deck, MemoryKeysMayChangeWhenARunGoesOn) {
  std::string const stored = parse_deck(minimal, "d").text();
  std::string const wanted =
      parse_deck(minimal, "d", {"train.outer_tapes=two_level", "train.border_interval=3", "train.memory=8G"})
          .text();
  EXPECT_EQ(conflicting_key(stored, wanted), std::nullopt);
  // As written by versions that had outer_recompute instead.
  std::string const old = replaced(stored, "outer_tapes: auto", "outer_recompute: false");
  EXPECT_EQ(conflicting_key(old, wanted), std::nullopt);
  EXPECT_NE(conflicting_key(stored, parse_deck(minimal, "d", {"train.seed=2"}).text()), std::nullopt);
}

TEST(Deck, Booleans) {
  for (std::string const word : {"true", "True", "yes", "on"})
    EXPECT_TRUE(parse_deck(minimal, "d", {"train.shuffle_train=" + word}).train.shuffle_train);
  for (std::string const word : {"false", "FALSE", "no", "off"})
    EXPECT_FALSE(parse_deck(minimal, "d", {"train.shuffle_train=" + word}).train.shuffle_train);
  for (std::string const word : {"1", "0", "'true'", "null", "[]", "perhaps"})
    EXPECT_TRUE(says(refusal_with("train.shuffle_train=" + word), {"train.shuffle_train", "true or false"}))
        << word;
}

TEST(Deck, UnknownKeysNameTheNearestKnownOne) {
  EXPECT_TRUE(says(
      refusal_with("train.learning_rat=1"),
      {"deck.yaml", "train.learning_rat is not a known key", "nearest known key is train.learning_rate"}));
  EXPECT_TRUE(says(refusal_with("train.bacth_size=1"), {"train.batch_size"}));
  EXPECT_TRUE(says(refusal_with("params.hidden_dim=[1]"), {"params.hidden_dims"}));
  EXPECT_TRUE(says(refusal_with("params.block.attn_num_head=4"),
                   {"params.block.attn_num_head ", "params.block.attn_num_heads"}));
  EXPECT_TRUE(says(refusal_with("io.outputdir=x"), {"io.output_dir"}));
  EXPECT_TRUE(says(refusal_with("resume.checkpoint=x"), {"resume.checkpoint_file"}));
  EXPECT_TRUE(
      says(refusal_with("trian.batch_size=1"), {"trian is not a known key", "nearest known key is train"}));
  // A key of another section is named with its section.
  EXPECT_TRUE(says(refusal_with("train.dataset=x"), {"nearest known key is io.dataset"}));
  EXPECT_TRUE(says(refusal_with("io.batch_size=1"), {"nearest known key is train.batch_size"}));
  EXPECT_TRUE(
      says(refusal(std::string(minimal) + "learning_rate: 1\n"), {"deck.yaml:20:", "train.learning_rate"}));
  // The typo is reported, not the missing key that it leaves behind.
  EXPECT_TRUE(says(refusal(replaced(minimal, "batch_size:", "batchsize:")),
                   {"deck.yaml:15: train.batchsize is not a known key", "train.batch_size"}));
  EXPECT_TRUE(says(refusal_with("params.block.d_stat=4"), {"params.block.d_stat", "nearest known key"}));
}

TEST(Deck, MissingKeysAndSections) {
  for (char const* key : {"hidden_dims", "num_layers", "seq_lens", "input_seq_len"})
    EXPECT_TRUE(says(refusal(replaced(minimal, std::string("  ") + key, "  #")),
                     {std::string("params.") + key, "missing"}));
  for (char const* key : {"attn_head_dims", "attn_num_heads", "attn_use_rot_embs"})
    EXPECT_TRUE(says(refusal(replaced(minimal, std::string("    ") + key, "    #")),
                     {std::string("params.block.") + key, "missing"}));
  for (char const* key : {"target_elements:", "target_elements_strategy:", "batch_size:", "learning_rate:"})
    EXPECT_TRUE(says(refusal(replaced(minimal, key, "#")), {"train.", "missing"})) << key;
  for (char const* key : {"name_model", "output_dir"})
    EXPECT_TRUE(says(refusal(replaced(minimal, key, "#")), {std::string("io.") + key, "missing"}));
  EXPECT_TRUE(says(refusal("params: {}\n"), {"params.hidden_dims is missing"}));
  EXPECT_TRUE(says(refusal("train: {}\nio: {}\n"), {"section params is missing"}));
  std::string const text = minimal;
  EXPECT_TRUE(says(refusal(text.substr(0, text.find("io:"))), {"section io is missing"}));
  EXPECT_TRUE(says(refusal(replaced(minimal, "io:", "io: 3 #")), {"deck.yaml"}));
  EXPECT_TRUE(says(refusal(minimal, {"train=3"}), {"section.key=value"}));
  EXPECT_TRUE(
      says(refusal(text.substr(0, text.find("io:")) + "io: [1, 2]\n"), {"io must be a mapping", "a list"}));
  EXPECT_TRUE(says(refusal(text.substr(0, text.find("io:")) + "io:\n"), {"io must be a mapping", "null"}));
}

TEST(Deck, RangesNameKeyAndValue) {
  struct Case {
    char const* change;
    std::vector<std::string> parts;
  };
  std::vector<Case> const cases{
      {"train.batch_size=0", {"train.batch_size must be at least 1", "it is 0"}},
      {"train.batch_size=-3", {"train.batch_size", "-3"}},
      {"train.batch_size=1e15", {"train.batch_size", "at most"}},
      {"train.learning_rate=0", {"train.learning_rate must be above 0", "it is 0"}},
      {"train.learning_rate=-1e-3", {"train.learning_rate", "-0.001"}},
      {"train.warmup_steps_perc=1.5", {"train.warmup_steps_perc must be at least 0 and at most 1", "1.5"}},
      {"train.gradient_clipping=0", {"train.gradient_clipping must be above 0"}},
      {"train.gradient_accumulate_every=0", {"train.gradient_accumulate_every"}},
      {"train.target_elements=0", {"train.target_elements must be at least 1"}},
      {"train.target_elements_strategy=bytes", {"must be one of batch, sequence", "'bytes'"}},
      {"train.beta1=1", {"train.beta1 must be at least 0 and below 1"}},
      {"train.epsilon=0", {"train.epsilon"}},
      {"train.seed=-1", {"train.seed"}},
      {"train.outer_chunk=-1", {"train.outer_chunk"}},
      {"io.validate_amount=0", {"io.validate_amount must be at least 1"}},
      {"io.num_models_to_save=-1", {"io.num_models_to_save"}},
      {"io.name_model=a/b", {"io.name_model", "without slashes", "'a/b'"}},
      {"io.name_model=..", {"io.name_model"}},
      {"io.name_model=''", {"io.name_model"}},
      {"io.output_dir=''", {"io.output_dir"}},
      {"io.dataset=''", {"io.dataset"}},
      {"io.dataset=[a]", {"io.dataset must be a text", "a list"}},
      {"params.num_tokens=0", {"params.num_tokens"}},
      {"params.num_tokens=70000", {"params.num_tokens", "65536"}},
      {"params.pad_token_id=300", {"params.pad_token_id", "257", "300"}},
      {"params.hidden_dims=[32]", {"params.hidden_dims has 1 entries, num_layers 2 and seq_lens 2"}},
      {"params.hidden_dims=[32, 0]", {"params.hidden_dims.1 must be at least 1"}},
      {"params.hidden_dims=[32, abc]", {"params.hidden_dims.1 must be a whole number"}},
      {"params.hidden_dims=32", {"params.hidden_dims must be a list of whole numbers", "'32'"}},
      {"params.input_seq_len=0", {"params.input_seq_len"}},
      {"params.head=full", {"params.head must be one of complete, reference"}},
      {"params.train_checkpoint_chunks=[1, 2]",
       {"params.train_checkpoint_chunks has 2 entries; 2 stages need 1"}},
      {"params.train_checkpoint_chunks=[0]", {"params.train_checkpoint_chunks.0"}},
      {"params.block.pos_emb_type=learned", {"params.block.pos_emb_type must be one of null, fixed, rope"}},
      {"params.block.block_type=lstm", {"params.block.block_type must be one of transformer", "'lstm'"}},
      {"params.block.attn_head_dims=7", {"params.block", "stage 1 is 7", "even"}},
      {"params.block.attn_dropout=1", {"params.block.attn_dropout", "below 1"}},
      {"params.block.ff_multiplier=0", {"params.block.ff_multiplier"}},
      {"params.block=3", {"params.block must be a mapping"}},
      {"params.block.block_type=transformerEncoder", {"transformerEncoder", "reference"}},
      {"params.seq_lens=[4e10, 4e10]", {"params.seq_lens"}},
      {"params.mask_token_id=3", {"params.mask_token_id cannot be used", "masked"}},
  };
  for (Case const& c : cases) EXPECT_TRUE(says(refusal_with(c.change), c.parts)) << c.change;
}

TEST(Deck, WindowsBeyondFixedPositionsAreRefused) {
  EXPECT_TRUE(says(refusal(minimal, {"params.block.pos_emb_type=fixed", "params.input_seq_len=513"}),
                   {"params.input_seq_len is 513", "512"}));
  EXPECT_EQ(parse_deck(minimal, "d", {"params.block.pos_emb_type=fixed"}).input_seq_len, 512);
  EXPECT_EQ(parse_deck(minimal, "d", {"params.input_seq_len=100_000"}).input_seq_len, 100000);
}

TEST(Deck, MaxEvalStepsZeroMeansNull) {
  EXPECT_FALSE(parse_deck(minimal, "d", {"train.max_eval_steps=0"}).train.max_eval_steps.has_value());
  EXPECT_FALSE(parse_deck(minimal, "d", {"train.max_eval_steps=null"}).train.max_eval_steps.has_value());
  EXPECT_EQ(parse_deck(minimal, "d", {"train.max_eval_steps=5"}).train.max_eval_steps, 5);
}

TEST(Deck, OneBlockPerStage) {
  Deck const deck = parse_deck(two_blocks, "d", {"params.block.0.attn_num_heads=4"});
  EXPECT_EQ(deck.params.block[0].attn_num_heads, 4);
  EXPECT_EQ(deck.params.block[1].attn_num_heads, 2) << "an override changed the other user of an anchor";
  EXPECT_TRUE(says(refusal(two_blocks, {"params.block.2.attn_num_heads=4"}), {"params.block.2", "0 to 1"}));
  EXPECT_TRUE(says(refusal(two_blocks, {"params.block.x=4"}), {"0 to 1", "'x'"}));
  EXPECT_TRUE(
      says(refusal(two_blocks, {"params.block.1.heads=4"}), {"params.block.1.heads", "params.block.1."}));
  EXPECT_TRUE(says(refusal(two_blocks, {"params.block=[]"}), {"params.block lists 0 blocks", "2 stages"}));
  EXPECT_TRUE(says(refusal(two_blocks, {"params.block.1=7"}), {"params.block.1 must be a mapping"}));
}

TEST(Deck, MissingBlockTypeIsATransformerWithAWarning) {
  Deck const deck = parse_deck(replaced(minimal, "    block_type: transformer\n", ""), "deck.yaml");
  EXPECT_EQ(deck.params.block[0].block_type, model::BlockType::transformer);
  ASSERT_EQ(deck.warnings.size(), 1U);
  EXPECT_TRUE(says(deck.warnings[0], {"deck.yaml", "params.block", "transformerEncoder"}));
}

TEST(Deck, MambaBlocksAreRead) {
  Deck const deck = parse_deck(two_blocks, "d", {"params.block.0=" + mamba2});
  EXPECT_TRUE(deck.warnings.empty()) << deck.warnings.front();
  model::BlockConfig const& block = deck.params.block[0];
  EXPECT_EQ(block.block_type, model::BlockType::mamba2) << "no block_type, but d_state";
  EXPECT_EQ(block.d_state, 128);
  EXPECT_EQ(block.d_conv, 4);
  EXPECT_EQ(block.expand, 2);
  EXPECT_EQ(block.headdim, 8);
  EXPECT_EQ(block.dropout, 0);
  EXPECT_EQ(block.pos_emb_type, model::Position::none);
  EXPECT_EQ(deck.params.block[1].block_type, model::BlockType::transformer);
  for (auto const& [word, type] :
       {std::pair("mamba", model::BlockType::mamba2), std::pair("mamba2", model::BlockType::mamba2),
        std::pair("mamba1", model::BlockType::mamba1)}) {
    Deck const named = parse_deck(minimal, "d",
                                  {"params.block={block_type: " + std::string(word) +
                                   ", d_state: 3, d_conv: 1, expand: 3, headdim: 16, pos_emb_type: fixed}"});
    for (model::BlockConfig const& b : named.params.block) {
      EXPECT_EQ(b.block_type, type) << word;
      EXPECT_EQ(b.d_state, 3);
      EXPECT_EQ(b.pos_emb_type, model::Position::fixed);
    }
  }
}

TEST(Deck, MambaBlocksAreWrittenOut) {
  Deck const deck = parse_deck(two_blocks, "d",
                               {"params.block.0={block_type: mamba2, d_state: 12, d_conv: 3, expand: 3, "
                                "headdim: 24, dropout: 0.25, pos_emb_type: rope}",
                                "params.block.1={block_type: mamba1, d_state: 5, d_conv: 4, expand: 2}"});
  EXPECT_TRUE(deck.warnings.empty()) << deck.warnings.front();
  Deck const again = parse_deck(deck.text(), "text");
  EXPECT_EQ(again.text(), deck.text());
  EXPECT_TRUE(again.warnings.empty()) << again.warnings.front();
  EXPECT_EQ(again.params.block[0].block_type, model::BlockType::mamba2);
  EXPECT_EQ(again.params.block[0].headdim, 24);
  EXPECT_EQ(again.params.block[0].dropout, 0.25);
  EXPECT_EQ(again.params.block[1].block_type, model::BlockType::mamba1);
  EXPECT_EQ(again.params.block[1].d_state, 5);
}

TEST(Deck, Mamba1HasNeitherHeadsNorDropout) {
  auto const read = [](std::string const& more) {
    return parse_deck(minimal, "deck.yaml",
                      {"params.block={block_type: mamba1, d_state: 16, d_conv: 4, expand: 2" + more + "}"});
  };
  EXPECT_TRUE(read("").warnings.empty());
  EXPECT_TRUE(read(", dropout: 0").warnings.empty());
  Deck const deck = read(", headdim: 7, dropout: 0.1");
  EXPECT_EQ(deck.warnings.size(), 2U);
  EXPECT_TRUE(
      warned(deck, "deck.yaml: params.block.headdim has no meaning here: a mamba1 block has no heads"));
  EXPECT_TRUE(warned(deck, "params.block.dropout has no meaning here: a mamba1 block has no dropout"));
  EXPECT_EQ(deck.params.block[0].dropout, 0);
  EXPECT_TRUE(parse_deck(deck.text(), "text").warnings.empty());
  EXPECT_TRUE(says(refusal(minimal, {"params.block={block_type: mamba1, d_state: 16, d_conv: 4, expand: 2, "
                                     "dropout: 1}"}),
                   {"params.block.dropout must be at least 0 and below 1; it is 1"}));
}

TEST(Deck, ImpossibleMambaBlocksAreRefusedWithTheNumbers) {
  struct Case {
    char const* block;
    std::vector<std::string> parts;
  };
  std::vector<Case> const cases{
      {"{d_state: 128, d_conv: 4, expand: 2, headdims: 64}",
       {"params.block.headdims is not a known key; the nearest known key is params.block.headdim"}},
      {"{d_stat: 128, d_conv: 4, expand: 2, headdim: 64}",
       {"params.block.d_stat is not a known key; the nearest known key is params.block.d_state"}},
      {"{d_state: -1, d_conv: 4, expand: 2, headdim: 64}", {"params.block.d_state must be at least 1", "-1"}},
      {"{d_state: 1, d_conv: 0, expand: 2, headdim: 64}",
       {"params.block.d_conv must be at least 1", "it is 0"}},
      {"{d_state: 1, d_conv: 4, expand: 0, headdim: 64}",
       {"params.block.expand must be at least 1", "it is 0"}},
      {"{d_state: 1, d_conv: 4, expand: 2, headdim: 0}",
       {"params.block.headdim must be at least 1", "it is 0"}},
      {"{d_state: 1, d_conv: 4, expand: 2}", {"params.block.headdim is missing"}},
      {"{block_type: mamba1, d_conv: 4, expand: 2}", {"params.block.d_state is missing"}},
      {"{block_type: mamba3, d_state: 1, d_conv: 4, expand: 2}",
       {"params.block.block_type must be one of transformer, transformerEncoder, mamba1, mamba2",
        "'mamba3'"}},
      {"{d_state: 1, d_conv: 4, expand: 2, headdim: 24}",
       {"params.block: headdim 24 of stage 1 does not divide its 64 channels (expand 2 times hidden_dims "
        "32)"}},
      {"{d_state: 1, d_conv: 4, expand: 2, headdim: 64}", {"headdim 64 of stage 2", "32 channels"}},
      {"{d_state: 1, d_conv: 4, expand: 2, headdim: 8, dropout: 1}", {"params.block.dropout", "below 1"}},
      {"{block_type: transformer, attn_head_dims: 8, attn_num_heads: 2, attn_use_rot_embs: true, d_state: 4}",
       {"params.block.d_state is a key of Mamba blocks, but this is a Transformer block"}},
      {"{attn_num_heads: 2, d_state: 1, d_conv: 4, expand: 2, headdim: 8}",
       {"params.block.attn_num_heads is a key of Transformer blocks, but this is a Mamba block"}},
  };
  for (Case const& c : cases)
    EXPECT_TRUE(says(refusal(minimal, {std::string("params.block=") + c.block}), c.parts)) << c.block;
}

TEST(Deck, KeysWithoutMeaningAreAcceptedWithAReason) {
  Deck const deck =
      parse_deck(minimal, "deck.yaml",
                 {"io.enabled_loss_log_for_gpus=[0]", "io.dataset_dir=/data", "io.dataset_id=pg19",
                  "io.dataset_args=null", "params.block.use_flash_attn=true", "resume.checkpoint_file=a.pth",
                  "resume.next_epoch_index=0", "resume.next_batch_index=3", "resume.migrate_embeddings=false",
                  "resume.rename_modules=true", "resume.resumed_from=null"});
  for (char const* key :
       {"io.enabled_loss_log_for_gpus", "io.dataset_dir", "io.dataset_id", "io.dataset_args",
        "params.block.use_flash_attn", "resume.next_epoch_index", "resume.next_batch_index",
        "resume.migrate_embeddings", "resume.rename_modules", "resume.resumed_from"})
    EXPECT_TRUE(warned(deck, std::string("deck.yaml: ") + key + " has no meaning here: ")) << key;
  EXPECT_EQ(deck.train.init_from, "a.pth");
  EXPECT_TRUE(warned(deck, "strata pack"));
}

TEST(Deck, InitFromIsResumesOtherForm) {
  auto const origin = [](std::vector<std::string> const& overrides) {
    return parse_deck(minimal, "deck.yaml", overrides);
  };
  EXPECT_EQ(origin({"train.init_from=a.h5"}).train.init_from, "a.h5");
  EXPECT_EQ(origin({"resume.checkpoint_file=b.h5"}).train.init_from, "b.h5");
  EXPECT_EQ(origin({"resume.checkpoint_file=null"}).train.init_from, std::nullopt);
  Deck const both = origin({"train.init_from=a.h5", "resume.checkpoint_file=b.h5"});
  EXPECT_EQ(both.train.init_from, "a.h5");
  EXPECT_TRUE(
      warned(both, "resume.checkpoint_file has no meaning here: train.init_from names other weights"));
  EXPECT_TRUE(origin({"train.init_from=a.h5", "resume.checkpoint_file=a.h5"}).warnings.empty());
  EXPECT_TRUE(says(refusal_with("train.init_from=''"), {"train.init_from", "empty"}));
}

TEST(Deck, PadInsideTheBytesIsWarnedAbout) {
  Deck const deck = parse_deck(minimal, "deck.yaml", {"params.num_tokens=256", "params.pad_token_id=0"});
  EXPECT_TRUE(warned(deck, "params.pad_token_id is 0"));
  EXPECT_TRUE(warned(deck, "byte 0 in the data is taken for padding and never scored"));
}

TEST(Deck, DataIsAskedForOnlyWhenNeeded) {
  try {
    static_cast<void>(parse_deck(minimal, "d").dataset());
    FAIL();
  } catch (core::InputError const& error) {
    EXPECT_TRUE(says(error.what(), {"strata pack", "io.dataset"}));
  }
  EXPECT_EQ(parse_deck(minimal, "d", {"io.dataset=x.h5"}).dataset(), "x.h5");
}

TEST(Deck, DuplicateKeysAreRefused) {
  EXPECT_TRUE(says(refusal(replaced(minimal, "  batch_size: 4", "  batch_size: 4\n  batch_size: 5")),
                   {"deck.yaml:16: train.batch_size is given twice"}));
  EXPECT_TRUE(says(refusal(std::string(minimal) + "io: {}\n"), {"io is given twice"}));
  EXPECT_TRUE(says(
      refusal(replaced(minimal, "    attn_head_dims: 8", "    attn_head_dims: 8\n    attn_head_dims: 8")),
      {"params.block.attn_head_dims is given twice"}));
  // An override must not hide a duplicate.
  EXPECT_TRUE(says(refusal(replaced(minimal, "  batch_size: 4", "  batch_size: 4\n  batch_size: 5"),
                           {"train.batch_size=6"}),
                   {"given twice"}));
}

TEST(Words, EditDistance) {
  EXPECT_EQ(edit_distance("", ""), 0U);
  EXPECT_EQ(edit_distance("abc", ""), 3U);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);
  EXPECT_EQ(edit_distance("bacth", "batch"), 1U);
  EXPECT_EQ(nearest("TRAIN", {"params", "train", "io"}), "train");
}

}  // namespace
}  // namespace strata::train
