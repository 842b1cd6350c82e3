// SPDX-License-Identifier: Apache-2.0
#include "model/cost.hpp"

namespace strata::model {

namespace {

template <class N>
N of(Index value) {
  return static_cast<N>(value);
}

/// Table of the vocabulary at the width of the last stage; above it LayerNorm, Linear, LayerNorm over a whole
/// patch.
template <class N>
N embedder(ModelConfig const& c, std::size_t s) {
  N const local = of<N>(c.hidden_dims.back());
  N const table = of<N>(c.num_tokens) * local;
  if (c.is_last(s)) return table;
  N patch = local;
  for (std::size_t k = s + 1; k < c.stages(); ++k) patch *= of<N>(c.seq_lens[k]);
  N const width = of<N>(c.hidden_dims[s]);
  N convolutions = 0;
  if (c.patch_encoder == PatchEncoder::convolution)
    for (Index const inputs : patch_convolution_widths) convolutions += local * of<N>(inputs + 1);
  return convolutions + table + 2 * patch + width * patch + width + 2 * width;
}

template <class N>
N transformer_layer(BlockConfig const& b, N width) {
  N const inner = of<N>(b.attn_head_dims) * of<N>(b.attn_num_heads);
  N const feed = of<N>(b.ff_multiplier) * width;
  N const attention = width + 4 * width * inner;                   // norm, to_q, to_kv, to_out
  N const feed_forward = width + 2 * feed * width + feed + width;  // norm, two linear layers with biases
  return attention + feed_forward;
}

template <class N>
N mamba1_layer(BlockConfig const& b, Index stage_width) {
  N const width = of<N>(stage_width), state = of<N>(b.d_state);
  N const channels = of<N>(b.expand) * width;
  N const rank = of<N>(BlockConfig::dt_rank(stage_width));
  N const projections = 3 * width * channels + channels * (rank + 2 * state);     // in_proj, out_proj; x_proj
  N const convolution = channels * (of<N>(b.d_conv) + 1);                         // with its bias
  N const step = channels * rank + channels;                                      // dt_proj with its bias
  return width + projections + convolution + step + channels * state + channels;  // norm, A_log, D
}

template <class N>
N mamba2_layer(BlockConfig const& b, Index stage_width) {
  N const width = of<N>(stage_width), state = of<N>(b.d_state);
  N const channels = of<N>(b.expand) * width;
  N const heads = channels / of<N>(b.headdim);
  N const projections = width * (2 * channels + 2 * state + heads) + channels * width;  // in_proj, out_proj
  N const convolution = (channels + 2 * state) * (of<N>(b.d_conv) + 1);                 // with its bias
  return width + projections + convolution + 3 * heads + channels;  // norm; dt_bias, A_log, D; gated norm
}

template <class N>
N layer(BlockConfig const& b, Index stage_width) {
  if (b.block_type == BlockType::mamba1) return mamba1_layer<N>(b, stage_width);
  if (b.block_type == BlockType::mamba2) return mamba2_layer<N>(b, stage_width);
  return transformer_layer<N>(b, of<N>(stage_width));
}

template <class N>
N block(ModelConfig const& c, std::size_t s) {
  BlockConfig const& b = c.block[s];
  N const width = of<N>(c.hidden_dims[s]);
  N const positions = b.pos_emb_type == Position::fixed ? of<N>(c.seq_lens[s]) * width : N(0);
  N const final_norm = b.block_type == BlockType::mamba1 ? N(0) : width;
  return of<N>(c.num_layers[s]) * layer<N>(b, c.hidden_dims[s]) + final_norm + width +  // start vector
         positions;
}

template <class N>
N projection(ModelConfig const& c, std::size_t s) {
  if (c.is_last(s)) return 0;
  N const out = of<N>(c.seq_lens[s + 1]) * of<N>(c.hidden_dims[s + 1]);
  return out * of<N>(c.hidden_dims[s]) + out;
}

template <class N>
N head(ModelConfig const& c) {
  return of<N>(c.num_tokens) * of<N>(c.hidden_dims.back()) + of<N>(c.num_tokens);
}

}  // namespace

Index ParameterCount::total() const {
  Index sum = head;
  for (Stage const& s : stages) sum += s.embedder + s.block + s.projection;
  return sum;
}

ParameterCount count_parameters(ModelConfig const& config) {
  ParameterCount count;
  for (std::size_t s = 0; s < config.stages(); ++s)
    count.stages.push_back(
        {embedder<Index>(config, s), block<Index>(config, s), projection<Index>(config, s)});
  count.head = head<Index>(config);
  return count;
}

double approximate_parameter_count(ModelConfig const& config) {
  double sum = head<double>(config);
  for (std::size_t s = 0; s < config.stages(); ++s)
    sum += embedder<double>(config, s) + block<double>(config, s) + projection<double>(config, s);
  return sum;
}

}  // namespace strata::model
