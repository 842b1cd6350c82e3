// SPDX-License-Identifier: Apache-2.0
// The program `strata`: one subcommand per thing to do (drivers/commands.hpp).

#include <iostream>

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

}  // namespace

int main(int argc, char** argv) { return strata::core::run_main(argc, argv, run); }
