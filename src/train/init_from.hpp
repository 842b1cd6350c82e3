// SPDX-License-Identifier: Apache-2.0
#pragma once
// `train.init_from`: a new run that starts from the weights of a checkpoint. The model is the checkpoint's;
// its vocabulary may grow, and its outermost sequence may change where positions allow.

#include <yaml-cpp/yaml.h>

#include <optional>
#include <string>

#include "model/parameters.hpp"
#include "parallel/communicator.hpp"
#include "train/deck.hpp"

namespace strata::train {

/// What a deck names as the origin of its weights: train.init_from, else resume.checkpoint_file.
std::optional<std::string> named_origin(YAML::Node const& deck);

/// The deck inside the checkpoint (or the latest of a run's folder) `origin`; nothing when that is a model of
/// another program, whose use start_from refuses. Throws core::InputError.
std::optional<std::string> origin_config(std::string const& origin);

/// A deck whose section `params` has what it leaves out from another one, written by Deck::text. Blocks of
/// another type are left alone.
YAML::Node with_params_of(YAML::Node const& deck, std::string const& config);

/// Collective: fills the parameters of `deck`'s model, which were initialised as those of a new one, from the
/// checkpoint that train.init_from names. Throws core::InputError naming every key that contradicts the
/// checkpoint.
void start_from(std::string const& origin, Deck const& deck, model::ParameterStore<float>& parameters,
                parallel::Communicator const& ranks);

}  // namespace strata::train
