// SPDX-License-Identifier: Apache-2.0
#include "perf/perf_model.hpp"

namespace strata::perf {

using model::Index;

model::ModelConfig two_stages(Index width, Index heads, Index layers, Index patch, Index context) {
  model::ModelConfig config;
  config.hidden_dims = {width, width};
  config.num_layers = {layers, layers};
  config.seq_lens = {context / patch, patch};
  model::BlockConfig block;
  block.pos_emb_type = model::Position::fixed;
  block.attn_head_dims = width / heads;
  block.attn_num_heads = heads;
  config.block = {block, block};
  return config;
}

model::ModelConfig model_22m() { return two_stages(512, 8, 4, 8, 8192); }
model::ModelConfig small_model(Index context) { return two_stages(128, 4, 2, 8, context); }
model::ModelConfig small_hybrid() {
  model::ModelConfig config = small_model(1024);
  model::BlockConfig& block = config.block[0];
  block = {};
  block.block_type = model::BlockType::mamba2;
  block.d_state = 64;
  block.d_conv = 4;
  block.expand = 2;
  block.headdim = 64;
  return config;
}
model::ModelConfig tiny_model(Index context) { return two_stages(32, 2, 1, 8, context); }

}  // namespace strata::perf
