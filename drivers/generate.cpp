// SPDX-License-Identifier: Apache-2.0
// `strata generate`: a model continues prompts, byte by byte.

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>

#include "commands.hpp"
#include "core/error.hpp"
#include "core/log.hpp"
#include "core/runtime.hpp"
#include "generate/model_digest.hpp"
#include "generate/sample_gather.hpp"
#include "generate/sample_run.hpp"
#include "generate/state_file.hpp"
#include "generate_output.hpp"
#include "io/atomic_file.hpp"
#include "parallel/communicator.hpp"
#include "parallel/stop_agreement.hpp"
#include "train/checkpoint.hpp"

namespace {

using strata::core::InputError;
using strata::core::log;
using strata::generate::End;
using strata::generate::RunSettings;
using strata::generate::Sample;
using strata::generate::SampleRun;
using strata::generate::SavedState;
using strata::generate::Throughput;
using strata::kernels::Index;
using strata::parallel::Communicator;

struct PromptSource {
  std::string value;
  bool is_file = false;
};

struct Arguments {
  std::string checkpoint, save_state, load_state;
  std::vector<PromptSource> prompts;  ///< in the order of the command line
  std::vector<int> stop;
  std::optional<Index> batch;
  RunSettings run;
  OutputSettings output;

  /// Throws core::InputError naming the first option that cannot be used.
  void validate() const;
};

void Arguments::validate() const {
  run.sampling.validate();
  if (run.bytes < 0 || (run.bytes == 0 && save_state.empty()))
    throw InputError(fmt::format("--bytes {} must be at least 1, or 0 with --save-state", run.bytes));
  if (run.samples < 1) throw InputError(fmt::format("--samples {} must be at least 1", run.samples));
  Index const most = strata::generate::Generator<float>::most_lanes();
  if (batch && (*batch < 1 || *batch > most))
    throw InputError(fmt::format("--batch {} must be from 1 to {}", *batch, most));
  Index const samples = run.samples * std::max<Index>(1, static_cast<Index>(prompts.size()));
  if (samples > 1 && !save_state.empty())
    throw InputError(fmt::format("--save-state keeps the state of one sample, not of {}", samples));
  if (std::count_if(prompts.begin(), prompts.end(),
                    [](PromptSource const& p) { return p.is_file && p.value == "-"; }) > 1)
    throw InputError("--prompt-file - can be given once only: standard input has one end");
  output.validate(samples);
}

std::string read_prompt(PromptSource const& source) {
  if (!source.is_file) return source.value;
  if (source.value == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  std::error_code ignored;
  if (std::filesystem::is_directory(source.value, ignored))
    throw InputError(source.value + " is a folder and cannot be read as a prompt");
  std::ifstream file(source.value, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file.is_open() || file.bad()) throw InputError(source.value + " cannot be read as a prompt");
  return text;
}

/// What the root does alone; an error of its ends every rank with the same message.
template <class Work>
void on_root(Communicator const& ranks, Work const& work) {
  std::string error;
  if (ranks.is_root()) {
    try {
      work();
    } catch (InputError const& e) {
      error = e.what();
    }
  }
  error = ranks.broadcast(error);
  if (!error.empty()) throw InputError(error);
}

/// Only the root sees standard input, and files are read once.
std::vector<std::string> read_prompts(Arguments const& a, Communicator const& ranks) {
  std::vector<std::string> texts(std::max<std::size_t>(1, a.prompts.size()));
  on_root(ranks, [&] { std::transform(a.prompts.begin(), a.prompts.end(), texts.begin(), read_prompt); });
  for (std::string& text : texts) text = ranks.broadcast(std::move(text));
  return texts;
}

nlohmann::ordered_json describe(Arguments const& a, strata::train::LoadedModel const& model) {
  auto const& sampling = a.run.sampling;
  nlohmann::ordered_json settings{
      {"bytes", a.run.bytes},    {"samples", a.run.samples}, {"temperature", sampling.temperature},
      {"top_k", sampling.top_k}, {"filter_thres", nullptr},  {"top_p", sampling.top_p},
      {"min_p", sampling.min_p}, {"seed", sampling.seed},    {"stop", a.stop},
      {"slide", a.run.slide},    {"load_state", nullptr}};
  if (sampling.filter_thres) settings["filter_thres"] = *sampling.filter_thres;
  if (!a.load_state.empty()) settings["load_state"] = a.load_state;
  return {{"checkpoint", model.path}, {"step", model.step}, {"settings", std::move(settings)}};
}

void report(Communicator const& ranks, SampleRun const& run) {
  auto const total = [&](Throughput const& mine) {
    return std::pair(ranks.sum(static_cast<double>(mine.bytes)), std::max(ranks.max(mine.seconds), 1e-9));
  };
  auto const [read, reading_seconds] = total(run.reading());
  auto const [made, making_seconds] = total(run.making());
  if (read > 0)
    log().info("{:.0f} bytes of prompt read in {:.2f} s, {:.0f} bytes/s", read, reading_seconds,
               read / reading_seconds);
  log().info("{:.0f} bytes in {:.2f} s, {:.0f} bytes/s", made, making_seconds, made / making_seconds);
}

void save(Arguments const& a, std::string const& digest, SampleRun& run) {
  std::optional<SavedState> const state = run.state();
  if (state) {
    strata::generate::save_state(a.save_state, digest, *state);
  } else {
    log().warn("{} was not written: the prompt was not read to its end", a.save_state);
  }
}

/// Every sample, made on all ranks and written by the root; on the others nothing comes back.
std::vector<Sample> make_samples(SampleRun& run, Communicator const& ranks, SampleOutput* output) {
  strata::parallel::StopAgreement agreement(ranks, strata::core::stop_requested);
  strata::generate::RunEvents events;
  events.stop = [&] { return agreement.poll(); };
  if (output != nullptr) {
    events.byte = [&](Index, std::uint8_t byte) { output->byte(byte); };
    events.end = [&](Sample const& sample) { output->end(sample); };
  }
  std::vector<Sample> const mine = run.run(events);
  agreement.finish();
  return strata::generate::gather(ranks, mine);
}

void generate(Arguments const& a) {
  a.validate();
  Communicator const ranks;
  std::vector<std::string> const prompts = read_prompts(a, ranks);
  // Whether the state can be written is known now, not after an hour.
  if (!a.save_state.empty()) on_root(ranks, [&] { strata::io::AtomicFile const trial(a.save_state); });
  strata::train::LoadedModel const model = strata::train::load_model(a.checkpoint, ranks);
  std::string digest;
  if (!a.save_state.empty() || !a.load_state.empty())
    digest = strata::generate::model_digest(*model.hierarchy);
  std::optional<SavedState> start;
  if (!a.load_state.empty()) start = strata::generate::load_state(a.load_state, digest);

  RunSettings settings = a.run;
  for (int const byte : a.stop) settings.stop[static_cast<std::size_t>(byte)] = true;
  settings.lanes = a.batch.value_or(0);
  settings.log_probabilities = a.output.json;
  settings.keep_state = !a.save_state.empty();
  Index const total = settings.samples * static_cast<Index>(prompts.size());
  auto const first = [&](int rank) { return strata::generate::first_sample(total, rank, ranks.size()); };
  SampleRun run(*model.hierarchy, settings, prompts, std::move(start), first(ranks.rank()),
                first(ranks.rank() + 1));

  std::unique_ptr<SampleOutput> output;
  on_root(ranks, [&] { output = std::make_unique<SampleOutput>(a.output, prompts, settings.samples); });
  std::vector<Sample> const samples = make_samples(run, ranks, output.get());
  Sample const* full = nullptr;
  bool interrupted = false;
  on_root(ranks, [&] {
    for (Sample const& sample : samples) {
      output->end(sample);
      interrupted = interrupted || sample.end == End::interrupted;
      if (full == nullptr && sample.end == End::full) full = &sample;
    }
    output->finish(describe(a, model));
    if (!a.save_state.empty()) save(a, digest, run);
  });
  report(ranks, run);
  on_root(ranks, [&] {
    if (full != nullptr)
      throw InputError(fmt::format(
          "sample {} ends after {} of {} bytes: the position table of {} ends at {} bytes; --slide goes on "
          "beyond it",
          full->number, full->bytes.size(), settings.bytes, a.checkpoint,
          model.hierarchy->config().context()));
  });
  if (ranks.any(interrupted))
    throw CLI::RuntimeError(static_cast<int>(strata::core::ExitStatus::interrupted));
}

/// Options that say what to continue, seen in the order given: each takes one value as it is, brackets and
/// all.
void add_prompts(CLI::App* command, std::shared_ptr<Arguments> const& a) {
  auto const add = [&](char const* option, bool is_file, char const* type, char const* text) {
    auto const keep = [a, is_file](CLI::results_t const& values) {
      a->prompts.push_back({values.front(), is_file});
      return true;
    };
    command->add_option(option, keep, text)->type_name(type)->trigger_on_parse();
  };
  add("--prompt", false, "TEXT", "Text to continue (default: none); may be repeated");
  add("--prompt-file", true, "FILE", "File whose bytes to continue; - for standard input; may be repeated");
}

void add_sampling(CLI::App* command, Arguments& a) {
  auto& sampling = a.run.sampling;
  command->add_option("--temperature", sampling.temperature, "0: most likely byte; higher: more random")
      ->capture_default_str();
  command->add_option("--top-k", sampling.top_k, "Choose among the k most likely bytes; 0: all")
      ->capture_default_str();
  command->add_option("--filter-thres", sampling.filter_thres,
                      "As in the MBLM package: choose among the max((1 - F) V, 1) most likely bytes");
  command
      ->add_option("--top-p", sampling.top_p, "Choose among the fewest bytes that make up this probability")
      ->capture_default_str();
  command
      ->add_option("--min-p", sampling.min_p,
                   "Choose among bytes at least this fraction as probable as the most likely one")
      ->capture_default_str();
  command->add_option("--seed", sampling.seed, "Same seed, same bytes")->capture_default_str();
  command->add_option("--stop", a.stop, "Bytes that end a sample, as numbers: 10,0")
      ->delimiter(',')
      ->check(CLI::Range(0, 255));
}

}  // namespace

void add_generate(CLI::App& program) {
  auto const a = std::make_shared<Arguments>();
  CLI::App* const command =
      program.add_subcommand("generate", "Continue prompts byte by byte, to standard output");
  command->add_option("--checkpoint", a->checkpoint, "Checkpoint, or the folder of a run (its latest)")
      ->required();
  add_prompts(command, a);
  command->add_option("--bytes", a->run.bytes, "How many bytes to make per sample")->required();
  command->add_option("--samples", a->run.samples, "How many continuations of every prompt")
      ->capture_default_str();
  command->add_option("--batch", a->batch, "Samples in flight on each rank (default: at most 16)");
  add_sampling(command, *a);
  command->add_flag("--slide", a->run.slide,
                    "Beyond the model's position table, go on from the last half of what fits it");
  command->add_option("--output", a->output.path,
                      "File to write instead of standard output; {} becomes the number of the sample");
  command->add_flag("--echo", a->output.echo, "Write the prompt first");
  command->add_flag("--utf8", a->output.utf8, "Write whole characters, and U+FFFD for broken ones");
  command->add_flag("--json", a->output.json, "One object with bytes, text and log-probabilities");
  command->add_option("--save-state", a->save_state, "Save what the model has read and made, as FILE.h5");
  command->add_option("--load-state", a->load_state, "Continue a saved state; a prompt comes after it");
  command->callback([a] { generate(*a); });
}
