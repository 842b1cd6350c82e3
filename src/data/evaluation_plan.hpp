// SPDX-License-Identifier: Apache-2.0
#pragma once
// The windows of an evaluation: together they score every byte of a split exactly once.

#include "data/sample_order.hpp"

namespace strata::data {

/// A window of which only positions [first_scored, length) count.
struct ScoredWindow {
  Window window;
  Index first_scored = 0;
};

/// Window w starts at w * stride; the first scores all its bytes, each later one those that no earlier window
/// holds.
class EvaluationPlan {
 public:
  /// 1 <= stride <= window, or 0 for stride = window. Throws core::InputError otherwise.
  EvaluationPlan(Index total, Index window, Index stride = 0);

  Index count() const { return count_; }
  ScoredWindow window(Index index) const;

 private:
  Index total_, window_, stride_, count_;
};

}  // namespace strata::data
