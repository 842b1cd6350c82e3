// SPDX-License-Identifier: Apache-2.0
#include "train/foreign_sizes.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "core/error.hpp"

namespace strata::train {

namespace {

using io::Index;

/// Collects the YAML text and the keys that are still open.
class Guess {
 public:
  Guess(TensorShapes const& tensors, std::vector<std::string> const& overrides, std::string const& path)
      : tensors_(tensors), overrides_(overrides), path_(path) {}

  std::string deck();

 private:
  io::Shape const* find(std::string const& name) const {
    auto const found = tensors_.shapes.find(name);
    return found == tensors_.shapes.end() ? nullptr : &found->second;
  }
  /// A size of a tensor that every such model has.
  Index size(std::string const& name, std::size_t dimension) const {
    io::Shape const* const shape = find(name);
    if (shape == nullptr)
      throw core::InputError(fmt::format(
          "{}: there is no tensor {}, so this is no state_dict of MBLM or MEGABYTE", path_, name));
    if (dimension >= shape->size() || (*shape)[dimension] < 1)
      throw core::InputError(fmt::format("{}: the tensor {} has the shape {}, which no such model has", path_,
                                         name, io::shape_text(*shape)));
    return (*shape)[dimension];
  }
  /// a / b, where a tensor of the name shows that both are there.
  Index quotient(std::string const& name, Index a, Index b) const {
    if (b < 1 || a < b || a % b != 0)
      throw core::InputError(
          fmt::format("{}: the tensor {} has a size of {}, which is no multiple of {}", path_, name, a, b));
    return a / b;
  }
  /// Whether the command line gives the key or something it is part of; otherwise it is open.
  void need(std::string const& key, std::string const& example) {
    for (std::string const& text : overrides_) {
      std::string const given = text.substr(0, text.find('='));
      if (key == given || key.starts_with(given + ".")) return;
    }
    open_.push_back(key);
    examples_.push_back(key + "=" + example);
  }
  Index layers(std::string const& prefix) const {
    Index count = 0;
    auto const has_layer = [&] {
      std::string const wanted = fmt::format("{}layers.{}.", prefix, count);
      auto const next = tensors_.shapes.lower_bound(wanted);
      return next != tensors_.shapes.end() && next->first.starts_with(wanted);
    };
    while (has_layer()) ++count;
    return count;
  }
  std::string block(std::size_t stage, Index width);
  std::string transformer(std::size_t stage, Index width);
  std::string mamba1(std::string const& mixer, Index width) const;
  std::string mamba2(std::string const& mixer, Index width) const;

