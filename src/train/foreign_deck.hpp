// SPDX-License-Identifier: Apache-2.0
#pragma once
// The deck that a file of foreign tensors is read with: the one that is named, the one inside the file, or
// one made from the tensors.

#include <optional>
#include <string>
#include <vector>

#include "io/tensor_file.hpp"
#include "train/deck.hpp"
#include "train/foreign_sizes.hpp"

namespace strata::train {

/// Key of the metadata that export_safetensors writes.
inline constexpr char const* deck_metadata = "strata_deck";

/// `deck_path`: a deck, a config.yaml of the package, also of a masked model, or the model's keys alone.
/// Unless it or an override states params.head, the head is that of the deck in the file, else `reference`,
/// the packages' own. Throws core::InputError, also where the named deck contradicts the one in the file.
Deck foreign_deck(io::TensorFile const& file, TensorShapes const& tensors,
                  std::optional<std::string> const& deck_path, std::vector<std::string> const& overrides,
                  std::vector<std::string>& warnings);

}  // namespace strata::train
