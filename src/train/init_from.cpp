// SPDX-License-Identifier: Apache-2.0
#include "train/init_from.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

#include "core/error.hpp"
#include "io/checkpoint_file.hpp"
#include "io/tensor_file.hpp"
#include "train/checkpoint.hpp"
#include "train/conflicts.hpp"

namespace strata::train {

namespace {

using core::InputError;
using model::ModelConfig;

/// The value of a key that a mapping has; nothing for what is no mapping.
std::optional<YAML::Node> entry(YAML::Node const& map, std::string const& key) {
  if (!map.IsMap()) return {};
  YAML::Node value = map[key];
  if (!value.IsDefined()) return {};
  return value;
}

std::optional<std::string> text_at(YAML::Node const& deck, char const* section, char const* key) {
  auto const mapping = entry(deck, section);
  auto const value = mapping ? entry(*mapping, key) : std::nullopt;
  if (!value || !value->IsScalar() || value->Scalar().empty()) return {};
  return value->Scalar();
}

/// `map` and behind it the entries of `more` whose keys it does not have.
YAML::Node completed(YAML::Node const& map, YAML::Node const& more) {
  YAML::Node result(YAML::NodeType::Map);
  for (auto const& item : map) result.force_insert(item.first, item.second);
  for (auto const& item : more)
    if (!entry(map, item.first.Scalar())) result.force_insert(item.first, item.second);
  return result;
}

YAML::Node completed_block(YAML::Node const& block, YAML::Node const& stored) {
  if (!block.IsMap()) return block;
  auto const type = entry(block, "block_type");
  std::string const stored_type = stored["block_type"].Scalar();
  bool const same = !type || (type->IsScalar() && (type->Scalar() == stored_type ||
                                                   (type->Scalar() == "mamba" && stored_type == "mamba2")));
  if (!same) return block;
  YAML::Node more = YAML::Clone(stored);
  if (entry(block, "patch_pos_emb_type")) more.remove("pos_emb_type");
  return completed(block, more);
}

YAML::Node completed_blocks(YAML::Node const& block, YAML::Node const& stored) {
  if (!block.IsMap() && !(block.IsSequence() && block.size() == stored.size())) return block;
  YAML::Node result(YAML::NodeType::Sequence);
  for (std::size_t s = 0; s < stored.size(); ++s)
    result.push_back(completed_block(block.IsMap() ? block : block[s], stored[s]));
  return result;
}

std::string value_clause(Difference const& d) {
  return fmt::format("{} is {} where the checkpoint has {}", d.key, d.now, d.before);
}

/// Nothing when a run may start although the decks differ there; else a clause that says why not.
std::optional<std::string> contradiction(Difference const& d, ModelConfig const& stored,
                                         ModelConfig const& wanted) {
  if (!d.key.starts_with("params.")) return {};
  for (char const* free : {"params.input_seq_len", "params.train_checkpoint_chunks"})
    if (d.key == free) return {};
  if (d.key.ends_with("dropout")) return {};
  if (d.key == "params.num_tokens") {
    if (wanted.num_tokens > stored.num_tokens) return {};
    return value_clause(d) + "; a vocabulary can grow, not shrink";
  }
  if (d.key == "params.pad_token_id") {
    if (wanted.pad_token_id >= stored.num_tokens) return {};
    return value_clause(d) + "; the pad id can move to a new row only";
  }
  if (d.key == "params.seq_lens" && wanted.stages() == stored.stages()) {
    std::vector<Index> outer = wanted.seq_lens;
    outer.front() = stored.seq_lens.front();
    if (outer != stored.seq_lens)
      return value_clause(d) + "; only the outermost length, the first one, can change";
    if (wanted.block.front().pos_emb_type == model::Position::fixed &&
        wanted.seq_lens.front() > stored.seq_lens.front())
      return fmt::format(
          "params.seq_lens.0 is {}, but the position table of stage 1 in the checkpoint ends at {}; a table "
          "can be cut, and rotary or no positions can be continued, but positions that were never trained "
          "cannot be made up",
          wanted.seq_lens.front(), stored.seq_lens.front());
    return {};
  }
  return value_clause(d);
}

}  // namespace

std::optional<std::string> named_origin(YAML::Node const& deck) {
  if (auto const file = text_at(deck, "train", "init_from")) return file;
  return text_at(deck, "resume", "checkpoint_file");
}

std::optional<std::string> origin_config(std::string const& origin) {
  if (io::looks_like_tensor_file(origin)) return {};
  return io::CheckpointReader(checkpoint_file(origin)).text("config");
}

YAML::Node with_params_of(YAML::Node const& deck, std::string const& config) {
  YAML::Node const stored = YAML::Load(config)["params"];
  auto const params = entry(deck, "params");
  YAML::Node whole = stored;
  if (params && !params->IsNull()) {
    if (!params->IsMap()) return deck;
    whole.reset(completed(*params, stored));
    YAML::Node const blocks = completed_blocks(whole["block"], stored["block"]);
    YAML::Node with_blocks(YAML::NodeType::Map);
    for (auto const& item : whole)
      with_blocks.force_insert(item.first, item.first.Scalar() == "block" ? blocks : item.second);
    whole.reset(with_blocks);
  }
  YAML::Node result(YAML::NodeType::Map);
  for (auto const& item : deck)
    if (item.first.Scalar() != "params") result.force_insert(item.first, item.second);
  result.force_insert(YAML::Node("params"), whole);
  return result;
}

void start_from(std::string const& origin, Deck const& deck, model::ParameterStore<float>& parameters,
                parallel::Communicator const& ranks) {
  io::CheckpointReader const reader(checkpoint_file(origin), ranks);
  std::string const config = reader.text("config");
  Deck const stored = parse_deck(config, reader.path() + ":/config");
  std::vector<std::string> clauses;
  for (Difference const& d : differing_keys(stored.text(), deck.text()))
    if (auto clause = contradiction(d, stored.params, deck.params)) clauses.push_back(std::move(*clause));
  if (!clauses.empty())
    throw InputError(fmt::format("the deck contradicts {}, which train.init_from names: {}", reader.path(),
                                 fmt::join(clauses, "; ")));
  auto const model = model::Hierarchy<float>::plan(stored.params, chunking(stored));
  load_parameters(reader, model.parameters().all(), parameters);
}

}  // namespace strata::train
