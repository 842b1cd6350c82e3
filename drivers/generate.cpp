// SPDX-License-Identifier: Apache-2.0
// `strata generate`: a model continues a prompt, byte by byte.

#include <fmt/format.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>

#include "commands.hpp"
#include "core/error.hpp"
#include "core/log.hpp"
#include "core/runtime.hpp"
#include "generate/generator.hpp"
#include "generate/sampling.hpp"
#include "parallel/communicator.hpp"
#include "train/checkpoint.hpp"

namespace {

using strata::core::InputError;
using strata::kernels::Index;

struct Arguments {
  std::string checkpoint;
  std::string prompt, prompt_file, output;
  Index bytes = 0;
  strata::generate::Sampling sampling;
};

std::string read_prompt(Arguments const& a) {
  if (a.prompt_file.empty()) return a.prompt;
  if (a.prompt_file == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  std::ifstream file(a.prompt_file, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file.is_open() || file.bad()) throw InputError(a.prompt_file + " cannot be read as a prompt");
  return text;
}

/// Standard output, or a file; bytes go out as they come.
class Sink {
 public:
  explicit Sink(std::string const& path)
      : path_(path), file_(path.empty() ? stdout : std::fopen(path.c_str(), "wb")) {
    if (file_ == nullptr) throw InputError(path + " cannot be written to");
  }
  ~Sink() {
    if (file_ != nullptr && file_ != stdout) std::fclose(file_);
  }
  Sink(Sink const&) = delete;
  Sink& operator=(Sink const&) = delete;

  void put(std::int32_t byte) {
    if (std::fputc(byte, file_) == EOF || std::fflush(file_) != 0)
      throw InputError((path_.empty() ? "standard output" : path_) + " does not take any more bytes");
  }

 private:
  std::string path_;
  std::FILE* file_;
};

void generate(Arguments const& a) {
  a.sampling.validate();
  if (a.bytes < 1) throw InputError(fmt::format("--bytes {} must be at least 1", a.bytes));
  if (!a.prompt.empty() && !a.prompt_file.empty())
    throw InputError("give --prompt or --prompt-file, not both");
  // One sequence does not divide; the other ranks have nothing to do.
  if (!strata::parallel::Communicator().is_root()) return;
  strata::core::catch_stop_signals();
  std::string const prompt = read_prompt(a);
  strata::train::LoadedModel const model = strata::train::load_model(a.checkpoint);
  strata::model::ModelConfig const& config = model.hierarchy->config();
  auto const prompt_length = static_cast<Index>(prompt.size());
  if (config.block[0].pos_emb_type == strata::model::Position::fixed &&
      prompt_length + a.bytes > config.context())
    throw InputError(
        fmt::format("a prompt of {} bytes and {} more do not fit: the position table of {} ends at {} bytes",
                    prompt_length, a.bytes, a.checkpoint, config.context()));

  strata::generate::Generator<float> generator(*model.hierarchy, 1, prompt_length + a.bytes);
  for (char const c : prompt) generator.append({static_cast<unsigned char>(c)});
  Sink sink(a.output);
  auto const begin = std::chrono::steady_clock::now();
  Index made = 0;
  for (; made < a.bytes && !strata::core::stop_requested(); ++made) {
    std::vector<float> logits;
    if (generator.position() == 0 && config.head == strata::model::Head::reference) {
      std::vector<double> const first = strata::generate::empty_prompt_logits(*model.hierarchy);
      logits.assign(first.begin(), first.end());
    } else {
      logits = generator.logits();
    }
    auto const position = static_cast<std::uint64_t>(generator.position());
    std::int32_t const byte = strata::generate::sample(a.sampling, logits, 256, 0, position);
    sink.put(byte);
    if (made + 1 < a.bytes) generator.append({byte});
  }
  double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  strata::core::log().info("{} bytes in {:.2f} s, {:.0f} bytes/s", made, seconds,
                           static_cast<double>(made) / seconds);
  if (made < a.bytes) throw CLI::RuntimeError(static_cast<int>(strata::core::ExitStatus::interrupted));
}

}  // namespace

void add_generate(CLI::App& program) {
  auto const a = std::make_shared<Arguments>();
  CLI::App* const command =
      program.add_subcommand("generate", "Continue a prompt byte by byte, to standard output");
  command->add_option("--checkpoint", a->checkpoint, "Checkpoint, or the folder of a run (its latest)")
      ->required();
  command->add_option("--prompt", a->prompt, "Text to continue (default: none)");
  command->add_option("--prompt-file", a->prompt_file, "File whose bytes to continue; - for standard input");
  command->add_option("--bytes", a->bytes, "How many bytes to make")->required();
  command->add_option("--temperature", a->sampling.temperature, "0: most likely byte; higher: more random")
      ->capture_default_str();
  command->add_option("--top-k", a->sampling.top_k, "Choose among the k most likely bytes; 0: all")
      ->capture_default_str();
  command
      ->add_option("--top-p", a->sampling.top_p,
                   "Choose among the fewest bytes that make up this probability")
      ->capture_default_str();
  command->add_option("--seed", a->sampling.seed, "Same seed, same bytes")->capture_default_str();
  command->add_option("--output", a->output, "File to write instead of standard output");
  command->callback([a] { generate(*a); });
}
