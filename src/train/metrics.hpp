// SPDX-License-Identifier: Apache-2.0
#pragma once
// metrics.jsonl: a JSON object per line for every loss that a run logs.

#include <cstdint>
#include <string>

#include "kernels/common/types.hpp"

namespace strata::train {

using kernels::Index;

struct MetricsRecord {
  Index step = 0;            ///< optimiser steps taken, 1 for the first
  std::string split;         ///< train, validation, test
  double loss = 0;           ///< nats per byte: of the step's own batch, or of the split
  double learning_rate = 0;  ///< that made the step
  double gradient_norm = 0;  ///< of that step, before clipping
  Index bytes_seen = 0;      ///< trained on since the run began
  double bytes_per_second = 0;
  double step_seconds = 0;       ///< a training step, the mean since the last record; 0 for other splits
  double optimizer_seconds = 0;  ///< of which for the gradient's norm and the update
  /// Communication in a step, the mean since the last record: what this rank spent on it, and what it hid
  /// behind other work (parallel::GradientSync); 0 for other splits and with one rank.
  double communication_exposed_seconds = 0, communication_hidden_seconds = 0;
  double gemm_fraction = 0;  ///< model FLOP/s over the machine's measured GEMM peak
  Index epoch = 0;
  double elapsed = 0;      ///< seconds of this and the earlier starts of the run
  double peak_memory = 0;  ///< bytes, resident, of rank 0
};

/// Work and the time it took since the last record.
struct Meter {
  double seconds = 0, flops = 0, bytes = 0;
  double steps = 0, optimizer_seconds = 0;         ///< of training
  double exposed_seconds = 0, hidden_seconds = 0;  ///< of its communication

  void add(double s, double f, Index b) {
    seconds += s;
    flops += f;
    bytes += static_cast<double>(b);
  }
  /// Fills in speeds and means per step; `peak` in operations per second.
  void describe(MetricsRecord& record, double peak) const;
};

/// One line, without its end. Numbers carry all their digits: reading gives the same bits. bits_per_byte =
/// loss / ln 2.
std::string to_json(MetricsRecord const& record);

/// The file, opened for appending. A line that the disk does not take is kept and tried again with the next.
class MetricsFile {
 public:
  /// Opens or creates the file and drops records of later steps than `last_step` and half-written ones, so
  /// that a resumed run has each step once. Throws core::InputError.
  MetricsFile(std::string const& path, Index last_step);
  ~MetricsFile();
  MetricsFile(MetricsFile const&) = delete;
  MetricsFile& operator=(MetricsFile const&) = delete;

  /// `elapsed` of the last record that was kept; 0 for a new file.
  double elapsed() const { return elapsed_; }
  /// Appends; false, with the lines kept for the next call, when the file cannot grow.
  bool write(MetricsRecord const& record);

 private:
  bool flush();

  int file_ = -1;
  std::int64_t size_ = 0;  ///< bytes of whole lines in the file
  std::string pending_;
  double elapsed_ = 0;
};

}  // namespace strata::train
