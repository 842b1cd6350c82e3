// SPDX-License-Identifier: Apache-2.0
#pragma once
// Moments that ranks share, for the one rank that writes them into a checkpoint.

#include <span>

#include "parallel/communicator.hpp"
#include "train/optimizer.hpp"

namespace strata::train {

/// Collective from construction to the end: rank 0 calls read() as often as it likes and lets go, while the
/// others are in serve(). Nobody holds more of the others' moments than the piece that is being read.
class MomentGather {
 public:
  enum class Moment { first, second };

  MomentGather(model::ParameterStore<float> const& parameters, Optimizer const& optimizer,
               parallel::Communicator const& ranks);
  /// Rank 0 lets the others go, whatever has happened to it.
  ~MomentGather();
  MomentGather(MomentGather const&) = delete;
  MomentGather& operator=(MomentGather const&) = delete;

  Optimizer const& optimizer() const { return optimizer_; }

  /// Rank 0: elements [first, first + out.size()) of the flat buffer's moments.
  void read(Moment moment, Index first, std::span<float> out) const;
  /// Other ranks: answers until rank 0 has ended.
  void serve() const;

 private:
  /// This rank's moment of elements [begin, end), all of them its own and at `place` among these, to the
  /// host.
  void copy(Moment moment, Index place, std::span<float> out) const;

  model::ParameterStore<float> const& parameters_;
  Optimizer const& optimizer_;
  parallel::Communicator const& ranks_;
};

}  // namespace strata::train
