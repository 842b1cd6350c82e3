// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "info.hpp"
#include "model/cost.hpp"
#include "model/hierarchy.hpp"
#include "model/tape_parts.hpp"
#include "train/checkpoint.hpp"
#include "train/deck.hpp"
#include "train/deck_keys.hpp"

namespace {

using strata::model::Index;

char const* name_of(strata::model::BlockType type) {
  for (auto const& choice : strata::train::block_types())
    if (choice.value == type) return choice.name;
  return "";
}

/// What training keeps per position of a layer, in floats.
nlohmann::ordered_json describe_tape(strata::model::BlockConfig const& block, Index width) {
  nlohmann::ordered_json json;
  Index const float_bytes = sizeof(float);
  json["bytes_per_position_and_layer"] = float_bytes * strata::model::layer_tape_elements(block, width);
  for (auto const& part : strata::model::layer_tape_parts(block, width))
    json["of_which"][part.what] = float_bytes * part.elements;
  return json;
}

/// What one sequence remembers of the positions before: a constant, and what each position adds.
nlohmann::ordered_json describe_carry(strata::model::Block<float> const& block) {
  Index const layer_bytes = block.layers() * static_cast<Index>(sizeof(float));
  return {{"bytes_per_sequence", layer_bytes * block.border_width()},
          {"bytes_per_position", layer_bytes * block.history_width()}};
}

}  // namespace

nlohmann::ordered_json describe_deck(std::string const& path, std::vector<std::string> const& overrides) {
  strata::train::Deck const deck = strata::train::read_deck(path, overrides);
  strata::model::ModelConfig const& config = deck.params;
  strata::model::ParameterCount const count = strata::model::count_parameters(config);
  strata::model::Hierarchy<float> const hierarchy(config, strata::train::chunking(deck), false);

  nlohmann::ordered_json json;
  json["file"] = path;
  json["kind"] = "deck";
  json["warnings"] = deck.warnings;
  json["stages"] = nlohmann::ordered_json::array();
  for (std::size_t s = 0; s < config.stages(); ++s) {
    nlohmann::ordered_json stage;
    stage["stage"] = s + 1;
    stage["block_type"] = name_of(config.block[s].block_type);
    stage["bytes_per_position"] = config.bytes_per_position(s);
    stage["width"] = config.hidden_dims[s];
    stage["layers"] = config.num_layers[s];
    stage["embedder_parameters"] = count.stages[s].embedder;
    stage["layer_parameters"] = count.stages[s].block;
    stage["projection_parameters"] = count.stages[s].projection;
    stage["tape"] = describe_tape(config.block[s], config.hidden_dims[s]);
    stage["carry"] = describe_carry(hierarchy.stages()[s]->block());
    json["stages"].push_back(std::move(stage));
  }
  json["head_parameters"] = count.head;
  json["parameters"] = count.total();
  json["input_seq_len"] = deck.input_seq_len;

  double const bytes = static_cast<double>(deck.input_seq_len);
  double const causal = hierarchy.forward_flops(1, deck.input_seq_len) / bytes;
  double const square = hierarchy.forward_flops(1, deck.input_seq_len, true) / bytes;
  json["flops_per_byte"] = {{"forward", causal},
                            {"training", 3 * causal},
                            {"forward_with_masked_pairs", square},
                            {"training_with_masked_pairs", 3 * square}};

  // Value, gradient and two moments of float; training and evaluation take turns in the rest.
  Index const windows = deck.train.batch_size;
  Index const eval_windows = deck.train.eval_batch_size > 0 ? deck.train.eval_batch_size : windows;
  double const parameters = 16.0 * static_cast<double>(count.total());
  auto const training = static_cast<double>(hierarchy.arena_bytes(windows, deck.input_seq_len, true));
  auto const evaluation = static_cast<double>(hierarchy.arena_bytes(eval_windows, deck.input_seq_len, false));
  json["memory_bytes_per_rank"] = {{"parameters_gradients_moments", parameters},
                                   {"activations_training", training},
                                   {"activations_evaluation", evaluation},
                                   {"total", parameters + std::max(training, evaluation)}};
  return json;
}
