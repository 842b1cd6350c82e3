// SPDX-License-Identifier: Apache-2.0
#include "model/config.hpp"

#include <fmt/format.h>

#include <limits>

#include "core/error.hpp"
#include "model/cost.hpp"

namespace strata::model {

namespace {

constexpr std::size_t most_stages = 8;

[[noreturn]] void fail(std::string const& message) { throw core::InputError(message); }

void check_positive(char const* key, std::vector<Index> const& values) {
  for (std::size_t s = 0; s < values.size(); ++s)
    if (values[s] < 1)
      fail(fmt::format("{} of stage {} must be at least 1; it is {}", key, s + 1, values[s]));
}

void check_probability(char const* key, std::size_t stage, double value) {
  if (!(value >= 0 && value < 1))
    fail(
        fmt::format("block: {} of stage {} must be at least 0 and below 1; it is {}", key, stage + 1, value));
}

/// Sizes of a Mamba block. Products are compared as doubles before any is formed as integer.
void check_mamba(ModelConfig const& config, std::size_t s) {
  BlockConfig const& b = config.block[s];
  bool const heads = b.block_type == BlockType::mamba2;
  struct Size {
    char const* key;
    Index value;
  };
  for (Size const& size : {Size{"d_state", b.d_state}, Size{"d_conv", b.d_conv}, Size{"expand", b.expand},
                           Size{"headdim", heads ? b.headdim : 1}})
    if (size.value < 1)
      fail(fmt::format("block: {} of stage {} must be at least 1; it is {}", size.key, s + 1, size.value));
  check_probability("dropout", s, b.dropout);
  double const channels = static_cast<double>(b.expand) * static_cast<double>(config.hidden_dims[s]);
  if (channels >= 0x1p58)
    fail(
        fmt::format("block: expand {} times hidden_dims {} of stage {} is {:.3g} channels, more than 64 bits "
                    "can address",
                    b.expand, config.hidden_dims[s], s + 1, channels));
  if (channels * static_cast<double>(b.d_state) >= 0x1p58)
    fail(
        fmt::format("block: {:.0f} channels (expand {} times hidden_dims {}) with d_state {} of stage {} "
                    "make a state of more numbers than 64 bits can address",
                    channels, b.expand, config.hidden_dims[s], b.d_state, s + 1));
  if (heads && b.expand * config.hidden_dims[s] % b.headdim != 0)
    fail(fmt::format(
        "block: headdim {} of stage {} does not divide its {} channels (expand {} times hidden_dims {})",
        b.headdim, s + 1, b.expand * config.hidden_dims[s], b.expand, config.hidden_dims[s]));
}

void check_cross_patch_attention(ModelConfig const& config, std::size_t s) {
  Index const r = config.block[s].cross_patch_attention;
  if (r == 0) return;
  auto const refuse = [&](std::string const& why) {
    fail(fmt::format("block: cross_patch_attention of stage {} is {}, but {}", s + 1, r, why));
  };
  if (r < 0) refuse("must be at least 0");
  if (s == 0) refuse("the outermost stage has no patch before its own; give one block for each stage");
  BlockType const type = config.block[s].block_type;
  if (type == BlockType::mamba1 || type == BlockType::mamba2) refuse("a Mamba stage has no attention");
  if (!config.block[s].causal()) refuse("a transformerEncoder has none");
  if (config.head == Head::reference) refuse("head reference repeats the packages, which have none");
  if (r > config.seq_lens[s])
    refuse(fmt::format("a patch has seq_lens {} positions only", config.seq_lens[s]));
}

void check_block(ModelConfig const& config, std::size_t s) {
  BlockConfig const& b = config.block[s];
  if (b.pos_emb_type == Position::rope && config.hidden_dims[s] % 2 != 0)
    fail(fmt::format("hidden_dims of stage {} is {}; pos_emb_type rope rotates pairs and needs an even width",
                     s + 1, config.hidden_dims[s]));
  check_cross_patch_attention(config, s);
  if (b.block_type == BlockType::mamba1 || b.block_type == BlockType::mamba2) return check_mamba(config, s);
  if (b.attn_head_dims < 1 || b.attn_num_heads < 1)
    fail(fmt::format(
        "block: attn_head_dims and attn_num_heads of stage {} must be at least 1; they are {} and {}", s + 1,
        b.attn_head_dims, b.attn_num_heads));
  if (b.ff_multiplier < 1)
    fail(
        fmt::format("block: ff_multiplier of stage {} must be at least 1; it is {}", s + 1, b.ff_multiplier));
  if (b.attn_use_rot_embs && b.attn_head_dims % 2 != 0)
    fail(fmt::format(
        "block: attn_head_dims of stage {} is {}; rotary positions rotate pairs and need an even width",
        s + 1, b.attn_head_dims));
  check_probability("attn_dropout", s, b.attn_dropout);
  check_probability("ff_dropout", s, b.ff_dropout);
  if (!b.causal() && config.head == Head::complete)
    fail(fmt::format(
        "block: stage {} is a transformerEncoder, which sees the bytes it predicts; it works with head "
        "reference only",
        s + 1));
}

/// The products that sizes are made of must fit 64 bits. They are compared as doubles before any is formed as
/// integer.
void check_products(ModelConfig const& config) {
  double context = 1;
  for (Index const length : config.seq_lens) context *= static_cast<double>(length);
  if (context >= 0x1p62)
    fail(fmt::format("seq_lens: the product of [{}] is {:.3g} bytes, more than 64 bits can count",
                     fmt::join(config.seq_lens, ", "), context));
  double const count = approximate_parameter_count(config);
  if (count >= 0x1p58)
    fail(fmt::format("hidden_dims: the sizes make {:.3g} parameters, more than 64 bits can address", count));
}

}  // namespace

Index ModelConfig::lead(std::size_t s) const {
  if (s >= stages()) return 0;
  Index const own = block[s].cross_patch_attention > 0 ? num_layers[s] : 0;
  return own + (lead(s + 1) + seq_lens[s] - 1) / seq_lens[s];
}

void ModelConfig::validate() const {
  if (hidden_dims.size() != num_layers.size() || hidden_dims.size() != seq_lens.size())
    fail(fmt::format(
        "hidden_dims has {} entries, num_layers {} and seq_lens {}; each needs one for each stage",
        hidden_dims.size(), num_layers.size(), seq_lens.size()));
  if (stages() < 1 || stages() > most_stages)
    fail(fmt::format("hidden_dims describes {} stages; a model has 1 to {}", stages(), most_stages));
  if (block.size() != stages())
    fail(fmt::format("block has {} entries for {} stages; it needs one for each stage", block.size(),
                     stages()));
  check_positive("hidden_dims", hidden_dims);
  check_positive("num_layers", num_layers);
  check_positive("seq_lens", seq_lens);
  if (num_tokens < 1 || num_tokens > 65536)
    fail(fmt::format("num_tokens must be at least 1 and at most 65536; it is {}", num_tokens));
  if (pad_token_id < 0 || pad_token_id >= num_tokens)
    fail(fmt::format("pad_token_id must be at least 0 and below num_tokens {}; it is {}", num_tokens,
                     pad_token_id));
  for (std::size_t s = 0; s < stages(); ++s) check_block(*this, s);
  if (patch_encoder == PatchEncoder::convolution && stages() == 1)
    fail("patch_encoder: convolution makes patches of bytes, but a model of one stage has none; use linear");
  check_products(*this);
}

}  // namespace strata::model
