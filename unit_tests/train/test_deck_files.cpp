// SPDX-License-Identifier: Apache-2.0
// Decks that are no decks, decks of the Python package and the decks of this repository.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <tuple>

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

// ------------------------------------------------------------------ the package's sample decks

Deck sample(std::string const& name, std::vector<std::string> const& overrides = {}) {
  return read_deck(STRATA_GOLDEN_DIR "/decks/" + name + ".yaml", overrides);
}

/// Remarks about a deck, without the file's name in front; `common` are those of all samples.
std::vector<std::string> remarks(Deck const& deck) {
  std::vector<std::string> result;
  for (std::string const& warning : deck.warnings) result.push_back(warning.substr(warning.find(": ") + 2));
  return result;
}

struct Sample {
  char const* name;
  Index parameters;
  std::vector<std::string> keys;  ///< that are remarked on, beside those of all
};

TEST(PackageSamples, LoadUnchangedWithAllTheirRemarks) {
  std::vector<std::string> const pg19{"params.pad_token_id", "train.shuffle_eval", "io.dataset_dir",
                                      "io.dataset_id"};
  std::vector<std::string> const guessed{"params.block.use_flash_attn", "params.block"};
  std::vector<std::string> const resumed{"resume.next_epoch_index", "resume.next_batch_index",
                                         "resume.rename_modules"};
  std::vector<std::string> const written{"summary",
                                         "params.block.use_flash_attn",
                                         "io.enabled_loss_log_for_gpus",
                                         "io.dataset_args",
                                         "resume.next_epoch_index",
                                         "resume.next_batch_index",
                                         "resume.migrate_embeddings",
                                         "resume.rename_modules",
                                         "resume.resumed_from"};
  auto const with = [](std::vector<std::string> keys, std::vector<std::string> const& more) {
    keys.insert(keys.end(), more.begin(), more.end());
    return keys;
  };
  std::vector<Sample> const samples{
      {"pg19_30bb_360m_1d_t", 361451776, with(pg19, guessed)},
      {"pg19_30bb_360m_2d_ss", 360850560, pg19},
      {"pg19_30bb_360m_2d_st", 358898528, with(pg19, guessed)},
      {"pg19_200bb_360m_3d_stt", 362870112, with(pg19, guessed)},
      {"clevr_7mi_360m_1d_s_ft", 356983616, with(with(pg19, resumed), {"io.dataset_args"})},
      {"config", 358898528, with(pg19, written)},
      {"config_before_the_first_model", 358898528, with(with(pg19, written), {"resume.checkpoint_file"})}};
  for (Sample const& s : samples) {
    SCOPED_TRACE(s.name);
    Deck const deck = sample(s.name);
    EXPECT_EQ(model::count_parameters(deck.params).total(), s.parameters);
    EXPECT_EQ(parse_deck(deck.text(), "text").text(), deck.text());
    std::vector<std::string> keys;
    for (std::string const& remark : remarks(deck)) {
      keys.push_back(remark.substr(0, remark.find(' ')));
      EXPECT_GT(remark.size(), keys.back().size() + 20) << remark << " gives no reason";
    }
    std::vector<std::string> wanted = s.keys;
    std::sort(keys.begin(), keys.end());
    std::sort(wanted.begin(), wanted.end());
    EXPECT_EQ(keys, wanted);
  }
}

TEST(PackageSamples, SayWhatIsDangerous) {
  EXPECT_TRUE(
      warned(sample("pg19_30bb_360m_1d_t"), "byte 0 in the data is taken for padding and never scored"));
  EXPECT_TRUE(warned(sample("clevr_7mi_360m_1d_s_ft"), "byte 128 in the data is taken for padding"));
  EXPECT_TRUE(warned(sample("pg19_30bb_360m_2d_st"), "no block_type and is read as transformer"));
  EXPECT_FALSE(warned(sample("pg19_30bb_360m_2d_ss"), "block_type"));
  EXPECT_TRUE(warned(sample("pg19_30bb_360m_2d_ss"), "strata pack --output pg19.h5 --train DIR/train"));
  EXPECT_TRUE(warned(sample("config_before_the_first_model"), "resume.checkpoint_file is empty"));
}

