// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the loaders hand to the trainer and to the evaluation: rows of bytes on the host.

#include <cstdint>
#include <vector>

#include "data/sample_order.hpp"

namespace strata::data {

/// `rows` windows side by side, each in `stride` elements of which the first lengths[r] count; the others are
/// 0.
struct MicroBatch {
  Index rows = 0;
  Index stride = 0;                   ///< elements from row to row, the longest window possible
  std::vector<std::uint8_t> bytes;    ///< [rows, stride]; empty when the dataset holds tokens above 255
  std::vector<std::uint16_t> tokens;  ///< [rows, stride]; used instead of bytes when it does
  std::vector<float> weights;         ///< [rows, stride]; empty when every byte counts 1
  std::vector<Window> windows;        ///< [rows] where each row lies in the split
  std::vector<Index> lengths;         ///< [rows]
  std::vector<Index>
      first_scored;  ///< [rows] first position whose prediction counts; 0 outside sliding evaluation

  Index step =
      0;  ///< training: which step since the loader started; evaluation: which batch of the whole split
  Index micro_batch = 0;  ///< training: which micro-batch of this rank's step
  Index first_sample =
      0;  ///< place of row 0 in the order of all samples of the run (or of the split, in evaluation)
  Index step_bytes = 0;  ///< training: bytes of the whole step, all ranks and micro-batches
  Place place;           ///< training: where the step begins, all ranks alike
  Place next_place;      ///< training: where the next step begins; what a checkpoint after this step stores
};

}  // namespace strata::data
