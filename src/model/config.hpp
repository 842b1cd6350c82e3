// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a model is: the `params` section of a deck, key by key (names as in the MBLM package).

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/common/types.hpp"

namespace strata::model {

using kernels::Index;

enum class BlockType { transformer, transformer_encoder, mamba1, mamba2 };

/// Positional embedding of a stage, added to (fixed) or rotating (rope) the embeddings of its sub-patches.
enum class Position { none, fixed, rope };

/// How stages are wired (doc/architecture.md, "Two heads").
enum class Head { complete, reference };

/// What happens to the embedded bytes of a stage above the last before they are cut into patches.
enum class PatchEncoder {
  linear,       ///< nothing: they are concatenated, normed and projected
  convolution,  ///< causal convolutions go over them first (model/patch_convolutions.hpp)
};

/// Widths of these convolutions, in their order (Yu et al. 2023, arXiv 2305.07185, section 2.3.1).
inline constexpr std::array<Index, 3> patch_convolution_widths = {3, 5, 7};

struct BlockConfig {
  BlockType block_type = BlockType::transformer;
  Position pos_emb_type = Position::none;
  // transformer, transformerEncoder
  Index attn_head_dims = 0;
  Index attn_num_heads = 0;
  bool attn_use_rot_embs = true;
  double attn_dropout = 0;
  Index cross_patch_attention = 0;  ///< r: last positions of the patch before that attention sees; 0: none
  Index ff_multiplier = 2;
  double ff_dropout = 0;
  // mamba1, mamba2
  Index d_state = 0;   ///< N: state of a channel (mamba1) or of a feature of a head (mamba2)
  Index d_conv = 0;    ///< W: inputs that the causal convolution sees
  Index expand = 0;    ///< E = expand * D channels
  Index headdim = 0;   ///< p: features of a head; mamba2 only
  double dropout = 0;  ///< of the last layer's output before the final norm; mamba2 only, in training only

  bool causal() const { return block_type != BlockType::transformer_encoder; }
  /// Whether training draws random numbers for this block. mamba1 has no dropout.
  bool has_dropout() const {
    bool const mamba = block_type == BlockType::mamba1 || block_type == BlockType::mamba2;
    return mamba ? block_type == BlockType::mamba2 && dropout > 0 : attn_dropout > 0 || ff_dropout > 0;
  }
  Index inner_width() const { return attn_head_dims * attn_num_heads; }
  /// R = ceil(D / 16): the rank of mamba1's step sizes.
  static Index dt_rank(Index width) { return (width + 15) / 16; }
};

struct ModelConfig {
  Index num_tokens = 257;  ///< V
  Index pad_token_id =
      256;  ///< pads the last patch; never a target. Its embedding rows are zero and get no gradient.
  std::vector<Index> hidden_dims;  ///< D, outermost stage first
  std::vector<Index> num_layers;
  std::vector<Index> seq_lens;  ///< P
  std::vector<BlockConfig> block;
  Head head = Head::complete;
  PatchEncoder patch_encoder = PatchEncoder::linear;
  /// The MEGABYTE package treats the pad row of its embedding tables as an ordinary, trained row.
  bool pad_row_is_trained = false;

  std::size_t stages() const { return hidden_dims.size(); }
  bool is_last(std::size_t stage) const { return stage + 1 == stages(); }
  /// R_s: bytes that one position of a stage covers.
  Index bytes_per_position(std::size_t stage) const {
    Index bytes = 1;
    for (std::size_t s = stage + 1; s < stages(); ++s) bytes *= seq_lens[s];
    return bytes;
  }
  /// Bytes before a patch that its embedding sees.
  Index patch_history() const {
    Index bytes = 0;
    if (patch_encoder == PatchEncoder::convolution)
      for (Index const width : patch_convolution_widths) bytes += width - 1;
    return bytes;
  }
  bool has_dropout() const {
    return std::any_of(block.begin(), block.end(), [](BlockConfig const& b) { return b.has_dropout(); });
  }
  /// Product of all P: the longest window that fixed positions of the outermost stage allow.
  Index context() const { return seq_lens.front() * bytes_per_position(0); }
  /// Rows of one whole sequence of a stage that has `patches` sub-patches. Head `reference` adds the start
  /// row as a row of its own; the row after the last sub-patch is dropped where causality makes it
  /// irrelevant.
  Index rows(std::size_t stage, Index patches) const {
    bool const extra = head == Head::reference && (is_last(stage) || !block[stage].causal());
    return patches + (extra ? 1 : 0);
  }

  /// Cross-patch attention: how many sequences of a stage before the present one it and those below it depend
  /// on, one for each layer. Those further back matter through the stage above only.
  Index lead(std::size_t stage) const;

  /// Throws core::InputError with the key and the numbers when the sizes cannot work together.
  void validate() const;
};

}  // namespace strata::model
