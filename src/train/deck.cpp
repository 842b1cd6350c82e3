// SPDX-License-Identifier: Apache-2.0
#include "train/deck.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <system_error>

#include "core/error.hpp"
#include "train/deck_keys.hpp"
#include "train/init_from.hpp"

namespace strata::train {

using core::InputError;
using model::BlockConfig;
using model::BlockType;
using model::ModelConfig;

namespace {

/// Collects the paths of all keys.
class KeyNames {
 public:
  explicit KeyNames(std::string prefix) : prefix_(std::move(prefix)) {}

  template <class... Rest>
  void required(char const* key, Rest&&...) {
    names.push_back(prefix_ + key);
  }
  template <class... Rest>
  void optional(char const* key, Rest&&...) {
    names.push_back(prefix_ + key);
  }
  template <class... Rest>
  void choice(char const* key, Rest&&...) {
    names.push_back(prefix_ + key);
  }
  template <class... Rest>
  void list_or_null(char const* key, Rest&&...) {
    names.push_back(prefix_ + key);
  }
  void nested(char const* key, char const*, char const*, char const*) { names.push_back(prefix_ + key); }
  void older(char const*, char const*) {}
  void ignored(char const*, char const*) {}
  void refused(char const*, char const*) {}

  std::vector<std::string> names;

