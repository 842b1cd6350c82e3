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
  return table + 2 * patch + width * patch + width + 2 * width;
}

template <class N>
N block(ModelConfig const& c, std::size_t s) {
  BlockConfig const& b = c.block[s];
  N const width = of<N>(c.hidden_dims[s]);
  N const inner = of<N>(b.attn_head_dims) * of<N>(b.attn_num_heads);
  N const feed = of<N>(b.ff_multiplier) * width;
  N const attention = width + 4 * width * inner;                   // norm, to_q, to_kv, to_out
  N const feed_forward = width + 2 * feed * width + feed + width;  // norm, two linear layers with biases
  N const positions = b.pos_emb_type == Position::fixed ? of<N>(c.seq_lens[s]) * width : N(0);
  return of<N>(c.num_layers[s]) * (attention + feed_forward) + width + width +
         positions;  // final norm, start vector
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
