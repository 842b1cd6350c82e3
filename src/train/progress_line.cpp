// SPDX-License-Identifier: Apache-2.0
#include "train/progress_line.hpp"

#include <unistd.h>

#include <array>
#include <cmath>
#include <cstdio>

namespace strata::train {

ProgressLine::ProgressLine(bool quiet)
    : quiet_(quiet),
      terminal_(::isatty(STDOUT_FILENO) == 1),
      interval_(terminal_ ? 0.2 : 5.0),
      next_(std::chrono::steady_clock::now()) {}

bool ProgressLine::wants() const { return !quiet_ && std::chrono::steady_clock::now() >= next_; }

void ProgressLine::show(std::string const& text) {
  if (!wants()) return;
  next_ = std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                                                 std::chrono::duration<double>(interval_));
  if (terminal_) {
    std::printf("\r\033[K%s", text.c_str());
    open_ = true;
  } else {
    std::printf("%s\n", text.c_str());
  }
  std::fflush(stdout);
}

void ProgressLine::say(std::string const& text) {
  if (quiet_) return;
  end();
  std::printf("%s\n", text.c_str());
  std::fflush(stdout);
}

void ProgressLine::end() {
  if (open_) std::printf("\n");
  open_ = false;
}

std::string duration_text(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "unknown time";
  auto const whole = static_cast<long long>(std::llround(seconds));
  std::array<char, 48> text{};
  if (whole < 60) {
    std::snprintf(text.data(), text.size(), "%lld s", whole);
  } else if (whole < 3600) {
    std::snprintf(text.data(), text.size(), "%lld min %02lld s", whole / 60, whole % 60);
  } else {
    std::snprintf(text.data(), text.size(), "%lld h %02lld min", whole / 3600, whole % 3600 / 60);
  }
  return text.data();
}

std::string rate_text(double bytes_per_second) {
  std::array<char, 48> text{};
  if (bytes_per_second < 1e3) {
    std::snprintf(text.data(), text.size(), "%.0f B/s", bytes_per_second);
  } else if (bytes_per_second < 1e6) {
    std::snprintf(text.data(), text.size(), "%.1f kB/s", bytes_per_second / 1e3);
  } else {
    std::snprintf(text.data(), text.size(), "%.2f MB/s", bytes_per_second / 1e6);
  }
  return text.data();
}

std::string communication_text(double exposed_seconds, double hidden_seconds, double steps, int ranks) {
  std::array<char, 120> text{};
  std::snprintf(text.data(), text.size(),
                "communication in a step: %.3g ms exposed, %.3g ms hidden behind computation (rank 0 of %d)",
                1e3 * exposed_seconds / steps, 1e3 * hidden_seconds / steps, ranks);
  return text.data();
}

}  // namespace strata::train
