// SPDX-License-Identifier: Apache-2.0
#pragma once
// What can go wrong, and the exit status it ends the program with.

#include <stdexcept>
#include <string>

namespace strata::core {

/// The user's input is at fault: a file, a key or a value. The message is one sentence that names it and says
/// what to do.
class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Exit statuses of the program; documented in doc/user_guide.md.
enum class ExitStatus : int {
  success = 0,
  failure = 1,       ///< bad input, or a run that could not go on
  interrupted = 75,  ///< stopped by SIGTERM or SIGUSR1 after saving: run the same command again to continue
                     ///< (EX_TEMPFAIL)
};

}  // namespace strata::core
