// SPDX-License-Identifier: Apache-2.0
#pragma once
// The folder of a run (doc/formats.md, "Run folder"). Only rank 0 uses this class; every change is atomic, so
// that a run killed at any moment leaves a folder that the same command continues from.

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "train/checkpoint.hpp"
#include "train/machine.hpp"

namespace strata::train {

class RunFolder {
 public:
  using Warn = std::function<void(std::string const&)>;

  /// Makes the folder if need be. Throws core::InputError when that fails.
  RunFolder(std::filesystem::path folder, Index keep_best);

  std::filesystem::path const& path() const { return folder_; }
  std::string metrics() const { return (folder_ / "metrics.jsonl").string(); }
  std::string checkpoint(Index step) const;

  /// True once the run reached its target.
  bool is_done() const;
  void mark_done(std::string const& summary) const;

  /// The newest checkpoint that can be read to its last byte. Damaged ones are skipped, with one sentence to
  /// `warn` that names them and the one used. Nothing for a new run; throws core::InputError when all there
  /// are, are damaged.
  std::optional<std::string> find_newest(Warn const& warn);

  void write_config(Deck const& deck) const;
  /// Appends a record of this start to provenance.json, with the limits of rank 0.
  void add_provenance(Index first_step, std::string const& dataset, Machine const& limits) const;

  /// After a checkpoint was saved: points latest.h5 and best.h5 at the right ones and deletes those no longer
  /// kept: all but the newest two (a damaged newest one leaves its predecessor) and the `keep_best` of lowest
  /// validation loss.
  void saved(Index step, std::optional<double> validation_loss);

  /// Points latest.h5 and best.h5 at the right checkpoints; a killed run may have left them behind.
  void relink() const;

  /// Name of the newest checkpoint saved or found; empty before the first.
  std::string latest() const { return stored_.empty() ? std::string() : checkpoint(stored_.back().step); }

  struct Best {
    Index step = 0;
    double loss = 0;  ///< nats per byte
  };
  std::optional<Best> best() const;

 private:
  struct Stored {
    Index step = 0;
    std::optional<double> validation_loss;
  };
  void link(char const* name, Index step) const;
  std::vector<Index> steps_on_disk() const;

  std::filesystem::path folder_;
  Index keep_best_;
  std::vector<Stored> stored_;  // sound ones, by step
};

}  // namespace strata::train
