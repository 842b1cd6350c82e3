// SPDX-License-Identifier: Apache-2.0
#pragma once
// A run: from a deck to a trained model in the run's folder, or on from where an earlier start of the same
// run stopped.

#include <optional>

#include "core/error.hpp"
#include "parallel/communicator.hpp"
#include "train/deck.hpp"

namespace strata::train {

struct TrainingOutcome {
  core::ExitStatus status =
      core::ExitStatus::success;  ///< success: the target is reached; interrupted: by a signal
  Index step = 0;
  std::optional<double> validation_loss;  ///< of the last validation of this start, nats per byte
};

/// Called by all ranks. Prints progress on standard output of rank 0 (not when `quiet`) and remarks on the
/// log. A stop signal (core::catch_stop_signals) saves and returns `interrupted`. Throws core::InputError for
/// bad input, and std::runtime_error when the loss or the gradient is no longer finite or the last checkpoint
/// cannot be written; in either case the folder holds the last good checkpoint.
/// profile: times all parts of the run (train/profile.hpp), prints the tables on standard output of rank 0
/// and writes profile.json into the folder. It changes no result.
TrainingOutcome run_training(Deck const& deck, parallel::Communicator const& ranks, bool quiet = false,
                             bool profile = false);

}  // namespace strata::train
