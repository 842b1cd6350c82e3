// SPDX-License-Identifier: Apache-2.0
#pragma once
// A model's sizes from the names and shapes of its tensors, for files that come without a deck. Sources of
// the shapes: the MBLM package's state_dict (doc/formats.md lists it).

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "io/tensor_file.hpp"
#include "train/foreign_names.hpp"

namespace strata::train {

struct TensorShapes {
  std::map<std::string, io::Shape> shapes;  ///< by our names; rotary buffers too
  NameStyle style = NameStyle::mblm;
  bool encoder = false;
  std::optional<io::Index> pad_row;  ///< the only row of zeros of the last stage's table
};

/// The model's section of a deck as YAML. `overrides` (section.key=value) are not applied, but keys
/// named by them need not come from the tensors. Throws core::InputError naming `path` when the tensors are
/// no such model, and, with all of them, the keys that neither tells.
std::string deck_from_tensors(TensorShapes const& tensors, std::vector<std::string> const& overrides,
                              std::string const& path);

}  // namespace strata::train
