// SPDX-License-Identifier: Apache-2.0
#pragma once
// A thread that keeps a ring of batches filled.

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "data/batch.hpp"

namespace strata::data {

class ReadAhead {
 public:
  /// Fills the batch it is given; false when there is no further one. Called on the reader thread only.
  using Fill = std::function<bool(MicroBatch&)>;

  /// Starts reading at once; at most `depth` batches wait, one more is with the caller. Batches are recycled,
  /// so their vectors are allocated only depth + 1 times.
  ReadAhead(Fill fill, Index depth);
  /// Stops the thread after the batch it is reading.
  ~ReadAhead();
  ReadAhead(ReadAhead const&) = delete;
  ReadAhead& operator=(ReadAhead const&) = delete;

  /// The next batch, valid until the following call; nullptr at the end. Rethrows what `fill` threw, after
  /// the batches before it, and again at every later call.
  MicroBatch const* next();

 private:
  void run();

  Fill fill_;
  std::vector<MicroBatch> ring_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Index filled_ = 0;    ///< batches completed by the thread
  Index taken_ = 0;     ///< batches handed out
  bool ended_ = false;  ///< no further batch will be filled
  bool stop_ = false;
  std::exception_ptr error_;
  std::thread thread_;
};

}  // namespace strata::data
