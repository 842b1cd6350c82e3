// SPDX-License-Identifier: Apache-2.0
#pragma once
// The last rows of the outermost stage's earlier time chunks, beside those of the present chunk: what stages
// below with cross-patch attention look back on (ModelConfig::lead).

#include <algorithm>

#include "model/time_chunks.hpp"

namespace strata::model {

template <class T>
class LeadRows {
 public:
  /// `lead`: rows to look back on; takes nothing if there are none, as in a single chunk. dy_all (all rows,
  /// D): their gradients, chunk after chunk; empty without training.
  LeadRows(core::Arena& arena, TimeChunks<T> const& chunks, Index lead, Index windows, Index width,
           Mat<T> dy_all);

  /// Whether rows of several chunks have to be brought together at all.
  bool needed() const { return lead_ > 0; }
  Index most() const { return lead_; }
  /// How many rows of earlier chunks chunk c has before it.
  Index before(Index c) const { return std::min(lead_, c * chunks_.length()); }

  /// The rows before chunk c of a window, then these of its own, and room for their gradients; the earlier
  /// rows' gradients stand there already.
  struct Joined {
    Mat<T> y, dy;
  };
  /// Sizes of the longest.
  Joined largest() const { return {y_, dy_}; }
  Joined join(Index window, Index c, Mat<T> own) const;
  /// Puts the gradients of the joined rows back where they belong.
  void scatter(Index window, Index c, Joined const& joined) const;

 private:
  template <class F>
  void for_pieces(Index window, Index begin, Index end, F const& f) const;

  TimeChunks<T> const& chunks_;
  Index lead_, windows_;
  Mat<T> dy_all_;
  Mat<T> tails_;   // (windows * lead, D), the latest rows of each window last
  Mat<T> y_, dy_;  // (lead + chunk, D)
};

}  // namespace strata::model
