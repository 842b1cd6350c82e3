// SPDX-License-Identifier: Apache-2.0
#pragma once
// A block is the stack of layers of one stage. All blocks keep one contract, which serves training,
// recomputation, evaluation, prompt reading and byte-by-byte generation alike:
//
//   forward : x (sequences, T, D) and the carry of the positions before -> y, the carry T positions on, and
//   the tape backward: dy, the tape and the gradient of the carry after x -> dx, the gradient of the carry
//   before x
//
// Splitting T anywhere changes results by rounding only, forward and backward.

#include <memory>

#include "core/arena.hpp"
#include "kernels/common/types.hpp"
#include "kernels/dropout.hpp"
#include "kernels/rotary.hpp"
#include "model/config.hpp"
#include "model/parameters.hpp"

namespace strata::model {

using kernels::ConstMat;
using kernels::ConstVec;
using kernels::ExecSpace;
using kernels::Mat;
using kernels::Sequences;
using kernels::Vec;

/// What a block remembers of the positions it has seen. A call works on all its sequences, or on the lanes
/// that the call's Sequences name; `position` is then the caller's affair: 0, or the latest of their starts.
template <class T>
struct Carry {
  Index sequences = 0;
  Index capacity = 0;  ///< positions that `history` has room for
  Index before = 0;    ///< Block::rows_before: rows of history of the sequence before
  Index position = 0;  ///< positions seen
  /// Grows by one row per position and is never changed behind `position`: keys and values.
  /// Row (layer * sequences + sequence) * (before + capacity) + before + position. Zero columns if the block
  /// keeps none.
  Mat<T> history;
  /// Replaced by every call: the shifted half of the last row (Transformer); the last inputs of the
  /// convolution and the state (Mamba). Row layer * sequences + sequence; means nothing at position 0. Empty
  /// when nothing comes before or after the span, as for a whole sequence in training.
  Mat<T> border;
};

/// What backward needs of a forward call; rebuilt at will from the carry saved before it.
template <class T>
struct Tape {
  Vec<T> data;
  Sequences shape;
  bool keeps = true;                ///< false: room for one layer only, for calls that no backward follows
  kernels::Previous previous = {};  ///< set by the caller, where the block has cross-patch attention
};

/// Numbers for dropout of one call: rows are numbered along the training stream (kernels/dropout.hpp).
struct DropoutStream {
  bool training = false;
  std::uint64_t seed = 0;
  std::uint32_t first_site = 0;
  Index base = 0, length = 1, stride = 1;

  /// The numbers of one of the block's sub-layers; keeps everything unless training.
  kernels::Dropout site(double probability, Index sub_layer) const {
    kernels::Dropout d;
    if (!training) return d;
    d.probability = probability;
    d.seed = seed;
    d.site = first_site + static_cast<std::uint32_t>(sub_layer);
    d.base = base;
    d.length = length;
    d.stride = stride;
    return d;
  }
};

/// What every call of a block runs with.
template <class T>
struct Pass {
  ExecSpace space;
  core::Arena& arena;  ///< scratch, given back before the call returns
  ParameterStore<T> const& parameters;
  DropoutStream dropout;
};

/// Cuts a tape, from element `offset` on, into matrices that start on cache lines; without memory it only
/// counts.
template <class T>
class TapePieces {
 public:
  explicit TapePieces(Tape<T> const& tape, Index offset = 0) : base_(tape.data.data()), used_(offset) {}

  static constexpr Index aligned(Index elements) { return (elements + 15) / 16 * 16; }

  Mat<T> take(Index rows, Index columns) {
    Mat<T> piece(base_ == nullptr ? nullptr : base_ + used_, rows, columns);
    used_ += aligned(rows * columns);
    return piece;
  }
  Vec<T> take(Index n) { return kernels::flat(take(1, n)); }
  /// Number `wanted` of `count` matrices of equal size.
  Mat<T> take_one_of(Index count, Index wanted, Index rows, Index columns) {
    Index const size = aligned(rows * columns);
    TapePieces at = *this;
    at.used_ += wanted * size;
    used_ += count * size;
    return at.take(rows, columns);
  }
  Index used() const { return used_; }

