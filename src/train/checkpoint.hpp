// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a checkpoint of a run holds, and how a model comes back from one. Equal states make equal files, byte
// for byte: nothing in them tells the time.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/sample_order.hpp"
#include "io/checkpoint_file.hpp"
#include "model/hierarchy.hpp"
#include "parallel/communicator.hpp"
#include "train/deck.hpp"
#include "train/optimizer.hpp"

namespace strata::train {

/// Where a run stands: group /progress. Random numbers (dropout, order of samples) are functions of the seed
/// and of these counters, so this is all their state.
struct Progress {
  Index step = 0;  ///< optimiser steps taken
  Index total_steps = 0;
  Index bytes_seen = 0;
  Index samples_seen = 0;
  data::Place next;  ///< where the next step begins in the data
  std::uint64_t seed = 0;
  Index global_batch = 0;                 ///< windows per optimiser step, all ranks together
  std::string dataset;                    ///< digest of the sources of the dataset
  Index dataset_bytes = 0;                ///< size of its training split
  std::optional<double> validation_loss;  ///< nats per byte after this step, when it was measured
};

/// Collective: writes a checkpoint, beside `path` first; each rank writes its part of every array. Throws
/// core::InputError on all ranks and leaves `path` as it was when that fails on any.
void save_checkpoint(std::string const& path, Deck const& deck,
                     model::ParameterStore<float> const& parameters, Optimizer const& optimizer,
                     Progress const& progress, parallel::Communicator const& ranks);

/// Group /provenance: who writes the file, with which build.
void write_provenance(io::CheckpointWriter& writer);

/// The file that `path` names: itself, or latest.h5 of a run's folder. Throws core::InputError when the
/// folder has none, and for a model of another program, which `strata convert` reads.
std::string checkpoint_file(std::string const& path);

/// Group /progress alone. Throws core::InputError.
Progress read_progress(io::CheckpointReader const& reader);

/// Fills the parameters; all names and shapes must agree. Throws core::InputError that names the first that
/// does not.
void load_parameters(io::CheckpointReader const& reader, model::ParameterStore<float>& parameters);
/// Fills the parameters from those of a model whose tables may have more or fewer rows; `stored` are its
/// parameters, in the same order. Rows that it does not have stay as they are.
void load_parameters(io::CheckpointReader const& reader, std::vector<model::ParameterInfo> const& stored,
                     model::ParameterStore<float>& parameters);
/// Fills the moments as well.
void load_optimizer(io::CheckpointReader const& reader, model::ParameterStore<float> const& parameters,
                    Optimizer& optimizer);

/// A model as a checkpoint describes it.
struct LoadedModel {
  Deck deck;
  std::unique_ptr<model::Hierarchy<float>> hierarchy;
  Index step = 0;
  std::optional<double> validation_loss;
  std::string path;  ///< the file itself
};

/// Rebuilds the model of a checkpoint, or of the latest checkpoint of a run's folder. Throws
/// core::InputError.
LoadedModel load_model(std::string const& path, bool with_gradients = false);
/// Collective: every rank gets the model, and the file is read once by all of them together.
LoadedModel load_model(std::string const& path, parallel::Communicator const& ranks);

/// The model's chunking as the deck asks for it, with all tapes kept where the deck leaves the choice open
/// (make_plan in train/plan.hpp decides for a training run; a model that is only evaluated has no tapes).
model::Chunking chunking(Deck const& deck);

}  // namespace strata::train
