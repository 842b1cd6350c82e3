// SPDX-License-Identifier: Apache-2.0
#pragma once
// Predicting token by token. A generator has lanes, each with a sequence of its own; every stage keeps one
// carry per lane and moves on by one row when one of the lane's sub-patches is complete, so the cost of a
// token does not grow with what was read, but for the keys that the outermost stage's attention looks at.
//
// On a host a lane's logits have the same bits whatever the other lanes, their number and the number of
// threads.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "model/hierarchy.hpp"

namespace strata::generate {

using kernels::Index;
using kernels::Mat;

/// What a lane has seen, on the host: enough to continue elsewhere (state_file.hpp).
template <class T>
struct LaneState {
  struct Stage {
    Index start = 0;        ///< token at which its current sequence starts
    Index rows = 0;         ///< rows of it that have run
    std::vector<T> values;  ///< layer by layer keys and values of the rows and the border; then the context
  };
  Index position = 0;
  std::vector<std::uint16_t> recent;  ///< the last tokens, at most those of a lane's ring
  std::vector<Stage> stages;
  std::vector<T> hidden;  ///< (D), the last stage's last row
};

template <class T>
class Generator {
 public:
  /// As many lanes as one call may have for its rows not to depend on each other (kernels/linear.hpp).
  static Index most_lanes();

  /// capacity: how many tokens a lane will take at most (0: the model's context). Only keys and values of the
  /// outermost stage's attention take memory for it. Throws core::InputError for models with bidirectional
  /// stages.
  Generator(model::Hierarchy<T> const& model, Index lanes, Index capacity = 0);

  Index lanes() const { return static_cast<Index>(lanes_.size()); }
  /// Tokens a lane has so far.
  Index position(Index lane = 0) const { return lanes_[static_cast<std::size_t>(lane)].position; }

  /// Appends tokens to one lane, through the parallel forward pass in time chunks. Of the inner stages only
  /// their last sequences run; with cross-patch attention the tokens of those that these depend on
  /// (ModelConfig::lead) are appended one by one. Throws core::InputError beyond the capacity or the
  /// vocabulary.
  void read(Index lane, std::span<std::uint8_t const> bytes);
  void read(Index lane, std::span<std::int32_t const> tokens);

  /// Appends tokens[i] to lane which[i]. Throws as `read`.
  void append(std::span<Index const> which, std::span<std::int32_t const> tokens);
  /// Logits of the next token of lanes which[i], (which.size(), V) row-major on the host; valid until the
  /// next call. At position 0 this is the first row of a window's forward pass; see empty_prompt_logits for
  /// head `reference`.
  std::span<T const> logits(std::span<Index const> which);

  /// The same for all lanes.
  void append(std::vector<std::int32_t> const& tokens);
  std::vector<T> logits();
  std::vector<T> step(std::vector<std::int32_t> const& tokens) {
    append(tokens);
    return logits();
  }

  /// Empties a lane.
  void reset(Index lane);
  /// Makes a lane a copy of another one.
  void copy(Index from, Index to);
  LaneState<T> state(Index lane);
  /// Throws core::InputError if the state is of another model, or longer than the capacity.
  void restore(Index lane, LaneState<T> const& state);

 private:
  using Tokens = Kokkos::View<std::uint16_t**, Kokkos::LayoutRight, kernels::MemSpace>;
  using Numbers = Kokkos::View<Index*, kernels::MemSpace>;
  using Pieces = std::vector<Mat<T>>;

  /// How far a stage is in a lane.
  struct Place {
    Index start = 0;  ///< token at which its current sequence starts
    Index rows = 0;   ///< rows of it that have run
  };
  struct Lane {
    Index position = 0;
    std::vector<Place> places;
  };
  struct StageState {
    model::Carry<T> carry;  ///< of all lanes
    Mat<T> context;         ///< (lanes, P * D), what the parent's last row says to each lane's sequence
  };
  /// One row of a stage in some lanes: their numbers stand in numbers_ from `first` on.
  struct Call {
    std::size_t stage;
    Index first, count;
    bool opens;    ///< row 0
    Index latest;  ///< the highest row number
  };

  Place needed(std::size_t stage, Index position) const;
  void add_call(std::size_t stage, std::span<Index const> which, bool opens);
  void advance(std::span<Index const> which);
  void run(Call const& call);
  model::Pass<T> pass(core::Arena& arena) const;
  Mat<T> forward(core::Arena& arena, std::size_t stage, kernels::Tokens const& tokens,
                 kernels::StageRows const& r, Index position, Index const* seen_before);
  void hand_down(core::Arena& arena, std::size_t stage, kernels::Sequences shape, Mat<T> y);
  kernels::StageRows rows_of(Call const& call) const;
  template <class Token>
  void read_tokens(Index lane, std::span<Token const> tokens);
  template <class Token>
  void read_at_once(Index lane, std::span<Token const> tokens);
  /// What a sequence of a stage in a lane sees of the one before it.
  Index seen_before(std::size_t stage, Place const& place) const {
    return place.start > 0 ? stages_[stage].carry.before : 0;
  }
  Index numbers_per_kind() const { return static_cast<Index>(numbers_.extent(0)) / 4; }
  std::size_t row_bytes(std::size_t stage, kernels::StageRows const& r) const;
  /// Fills a lane's ring with pads, where sub-patches look back beyond the first token.
  void forget_tokens(Index lane);
  void check_room(Index lane, Index tokens) const;
  Pieces pieces(Index lane, std::size_t stage) const;

  model::Hierarchy<T> const& model_;
  /// Tokens a lane may have; less than asked for if the outermost stage has a position table.
  Index capacity_;
  Index history_;  ///< tokens that a sub-patch sees before its own
  Index ring_;     ///< tokens a lane remembers: those of two outermost positions, and their history
  std::vector<Lane> lanes_;
  std::vector<StageState> stages_;
  std::unique_ptr<core::Arena> memory_, scratch_;
  Mat<T> hidden_;  ///< (lanes, D), the last stage's last row
  Mat<T> logits_;  ///< (lanes, V)
  typename Kokkos::View<T**, Kokkos::LayoutRight, kernels::MemSpace>::HostMirror host_logits_;
  Tokens tokens_;  ///< (lanes, ring)
  typename Tokens::HostMirror host_tokens_;
  Numbers full_;  ///< (lanes), the length of every ring
  /// Of all calls of an advance: lanes, row numbers, where sequences begin and how much they see of those
  /// before them, each (calls * lanes).
  Numbers numbers_;
  typename Numbers::HostMirror host_numbers_;
  std::vector<Call> calls_;
  std::vector<Index> all_, pending_;
};

/// What the package predicts for an empty prompt (1, V): each stage reads its start vector plus slot 0 of its
/// parent's projection. The same as Generator::logits at position 0 for head `complete`, but not for head
/// `reference`.
template <class T>
std::vector<double> empty_prompt_logits(model::Hierarchy<T> const& model);

}  // namespace strata::generate
