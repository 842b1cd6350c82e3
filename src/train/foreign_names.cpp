// SPDX-License-Identifier: Apache-2.0
#include "train/foreign_names.hpp"

#include <optional>
#include <utility>

namespace strata::train {

namespace {

constexpr std::string_view table_prefix = "token_embs_rev.", encoder_prefix = "mblm.";
constexpr std::string_view rotary_ending = ".rotary_emb.inv_freq", stage_prefix = "stage_models.";
constexpr std::string_view position_prefix = "pos_embs.", patched_prefix = "patch_pos_embs.";

constexpr std::array<std::pair<std::string_view, std::string_view>, 3> megabyte_prefixes{
    {{table_prefix, "token_embs."},
     {stage_prefix, "transformers."},
     {"to_next_stage_proj.", "to_next_transformer_projections."}}};

/// Layers of an embedder above the last stage: their numbers in the sequence of MBLM 0.4.0, and later.
constexpr std::array<std::pair<std::string_view, std::string_view>, 3> embedder_layers{
    {{"2.", "_post.1."}, {"3.", "_post.2."}, {"4.", "_post.3."}}};

std::string join(std::string_view a, std::string_view b, std::string_view c = {}) {
  return std::string(a).append(b).append(c);
}

/// "<digits>." at the beginning, or nothing.
std::string_view leading_number(std::string_view text) {
  std::size_t const end = text.find_first_not_of("0123456789");
  if (end == 0 || end == std::string_view::npos || text[end] != '.') return {};
  return text.substr(0, end + 1);
}

/// token_embs_rev.<k>.embedding.weight and ._post.<j>.<...> in the names of 0.4.0.
std::optional<std::string> without_modules(std::string_view name) {
  if (!name.starts_with(table_prefix)) return {};
  std::string_view const number = leading_number(name.substr(table_prefix.size()));
  std::string_view const rest = name.substr(table_prefix.size() + number.size());
  if (number.empty()) return {};
  // The last stage's embedder was the table itself, the others were sequences that begin with theirs.
  if (rest == "embedding.weight") return join(table_prefix, number, number == "0." ? "weight" : "0.weight");
  for (auto const& [old_layer, layer] : embedder_layers)
    if (rest.starts_with(layer))
      return join(table_prefix, number, join(old_layer, rest.substr(layer.size())));
  return {};
}

std::string with_modules(std::string_view ours) {
  if (!ours.starts_with(table_prefix)) return std::string(ours);
  std::string_view const number = leading_number(ours.substr(table_prefix.size()));
  std::string_view const rest = ours.substr(table_prefix.size() + number.size());
  if (rest == (number == "0." ? "weight" : "0.weight")) return join(table_prefix, number, "embedding.weight");
  for (auto const& [old_layer, layer] : embedder_layers)
    if (rest.starts_with(old_layer))
      return join(table_prefix, number, join(layer, rest.substr(old_layer.size())));
  return std::string(ours);
}

}  // namespace

ForeignName read_foreign_name(std::string_view name) {
  ForeignName result;
  for (bool again = true; again;) {
    again = false;
    for (std::string_view const prefix :
         {std::string_view("module."), std::string_view("_orig_mod."), encoder_prefix}) {
      if (!name.starts_with(prefix)) continue;
      name.remove_prefix(prefix.size());
      result.encoder = result.encoder || prefix == encoder_prefix;
      again = true;
    }
  }
  for (auto const& [ours, theirs] : megabyte_prefixes)
    if (name.starts_with(theirs))
      return {join(ours, name.substr(theirs.size())), NameStyle::megabyte, result.encoder};
  if (name.starts_with(patched_prefix)) {
    std::string ours = join(position_prefix, name.substr(patched_prefix.size()));
    // A bare table, without a module around it, had no ".weight".
    if (!ours.ends_with(".weight")) ours += ".weight";
    return {std::move(ours), NameStyle::mblm_patched, result.encoder};
  }
  if (std::optional<std::string> ours = without_modules(name))
    return {std::move(*ours), NameStyle::mblm_modules, result.encoder};
  result.ours = name;
  return result;
}

std::string foreign_name(std::string_view ours, NameStyle style, bool encoder) {
  std::string name(ours);
  switch (style) {
    case NameStyle::mblm:
      break;
    case NameStyle::mblm_patched:
      if (ours.starts_with(position_prefix)) name = join(patched_prefix, ours.substr(position_prefix.size()));
      break;
    case NameStyle::mblm_modules:
      name = with_modules(ours);
      break;
    case NameStyle::megabyte:
      for (auto const& [prefix, theirs] : megabyte_prefixes)
        if (ours.starts_with(prefix)) name = join(theirs, ours.substr(prefix.size()));
      break;
  }
  return encoder ? join(encoder_prefix, name) : name;
}

bool is_rotary_buffer(std::string_view ours) {
  return ours.starts_with(stage_prefix) && ours.ends_with(rotary_ending);
}

std::string rotary_buffer(std::size_t stage) {
  return join(stage_prefix, std::to_string(stage), rotary_ending);
}

}  // namespace strata::train