 private:
  T* base_;
  Index used_;
};

template <class T>
class Block {
 public:
  virtual ~Block() = default;

  virtual Index width() const = 0;
  virtual Index layers() const = 0;
  virtual Index history_width() const = 0;
  virtual Index border_width() const = 0;
  /// Cross-patch attention: rows of history that belong to the sequence before.
  virtual Index rows_before() const { return 0; }
  /// Elements of a tape.
  virtual Index tape_size(Sequences shape, bool keeps) const = 0;
  /// Bytes of scratch that forward and backward take from the arena; `carries`: with a border.
  virtual std::size_t forward_scratch(Sequences shape, bool carries) const = 0;
  virtual std::size_t backward_scratch(Sequences shape, bool carries) const = 0;

  /// Where the caller puts x (rows, D) before forward.
  Mat<T> input(Tape<T> const& tape) const { return Mat<T>(tape.data.data(), tape.shape.rows(), width()); }

  /// y (rows, D) = the block's output after its final norm. Throws std::logic_error when the block cannot
  /// continue from a carry (bidirectional encoder) and carry.position > 0.
  virtual void forward(Pass<T> const& pass, Tape<T> const& tape, Carry<T>& carry, Mat<T> y) const = 0;

  /// dx (rows, D) = . `before` is the carry as it was before forward: its position is that of the span's
  /// first row, its border the one before the span; its history must hold the span and all before it.
  /// dcarry.history is added to (zero before the last span's backward), dcarry.border goes from the gradient
  /// of the border behind the span to that of the border before it.
  virtual void backward(Pass<T> const& pass, Tape<T> const& tape, Carry<T> const& before,
                        Carry<T> const& dcarry, ConstMat<T> dy, Mat<T> dx) const = 0;

  /// For generation: these lanes, each `rows` positions into its sequence, begin the next one.
  virtual void next_sequence(Pass<T> const& /*pass*/, Sequences /*lanes*/, Index /*rows*/,
                             Carry<T> const& /*carry*/) const {}

  /// Useful floating-point operations of a forward call whose first row is at position `start`; a backward
  /// call does twice that. `square` counts masked pairs of attention as well; previous_total as in
  /// kernels::Previous.
  virtual double forward_flops(Sequences shape, Index start, bool square = false,
                               Index previous_total = 0) const = 0;

  Tape<T> take_tape(core::Arena& arena, Sequences shape, bool keeps) const {
    return {arena.template vector<T>(tape_size(shape, keeps)), shape, keeps};
  }
  /// The rows of one layer in a border, or an empty matrix if there is none.
  static Mat<T> layer_border(Carry<T> const& carry, Index layer) {
    if (carry.border.data() == nullptr) return {};
    return kernels::rows(carry.border, layer * carry.sequences, (layer + 1) * carry.sequences);
  }
  /// An empty carry. with_border: the span will be continued.
  Carry<T> take_carry(core::Arena& arena, Index sequences, Index capacity, bool with_border) const {
    Carry<T> carry;
    carry.sequences = sequences;
    carry.capacity = capacity;
    carry.before = rows_before();
    carry.history =
        arena.template matrix<T>(layers() * sequences * (carry.before + capacity), history_width());
    if (with_border) carry.border = arena.template matrix<T>(layers() * sequences, border_width());
    return carry;
  }
};

/// The block of a stage; declares its parameters under `prefix` ("stage_models.0.").
template <class T>
std::unique_ptr<Block<T>> make_block(BlockConfig const& config, Index width, Index layers,
                                     std::string const& prefix, Ready ready, ParameterStore<T>& parameters);

}  // namespace strata::model