TEST(PackageSamples, MeanWhatTheyMeanThere) {
  Deck const one = sample("pg19_30bb_360m_1d_t", {"io.dataset=pg19.h5"});
  EXPECT_EQ(one.train.target_elements, 30000000000);
  EXPECT_EQ(one.train.target_elements_strategy, TrainConfig::Strategy::sequence);
  EXPECT_EQ(one.params.num_layers, std::vector<Index>{42});
  EXPECT_EQ(one.params.block[0].block_type, model::BlockType::transformer);
  EXPECT_EQ(one.params.block[0].pos_emb_type, model::Position::fixed);
  EXPECT_EQ(one.train.gradient_clipping, 1.0);
  EXPECT_EQ(one.io.num_models_to_save, 5);
  EXPECT_EQ(one.dataset(), "pg19.h5");
  EXPECT_EQ(one.train.init_from, std::nullopt);
  for (model::BlockConfig const& block : sample("pg19_30bb_360m_2d_ss").params.block) {
    EXPECT_EQ(block.block_type, model::BlockType::mamba2);
    EXPECT_EQ(std::tie(block.d_state, block.d_conv, block.expand, block.headdim),
              std::make_tuple(Index{128}, Index{4}, Index{2}, Index{64}));
    EXPECT_EQ(block.pos_emb_type, model::Position::none);
  }
  Deck const three = sample("pg19_200bb_360m_3d_stt");
  EXPECT_EQ(three.train_checkpoint_chunks, (std::vector<Index>{10, 20}));
  EXPECT_EQ(three.input_seq_len, 1048576);
  EXPECT_EQ(three.params.block[2].block_type, model::BlockType::transformer);
  Deck const clevr = sample("clevr_7mi_360m_1d_s_ft");
  EXPECT_EQ(clevr.params.block[0].dropout, 0.1);
  EXPECT_EQ(clevr.train.max_eval_steps, 1000);
  EXPECT_EQ(clevr.train.target_elements_strategy, TrainConfig::Strategy::batch);
  EXPECT_EQ(clevr.train.init_from, "path/to/checkpoint.pth");
  // What a run leaves describes the model that its deck described.
  Deck written = sample("config");
  EXPECT_EQ(written.train.init_from, "outputs/pg19_30bb_360m_2d_st_1739000000/pg19_30bb_360m_2d_st_top1.pth");
  written.train.init_from.reset();
  EXPECT_EQ(written.text(), sample("pg19_30bb_360m_2d_st").text());
  EXPECT_EQ(sample("config_before_the_first_model").text(), written.text());
}

TEST(PackageSamples, OlderNamesOfKeysAreRead) {
  std::string const fixed =
      "params.block.1={attn_head_dims: 64, attn_num_heads: 16, attn_use_rot_embs: true, ";
  Deck const deck = sample("pg19_30bb_360m_2d_st", {fixed + "patch_pos_emb_type: fixed}"});
  EXPECT_EQ(deck.text(), sample("pg19_30bb_360m_2d_st").text());
  EXPECT_TRUE(
      says(refusal(minimal, {"params.block.patch_pos_emb_type=fixed", "params.block.pos_emb_type=fixed"}),
           {"patch_pos_emb_type", "keep one"}));
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

/// Nominal sizes of arXiv 2305.07185, which count parameters in their own way.
TEST(Inputs, MegabyteDecksHaveTheSizesOfThePaper) {
  struct Size {
    char const* name;
    double outer, inner;
    Index window, patch;
  };
  for (Size const& size : {Size{"megabyte_pg19", 760e6, 262e6, 8192, 8},
                           {"megabyte_imagenet64", 2.7e9, 350e6, 64 * 64 * 3, 12},
                           {"megabyte_imagenet256", 125e6, 125e6, 256 * 256 * 3, 192},
                           {"megabyte_audio", 350e6, 125e6, 524288, 32}}) {
    SCOPED_TRACE(size.name);
    Deck const deck = read_deck(STRATA_SOURCE_DIR "/inputs/" + std::string(size.name) + ".yaml");
    model::ParameterCount const count = model::count_parameters(deck.params);
    EXPECT_NEAR(static_cast<double>(count.stages[0].block), size.outer, 0.35 * size.outer);
    EXPECT_NEAR(static_cast<double>(count.stages[1].block), size.inner, 0.35 * size.inner);
    EXPECT_EQ(deck.input_seq_len, size.window);
    EXPECT_EQ(deck.params.context(), size.window);
    EXPECT_EQ(deck.params.seq_lens[1], size.patch);
    EXPECT_GT(deck.params.block[1].cross_patch_attention, 0);
  }
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
