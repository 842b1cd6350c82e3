// SPDX-License-Identifier: Apache-2.0
#include "data/evaluation_plan.hpp"

#include <algorithm>
#include <string>

#include "core/error.hpp"

namespace strata::data {

EvaluationPlan::EvaluationPlan(Index total, Index window, Index stride)
    : total_(total), window_(window), stride_(stride == 0 ? window : stride), count_(0) {
  if (total < 1) throw core::InputError("there is nothing to evaluate: the split holds no bytes");
  if (window < 1)
    throw core::InputError("the window must hold at least 1 byte, not " + std::to_string(window));
  if (stride_ < 1 || stride_ > window) {
    throw core::InputError("the stride must lie between 1 and the window of " + std::to_string(window) +
                           " bytes, not be " + std::to_string(stride));
  }
  Index const beyond = std::max<Index>(total - window, 0);
  count_ = 1 + beyond / stride_ + (beyond % stride_ > 0 ? 1 : 0);
}

ScoredWindow EvaluationPlan::window(Index index) const {
  Index const start = index * stride_;
  return {{start, std::min(window_, total_ - start)}, index == 0 ? 0 : window_ - stride_};
}

}  // namespace strata::data
