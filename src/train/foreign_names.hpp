// SPDX-License-Identifier: Apache-2.0
#pragma once
// Names of parameters in the state_dicts of the Python packages. Strata's own names are those of the MBLM
// package from version 0.1.0 to 0.4.0; its other generations, its encoder and lucidrains' MEGABYTE differ in
// prefixes only, so one name at a time is enough.

#include <array>
#include <string>
#include <string_view>

namespace strata::train {

enum class NameStyle {
  mblm,          ///< MBLM 0.1.0 to 0.4.0
  mblm_patched,  ///< before 0.1.0: patch_pos_embs.<s>
  mblm_modules,  ///< after 0.4.0: token_embs_rev.<k>.embedding and ._post
  megabyte       ///< MEGABYTE-pytorch: token_embs, transformers, to_next_transformer_projections
};
struct NameStyleRow {
  char const* name;  ///< on the command line
  NameStyle style;
  char const* meaning;
};
inline constexpr std::array<NameStyleRow, 4> name_styles{
    {{"mblm", NameStyle::mblm, "MBLM 0.1.0 to 0.4.0"},
     {"mblm-patched", NameStyle::mblm_patched, "MBLM before 0.1.0"},
     {"mblm-modules", NameStyle::mblm_modules, "MBLM after 0.4.0"},
     {"megabyte", NameStyle::megabyte, "MEGABYTE-pytorch"}}};

/// What a name of a state_dict stands for.
struct ForeignName {
  std::string ours;                   ///< the parameter's name here; of a buffer, its name in MBLM 0.4.0
  NameStyle style = NameStyle::mblm;  ///< a generation that writes this name; mblm where they agree
  bool encoder = false;               ///< it had the prefix `mblm.` of MBLMEncoder
};

/// Any generation, also behind the prefixes of DistributedDataParallel (`module.`) and torch.compile
/// (`_orig_mod.`). A name that is nobody's comes back as it is.
ForeignName read_foreign_name(std::string_view name);

/// Our name as a generation writes it, with the prefix of MBLMEncoder if wanted.
std::string foreign_name(std::string_view ours, NameStyle style, bool encoder);

/// Whether this is a table of rotary frequencies: no parameter, but it is part of a state_dict.
bool is_rotary_buffer(std::string_view ours);
/// Its name for a stage.
std::string rotary_buffer(std::size_t stage);

}  // namespace strata::train
