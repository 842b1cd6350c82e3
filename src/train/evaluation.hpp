// SPDX-License-Identifier: Apache-2.0
#pragma once
// The loss over a split, every byte counted once. The result does not depend on the number of ranks: batches
// are the same for any number of them, and all sums are exact (exact_sum.hpp). Losses are added up as the
// model makes them, a block of rows at a time, so memory does not grow with the window beyond its bytes.

#include <optional>
#include <vector>

#include "data/batch.hpp"
#include "io/dataset_file.hpp"
#include "model/device_batch.hpp"
#include "model/hierarchy.hpp"
#include "parallel/communicator.hpp"

namespace strata::train {

using kernels::Index;

struct EvaluationSettings {
  io::Split split = io::Split::validation;
  Index window = 0;  ///< bytes; shortened to the split's size
  Index stride =
      0;  ///< 0: windows side by side; less than window: sliding, each byte scored in its first window
  Index batch_size = 1;
  Index max_batches = 0;  ///< 0: the whole split
  bool strided = false;   ///< two passes, each byte scored where its patch is young (HalfPatches)
  bool details = false;   ///< documents and positions as well
};

/// Strided inference (Yu et al. 2023, arXiv 2305.07185, section 2.3.3). A prediction is the worse the further
/// its row stands behind the start of its patch, where the global context comes in. So a window is read
/// twice, the second time without its first `offset` bytes, whose patches begin in the middle of those of the
/// first pass, and of every patch only the rows of the first half count. Each byte counts in one pass
/// exactly: those that the first patch of a window predicts all in the first, since the second has less to go
/// by.
class HalfPatches {
 public:
  /// patch: bytes of a patch of the last stage; an odd one has its longer half first. Throws core::InputError
  /// for a model without patches, or with patches of one byte.
  explicit HalfPatches(model::ModelConfig const& config);

  /// Bytes that the second pass leaves out.
  Index offset() const { return offset_; }
  /// Whether the first pass scores byte i of a window. If not, the second does, as byte i - offset of its
  /// own.
  bool in_first_pass(Index i) const {
    Index const row = i - lag_;
    return row < patch_ || row % patch_ < offset_;
  }

 private:
  Index patch_, offset_;
  Index lag_;  ///< rows of a patch before the first that counts: 1 with head `reference`, whose row 0 is idle
};

/// Bytes of one kind and their summed loss.
struct LossOf {
  double nats = 0;
  Index bytes = 0;
  double loss() const { return bytes > 0 ? nats / static_cast<double>(bytes) : 0; }
  double bits_per_byte() const { return loss() / 0.69314718055994530942; }
};

struct Evaluation {
  LossOf total;
  std::vector<LossOf> documents;  ///< by number within the split
  std::vector<LossOf> context;    ///< [0]: position 0 of a window; [k]: positions 2^(k-1) .. 2^k - 1
  std::vector<LossOf> patch;      ///< by position in a patch of the outermost stage, in the pass that counts
  double seconds = 0;
  double flops = 0;  ///< of the forward passes on all ranks
};

class Evaluator {
 public:
  /// Allocates on the device what `run` needs. Throws core::InputError when the split is empty, the model has
  /// no room for the window, or the tokens do not fit.
  Evaluator(model::Hierarchy<float>& model, io::DatasetFile const& file, parallel::Communicator const& ranks,
            EvaluationSettings const& settings);

  /// Called by all ranks; all get the same answer. Throws core::InputError when nothing was counted.
  Evaluation run();

 private:
  struct Sums;
  /// Bytes that a pass leaves out at the start of each window, and what remains of the windows.
  struct Reading {
    Index offset = 0;
    std::vector<Index> lengths;
  };
  void add_batch(data::MicroBatch const& batch, Reading const& reading, Sums& sums);
  void add_rows(data::MicroBatch const& batch, Reading const& reading, kernels::Targets const& targets,
                kernels::StageRows const& rows, kernels::Vec<float> losses, Sums& sums) const;

  model::Hierarchy<float>& model_;
  io::DatasetFile const& file_;
  parallel::Communicator const& ranks_;
  EvaluationSettings settings_;
  std::optional<HalfPatches> halves_;
  Index padded_length_;
  std::vector<std::uint64_t> documents_;
  model::DeviceBatch device_batch_;
  Kokkos::View<double*, kernels::MemSpace> totals_;
};

/// Rows of a loader's batch as the device wants them.
model::HostWindows host_windows(data::MicroBatch const& batch);

/// Throws core::InputError unless every token of the dataset has an embedding and a window of `window` bytes
/// has room.
void check_fit(model::ModelConfig const& config, io::DatasetFile const& file, Index window);

}  // namespace strata::train
