// SPDX-License-Identifier: Apache-2.0
#pragma once
// The outermost stage's sequence as time chunks: what is kept of each between its forward and its backward
// pass, and how the rest is rebuilt (OuterTapes). The gradient goes through the whole sequence whatever is
// kept.
//
// A carry is `history`, which is kept for the whole sequence, and a border, which every chunk replaces.
// Borders before chunks are saved in slots:
//   two_level, interval k:  the borders before chunks k, 2k, ... for good, and those inside one group of k
//                           chunks, which the next group overwrites
//   keep, rebuild:          one group of all chunks

#include <vector>

#include "model/chunking.hpp"
#include "model/stage.hpp"

namespace strata::model {

template <class T>
class TimeChunks {
 public:
  using StageTape = typename Stage<T>::StageTape;

  /// Takes carries, borders and tapes from the arena. `whole`: all rows; `chunk`: positions of a chunk.
  TimeChunks(Stage<T> const& stage, core::Arena& arena, kernels::StageRows const& whole, Index chunk,
             Chunking const& chunking, bool trains);

  Index count() const { return count_; }
  Index length() const { return chunk_; }
  bool carries() const { return count_ > 1; }
  kernels::StageRows rows(Index c) const;
  /// What no chunk exceeds: as many rows as the first, but no start vectors among them, as late as the last.
  kernels::StageRows largest() const;

  Carry<T>& carry() { return carry_; }
  Carry<T> const& dcarry() const { return dcarry_; }
  /// The carry from before chunk c, as its backward pass needs it.
  Carry<T> before(Index c) const;
  StageTape tape(Index c) const;

  /// Going forward: saves the border before chunk c, if a backward pass follows.
  void save(Index c);
  /// Going backward from the last chunk: whether the tape of chunk c is still there.
  bool has_tape(Index c) const { return keeps_ || c + 1 == count_; }
  /// Going backward from the last chunk: brings back the tape of chunk c and the borders around it.
  /// forward(k) runs chunk k of the stage from carry().
  template <class F>
  void rebuild(Index c, F const& forward) {
    if (has_tape(c)) return;
    Index const group = c / interval_ * interval_;
    bool const enters_group = c + 1 == group + interval_;
    restore(enters_group ? group : c);
    for (Index k = enters_group ? group : c; k <= c; ++k) {
      if (k > group && enters_group) save(k);
      forward(k);
    }
  }
  void clear_gradients() const;

 private:
  Mat<T> slot(Index c) const;
  void restore(Index c);

  kernels::StageRows whole_;
  Index chunk_, count_, interval_;
  bool trains_, keeps_;
  Carry<T> carry_, dcarry_;
  Mat<T> slots_;  // (borders, layers * sequences * border width)
  std::vector<StageTape> tapes_;
};

}  // namespace strata::model
