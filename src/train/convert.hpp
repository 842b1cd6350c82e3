// SPDX-License-Identifier: Apache-2.0
#pragma once
// `strata convert`: state_dicts of the Python packages into checkpoints, and checkpoints into safetensors.
// Weights pass through in pieces; neither direction holds a model.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/tensor_file.hpp"
#include "train/deck.hpp"
#include "train/foreign_names.hpp"

namespace strata::train {

/// Which tensor of a file becomes which parameter, and what does not fit.
struct Mapping {
  struct Mapped {
    std::size_t tensor;     ///< number in TensorFile::tensors
    std::size_t parameter;  ///< number in the model's ParameterStore
    std::string name;       ///< the parameter's
  };
  std::vector<Mapped> mapped;                                ///< in the order of the file
  std::vector<std::pair<std::string, std::string>> ignored;  ///< names in the file, each with the reason
  std::vector<std::string> missing;                          ///< parameters that no tensor gives
  std::vector<std::string> unknown;  ///< names in the file that the model has no place for
  std::vector<std::string> wrong;    ///< tensors that contradict the deck, a clause with both sizes each
};

/// A file of tensors with the deck it is to be read with.
struct Import {
  Import(std::string const& path, std::optional<std::string> const& deck_path,
         std::vector<std::string> const& overrides, bool ignore_extra);

  /// Throws core::InputError, one sentence, when something is missing, unknown or wrong.
  void refuse_misfits() const;
  /// Writes the checkpoint: parameters and deck. `path` stays as it was when that fails.
  void write(std::string const& path) const;

  io::TensorFile file;
  Deck deck;
  Mapping mapping;
  std::vector<std::string> warnings;  ///< one sentence each
  NameStyle style = NameStyle::mblm;
  bool encoder = false;
  Index parameters = 0;  ///< elements
};

struct Export {
  std::vector<std::pair<std::string, std::string>> tensors;  ///< our names and those in the file
  std::vector<std::string> buffers;                          ///< names in the file
  std::vector<std::string> warnings;
  Index parameters = 0;  ///< elements
};

/// Writes the parameters of a checkpoint (or of a run's latest) as safetensors, with the rotary tables that
/// load_state_dict asks for and the deck as metadata. Throws core::InputError.
Export export_safetensors(std::string const& checkpoint, std::string const& output, NameStyle style,
                          bool overwrite);

}  // namespace strata::train