 private:
  std::string prefix_;
};

std::vector<std::string> const& all_keys() {
  static std::vector<std::string> const keys = [] {
    Deck deck;
    BlockConfig block;
    KeyNames root(""), params("params."), layers("params.block."), train("train."), io("io."),
        resume("resume.");
    visit_root(root);
    visit_params(params, deck);
    visit_any_block(layers, block);
    visit_transformer(layers, block);
    block.block_type = BlockType::mamba2;
    visit_mamba(layers, block);
    visit_train(train, deck.train);
    visit_io(io, deck.io);
    visit_resume(resume);
    for (KeyNames const* more : {&params, &layers, &train, &io, &resume})
      root.names.insert(root.names.end(), more->names.begin(), more->names.end());
    return root.names;
  }();
  return keys;
}

/// A key of the other family of blocks is not a misspelt one: the message says whose it is.
void refuse_keys_of_other_blocks(Section& section, BlockConfig const& block) {
  KeyNames other("");
  BlockConfig any;
  any.block_type = BlockType::mamba2;
  bool const mamba = is_mamba(block.block_type);
  if (mamba) {
    visit_transformer(other, any);
  } else {
    visit_mamba(other, any);
  }
  for (std::string const& key : other.names)
    if (auto const at = section.find(key))
      section.document().fail(section.path(key), *at,
                              fmt::format("is a key of {} blocks, but this is a {} block; remove the key, or "
                                          "state another block_type",
                                          mamba ? "Transformer" : "Mamba", mamba ? "Mamba" : "Transformer"));
}

/// Sets `guessed` when no block_type is given and the keys leave a choice.
BlockConfig read_block(YamlDocument& document, YAML::Node const& node, std::string const& path,
                       bool& guessed) {
  Section section(document, node, path, all_keys());
  BlockConfig block;
  auto const type = section.find("block_type");
  bool const has_mamba_keys =
      section.has("d_state") || section.has("d_conv") || section.has("expand") || section.has("headdim");
  if (type ? type->IsScalar() && type->Scalar() == "mamba" : has_mamba_keys) {
    block.block_type = BlockType::mamba2;
  } else if (type) {
    section.choice("block_type", block.block_type, true, block_types(), "");
  } else {
    guessed = true;
  }
  refuse_keys_of_other_blocks(section, block);
  visit_block(section, block);
  if (section.has("patch_pos_emb_type")) {
    if (section.has("pos_emb_type"))
      document.fail(section.path("patch_pos_emb_type"), *section.find("patch_pos_emb_type"),
                    "is the older name of pos_emb_type, which is given too; keep one");
    section.choice("patch_pos_emb_type", block.pos_emb_type, false, positions(), "");
  }
  if (block.block_type == BlockType::mamba1) {
    double dropout = 0;
    section.optional("dropout", dropout, at_least_below(0, 1), "");
    if (dropout != 0) section.ignored("dropout", "a mamba1 block has no dropout");
  }
  section.finish();
  return block;
}

void read_blocks(Section& params, ModelConfig& config) {
  YamlDocument& document = params.document();
  auto const node = params.find("block");
  std::string const path = params.path("block");
  if (!node) document.fail(path, YAML::Node(YAML::NodeType::Undefined), "is missing; it has no default");
  std::size_t const stages = config.hidden_dims.size();
  bool guessed = false;
  if (node->IsSequence()) {
    if (node->size() != stages)
      document.fail(
          path, *node,
          fmt::format("lists {} blocks, but hidden_dims has {} stages; give one block for each stage",
                      node->size(), stages));
    for (std::size_t s = 0; s < stages; ++s)
      config.block.push_back(read_block(document, (*node)[s], fmt::format("{}.{}", path, s), guessed));
  } else {
    config.block.assign(stages, read_block(document, *node, path, guessed));
  }
  if (guessed)
    document.warn(path,
                  "has no block_type and is read as transformer; the package may read such a block as "
                  "transformerEncoder, so state the type");
}

/// Everything of `params` that a model is made of; the caller finishes the section.
ModelConfig read_model(Section& section, ModelConfig config, std::vector<Index>& chunks) {
  visit_model(section, config, chunks);
  return config;
}

/// Checks that need the whole model; `path` is "params".
void check_model(YamlDocument& document, YAML::Node const& at, std::string const& path,
                 ModelConfig const& config, std::vector<Index> const& chunks) {
  try {
    config.validate();
  } catch (InputError const& error) {
    throw InputError(fmt::format("{}: {}.{}", document.name(), path, error.what()));
  }
  if (!chunks.empty() && chunks.size() + 1 != config.stages())
    document.fail(path + ".train_checkpoint_chunks", at,
                  fmt::format("has {} entries; {} stages need {}, or null", chunks.size(), config.stages(),
                              config.stages() - 1));
}

void read_params(YamlDocument& document, YAML::Node const& node, Deck& deck) {
  Section section(document, node, "params", all_keys());
  visit_params(section, deck);
  section.finish();
  read_blocks(section, deck.params);
  check_model(document, node, "params", deck.params, deck.train_checkpoint_chunks);
  ModelConfig const& m = deck.params;
  if (m.block.front().pos_emb_type == model::Position::fixed && deck.input_seq_len > m.context())
    document.fail(
        "params.input_seq_len", *section.find("input_seq_len"),
        fmt::format("is {}, but the fixed positions of stage 1 end at {} bytes, the product of seq_lens",
                    deck.input_seq_len, m.context()));
  if (m.pad_token_id < 256)
    document.warn(
        "params.pad_token_id",
        fmt::format("is {0}, a byte value: byte {0} in the data is taken for padding and never scored; "
                    "num_tokens 257 with pad_token_id 256 loses no byte",
                    m.pad_token_id));
}

/// The key from before outer_tapes.
void read_outer_recompute(Section& section, TrainConfig& train) {
  auto const node = section.find("outer_recompute");
  if (!node) return;
  bool recompute = false;
  section.optional("outer_recompute", recompute, any(), "");
  auto const meant = recompute ? model::OuterTapes::rebuild : model::OuterTapes::keep;
  if (section.has("outer_tapes") && train.outer_tapes != meant)
    section.document().fail(
        section.path("outer_recompute"), *node,
        fmt::format(
            "is {}, which means outer_tapes: {}, but outer_tapes says otherwise; remove outer_recompute",
            recompute, recompute ? "rebuild" : "keep"));
  train.outer_tapes = meant;
}

void read_train(YamlDocument& document, YAML::Node const& node, Deck& deck) {
  Section section(document, node, "train", all_keys());
  visit_train(section, deck.train);
  read_outer_recompute(section, deck.train);
  section.finish();
  TrainConfig& t = deck.train;
  if (t.init_from && t.init_from->empty())
    document.fail("train.init_from", *section.find("init_from"), "must name a checkpoint; it is empty");
  if (t.max_eval_steps == 0) t.max_eval_steps.reset();
  double const windows = static_cast<double>(std::max(t.batch_size, t.eval_batch_size));
  if (windows * static_cast<double>(deck.input_seq_len) >= 0x1p62)
    document.fail("train.batch_size", node,
                  fmt::format("{} times input_seq_len {} is more bytes than 64 bits can count", windows,
                              deck.input_seq_len));
}

void read_io(YamlDocument& document, YAML::Node const& node, Deck& deck) {
  Section section(document, node, "io", all_keys());
  visit_io(section, deck.io);
  section.finish();
  IoConfig const& io = deck.io;
  if (io.name_model.empty() || io.name_model == "." || io.name_model == ".." || io.name_model.size() > 200 ||
      io.name_model.find_first_of(std::string("/\0\n", 3)) != std::string::npos)
    document.fail("io.name_model", *section.find("name_model"),
                  "must be the name of a folder, without slashes; it is " + in_quotes(io.name_model));
  if (io.output_dir.empty())
    document.fail("io.output_dir", *section.find("output_dir"), "must name a folder; it is empty");
  if (io.dataset && io.dataset->empty())
    document.fail("io.dataset", *section.find("dataset"), "must name a file; it is empty");
  if (io.validate_amount < io.num_models_to_save)
    document.warn("io.validate_amount", fmt::format("is {}, so at most that many of the {} checkpoints of "
                                                    "num_models_to_save can come to be",
                                                    io.validate_amount, io.num_models_to_save));
}

void read_resume(YamlDocument& document, YAML::Node const& node, Deck& deck) {
  if (node.IsNull()) return;
  Section section(document, node, "resume", all_keys());
  std::optional<std::string> file;
  section.optional("checkpoint_file", file, any(), "");
  visit_resume(section);
  section.finish();
  if (!file || file->empty()) {
    document.warn("resume.checkpoint_file",
                  "is empty, as the package writes it before it has saved a model; it is read as null");
  } else if (!deck.train.init_from) {
    deck.train.init_from = std::move(file);
  } else if (deck.train.init_from != file) {
    document.warn("resume.checkpoint_file", "has no meaning here: train.init_from names other weights");
  }
}

Deck read(YamlDocument& document) {
  Section root(document, document.root(), "", all_keys());
  visit_root(root);
  root.finish();
  Deck deck;
  for (char const* name : {"params", "train", "io", "resume"}) {
    auto const node = root.find(name);
    std::string_view const section = name;
    if (!node && section == "resume") continue;
    if (!node)
      throw InputError(fmt::format("{}: the section {} is missing; a deck needs params, train and io",
                                   document.name(), name));
    if (section == "params") read_params(document, *node, deck);
    if (section == "train") read_train(document, *node, deck);
    if (section == "io") read_io(document, *node, deck);
    if (section == "resume") read_resume(document, *node, deck);
  }
  deck.warnings = std::move(document.warnings());
  return deck;
}

std::string slurp(std::filesystem::path const& path) {
  constexpr std::size_t limit = 1 << 20;
  std::error_code error;
  auto const status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status))
    throw InputError(fmt::format("the deck {} does not exist", path.string()));
  if (std::filesystem::is_directory(status))
    throw InputError(fmt::format("{} is a folder; name the YAML file of a deck", path.string()));
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InputError(fmt::format("the deck {} cannot be opened for reading", path.string()));
  std::string text(limit + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) throw InputError(fmt::format("the deck {} cannot be read", path.string()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > limit)
    throw InputError(
        fmt::format("{} is larger than 1 MiB and so is no deck; a deck is a short YAML text", path.string()));
  return text;
}

/// A mapping that stands alone, without overrides.
YamlDocument bare(std::string_view yaml, std::string const& name) { return {yaml, name, {}}; }

}  // namespace

