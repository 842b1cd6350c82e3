// SPDX-License-Identifier: Apache-2.0
// Decks that are no decks, decks of the Python package and the decks of this repository.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "deck_support.hpp"
#include "model/cost.hpp"

namespace strata::train {
namespace {

TEST(Deck, MalformedOverrides) {
  for (std::string const text :
       {"batch_size=3", "train.batch_size", "=3", ".=3", "train.=3", ".x=3", "train..x=3", ""})
    EXPECT_TRUE(says(refusal_with(text), {"override", "section.key=value"})) << text;
  EXPECT_TRUE(says(refusal_with("train.batch_size=[1"), {"override", "not valid YAML"}));
  EXPECT_TRUE(says(refusal_with("train.batch_size.x=1"), {"train.batch_size.x", "plain value"}));
  EXPECT_TRUE(says(refusal_with("a.b.c.d.e.f.g.h.i.j.k=1"), {"override"}));
  EXPECT_TRUE(says(refusal_with("train.batch_size=abc"), {"command line", "train.batch_size", "'abc'"}));
}

TEST(Deck, TextsThatAreNoDecks) {
  std::string const deep(100000, '[');
  std::string billion = "a: &a [x, x, x, x, x, x, x, x, x]\n";
  for (char c = 'b'; c < 'k'; ++c) {
    std::string const before(1, static_cast<char>(c - 1));
    billion += std::string(1, c) + ": &" + c + " [*" + before;
    for (int i = 0; i < 8; ++i) billion += ", *" + before;
    billion += "]\n";
  }
  std::vector<std::string> const texts{"",
                                       "\n\n",
                                       "# nothing but a comment\n",
                                       "---\n",
                                       "null",
                                       "just words",
                                       "[1, 2, 3]",
                                       "a: b: c",
                                       "params: [",
                                       "params: {",
                                       "\tparams: 1",
                                       "params: 'unfinished",
                                       "params: *nowhere",
                                       "params: &p {block: *p}",
                                       "a: 1\n---\nb: 2\n",
                                       "? [a, b]\n: c\n",
                                       "%YAML 9.9\n---\nparams: 1\n",
                                       std::string("params\0: 1", 10),
                                       std::string("\x89HDF\r\n\x1a\n", 8),
                                       "params: \xff\xfe\n",
                                       "params: \xc3",
                                       deep,
                                       billion,
                                       std::string(1000, '-'),
                                       "!!python/object:os.system {}",
                                       "<<: {params: {}}",
                                       "\xef\xbb\xbf",
                                       std::string(5000, 'k') + ": 1\n"};
  for (std::string const& text : texts) {
    std::string const message = refusal(text);
    EXPECT_TRUE(says(message, {"deck.yaml"})) << text.substr(0, 100);
    EXPECT_LT(message.size(), 400U) << message;
  }
}

TEST(Deck, EveryTruncationIsReadOrRefused) {
  std::string const text = minimal;
  for (std::size_t n = 0; n < text.size(); ++n) {
    try {
      parse_deck(text.substr(0, n), "deck.yaml");
    } catch (core::InputError const& error) {
      EXPECT_TRUE(says(error.what(), {"deck.yaml"}));
    }
  }
}

TEST(Deck, Files) {
  namespace fs = std::filesystem;
  fs::path const folder = fs::temp_directory_path() / ("strata_deck_" + std::to_string(::getpid()));
  fs::create_directories(folder);
  auto const message = [](fs::path const& path) {
    try {
      read_deck(path);
    } catch (core::InputError const& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_TRUE(says(message(folder), {folder.string(), "folder"}));
  EXPECT_TRUE(says(message(folder / "none.yaml"), {"none.yaml", "does not exist"}));
  std::ofstream(folder / "good.yaml") << minimal;
  EXPECT_EQ(read_deck(folder / "good.yaml", {"train.batch_size=9"}).train.batch_size, 9);
  std::ofstream(folder / "empty.yaml");
  EXPECT_TRUE(says(message(folder / "empty.yaml"), {"empty.yaml is empty"}));
  std::ofstream(folder / "huge.yaml") << std::string((1 << 20) + 1, ' ');
  EXPECT_TRUE(says(message(folder / "huge.yaml"), {"huge.yaml", "1 MiB"}));
  std::ofstream(folder / "binary.yaml") << std::string(100, '\1');
  EXPECT_TRUE(says(message(folder / "binary.yaml"), {"binary.yaml", "not a YAML text"}));
  EXPECT_TRUE(says(message("/dev/zero"), {"/dev/zero"}));
  fs::remove_all(folder);
}

// ------------------------------------------------------------------ the package's sample decks, from their
// tables

std::string sample(std::string const& params, std::string const& target, std::string const& batch,
                   std::string const& accumulate) {
  return "io:\n  name_model: pg19\n  output_dir: ./outputs\n  num_models_to_save: 5\n  validate_amount: 100\n"
         "  log_train_loss_amount: 1000\n  dataset_dir: /data/pg19\n  dataset_id: pg19\n"
         "train:\n  target_elements: " +
         target +
         "\n  target_elements_strategy: sequence\n  warmup_steps_perc: 0.1\n"
         "  batch_size: " +
         batch +
         "\n  shuffle_train: false\n  shuffle_eval: false\n  learning_rate: 0.001\n"
         "  gradient_clipping: 1\n  gradient_accumulate_every: " +
         accumulate + "\n" + "params:\n  num_tokens: 256\n  pad_token_id: 0\n" + params;
}

char const* const fixed_transformer =
    "      attn_head_dims: 64\n      attn_num_heads: 16\n      attn_use_rot_embs: true\n      attn_dropout: "
    "0.0\n"
    "      use_flash_attn: true\n      pos_emb_type: fixed\n";
char const* const mamba =
    "      d_state: 128\n      d_conv: 4\n      expand: 2\n      headdim: 64\n      pos_emb_type: null\n";

std::string listed(std::string const& keys) { return "    -" + keys.substr(5); }

TEST(PackageSamples, OneStageTransformerLoadsUnchanged) {
  for (std::string const& block :
       {std::string("  block:\n") + fixed_transformer, "  block:\n" + listed(fixed_transformer)}) {
    Deck const deck = parse_deck(
        sample("  input_seq_len: 8192\n  hidden_dims: [1024]\n  seq_lens: [8192]\n  num_layers: [42]\n"
               "  train_checkpoint_chunks: null\n" +
                   block,
               "30_000_000_000", "4", "12"),
        "pg19_30bb_360m_1d_t.yaml", {"io.dataset=pg19.h5"});
    EXPECT_EQ(deck.train.target_elements, 30000000000);
    EXPECT_EQ(deck.params.num_layers, std::vector<Index>{42});
    EXPECT_EQ(deck.params.block[0].pos_emb_type, model::Position::fixed);
    EXPECT_EQ(deck.train.gradient_clipping, 1.0);
    EXPECT_EQ(deck.io.num_models_to_save, 5);
    EXPECT_EQ(deck.dataset(), "pg19.h5");
    EXPECT_TRUE(warned(deck, "byte 0"));
    EXPECT_TRUE(warned(deck, "use_flash_attn"));
    EXPECT_TRUE(warned(deck, "no block_type"));
  }
}

TEST(PackageSamples, MambaOnesLoadUnchanged) {
  auto const is_mamba2 = [](model::BlockConfig const& block) {
    return block.block_type == model::BlockType::mamba2 && block.d_state == 128 && block.d_conv == 4 &&
           block.expand == 2 && block.headdim == 64 && block.pos_emb_type == model::Position::none;
  };
  auto const two = [](std::string const& layers) {
    return "  input_seq_len: 8192\n  hidden_dims: [1024, 1024]\n  seq_lens: [1024, 8]\n  num_layers: " +
           layers + "\n  train_checkpoint_chunks: null\n  block:\n";
  };
  Deck const ss = parse_deck(sample(two("[28, 24]") + mamba, "30e9", "6", "8"), "pg19_30bb_360m_2d_ss.yaml");
  ASSERT_EQ(ss.params.block.size(), 2U);
  for (model::BlockConfig const& block : ss.params.block) EXPECT_TRUE(is_mamba2(block));
  EXPECT_FALSE(warned(ss, "block_type"));
  EXPECT_EQ(model::count_parameters(ss.params).total(), 360850560);

  Deck const st =
      parse_deck(sample(two("[25, 21]") + listed(mamba) + listed(fixed_transformer), "30e9", "6", "8"),
                 "pg19_30bb_360m_2d_st.yaml");
  EXPECT_TRUE(is_mamba2(st.params.block[0]));
  EXPECT_EQ(st.params.block[1].block_type, model::BlockType::transformer);
  EXPECT_EQ(model::count_parameters(st.params).total(), 358898528);

  std::string const three =
      "  input_seq_len: 1048576\n  hidden_dims: [1024, 1024, 1024]\n  seq_lens: [8192, 16, 8]\n"
      "  num_layers: [9, 8, 8]\n  train_checkpoint_chunks: [10, 20]\n  block:\n";
  Deck const stt =
      parse_deck(sample(three + listed(mamba) + listed(fixed_transformer) + listed(fixed_transformer),
                        "200_000_000_000", "1", "48"),
                 "pg19_200bb_360m_3d_stt.yaml");
  EXPECT_TRUE(is_mamba2(stt.params.block[0]));
  EXPECT_EQ(stt.train_checkpoint_chunks, (std::vector<Index>{10, 20}));
  EXPECT_EQ(stt.input_seq_len, 1048576);
  EXPECT_EQ(stt.train.gradient_accumulate_every, 48);
  EXPECT_EQ(model::count_parameters(stt.params).total(), 362870112);

  Deck const clevr = parse_deck(
      "io:\n  name_model: clevr\n  output_dir: ./outputs\n  num_models_to_save: 5\n  validate_amount: 100\n"
      "  log_train_loss_amount: 1000\n  dataset_dir: /data/clevr\n  dataset_id: clevr\n  dataset_args:\n"
      "    target_mode: a\n    qiqa_loss_mask: [0, 0, 0, 1]\n    answer_categorical: true\n"
      "resume:\n  checkpoint_file: best.h5\n  next_epoch_index: 0\n  next_batch_index: 0\n  rename_modules: "
      "true\n"
      "train:\n  target_elements: 7_000_000\n  target_elements_strategy: batch\n  batch_size: 6\n"
      "  shuffle_train: true\n  max_eval_steps: 1000\n  learning_rate: 0.0001\n  gradient_clipping: 0.5\n"
      "  gradient_accumulate_every: 48\n"
      "params:\n  num_tokens: 256\n  pad_token_id: 128\n  input_seq_len: 8192\n  hidden_dims: [1024]\n"
      "  seq_lens: [8192]\n  num_layers: [54]\n  train_checkpoint_chunks: null\n  block:\n" +
          std::string(mamba) + "      dropout: 0.1\n",
      "clevr_7mi_360m_1d_s_ft.yaml");
  EXPECT_TRUE(is_mamba2(clevr.params.block[0]));
  EXPECT_EQ(clevr.params.block[0].dropout, 0.1);
  EXPECT_EQ(model::count_parameters(clevr.params).total(), 356983616);
}

TEST(PackageSamples, AWrittenConfigIsReadAgain) {
  std::string const text =
      sample(
          "  input_seq_len: 8192\n  hidden_dims: [64]\n  seq_lens: [8192]\n  num_layers: [2]\n  "
          "train_checkpoint_chunks: []\n"
          "  block:\n" +
              std::string(fixed_transformer),
          "1000", "4", "12") +
      "resume:\n  checkpoint_file: best.h5\n  next_epoch_index: 0\n  next_batch_index: 7\n"
      "summary:\n  training_start: '2024'\n  parameter_count: 12\n";
  Deck const deck = parse_deck(text, "config.yaml");
  EXPECT_EQ(deck.init_from, "best.h5");
  EXPECT_TRUE(warned(deck, "summary has no meaning here"));
}

// ------------------------------------------------------------------ models without a deck

TEST(PackageModels, Params) {
  model::ModelConfig const m = parse_model_params(
      "num_tokens: 60\npad_token_id: 59\nhidden_dims: [12, 12]\nnum_layers: [2, 2]\nseq_lens: [7, 5]\n"
      "train_checkpoint_chunks: null\nblock:\n  block_type: transformer\n  pos_emb_type: fixed\n  "
      "attn_head_dims: 8\n"
      "  attn_num_heads: 2\n  attn_use_rot_embs: true\n  ff_multiplier: 3\n  use_flash_attn: false\n");
  EXPECT_EQ(m.num_tokens, 60);
  EXPECT_EQ(m.head, model::Head::reference);
  EXPECT_EQ(m.block.size(), 2U);
  EXPECT_EQ(m.block[1].ff_multiplier, 3);
}

TEST(PackageModels, Encoder) {
  PackageModel const m = parse_package_model(
      "mask_token_id: 65\nmblm_config:\n  num_tokens: 66\n  pad_token_id: 64\n  hidden_dims: [14]\n  "
      "num_layers: [2]\n"
      "  seq_lens: [6]\n  train_checkpoint_chunks: null\n  block:\n    - block_type: transformerEncoder\n"
      "      attn_head_dims: 8\n      attn_num_heads: 2\n      attn_use_rot_embs: true\n");
  EXPECT_EQ(m.mask_token_id, 65);
  EXPECT_EQ(m.params.pad_token_id, 64);
  EXPECT_EQ(m.params.block[0].block_type, model::BlockType::transformer_encoder);
  EXPECT_THROW(parse_package_model("mask_token_id: 65\nmblm_config: 3\n"), core::InputError);
  EXPECT_THROW(parse_package_model("mask: 65\nmblm_config: {}\n"), core::InputError);
}

TEST(PackageModels, StageBlock) {
  StageBlock const s = parse_stage_block(
      "model_dim: 13\nnum_layers: 2\nblock:\n  block_type: transformer\n  pos_emb_type: null\n  "
      "attn_head_dims: 5\n"
      "  attn_num_heads: 2\n  attn_use_rot_embs: false\n  attn_dropout: 0.0\n  ff_multiplier: 3\n  "
      "use_flash_attn: false\n");
  EXPECT_EQ(s.model_dim, 13);
  EXPECT_EQ(s.num_layers, 2);
  EXPECT_EQ(s.block.attn_head_dims, 5);
  EXPECT_THROW(parse_stage_block("model_dim: 13\nnum_layers: 2\n"), core::InputError);
  EXPECT_EQ(parse_block("{attn_head_dims: 4, attn_num_heads: 3, attn_use_rot_embs: true}").attn_num_heads, 3);
  EXPECT_THROW(parse_block("attn_head_dims: 4\n"), core::InputError);
}

// ------------------------------------------------------------------ the decks of this repository

TEST(Inputs, EveryDeckLoadsWithoutASurprise) {
  int decks = 0;
  for (auto const& entry : std::filesystem::directory_iterator(STRATA_SOURCE_DIR "/inputs")) {
    if (entry.path().extension() != ".yaml") continue;
    ++decks;
    Deck const deck = read_deck(entry.path());
    EXPECT_EQ(parse_deck(deck.text(), "text").text(), deck.text());
    bool const published = entry.path().filename().string().find("360m") != std::string::npos;
    EXPECT_EQ(deck.warnings.size(), published ? 1U : 0U) << entry.path();
    EXPECT_EQ(warned(deck, "byte 0 in the data is taken for padding"), published) << entry.path();
  }
  EXPECT_GE(decks, 10);
}

TEST(Inputs, HybridAndTransformerOfShakespeareCanBeCompared) {
  Deck const transformer = read_deck(STRATA_SOURCE_DIR "/inputs/shakespeare.yaml");
  Deck const hybrid = read_deck(STRATA_SOURCE_DIR "/inputs/shakespeare_mamba.yaml");
  auto const parameters = [](Deck const& deck) {
    return static_cast<double>(model::count_parameters(deck.params).total());
  };
  EXPECT_NEAR(parameters(hybrid) / parameters(transformer), 1, 0.01);
  EXPECT_EQ(hybrid.params.block[0].block_type, model::BlockType::mamba2);
  EXPECT_EQ(hybrid.params.seq_lens, transformer.params.seq_lens);
  EXPECT_EQ(hybrid.input_seq_len, transformer.input_seq_len);
  EXPECT_EQ(hybrid.train.target_elements, transformer.train.target_elements);
  EXPECT_EQ(hybrid.train.batch_size, transformer.train.batch_size);
  EXPECT_EQ(hybrid.train.learning_rate, transformer.train.learning_rate);
}

TEST(Inputs, ThePublishedThreeStageDeckHasItsPublishedSize) {
  Deck const deck = read_deck(STRATA_SOURCE_DIR "/inputs/pg19_200bb_360m_3d_stt.yaml");
  EXPECT_EQ(model::count_parameters(deck.params).total(), 362870112);
  EXPECT_EQ(deck.input_seq_len, deck.params.context());
}

TEST(Inputs, OneStepOfALongContextDeckIsOneWindow) {
  for (auto const& [name, bytes] :
       {std::pair("context_5m", Index{5'000'000}), {"context_100m", Index{100'000'000}}}) {
    SCOPED_TRACE(name);
    Deck const deck = read_deck(STRATA_SOURCE_DIR "/inputs/" + std::string(name) + ".yaml");
    EXPECT_EQ(deck.input_seq_len, bytes);
    EXPECT_GE(deck.params.context(), bytes);
    EXPECT_EQ(deck.params.stages(), 3U);
    EXPECT_EQ(deck.params.block[0].block_type, model::BlockType::mamba2);
    EXPECT_EQ(deck.train.target_elements, 1);
    EXPECT_EQ(deck.train.target_elements_strategy, TrainConfig::Strategy::batch);
    EXPECT_EQ(deck.train.batch_size * deck.train.gradient_accumulate_every, 1);
  }
}

TEST(Inputs, ReadmeHoldsTheKeyReference) {
  std::ifstream file(STRATA_SOURCE_DIR "/inputs/README.md");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_NE(text.str().find(key_reference()), std::string::npos)
      << "inputs/README.md is out of date: put the output of `strata info --keys` into it";
}

}  // namespace
}  // namespace strata::train
