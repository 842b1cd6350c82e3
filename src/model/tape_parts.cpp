// SPDX-License-Identifier: Apache-2.0
#include "model/tape_parts.hpp"

#include "model/block.hpp"

namespace strata::model {

std::vector<TapePart> layer_tape_parts(BlockConfig const& config, Index width) {
  Index const channels = config.expand * width, state = config.d_state;
  switch (config.block_type) {
    case BlockType::transformer:
    case BlockType::transformer_encoder:
      return {{"residual stream", 2 * width},
              {"queries and attention outputs", 2 * config.inner_width()},
              {"first product of the feed-forward", config.ff_multiplier * width},
              {"softmax and norms", config.attn_num_heads + 2}};
    case BlockType::mamba1:
      return {{"residual stream", width},
              {"gate and input of the convolution", 2 * channels},
              {"output of the scan", channels},
              {"low-rank step sizes, B and C", BlockConfig::dt_rank(width) + 2 * state},
              {"norm", 1}};
    case BlockType::mamba2:
      return {{"residual stream", width},
              {"gate, input of the convolution, B, C and step sizes",
               2 * channels + 2 * state + channels / config.headdim},
              {"output of the recurrence", channels},
              {"norms", 2}};
  }
  return {};
}

Index layer_tape_elements(BlockConfig const& config, Index width) {
  // A tape's arrays start on cache lines, so only lengths of whole lines differ by exact amounts.
  constexpr Index length = 4096;
  auto const per_position = [&](Index layers) {
    ParameterStore<float> parameters;
    auto const block = make_block<float>(config, width, layers, "", Ready::at_end, parameters);
    return (block->tape_size({1, 2 * length}, true) - block->tape_size({1, length}, true)) / length;
  };
  return per_position(2) - per_position(1);
}

}  // namespace strata::model
