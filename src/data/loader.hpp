// SPDX-License-Identifier: Apache-2.0
#pragma once
// Batches read ahead on a thread of their own, for training and for evaluation. Memory is two to a few
// micro-batches, however large the dataset: a byte of context takes one byte in each of them.

#include <memory>
#include <vector>

#include "data/batch.hpp"
#include "data/evaluation_plan.hpp"
#include "data/read_ahead.hpp"
#include "data/sample_order.hpp"
#include "io/dataset_file.hpp"

namespace strata::data {

struct LoaderOptions {
  io::Split split = io::Split::train;
  Index window_length = 0;
  Index batch_size = 1;     ///< rows of a micro-batch
  Index micro_batches = 1;  ///< per rank and step
  Index rank = 0, ranks = 1;
  bool shuffle = false;
  std::uint64_t seed = 0;
  Place start;      ///< where the first step begins
  Index depth = 2;  ///< micro-batches read ahead; of large ones (see BatchMemory) a single one
};

/// What a loader holds.
struct BatchMemory {
  Index rows = 1;    ///< of a micro-batch
  Index stride = 0;  ///< elements of a row: the window, or the split where that is shorter
  bool wide = false;
  bool weights = false;

  /// Bytes of one micro-batch: its elements, and what is known of each row.
  std::size_t batch_bytes() const;
  /// Micro-batches read ahead, `depth` or, of those above 8 MiB, one.
  Index depth(Index wanted) const;
  /// All that a loader holds: those read ahead and the one in use.
  std::size_t loader_bytes(Index depth_wanted = 2) const {
    return static_cast<std::size_t>(depth(depth_wanted) + 1) * batch_bytes();
  }
};

/// Endless training batches. Step k consumes the next G = ranks * micro_batches * batch_size samples of the
/// order; rank r takes its r-th contiguous block of them and micro-batch m the m-th batch_size of that block.
/// So equal G means equal samples on any number of ranks.
class Loader {
 public:
  /// The file must outlive the loader. Throws core::InputError when the split is empty or an option makes no
  /// sense.
  Loader(io::DatasetFile const& file, LoaderOptions const& options);

  SampleOrder const& order() const { return order_; }
  /// The next micro-batch, valid and in place until the following call. Rethrows what went wrong while
  /// reading.
  MicroBatch const& next() { return *read_ahead_->next(); }

 private:
  SampleOrder order_;
  std::unique_ptr<ReadAhead> read_ahead_;
};

struct EvaluationOptions {
  io::Split split = io::Split::validation;
  Index window = 0;
  Index stride = 0;  ///< 0: windows side by side
  Index batch_size = 1;
  Index rank = 0, ranks = 1;
  Index max_batches = 0;  ///< 0: all; otherwise only the first so many batches of the split
  Index depth = 2;
};

/// Every byte of a split scored once. Batches are the same for any number of ranks; each rank gets a
/// contiguous block of them (perhaps none), so results can be combined in the order of `step`.
class EvaluationLoader {
 public:
  EvaluationLoader(io::DatasetFile const& file, EvaluationOptions const& options);
  /// Given windows, `batch_size` rows at a time, all of them on this rank. All bytes of a row are scored.
  EvaluationLoader(io::DatasetFile const& file, io::Split split, std::vector<Window> windows,
                   Index batch_size);

  /// This rank's number of batches.
  Index batches() const { return batches_; }
  /// The next batch, valid until the following call; nullptr at the end.
  MicroBatch const* next() { return read_ahead_->next(); }

 private:
  Index batches_ = 0;
  std::unique_ptr<ReadAhead> read_ahead_;
};

}  // namespace strata::data
