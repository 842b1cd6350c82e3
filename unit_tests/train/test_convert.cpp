// SPDX-License-Identifier: Apache-2.0
// Models of the golden files, written as state_dicts of every generation and converted: the checkpoint's
// logits are those that the Python packages computed. And what is refused, with which words.

#include "train/convert.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/error.hpp"
#include "io/checkpoint_file.hpp"
#include "model/predictions.hpp"
#include "train/checkpoint.hpp"
#include "unit_tests/io/temp_folder.hpp"
#include "unit_tests/support/foreign_files.hpp"

namespace {

using namespace strata;
using namespace strata::test;
using train::Import;
using train::NameStyle;

/// What a golden file says: parameters and buffers under the package's names, in double.
struct Golden {
  explicit Golden(std::string const& name)
      : file(io::File::open(std::string(STRATA_GOLDEN_DIR) + "/" + name + ".h5")),
        config(file.text_attribute("/", "config_yaml")) {
    for (std::string const group : {"/params", "/buffers"}) {
      if (!file.is_group(group)) continue;
      for (std::string const& tensor : file.children(group)) {
        io::Shape shape;
        std::vector<double> values = file.read<double>(group + "/" + tensor, &shape);
        tensors.push_back({tensor, shape, std::move(values)});
      }
    }
  }
  struct Tensor {
    std::string name;
    io::Shape shape;
    std::vector<double> values;
  };
  io::File file;
  std::string config;
  std::vector<Tensor> tensors;
};

/// The upper half of a float's bits: exact for values made for it.
std::string brain(std::vector<double> const& values) {
  std::string bytes;
  for (double const v : values) bytes += raw(static_cast<float>(v)).substr(2);
  return bytes;
}

std::string encode(std::vector<double> const& values, std::string const& dtype) {
  if (dtype == "F64") return raw(values);
  if (dtype == "BF16") return brain(values);
  return raw(std::vector<float>(values.begin(), values.end()));
}

class Convert : public testing::Test {
 protected:
  using Rename = std::function<std::string(std::string const&)>;

  std::string write_tensors(
      Golden const& golden, std::string const& dtype = "F32",
      Rename const& rename = [](std::string const& name) { return name; }) {
    std::vector<RawTensor> raws;
    for (auto const& t : golden.tensors)
      if (std::string const name = rename(t.name); !name.empty())
        raws.push_back({name, dtype, t.shape, encode(t.values, dtype)});
    std::string const path = folder / "model.safetensors";
    std::filesystem::remove(path);
    write_file(path, safetensors(raws));
    return path;
  }
  std::string write_deck(std::string const& text) {
    write_file(folder / "config.yaml", text);
    return folder / "config.yaml";
  }
  /// Largest difference of logits between a checkpoint and the golden file.
  static double error(std::string const& checkpoint, Golden const& golden) {
    train::LoadedModel const model = train::load_model(checkpoint);
    io::Shape shape;
    std::vector<std::int64_t> const ids = golden.file.read<std::int64_t>("/inputs/ids", &shape);
    model::Predictions const p = model::predict(*model.hierarchy, ids, shape.at(0));
    std::vector<double> const wanted = golden.file.read<double>("/outputs/logits");
    double worst = 0;
    std::size_t at = 0;
    for (Index b = 0; b < p.windows; ++b)
      for (Index i = 0; i < p.length * p.vocabulary; ++i) {
        double const e = std::abs(p.at(b, 1)[i] - wanted.at(at++));
        worst = std::isnan(e) ? e : std::max(worst, e);
      }
    return worst;
  }
  using Index = model::Index;
  std::string convert(std::string const& from, std::optional<std::string> const& deck,
                      std::vector<std::string> const& overrides = {}) {
    Import(from, deck, overrides, false).write(folder / "model.h5");
    return folder / "model.h5";
  }
  std::string refusal(std::string const& from, std::optional<std::string> const& deck,
                      std::vector<std::string> const& overrides = {}, bool ignore_extra = false) {
    std::string const message = message_of<core::InputError>(
        [&] { Import(from, deck, overrides, ignore_extra).write(folder / "refused.h5"); });
    EXPECT_FALSE(std::filesystem::exists(folder / "refused.h5"));
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    return message;
  }
  static bool has(std::string const& text, std::string const& part) {
    if (text.find(part) != std::string::npos) return true;
    ADD_FAILURE() << text << "\nlacks: " << part;
    return false;
  }

