// SPDX-License-Identifier: Apache-2.0
#include "train/schedule.hpp"

#include <algorithm>
#include <cmath>

namespace strata::train {

Index GlobalBatch::steps(Index target, bool count_bytes) const {
  Index const per_step = count_bytes ? samples * window_length : samples;
  return std::max<Index>(1, target / per_step + (target % per_step != 0 ? 1 : 0));
}

Index Schedule::warmup_steps() const {
  return static_cast<Index>(std::floor(static_cast<double>(steps) * warmup));
}

double Schedule::rate(Index i) const {
  Index const w = warmup_steps();
  if (i < w) return peak * (0.1 + 0.9 * static_cast<double>(i) / static_cast<double>(w));
  if (i >= steps) return 0;
  constexpr double pi = 3.14159265358979323846;
  return peak * (1 + std::cos(pi * static_cast<double>(i - w) / static_cast<double>(steps - w))) / 2;
}

bool is_due(Index step, Index total, Index amount) {
  amount = std::min(amount, total);
  if (amount <= 0) return false;
  // floor(step * amount / total)
  auto const parts = [&](Index s) { return s / total * amount + s % total * amount / total; };
  return parts(step) > parts(step - 1);
}

}  // namespace strata::train
