// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "core/error.hpp"
#include "info.hpp"
#include "model/predictions.hpp"
#include "train/deck.hpp"

namespace {

using strata::model::Index;

/// The deck's stages, narrow and short enough to try every byte. Who sees whom depends on the stages' kinds
/// and wiring, not on widths; sequences of a few positions have every border that long ones have.
strata::model::ModelConfig shrink(strata::model::ModelConfig config) {
  constexpr Index longest[] = {128, 12, 6, 4};
  constexpr std::size_t sizes = std::size(longest);
  Index const limit = config.stages() <= sizes ? longest[config.stages() - 1] : 2;
  for (std::size_t s = 0; s < config.stages(); ++s) {
    config.seq_lens[s] = std::min(config.seq_lens[s], limit);
    config.hidden_dims[s] = 16;
    config.num_layers[s] = 1;
    config.block[s].attn_num_heads = 2;
    config.block[s].attn_head_dims = 8;
    config.block[s].headdim = 8;
    config.block[s].cross_patch_attention =
        std::min(config.block[s].cross_patch_attention, config.seq_lens[s]);
    config.block[s].attn_dropout = config.block[s].ff_dropout = config.block[s].dropout = 0;
  }
  return config;
}

}  // namespace

nlohmann::ordered_json describe_dependencies(std::string const& path,
                                             std::vector<std::string> const& overrides) {
  strata::train::Deck const deck = strata::train::read_deck(path, overrides);
  strata::model::Hierarchy<double> model(shrink(deck.params), {}, false);
  strata::model::ModelConfig const& config = model.config();
  model.parameters().initialise(deck.train.seed);
  Index const length = config.context();
  std::vector<std::int64_t> ids;
  for (Index t = 0; t < length; ++t) {
    Index const id = (31 * t + 7) % config.num_tokens;
    ids.push_back(id == config.pad_token_id ? (id + 1) % config.num_tokens : id);
  }
  std::vector<std::uint8_t> const depends = strata::model::dependencies(model, ids, 1e-10);

  std::vector<Index> seen(static_cast<std::size_t>(length), 0);
  Index complete = 0, later = 0;
  for (Index t = 0; t < length; ++t) {
    for (Index i = 0; i < length; ++i) {
      if (depends[static_cast<std::size_t>(i * (length + 1) + t)] == 0) continue;
      if (i < t) ++seen[static_cast<std::size_t>(t)];
      if (i >= t) ++later;
    }
    if (seen[static_cast<std::size_t>(t)] == t) ++complete;
  }
  nlohmann::ordered_json json;
  json["file"] = path;
  json["kind"] = "dependencies";
  json["head"] = config.head == strata::model::Head::complete ? "complete" : "reference";
  json["audited_seq_lens"] = config.seq_lens;
  json["bytes"] = length;
  json["bytes_that_see_all_earlier_bytes"] = complete;
  json["dependencies_on_later_bytes"] = later;
  json["earlier_bytes_seen_by_byte"] = seen;
  if (later > 0 || (config.head == strata::model::Head::complete && complete < length))
    throw strata::core::InputError(path + ": " + std::to_string(later) + " dependencies on later bytes, " +
                                   std::to_string(length - complete) + " bytes that miss earlier ones");
  return json;
}
