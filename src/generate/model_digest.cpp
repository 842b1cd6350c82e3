// SPDX-License-Identifier: Apache-2.0
#include "generate/model_digest.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "io/digest.hpp"

namespace strata::generate {

std::string model_digest(model::Hierarchy<float> const& model) {
  model::ModelConfig const& c = model.config();
  io::Sha256 sha;
  sha.update(fmt::format("{} {} {} {} {} {}\n", c.num_tokens, c.pad_token_id, c.hidden_dims, c.num_layers,
                         c.seq_lens, static_cast<int>(c.head)));
  for (model::BlockConfig const& b : c.block) {
    sha.update(fmt::format("{} {} {} {} {} {} {} {} {} {}\n", static_cast<int>(b.block_type),
                           static_cast<int>(b.pos_emb_type), b.attn_head_dims, b.attn_num_heads,
                           b.attn_use_rot_embs, b.ff_multiplier, b.d_state, b.d_conv, b.expand, b.headdim));
    // Models without it keep the digest that they had before it existed.
    if (b.cross_patch_attention > 0)
      sha.update(fmt::format("cross_patch_attention {}\n", b.cross_patch_attention));
  }
  model::ParameterStore<float> const& p = model.parameters();
  for (std::size_t i = 0; i < p.all().size(); ++i) {
    model::ParameterInfo const& info = p.all()[i];
    sha.update(fmt::format("{} {}\n", info.name, info.shape));
    auto const values = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), p.value(i));
    sha.update(
        std::span(reinterpret_cast<std::uint8_t const*>(values.data()), values.size() * sizeof(float)));
  }
  return sha.finish();
}

}  // namespace strata::generate
