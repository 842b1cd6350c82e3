// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <filesystem>

#include "core/runtime.hpp"
#include "info.hpp"
#include "model/cost.hpp"
#include "model/hierarchy.hpp"
#include "model/tape_parts.hpp"
#include "train/checkpoint.hpp"
#include "train/deck.hpp"
#include "train/deck_keys.hpp"
#include "train/machine.hpp"
#include "train/plan.hpp"

namespace {

using strata::model::Index;
using strata::model::OuterTapes;
using strata::train::DataFacts;
using strata::train::Deck;
using strata::train::MemoryLimit;

std::int64_t whole(double bytes) { return static_cast<std::int64_t>(std::min(bytes, 9e18)); }

/// Sizes of the deck's dataset do not count, since a deck may be looked at before its data is there; whether
/// it holds 16-bit tokens, weights or no validation split does.
DataFacts facts(Deck const& deck) {
  DataFacts result;
  result.ranks = strata::core::number_of_ranks();
  std::error_code error;
  if (!deck.io.dataset || !std::filesystem::exists(*deck.io.dataset, error)) return result;
  DataFacts const found = strata::train::data_facts(strata::io::DatasetFile(*deck.io.dataset), result.ranks);
  result.wide = found.wide;
  result.train_weights = found.train_weights;
  result.validation_weights = found.validation_weights;
  if (found.validation_bytes == 0) result.validation_bytes = 0;
  return result;
}

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
  return {{"bytes_per_sequence",
           layer_bytes * (block.border_width() + block.rows_before() * block.history_width())},
          {"bytes_per_position", layer_bytes * block.history_width()}};
}

/// Which policy a run takes, what that needs, and how far each policy goes.
nlohmann::ordered_json describe_memory(Deck const& deck, DataFacts const& data, MemoryLimit const& limit,
                                       char const* source) {
  strata::train::MemoryPlan const plan = make_plan(deck, data, limit);
  nlohmann::ordered_json json;
  json["available_bytes"] = whole(limit.bytes);
  json["available_is"] = source;
  json["outer_tapes"] = strata::train::name_of(plan.chunking.outer_tapes);
  json["outer_tapes_chosen_by"] = plan.is_automatic ? "auto" : "the deck";
  json["outer_chunk_positions"] = plan.outer_chunk;
  json["outer_chunks"] = plan.outer_chunks;
  json["inner_chunk_rows"] = plan.inner_rows;
  json["activations_are_those_of"] = plan.evaluation_is_larger ? "evaluation" : "training";
  for (auto const& use : plan.uses) json["component_bytes"][use.what] = whole(use.bytes);
  json["planned_bytes"] = whole(plan.total());
  json["program_bytes"] = whole(limit.base);
  json["predicted_peak_bytes"] = whole(limit.peak(plan.total()));
  json["fits"] = limit.fits(plan.total());
  if (!limit.fits(plan.total())) json["would_fit_with"] = nearest_change(deck, data, limit);
  json["training_arena_bytes"] = whole(plan.training_arena);
  json["evaluation_arena_bytes"] = whole(plan.evaluation_arena);
  bool const fixed = deck.params.block[0].pos_emb_type == strata::model::Position::fixed;
  for (OuterTapes const policy : {OuterTapes::keep, OuterTapes::rebuild, OuterTapes::two_level}) {
    auto& entry = json["policies"][strata::train::name_of(policy)];
    entry["predicted_peak_bytes"] = whole(limit.peak(plan_with(deck, data, policy).total()));
    strata::train::Index const longest = longest_context(deck, data, policy, limit);
    entry["longest_context"] = longest;
    if (fixed && longest == deck.params.context())
      entry["longest_context_bounded_by"] = "the table of fixed positions";
  }
  return json;
}

}  // namespace

nlohmann::ordered_json describe_deck(std::string const& path, std::vector<std::string> const& overrides,
                                     std::optional<std::int64_t> memory) {
  Deck const deck = strata::train::read_deck(path, overrides);
  strata::model::ModelConfig const& config = deck.params;
  strata::model::ParameterCount const count = strata::model::count_parameters(config);
  auto const hierarchy = strata::model::Hierarchy<float>::plan(config, strata::train::chunking(deck));

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

  if (!strata::kernels::on_device)
    strata::train::measure_gemm_flops(0);  // the program's own memory is counted as in a run that has begun
  MemoryLimit limit = strata::train::memory_limit(deck);
  if (memory) limit.bytes = static_cast<double>(*memory);
  json["memory_per_rank"] = describe_memory(deck, facts(deck), limit,
                                            memory           ? "--memory"
                                            : limit.is_given ? "train.memory"
                                                             : "free on this machine, for one rank");
  return json;
}
