// SPDX-License-Identifier: Apache-2.0
// The program `strata`: one subcommand per thing to do (drivers/commands.hpp).

#include <algorithm>
#include <array>
#include <iostream>
#include <string_view>

#include "commands.hpp"
#include "core/error.hpp"
#include "core/runtime.hpp"
#include "parallel/communicator.hpp"

namespace {

int run(int argc, char** argv) {
  using strata::core::ExitStatus;
  CLI::App program("Strata: byte-level language models with million-byte contexts.", "strata");
  auto const provenance = strata::core::provenance();
  program.set_version_flag("--version", "strata " + provenance.version + " (" + provenance.commit + ")");
  program.require_subcommand(1);
  add_pack(program);
  add_train(program);
  add_eval(program);
  add_generate(program);
  add_compress(program);
  add_decompress(program);
  add_info(program);
  add_convert(program);
  try {
    program.parse(argc, argv);
  } catch (CLI::RuntimeError const& end) {
    return end.get_exit_code();
  } catch (CLI::ParseError const& error) {
    if (error.get_exit_code() != 0 && argc > 1 && argv[1][0] != '-' && program.get_subcommands().empty())
      throw strata::core::InputError(std::string(argv[1]) + " is not a subcommand; strata --help lists them");
    if (error.get_exit_code() != 0)
      throw strata::core::InputError(std::string(error.what()) + " (strata --help shows what there is)");
    if (strata::parallel::Communicator().is_root()) program.exit(error);  // --help, --version
  }
  return static_cast<int>(ExitStatus::success);
}

/// Subcommands that look at core::stop_requested() all the time and end with what they have. (Of `eval` only
/// the scoring of files does.)
bool ends_when_asked(int argc, char** argv) {
  constexpr std::array<std::string_view, 4> names = {"train", "generate", "compress", "decompress"};
  auto const is_option = [](char const* word) { return word[0] == '-'; };
  char** const command = std::find_if_not(argv + 1, argv + argc, is_option);
  return command != argv + argc && std::find(names.begin(), names.end(), *command) != names.end();
}

}  // namespace

int main(int argc, char** argv) {
  // Before MPI and Kokkos begin: a signal that comes while they do must not end one of many ranks.
  if (argc > 1 && ends_when_asked(argc, argv)) strata::core::catch_stop_signals();
  return strata::core::run_main(argc, argv, run);
}
