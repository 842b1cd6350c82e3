// SPDX-License-Identifier: Apache-2.0
#pragma once
// The program's remarks to its user: on standard error, so that results on standard output stay clean, and
// from one rank.

#include <spdlog/logger.h>

namespace strata::core {

/// The one logger: lines `HH:MM:SS level: text`. Safe to use before `run_main` and from any thread.
spdlog::logger& log();

/// Keeps this rank silent from now on; run_main calls it on every rank but 0.
void silence_log();

}  // namespace strata::core