Deck parse_deck(std::string_view yaml, std::string const& name, std::vector<std::string> const& overrides) {
  YamlDocument document(yaml, name, overrides);
  return read(document);
}

Deck read_deck(std::filesystem::path const& path, std::vector<std::string> const& overrides) {
  YamlDocument document(slurp(path), path.string(), overrides);
  std::optional<std::string> const origin = named_origin(document.root());
  if (!origin) return read(document);
  std::error_code error;
  if (std::filesystem::exists(*origin, error)) {
    if (auto const config = origin_config(*origin))
      document.replace_root(with_params_of(document.root(), *config));
    return read(document);
  }
  // A run that has begun goes on without the file, if its deck says everything.
  try {
    return read(document);
  } catch (InputError const& problem) {
    throw InputError(fmt::format("{} (train.init_from names {}, which does not exist and cannot tell)",
                                 problem.what(), *origin));
  }
}

ModelConfig parse_model_params(std::string_view yaml, std::string const& name) {
  return parse_package_model(yaml, name).params;
}

PackageModel parse_package_model(std::string_view yaml, std::string const& name) {
  YamlDocument document = bare(yaml, name);
  PackageModel model;
  YAML::Node node = document.root();
  std::string path = "params";
  Section outer(document, node, "params", all_keys());
  if (auto const inner = outer.find("mblm_config")) {
    Index mask = 0;
    outer.required("mask_token_id", mask, at_least(0, 65535), "");
    outer.nested("mblm_config", "", "", "");
    outer.finish();
    model.mask_token_id = mask;
    node.reset(*inner);  // an assignment would change the document
    path = "params.mblm_config";
  }
  ModelConfig config;
  config.head = model::Head::reference;
  std::vector<Index> chunks;
  Section section(document, node, path, all_keys());
  model.params = read_model(section, config, chunks);
  section.finish();
  read_blocks(section, model.params);
  check_model(document, node, path, model.params, chunks);
  return model;
}

BlockConfig parse_block(std::string_view yaml, std::string const& name) {
  YamlDocument document = bare(yaml, name);
  bool guessed = false;
  return read_block(document, document.root(), "block", guessed);
}

StageBlock parse_stage_block(std::string_view yaml, std::string const& name) {
  YamlDocument document = bare(yaml, name);
  Section section(document, document.root(), "", all_keys());
  StageBlock stage;
  section.required("model_dim", stage.model_dim, at_least(1), "");
  section.required("num_layers", stage.num_layers, at_least(1), "");
  section.nested("block", "", "", "");
  section.finish();
  bool guessed = false;
  auto const node = section.find("block");
  if (!node) document.fail("block", document.root(), "is missing; it has no default");
  stage.block = read_block(document, *node, "block", guessed);
  return stage;
}

std::filesystem::path Deck::run_folder() const {
  return std::filesystem::path(io.output_dir) / io.name_model;
}

std::string const& Deck::dataset() const {
  if (!io.dataset)
    throw InputError(
        "the deck names no data: pack your files with `strata pack --output data.h5 --split 0.9,0.05,0.05 "
        "FOLDER` and "
        "set io.dataset=data.h5");
  return *io.dataset;
}

}  // namespace strata::train
