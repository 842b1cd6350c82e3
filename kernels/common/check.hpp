// SPDX-License-Identifier: Apache-2.0
#pragma once
// Checks of a kernel's arguments on the host: wrong shapes are programming errors.

#include <sstream>
#include <stdexcept>

/// Throws std::logic_error with the condition, its place and a message (streamed) unless the condition holds.
#define STRATA_REQUIRE(condition, message)                                                               \
  do {                                                                                                   \
    if (!(condition)) {                                                                                  \
      std::ostringstream strata_stream;                                                                  \
      strata_stream << __FILE__ << ":" << __LINE__ << ": " << __func__ << ": " << #condition             \
                    << " is false: " << message; /* NOLINT(bugprone-macro-parentheses): a chain of << */ \
      throw std::logic_error(strata_stream.str());                                                       \
    }                                                                                                    \
  } while (false)
