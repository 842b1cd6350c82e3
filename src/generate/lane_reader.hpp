// SPDX-License-Identifier: Apache-2.0
#pragma once
// Many sequences read byte by byte in the lanes of a generator: known ones to score or compress them, others
// while they are decoded. Both run the same code, so that both see the same predictions.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "generate/generator.hpp"
#include "parallel/communicator.hpp"

namespace strata::generate {

/// How the caller follows work that takes long. Either may be empty.
struct Follow {
  std::function<void(Index bytes)> progress;  ///< called with the bytes that all ranks have done so far
  std::function<bool()> stop;                 ///< true on any rank: all of them stop soon
};

/// Agreement of the ranks on how far they are.
class Watch {
 public:
  Watch(parallel::Communicator const& ranks, Follow const& follow) : ranks_(ranks), follow_(follow) {}

  void add(Index bytes) { here_ += bytes; }
  /// Called by all ranks together, by those without work too: false when none is busy, or one shall stop.
  bool go_on(bool busy);
  bool stopped() const { return stopped_; }

 private:
  parallel::Communicator const& ranks_;
  Follow const& follow_;
  Index here_ = 0;
  bool stopped_ = false;
};

/// The sequence's byte at `place`, given the logits there, (V). Called once per byte, in the order of places.
using Visit = std::function<std::uint8_t(std::size_t sequence, Index place, std::span<float const> logits)>;

/// Reads sequences of lengths[i] >= 1 bytes, as many at a time as there are lanes, the first ones first; the
/// model starts anew after every `window` bytes of a sequence. All ranks call this, each with its own
/// sequences, or none. Stops early when the watch says so.
void read_in_lanes(Generator<float>& generator, Index window, std::vector<Index> const& lengths,
                   Visit const& visit, Watch& watch);

/// Throws core::InputError if the model's position table ends before a window does.
void check_window(model::ModelConfig const& config, Index window);

}  // namespace strata::generate
