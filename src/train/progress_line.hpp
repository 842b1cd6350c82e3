// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the user sees of a long run: one line on a terminal, updated in place; elsewhere a line every few
// seconds.

#include <chrono>
#include <string>

namespace strata::train {

class ProgressLine {
 public:
  /// quiet: prints nothing (ranks other than 0).
  explicit ProgressLine(bool quiet);
  ~ProgressLine() { end(); }
  ProgressLine(ProgressLine const&) = delete;
  ProgressLine& operator=(ProgressLine const&) = delete;

  /// True when a new line would be shown now; asked first, so that texts are made only then.
  bool wants() const;
  void show(std::string const& text);
  /// A line that stays.
  void say(std::string const& text);
  /// Moves off the updating line.
  void end();

 private:
  bool quiet_, terminal_, open_ = false;
  double interval_;
  std::chrono::steady_clock::time_point next_;
};

/// "45 s", "3 min 20 s", "2 h 05 min".
std::string duration_text(double seconds);
/// "950 B/s", "1.25 MB/s".
std::string rate_text(double bytes_per_second);
/// Communication of so many steps: mean per step, exposed and hidden, in milliseconds.
std::string communication_text(double exposed_seconds, double hidden_seconds, double steps, int ranks);

}  // namespace strata::train
