// SPDX-License-Identifier: Apache-2.0
#pragma once
// The subcommands of `strata`. Each adds itself to the program; its callback, which every rank runs, does the
// work and throws core::InputError when the input is at fault. A callback that ends with a status other than
// success throws CLI::RuntimeError(status).

#include <CLI/CLI.hpp>

#include "core/error.hpp"

void add_pack(CLI::App& program);
void add_train(CLI::App& program);
void add_eval(CLI::App& program);
void add_generate(CLI::App& program);
void add_compress(CLI::App& program);
void add_decompress(CLI::App& program);
void add_info(CLI::App& program);
void add_convert(CLI::App& program);
