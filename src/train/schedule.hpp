// SPDX-License-Identifier: Apache-2.0
#pragma once
// How many steps a run takes, the learning rate of each, and at which of them something is due.

#include "kernels/common/types.hpp"

namespace strata::train {

using kernels::Index;

/// What one optimiser step consumes, all ranks together.
struct GlobalBatch {
  Index samples = 0;        ///< ranks * batch_size * gradient_accumulate_every
  Index window_length = 0;  ///< input_seq_len

  /// Optimiser steps until at least `target` samples (strategy `batch`) or bytes (`sequence`) were consumed;
  /// at least 1.
  Index steps(Index target, bool count_bytes) const;
};

/// Linear warm-up from a tenth of the peak, then half a cosine down to 0, as the MBLM package has it. With S
/// steps, w = floor(S * warmup) and i = 0 .. S-1:
///   i < w : peak (0.1 + 0.9 i / w)        i >= w: peak (1 + cos(pi (i - w) / (S - w))) / 2
struct Schedule {
  double peak = 0;
  double warmup = 0;  ///< fraction of the steps, 0 .. 1
  Index steps = 1;

  Index warmup_steps() const;
  double rate(Index i) const;
};

/// True for the steps s = 1 .. total that end one of `amount` equal parts of the run; the last step always
/// does unless amount is 0. More parts than steps: every step.
bool is_due(Index step, Index total, Index amount);

}  // namespace strata::train
