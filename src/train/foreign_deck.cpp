// SPDX-License-Identifier: Apache-2.0
#include "train/foreign_deck.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>

#include "core/error.hpp"
#include "io/atomic_file.hpp"
#include "train/conflicts.hpp"

namespace strata::train {

namespace {

/// The sections that a deck has beside its model. Training from the weights needs a deck of its own anyway.
char const* const other_sections =
    "train: {target_elements: 1, target_elements_strategy: batch, batch_size: 1, learning_rate: 0.0001}\n"
    "io: {name_model: converted, output_dir: runs}\n";

bool names(std::vector<std::string> const& overrides, std::string const& key) {
  return std::any_of(overrides.begin(), overrides.end(),
                     [&](std::string const& text) { return text.starts_with(key + "="); });
}

/// The longest window the model was made for, where nobody says how long its windows are.
void set_window(Deck& deck, std::vector<std::string> const& overrides) {
  if (!names(overrides, "params.input_seq_len")) deck.input_seq_len = deck.params.context();
}

/// The deck as text with the keys of a masked model moved to where those of others are, and with other
/// sections where the model's keys stand alone. Text that is no mapping is left to parse_deck to refuse.
struct DeckText {
  std::string text;
  bool states_head = false;
  bool states_pad_row = false;
  bool states_window = true;
};
DeckText normalised(std::string const& text) {
  DeckText result{text};
  try {
    YAML::Node root = YAML::Load(text);
    if (!root.IsMap()) return result;
    bool const whole = root["params"].IsDefined();
    YAML::Node params = whole ? root["params"] : root;
    if (!params.IsMap()) return result;
    YAML::Node const inner = params["mblm_config"];
    bool const masked = inner.IsDefined() && inner.IsMap();
    YAML::Node const model = masked ? inner : params;
    result.states_head = model["head"].IsDefined();
    result.states_pad_row = model["pad_row_is_trained"].IsDefined();
    result.states_window = params["input_seq_len"].IsDefined();
    if (whole && !masked) return result;  // as it is, so that messages name its lines
    YAML::Node flat = YAML::Clone(model);
    if (result.states_window && !flat["input_seq_len"].IsDefined())
      flat["input_seq_len"] = params["input_seq_len"];
    if (!result.states_window) flat["input_seq_len"] = 1;
    YAML::Node deck;
    deck["params"] = flat;
    if (whole) {
      for (auto const& entry : root)
        if (entry.first.Scalar() != "params") deck[entry.first.Scalar()] = entry.second;
    }
    result.text = YAML::Dump(deck) + "\n" + (whole ? "" : other_sections);
  } catch (YAML::Exception const&) {
    result.text = text;
  }
  return result;
}

/// What tells two models of equal shapes apart: everything but dropout and what only training reads.
std::string model_text(Deck const& deck) {
  Deck model;
  model.params = deck.params;
  for (model::BlockConfig& block : model.params.block)
    block.attn_dropout = block.ff_dropout = block.dropout = 0;
  return model.text();
}

/// Throws when the decks describe different models.
void refuse_other_model(std::string const& path, Deck const& stored, std::string const& deck_path,
                        Deck const& named) {
  std::vector<std::string> clauses;
  for (Difference const& d : differing_keys(model_text(stored), model_text(named)))
    clauses.push_back(fmt::format("{} is {} where the file has {}", d.key, d.now, d.before));
  if (!clauses.empty())
    throw core::InputError(
        fmt::format("{} contradicts the deck inside {}: {}", deck_path, path, fmt::join(clauses, "; ")));
}

}  // namespace

Deck foreign_deck(io::TensorFile const& file, TensorShapes const& tensors,
                  std::optional<std::string> const& deck_path, std::vector<std::string> const& overrides,
                  std::vector<std::string>& warnings) {
  std::string const& path = file.file.path();
  std::optional<Deck> stored;
  if (auto const text = file.metadata.find(deck_metadata); text != file.metadata.end())
    stored = parse_deck(text->second, path + ": " + deck_metadata,
                        deck_path ? std::vector<std::string>() : overrides);
  Deck deck;
  if (deck_path) {
    DeckText const text = normalised(io::read_text_file(*deck_path, std::size_t{1} << 20));
    std::vector<std::string> completed = overrides;
    // Keys that the packages do not have: what each package does.
    if (!text.states_pad_row && !names(overrides, "params.pad_row_is_trained")) {
      bool const trained = stored ? stored->params.pad_row_is_trained : tensors.style == NameStyle::megabyte;
      completed.insert(completed.begin(), fmt::format("params.pad_row_is_trained={}", trained));
    }
    if (!text.states_head && !names(overrides, "params.head"))
      completed.insert(completed.begin(), stored && stored->params.head == model::Head::complete
                                              ? "params.head=complete"
                                              : "params.head=reference");
    deck = parse_deck(text.text, *deck_path, completed);
    if (!text.states_window) set_window(deck, overrides);
    deck.train.init_from.reset();  // these weights are what the model starts from
    if (stored) refuse_other_model(path, *stored, *deck_path, deck);
    if (!stored && deck.params.head == model::Head::complete)
      warnings.push_back(*deck_path +
                         ": params.head is complete, but the packages train and run head reference; the "
                         "weights will not predict as they did there");
  } else if (stored) {
    deck = std::move(*stored);
  } else {
    deck = parse_deck(deck_from_tensors(tensors, overrides, path) + other_sections, path, overrides);
    set_window(deck, overrides);
    if (tensors.pad_row && !names(overrides, "params.pad_token_id"))
      warnings.push_back(
          fmt::format("{}: params.pad_token_id is taken to be {}, the only row of zeros in the "
                      "table of the last stage",
                      path, *tensors.pad_row));
  }
  warnings.insert(warnings.end(), deck.warnings.begin(), deck.warnings.end());
  bool const causal = std::any_of(deck.params.block.begin(), deck.params.block.end(),
                                  [](model::BlockConfig const& block) { return block.causal(); });
  if (tensors.encoder && causal)
    warnings.push_back(
        path +
        ": the names have the prefix mblm. of an encoder, but the deck has causal blocks; if that is "
        "wrong, state block_type: transformerEncoder");
  return deck;
}

}  // namespace strata::train
