// SPDX-License-Identifier: Apache-2.0
#pragma once
// Where the time of a run went, made from what a core::Profiler saw.

#include <string>
#include <vector>

#include "core/profiler.hpp"
#include "parallel/communicator.hpp"
#include "train/machine.hpp"
#include "train/plan.hpp"

namespace strata::train {

/// Time of one kind, with what the kernels in it did.
struct ProfileRow {
  std::string name;
  Index calls = 0;
  double seconds = 0;
  kernels::Cost cost;
  double shortest = 0;  ///< seconds that its kernels would take at the limits of the machine

  double fraction_of_limit() const { return seconds > 0 ? shortest / seconds : 0; }
};

/// Time of one rank. Every list but `layers` divides time without overlap: kernels and MPI calls together
/// make up the first two parts; sections add up to `seconds`, and so do parts.
struct Profile {
  double seconds = 0;
  std::vector<ProfileRow> kernels;  ///< by public function, the slowest first
  std::vector<ProfileRow> mpi;      ///< by function, the slowest first; bytes_read are those sent
  /// "stage 1 forward", "evaluate, loss", ... by name, then "outside all regions".
  std::vector<ProfileRow> sections;
  std::vector<ProfileRow> layers;  ///< "stage 1 forward, layer 2", by name: parts of sections
  std::vector<ProfileRow> parts;   ///< as profile_parts() names them
  double model_flops = 0;          ///< useful operations that kernels counted, those done again left out
};

/// kernels; MPI; reading data; checkpoints; between kernels: the rest of all regions, which is launching,
/// clearing and copying; unaccounted: outside all regions.
std::vector<std::string> const& profile_parts();

/// The limits divide each kernel's cost: the larger of its operations over GEMM peak and its bytes over the
/// bandwidth is the shortest time it could take.
Profile summarise(core::Profiler const& profiler, Machine const& limits);

/// A part or the whole over all ranks.
struct RankSpread {
  std::string name;
  double least = 0, mean = 0, most = 0;  ///< seconds
};

/// What a report tells besides the times.
struct ProfiledRun {
  std::string what;  ///< "strata train"
  Index steps = 0;   ///< optimiser steps, or 0
  int ranks = 1;
  Machine limits;                      ///< of this rank
  double flops = 0;                    ///< useful operations of all ranks, by the model's formula
  double peak_memory = 0;              ///< bytes resident at most
  std::vector<MemoryUse> memory;       ///< planned, by component
  std::vector<RankSpread> over_ranks;  ///< parts, then "all"
  /// Of the steps, "exposed" and "hidden" (parallel::GradientSync); empty where ranks exchange nothing.
  std::vector<RankSpread> communication;
};

/// Collective; the same on all ranks.
RankSpread spread_over_ranks(std::string const& name, double seconds, parallel::Communicator const& ranks);
std::vector<RankSpread> spread_over_ranks(Profile const& profile, parallel::Communicator const& ranks);

/// Tables for people, and everything as a JSON object (doc/formats.md).
std::string profile_table(Profile const& profile, ProfiledRun const& run);
std::string profile_json(Profile const& profile, ProfiledRun const& run);

}  // namespace strata::train