  TensorShapes const& tensors_;
  std::vector<std::string> const& overrides_;
  std::string const& path_;
  std::vector<std::string> open_, examples_;
};

std::string Guess::transformer(std::size_t stage, Index width) {
  std::string const prefix = fmt::format("stage_models.{}.", stage);
  std::string const q = prefix + "layers.0.0.to_q.weight", feed = prefix + "layers.0.1.1.weight";
  Index const inner = size(q, 0);
  std::string text = fmt::format("block_type: {}, ff_multiplier: {}",
                                 tensors_.encoder ? "transformerEncoder" : "transformer",
                                 quotient(feed, size(feed, 0), width));
  std::string const buffer = rotary_buffer(stage);
  if (find(buffer) != nullptr) {
    Index const head = 2 * size(buffer, 0);
    return text + fmt::format(", attn_head_dims: {}, attn_num_heads: {}, attn_use_rot_embs: true", head,
                              quotient(q, inner, head));
  }
  std::string const block = fmt::format("params.block.{}.", stage);
  need(block + "attn_head_dims", fmt::format("{}", inner));
  need(block + "attn_num_heads", "1");
  need(block + "attn_use_rot_embs", "false");
  return text;
}

std::string Guess::mamba1(std::string const& mixer, Index width) const {
  Index const channels = size(mixer + "A_log", 0);
  return fmt::format("block_type: mamba1, d_state: {}, d_conv: {}, expand: {}", size(mixer + "A_log", 1),
                     size(mixer + "conv1d.weight", 2), quotient(mixer + "A_log", channels, width));
}

std::string Guess::mamba2(std::string const& mixer, Index width) const {
  Index const channels = size(mixer + "out_proj.weight", 1), heads = size(mixer + "dt_bias", 0);
  Index const convolved = size(mixer + "conv1d.weight", 0);
  return fmt::format("block_type: mamba2, d_state: {}, d_conv: {}, expand: {}, headdim: {}",
                     quotient(mixer + "conv1d.weight", convolved - channels, 2),
                     size(mixer + "conv1d.weight", 2), quotient(mixer + "out_proj.weight", channels, width),
                     quotient(mixer + "dt_bias", channels, heads));
}

std::string Guess::block(std::size_t stage, Index width) {
  std::string const prefix = fmt::format("stage_models.{}.", stage);
  std::string const mixer = prefix + "layers.0.mixer.";
  std::string text;
  if (find(mixer + "dt_bias") != nullptr) {
    text = mamba2(mixer, width);
  } else if (find(mixer + "x_proj.weight") != nullptr) {
    text = mamba1(mixer, width);
  } else {
    text = transformer(stage, width);
  }
  if (find(fmt::format("pos_embs.{}.weight", stage)) != nullptr) {
    text += ", pos_emb_type: fixed";
  } else if (tensors_.style != NameStyle::megabyte) {
    // Rotations leave no tensor behind. MEGABYTE has none.
    need(fmt::format("params.block.{}.pos_emb_type", stage), "null");
  }
  return text;
}

std::string Guess::deck() {
  size("start_tokens.0", 0);
  std::vector<Index> widths, depths, lengths;
  constexpr std::size_t most_stages = 8;
  while (widths.size() < most_stages && find(fmt::format("start_tokens.{}", widths.size())) != nullptr)
    widths.push_back(size(fmt::format("start_tokens.{}", widths.size()), 0));
  std::string blocks;
  for (std::size_t s = 0; s < widths.size(); ++s) {
    depths.push_back(layers(fmt::format("stage_models.{}.", s)));
    blocks += fmt::format("    - {{{}}}\n", block(s, widths[s]));
    if (s > 0) {
      std::string const projection = fmt::format("to_next_stage_proj.{}.1.weight", s - 1);
      lengths.push_back(quotient(projection, size(projection, 0), widths[s]));
    } else if (find("pos_embs.0.weight") != nullptr) {
      lengths.push_back(size("pos_embs.0.weight", 0));
    } else {
      need("params.seq_lens.0", "1024");
      lengths.push_back(1);  // a place for the override
    }
  }
  Index const vocabulary = size("token_embs_rev.0.weight", 0);
  std::string pad;
  if (tensors_.pad_row) {
    pad = fmt::format("  pad_token_id: {}\n", *tensors_.pad_row);
  } else {
    need("params.pad_token_id", vocabulary > 256 ? "256" : "0");
  }
  if (tensors_.style == NameStyle::megabyte) pad += "  pad_row_is_trained: true\n";
  if (!open_.empty())
    throw core::InputError(fmt::format(
        "{}: the tensors do not tell {}; name the model's deck with --deck, or give the values, as "
        "in {}",
        path_, fmt::join(open_, ", "), fmt::join(examples_, " ")));
  return fmt::format(
      "params:\n  num_tokens: {}\n{}  hidden_dims: [{}]\n  num_layers: [{}]\n  seq_lens: [{}]\n"
      "  input_seq_len: 1\n  head: reference\n  block:\n{}",
      vocabulary, pad, fmt::join(widths, ", "), fmt::join(depths, ", "), fmt::join(lengths, ", "), blocks);
}

}  // namespace

std::string deck_from_tensors(TensorShapes const& tensors, std::vector<std::string> const& overrides,
                              std::string const& path) {
  return Guess(tensors, overrides, path).deck();
}

}  // namespace strata::train