  TempFolder const folder;
};

/// Tolerance of logits in single precision, as in parity_check.
constexpr double allowed = 2e-5;

TEST_F(Convert, EveryGoldenModelGivesItsLogits) {
  for (char const* name : {"mblm_t1", "mblm_tt", "mblm_tt_rope", "mblm_tt_ragged", "mblm_ttt", "mblm_tttt",
                           "mblm_tt_pad0", "mblm_m1t", "mblm_m1m1", "mblm_m2t", "mblm_m2m2", "mblm_m2tt",
                           "megabyte_tt", "megabyte_ttt", "encoder_tt"}) {
    Golden const golden(name);
    Import const work(write_tensors(golden), write_deck(golden.config), {}, false);
    EXPECT_EQ(work.style, std::string(name).starts_with("megabyte") ? NameStyle::megabyte : NameStyle::mblm);
    EXPECT_EQ(work.encoder, std::string(name) == "encoder_tt");
    EXPECT_EQ(work.mapping.mapped.size() + work.mapping.ignored.size(), golden.tensors.size());
    work.write(folder / "model.h5");
    EXPECT_LE(error(folder / "model.h5", golden), allowed) << name;
  }
}

TEST_F(Convert, EveryGenerationOfNamesIsTheSameModel) {
  Golden const golden("mblm_ttt");
  std::string const deck = write_deck(golden.config);
  auto const older = [](std::string const& name) {
    return name.starts_with("pos_embs.") ? "patch_" + name : name;
  };
  auto const newer = [](std::string const& name) {
    if (name == "token_embs_rev.0.weight") return std::string("token_embs_rev.0.embedding.weight");
    for (std::string const k : {"1.", "2."}) {
      std::string const prefix = "token_embs_rev." + k;
      if (!name.starts_with(prefix)) continue;
      std::string const rest = name.substr(prefix.size());
      if (rest == "0.weight") return prefix + "embedding.weight";
      return prefix + "_post." + std::to_string(rest[0] - '0' - 1) + rest.substr(1);
    }
    return name;
  };
  auto const wrapped = [](std::string const& name) { return "module._orig_mod." + name; };
  auto const same = [](std::string const& name) { return name; };
  std::string const plain = read_file(convert(write_tensors(golden, "F32", same), deck));
  for (auto const& [rename, style] : std::vector<std::pair<Rename, NameStyle>>{
           {older, NameStyle::mblm_patched}, {newer, NameStyle::mblm_modules}, {wrapped, NameStyle::mblm}}) {
    std::string const from = write_tensors(golden, "F32", rename);
    EXPECT_EQ(Import(from, deck, {}, false).style, style);
    EXPECT_TRUE(read_file(convert(from, deck)) == plain);
  }
  EXPECT_LE(error(folder / "model.h5", golden), allowed);
}

TEST_F(Convert, DoublesAndRoundedTypesAreTaken) {
  Golden golden("mblm_m2t");
  std::string const deck = write_deck(golden.config);
  std::string const single = read_file(convert(write_tensors(golden, "F32"), deck));
  EXPECT_TRUE(read_file(convert(write_tensors(golden, "F64"), deck)) == single);
  // Values cut to 16 bits: the same whether the file says so with 16 or with 32 bits.
  for (auto& t : golden.tensors)
    for (double& v : t.values) {
      auto bits = raw(static_cast<float>(v));
      bits[0] = bits[1] = '\0';
      float cut = 0;
      std::memcpy(&cut, bits.data(), 4);
      v = static_cast<double>(cut);
    }
  std::string const cut = read_file(convert(write_tensors(golden, "F32"), deck));
  EXPECT_FALSE(cut == single);
  EXPECT_TRUE(read_file(convert(write_tensors(golden, "BF16"), deck)) == cut);
}

TEST_F(Convert, ThereAndBackIsTheSameFile) {
  for (char const* name : {"mblm_tt", "mblm_m1m1", "mblm_m2tt", "megabyte_tt", "encoder_tt"}) {
    Golden const golden(name);
    std::string const first = read_file(convert(write_tensors(golden), write_deck(golden.config)));
    for (auto const& row : train::name_styles) {
      bool const transformers = std::string(name) == "mblm_tt" || std::string(name) == "megabyte_tt";
      std::string const there = folder / "there.safetensors";
      if (row.style == NameStyle::megabyte && !transformers) {
        has(message_of<core::InputError>(
                [&] { train::export_safetensors(folder / "model.h5", there, row.style, true); }),
            "MEGABYTE has causal Transformer blocks");
        continue;
      }
      train::export_safetensors(folder / "model.h5", there, row.style, true);
      Import const back(there, {}, {}, false);
      EXPECT_EQ(back.encoder, std::string(name) == "encoder_tt");
      back.write(folder / "back.h5");
      EXPECT_TRUE(read_file(folder / "back.h5") == first) << name << " " << row.name;
    }
  }
}

/// What the package's load_state_dict asks for: exactly its names, shapes and, for tables, values.
TEST_F(Convert, WritesTheStateDictOfThePackage) {
  for (char const* name : {"mblm_ttt", "mblm_m2tt", "megabyte_tt", "encoder_tt", "mblm_m1t"}) {
    Golden const golden(name);
    bool const megabyte = std::string(name).starts_with("megabyte");
    convert(write_tensors(golden), write_deck(golden.config));
    train::export_safetensors(folder / "model.h5", folder / "there.safetensors",
                              megabyte ? NameStyle::megabyte : NameStyle::mblm, true);
    io::TensorFile const file = io::open_tensor_file(folder / "there.safetensors");
    EXPECT_EQ(file.tensors.size(), golden.tensors.size());
    for (auto const& wanted : golden.tensors) {
      auto const found = std::find_if(file.tensors.begin(), file.tensors.end(),
                                      [&](auto const& t) { return t.name == wanted.name; });
      ASSERT_NE(found, file.tensors.end()) << wanted.name;
      ASSERT_EQ(found->shape, wanted.shape) << wanted.name;
      std::vector<float> values(wanted.values.size());
      io::TensorReader(file.file, *found).read(0, values);
      for (std::size_t i = 0; i < values.size(); ++i)
        ASSERT_NEAR(static_cast<double>(values[i]), wanted.values[i], 1e-6 * std::abs(wanted.values[i]))
            << wanted.name;
    }
  }
}

TEST_F(Convert, SizesComeFromTheTensors) {
  auto const guessed = [&](char const* name, std::vector<std::string> const& overrides) {
    Golden const golden(name);
    EXPECT_LE(error(convert(write_tensors(golden), {}, overrides), golden), allowed) << name;
    train::Deck const deck = train::load_model(folder / "model.h5").deck;
    EXPECT_EQ(deck.input_seq_len, deck.params.context());
  };
  guessed("mblm_tt", {});  // its row of zeros tells the pad id
  guessed("mblm_ttt", {"params.block.0.pos_emb_type=fixed"});
  guessed("mblm_tt_rope",
          {"params.seq_lens.0=6", "params.block.0.pos_emb_type=rope", "params.block.1.pos_emb_type=rope",
           "params.block.0.attn_head_dims=8", "params.block.0.attn_num_heads=2",
           "params.block.0.attn_use_rot_embs=false", "params.block.1.attn_head_dims=4",
           "params.block.1.attn_num_heads=3", "params.block.1.attn_use_rot_embs=false"});
  guessed("mblm_m2t", {"params.seq_lens=[6, 4]", "params.block.0.pos_emb_type=null"});
  guessed("mblm_m1m1",
          {"params.seq_lens.0=5", "params.block.0.pos_emb_type=null", "params.block.1.pos_emb_type=null"});
  guessed("megabyte_tt", {"params.pad_token_id=0"});
  guessed("megabyte_ttt", {"params.pad_token_id=47", "params.seq_lens.0=4"});
  guessed("encoder_tt", {});
}

TEST_F(Convert, SaysWhatTheTensorsDoNotTell) {
  std::string const message = refusal(write_tensors(Golden("mblm_m2t")), {});
  has(message, "the tensors do not tell params.block.0.pos_emb_type, params.seq_lens.0;");
  has(message, "--deck");
  has(message, "params.block.0.pos_emb_type=null params.seq_lens.0=1024");
  has(refusal(write_tensors(Golden("megabyte_tt")), {}), "do not tell params.pad_token_id;");
  auto const nothing = [](std::string const& name) { return "x" + name; };
  has(refusal(write_tensors(Golden("mblm_tt"), "F32", nothing), {}), "there is no tensor start_tokens.0");
}

TEST_F(Convert, RefusesContradictionsByName) {
  Golden const golden("mblm_tt");
  std::string const from = write_tensors(golden), deck = write_deck(golden.config);
  has(refusal(from, deck, {"params.num_tokens=300"}),
      "to_logits.bias has the shape [257] where the deck needs [300] (and 3 more)");
  has(refusal(from, deck, {"params.seq_lens=[7, 4]"}),
      "pos_embs.0.weight has the shape [6, 16] where the deck needs [7, 16]");
  has(refusal(from, deck, {"params.num_layers=[3, 1]"}),
      "there is no tensor for stage_models.0.layers.2.0.norm.g");
  has(refusal(from, deck, {"params.num_layers=[1, 1]"}), "no place for stage_models.0.layers.1.0.norm.g");
  has(refusal(from, deck, {"params.num_layers=[1000000000, 1]"}), "too few for the 1000000001 layers");
  has(refusal(from, deck, {"params.block.0.attn_head_dims=4", "params.block.0.attn_num_heads=6"}),
      "stage_models.0.rotary_emb.inv_freq has the shape [4], but attn_head_dims 4 needs [2]");
  has(refusal(from, deck, {"params.block.0.attn_use_rot_embs=false"}),
      "params.block.0 has no rotary positions");
  has(refusal(from, deck, {"params.hidden_dims=[16, 8, 8]"}), "lists 2 blocks, but hidden_dims has 3 stages");
  has(refusal(from, folder / "none.yaml"), "none.yaml");
  write_file(folder / "broken.yaml", "params: [");
  has(refusal(from, folder / "broken.yaml"), "broken.yaml");
  write_file(folder / "list.yaml", "- 1\n");
  has(refusal(from, folder / "list.yaml"), "list.yaml");
  auto const without = [](std::string const& name) { return name == "to_logits.bias" ? "" : name; };
  has(refusal(write_tensors(golden, "F32", without), deck), "there is no tensor for to_logits.bias");
  auto const twice = [](std::string const& name) {
    return name == "pos_embs.0.weight" ? "patch_pos_embs.1" : name;
  };
  has(refusal(write_tensors(golden, "F32", twice), deck), "are both the parameter 'pos_embs.1.weight'");
  Golden other("mblm_tt");
  other.tensors.back().values[1] *= 1.1;
  ASSERT_TRUE(other.tensors.back().name.ends_with("inv_freq"));
  has(refusal(write_tensors(other), deck), "where base 10000 gives");
}

TEST_F(Convert, ExtraTensorsCanBeLeftOut) {
  Golden golden("mblm_tt");
  std::string const deck = write_deck(golden.config);
  std::string const plain = read_file(convert(write_tensors(golden), deck));
  golden.tensors.push_back({"counter.of.something", {1}, {1.0}});
  std::string const from = write_tensors(golden);
  has(refusal(from, deck), "no place for counter.of.something");
  Import const work(from, deck, {}, true);
  EXPECT_EQ(work.mapping.ignored.front().first, "counter.of.something");
  work.write(folder / "model.h5");
  EXPECT_TRUE(read_file(folder / "model.h5") == plain);
}

TEST_F(Convert, TheHeadIsThePackagesUnlessSomebodySaysOtherwise) {
  Golden const golden("mblm_tt");
  std::string const from = write_tensors(golden), deck = write_deck(golden.config);
  EXPECT_EQ(Import(from, deck, {}, false).deck.params.head, model::Head::reference);
  Import const complete(from, deck, {"params.head=complete"}, false);
  EXPECT_EQ(complete.deck.params.head, model::Head::complete);
  ASSERT_FALSE(complete.warnings.empty());
  has(complete.warnings.front(), "will not predict as they did");
  complete.write(folder / "complete.h5");
  auto const exported =
      train::export_safetensors(folder / "complete.h5", folder / "c.safetensors", NameStyle::mblm, false);
  has(exported.warnings.at(0), "head complete");
  // The deck in the file speaks: with a deck that says nothing of the head, and against one that says
  // otherwise.
  EXPECT_EQ(Import(folder / "c.safetensors", deck, {}, false).deck.params.head, model::Head::complete);
  has(refusal(folder / "c.safetensors", deck, {"params.head=reference"}),
      "params.head is reference where the file has complete");
  has(refusal(folder / "c.safetensors", deck, {"params.block.0.pos_emb_type=rope"}),
      "params.block.0.pos_emb_type is rope where the file has fixed");
}

TEST_F(Convert, TakesTheDeckOfAMaskedRun) {
  Golden const golden("encoder_tt");
  std::string indented = "    ";
  for (char const c : golden.config) indented += c == '\n' ? std::string("\n    ") : std::string(1, c);
  std::string const deck =
      write_deck("params:\n" + indented +
                 "\n    input_seq_len: 24\n"
                 "train: {target_elements: 10, target_elements_strategy: batch, batch_size: 2, "
                 "learning_rate: 0.001, masking_proba: 0.15}\n"
                 "io: {name_model: \"1\", output_dir: out, dataset_id: pg19masked}\n");
  Import const work(write_tensors(golden), deck, {}, false);
  EXPECT_EQ(work.deck.input_seq_len, 24);
  EXPECT_EQ(work.deck.io.name_model, "1");
  work.write(folder / "model.h5");
  EXPECT_LE(error(folder / "model.h5", golden), allowed);
}

TEST_F(Convert, KeepsThePadRowOfMegabyte) {
  for (char const* name : {"megabyte_tt", "mblm_tt"}) {
    Golden const golden(name);
    std::string const deck = write_deck(golden.config);
    bool const megabyte = std::string(name) == "megabyte_tt";
    EXPECT_EQ(Import(write_tensors(golden), deck, {}, false).deck.params.pad_row_is_trained, megabyte);
    EXPECT_TRUE(Import(write_tensors(golden), deck, {"params.pad_row_is_trained=true"}, false)
                    .deck.params.pad_row_is_trained);
  }
}

TEST(ForeignNames, ComeBackInEveryStyle) {
  for (char const* ours :
       {"start_tokens.0", "pos_embs.1.weight", "token_embs_rev.0.weight", "token_embs_rev.1.0.weight",
        "token_embs_rev.10.2.bias", "token_embs_rev.2.3.weight", "token_embs_rev.1.4.bias",
        "stage_models.0.layers.1.0.to_q.weight", "stage_models.1.layers.0.mixer.A_log",
        "stage_models.0.rotary_emb.inv_freq", "to_next_stage_proj.0.1.bias", "to_logits.weight"})
    for (auto const& row : train::name_styles)
      for (bool const encoder : {false, true}) {
        std::string const theirs = train::foreign_name(ours, row.style, encoder);
        train::ForeignName const read = train::read_foreign_name(theirs);
        EXPECT_EQ(read.ours, ours) << theirs;
        EXPECT_EQ(read.encoder, encoder) << theirs;
      }
  // Embedders of odd names are nobody's.
  for (char const* name :
       {"token_embs_rev.x.embedding.weight", "token_embs_rev.", "token_embs_rev.1._post.7.weight",
        "token_embs_rev..embedding.weight", "", "mblm.", "something"})
    EXPECT_EQ(train::read_foreign_name(name).style, NameStyle::mblm) << name;
}

}  // namespace
