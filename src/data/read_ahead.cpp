// SPDX-License-Identifier: Apache-2.0
#include "data/read_ahead.hpp"

#include <pthread.h>

#include <algorithm>
#include <csignal>

namespace strata::data {

ReadAhead::ReadAhead(Fill fill, Index depth)
    : fill_(std::move(fill)), ring_(static_cast<std::size_t>(std::max<Index>(depth, 1)) + 1) {
  // Signals are for the main thread: the new one starts with all of them blocked.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([this] { run(); });
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

ReadAhead::~ReadAhead() {
  {
    std::lock_guard const lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void ReadAhead::run() {
  auto const slots = static_cast<Index>(ring_.size());
  while (true) {
    {
      std::unique_lock lock(mutex_);
      // The batch handed out last is still in use, hence the slot kept free of it.
      changed_.wait(lock, [&] { return stop_ || filled_ - std::max<Index>(taken_ - 1, 0) < slots; });
      if (stop_) return;
    }
    bool more = false;
    std::exception_ptr error;
    try {
      more = fill_(ring_[static_cast<std::size_t>(filled_ % slots)]);
    } catch (...) {
      error = std::current_exception();
    }
    {
      std::lock_guard const lock(mutex_);
      if (more) {
        ++filled_;
      } else {
        ended_ = true;
        error_ = error;
      }
    }
    changed_.notify_all();
    if (!more) return;
  }
}

MicroBatch const* ReadAhead::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return filled_ > taken_ || ended_; });
  if (filled_ == taken_) {
    if (error_) std::rethrow_exception(error_);
    return nullptr;
  }
  MicroBatch const* const batch = &ring_[static_cast<std::size_t>(taken_ % static_cast<Index>(ring_.size()))];
  ++taken_;
  lock.unlock();
  changed_.notify_all();
  return batch;
}

}  // namespace strata::data
