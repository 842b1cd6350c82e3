// SPDX-License-Identifier: Apache-2.0
#pragma once
// `strata pack`: files or folders into a dataset.

#include <CLI/CLI.hpp>

/// Adds the subcommand. Its callback throws core::InputError on bad input and writes the counts of each split
/// to standard output (one JSON object with --json).
void add_pack(CLI::App& program);
