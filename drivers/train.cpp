// SPDX-License-Identifier: Apache-2.0
// `strata train`: a deck into a trained model.

#include <memory>
#include <string>
#include <vector>

#include "commands.hpp"
#include "core/error.hpp"
#include "core/log.hpp"
#include "parallel/communicator.hpp"
#include "train/trainer.hpp"

namespace {

struct Arguments {
  std::string deck;
  std::vector<std::string> overrides;
  bool quiet = false, profile = false;
};

void train(Arguments const& arguments) {
  strata::parallel::Communicator const ranks;
  strata::train::Deck const deck = strata::train::read_deck(arguments.deck, arguments.overrides);
  for (std::string const& warning : deck.warnings) strata::core::log().warn(warning);
  strata::core::ExitStatus const status =
      strata::train::run_training(deck, ranks, arguments.quiet, arguments.profile).status;
  if (status != strata::core::ExitStatus::success) throw CLI::RuntimeError(static_cast<int>(status));
}

}  // namespace

void add_train(CLI::App& program) {
  auto const arguments = std::make_shared<Arguments>();
  CLI::App* const command =
      program.add_subcommand("train", "Train a model, or continue where the same command stopped");
  command->add_option("deck", arguments->deck, "Deck (YAML); inputs/README.md lists its keys")->required();
  command->add_option("overrides", arguments->overrides, "Changes to the deck: section.key=value ...");
  command->add_flag("--quiet", arguments->quiet, "No progress line");
  command->add_flag("--profile", arguments->profile,
                    "Time every kernel and stage: tables at the end, and profile.json in the run's folder");
  command->footer(
      "The run lives in <io.output_dir>/<io.name_model>. SIGTERM and SIGUSR1 save and end the program with "
      "status 75; "
      "the same command then continues, also after a crash.");
  command->callback([arguments] { train(*arguments); });
}
