// SPDX-License-Identifier: Apache-2.0
#pragma once
// Decks: the YAML files that say what to train, on what, and for how long. Sections and key names are those
// of the MBLM package (params, train, io, resume), plus keys of our own. inputs/README.md lists every key;
// `strata info --keys` prints that list from the same table that reads decks.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/chunking.hpp"
#include "model/config.hpp"
#include "train/scalars.hpp"

namespace strata::train {

using kernels::Index;

/// Section `train`.
struct TrainConfig {
  enum class Strategy {
    batch,    ///< target_elements counts windows
    sequence  ///< target_elements counts bytes: windows times input_seq_len
  };
  std::int64_t target_elements = 0;
  Strategy target_elements_strategy = Strategy::sequence;
  double warmup_steps_perc = 0.1;
  Index batch_size = 0;  ///< windows per rank and micro-batch
  bool shuffle_train = false;
  std::optional<Index> max_eval_steps;  ///< never 0: a 0 in the deck is read as null, as the package does
  double learning_rate = 0;             ///< peak
  std::optional<double> gradient_clipping;
  Index gradient_accumulate_every = 1;
  // Keys of our own.
  std::optional<std::string> init_from;  ///< checkpoint or run's folder: weights that a new run starts from
  std::uint64_t seed = 1;
  double weight_decay = 0;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  bool deterministic = false;
  ByteSize bucket_size = {Index{1} << 24};       ///< of gradients that travel together
  bool shard_optimizer = false;                  ///< each rank keeps its part of the moments
  Index outer_chunk = 0;                         ///< 0: automatic
  Index inner_rows = 0;                          ///< 0: automatic
  std::optional<model::OuterTapes> outer_tapes;  ///< nothing: automatic (train/plan.hpp)
  Index border_interval = 0;                     ///< of OuterTapes::two_level; 0: automatic
  std::optional<ByteSize> memory;                ///< that a rank may use; nothing: what the machine has free
  Index eval_batch_size = 0;                     ///< 0: batch_size
};

/// Section `io`.
struct IoConfig {
  std::string name_model;
  std::string output_dir;
  Index num_models_to_save = 1;
  Index validate_amount = 10;
  Index log_train_loss_amount = 1000;
  Index checkpoint_every = 100;  ///< optimiser steps; 0: only when validating, at the end and on a signal
  std::optional<std::string> dataset;  ///< file written by `strata pack`
  std::optional<std::string> description;
};

struct Deck {
  model::ModelConfig params;
  Index input_seq_len = 0;
  std::vector<Index> train_checkpoint_chunks;  ///< empty, or one count for each stage but the outermost
  TrainConfig train;
  IoConfig io;
  /// What the user should know about this deck: one plain sentence each. The caller prints them.
  std::vector<std::string> warnings;

  /// The whole deck as YAML with every key written out; parse_deck reads it back to the same deck without
  /// warnings about keys that have no meaning here (they are not written). Equal decks have equal texts.
  std::string text() const;

  /// Folder of the run: <io.output_dir>/<io.name_model>.
  std::filesystem::path run_folder() const;

  /// io.dataset; throws core::InputError saying how to make one when the deck names none.
  std::string const& dataset() const;
};

/// Reads a deck from a file. What it leaves out of `params` comes from the checkpoint that train.init_from
/// names (train/init_from.hpp). Each override is section.key=value (also params.block.0.key=value) and
/// replaces or adds a value before anything is checked. Throws core::InputError with one sentence naming
/// file, key and value.
Deck read_deck(std::filesystem::path const& path, std::vector<std::string> const& overrides = {});

/// As read_deck, from text and without looking at other files; `name` stands for the file in messages.
Deck parse_deck(std::string_view yaml, std::string const& name,
                std::vector<std::string> const& overrides = {});

/// A model as the Python packages describe it, without a deck around it (attribute config_yaml of parity
/// files): the keys num_tokens .. block. The head is `reference` unless the text says otherwise.
model::ModelConfig parse_model_params(std::string_view yaml, std::string const& name = "model parameters");

/// The same for a masked model: mask_token_id and mblm_config. Also takes the bare form, then without
/// mask_token_id.
struct PackageModel {
  model::ModelConfig params;
  std::optional<Index> mask_token_id;
};
PackageModel parse_package_model(std::string_view yaml, std::string const& name = "model parameters");

/// One block mapping.
model::BlockConfig parse_block(std::string_view yaml, std::string const& name = "block");

/// A stage on its own: model_dim, num_layers, block.
struct StageBlock {
  Index model_dim = 0;
  Index num_layers = 0;
  model::BlockConfig block;
};
StageBlock parse_stage_block(std::string_view yaml, std::string const& name = "stage block");

/// The key reference of inputs/README.md: one Markdown table per section.
std::string key_reference();

}  // namespace strata::train
