// SPDX-License-Identifier: Apache-2.0
#include "drivers/pack.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "core/error.hpp"
#include "core/runtime.hpp"
#include "data/packer.hpp"

namespace {

using namespace strata;

volatile std::sig_atomic_t stop_signal = 0;

/// While it lives, SIGINT, SIGTERM and SIGHUP only set `stop_signal`, so that a half-written file can be
/// removed.
class CatchSignals {
 public:
  CatchSignals() {
    struct sigaction action {};
    action.sa_handler = [](int number) { stop_signal = number; };
    for (std::size_t i = 0; i < signals.size(); ++i) sigaction(signals[i], &action, &before_[i]);
  }
  ~CatchSignals() {
    for (std::size_t i = 0; i < signals.size(); ++i) sigaction(signals[i], &before_[i], nullptr);
  }
  CatchSignals(CatchSignals const&) = delete;
  CatchSignals& operator=(CatchSignals const&) = delete;

 private:
  static constexpr std::array<int, 3> signals{SIGINT, SIGTERM, SIGHUP};
  std::array<struct sigaction, 3> before_{};
};

/// A line that rewrites itself on a terminal; elsewhere one line every ten seconds.
class Progress {
 public:
  void operator()(std::int64_t done, std::int64_t total) {
    auto const now = Clock::now();
    bool const due = std::chrono::duration<double>(now - last_).count() >= (terminal_ ? 0.2 : 10.0);
    bool const ends = terminal_ && done == total;
    if (!due && !ends) return;
    last_ = now;
    double const seconds = std::max(std::chrono::duration<double>(now - begin_).count(), 1e-9);
    double const rate = static_cast<double>(done) / seconds;
    std::string const line = fmt::format("packed {:.1f} of {:.1f} MB ({:.0f} %), {:.0f} MB/s, {:.0f} s left",
                                         static_cast<double>(done) * 1e-6, static_cast<double>(total) * 1e-6,
                                         100.0 * static_cast<double>(done) / static_cast<double>(total),
                                         rate * 1e-6, static_cast<double>(total - done) / rate);
    fmt::print(stderr, "{}{}{}", terminal_ ? "\r\033[K" : "", line, terminal_ && !ends ? "" : "\n");
    std::fflush(stderr);
  }

 private:
  using Clock = std::chrono::steady_clock;
  bool terminal_ = isatty(STDERR_FILENO) != 0;
  Clock::time_point begin_ = Clock::now();
  Clock::time_point last_ = terminal_ ? Clock::time_point{} : begin_;
};

struct Arguments {
  data::PackOptions options;
  std::string fractions, images;
  bool json = false;
};

void print_text(data::PackOptions const& options, data::PackResult const& result) {
  for (io::Split const split : io::all_splits) {
    data::PackedSplit const& counts = result.splits[static_cast<std::size_t>(split)];
    fmt::print("{:<11}{} documents ({} empty), {} bytes, byte entropy {:.4f} bits per byte\n",
               io::to_string(split), counts.documents, counts.empty_documents, counts.bytes, counts.entropy);
  }
  fmt::print("wrote {}, source digest {}\n", options.output, result.source_digest);
}

void print_json(data::PackOptions const& options, data::PackResult const& result) {
  nlohmann::ordered_json record;
  record["output"] = options.output;
  for (io::Split const split : io::all_splits) {
    data::PackedSplit const& counts = result.splits[static_cast<std::size_t>(split)];
    record["splits"][io::to_string(split)] = {{"documents", counts.documents},
                                              {"empty_documents", counts.empty_documents},
                                              {"bytes", counts.bytes},
                                              {"entropy_bits_per_byte", counts.entropy}};
  }
  record["source_digest"] = result.source_digest;
  // File names need not be UTF-8.
  fmt::print("{}\n", record.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

void run(Arguments& arguments) {
  data::PackOptions& options = arguments.options;
  core::Provenance const program = core::provenance();
  if (program.ranks > 1) throw core::InputError("strata pack works on one rank; start it without mpiexec");
  options.tool_version = "strata " + program.version + " " + program.commit;
  if (!arguments.fractions.empty()) options.fractions = data::parse_fractions(arguments.fractions);
  if (!arguments.fractions.empty() && options.split_paths.empty()) {
    throw core::InputError("--split needs files or folders to split: name them after the options");
  }
  if (options.split_within && arguments.fractions.empty()) {
    throw core::InputError("--split-within needs --split with the fractions to cut each file by");
  }
  if (!arguments.images.empty()) options.images = data::parse_image_order(arguments.images);
  options.progress = Progress();
  options.stop = [] { return stop_signal != 0; };
  options.warn = [](std::string const& text) { fmt::print(stderr, "warning: {}\n", text); };
  try {
    data::PackResult result;
    {
      CatchSignals const guard;
      result = data::pack(options);
    }
    arguments.json ? print_json(options, result) : print_text(options, result);
    if (std::fflush(stdout) != 0)
      throw core::InputError("the dataset was written, but its counts could not be printed");
  } catch (data::PackStopped const& stopped) {
    // Nothing is left behind; now the signal has the effect that whoever sent it expects.
    fmt::print(stderr, "\n{}\n", stopped.what());
    std::signal(stop_signal, SIG_DFL);
    std::raise(stop_signal);
  }
}

}  // namespace

void add_pack(CLI::App& program) {
  auto const arguments = std::make_shared<Arguments>();
  data::PackOptions& options = arguments->options;
  CLI::App* const command =
      program.add_subcommand("pack", "Pack files or folders into one dataset for training");
  command->add_option("-o,--output", options.output, "Dataset to write (HDF5)")->required();
  std::array<char const*, 3> const help{"Files and folders for training", "Files and folders for validation",
                                        "Files and folders for the final test"};
  for (io::Split const split : io::all_splits) {
    auto const s = static_cast<std::size_t>(split);
    command->add_option(std::string("--") + io::to_string(split), options.paths[s], help[s])
        ->type_name("PATH");
  }
  command->add_option("paths", options.split_paths, "Files and folders to be split by --split")
      ->type_name("PATH");
  command
      ->add_option(
          "--split", arguments->fractions,
          "Fractions for train, validation and test, for example 0.9,0.05,0.05; whole files, by bytes")
      ->type_name("FRACTIONS");
  command->add_flag("--split-within", options.split_within,
                    "Cut each file by the fractions, first bytes to train, instead of dealing whole files");
  command
      ->add_option(
          "--images", arguments->images,
          "Files are images (PNG, JPEG, PPM, PGM): pack their pixels, row by row (raster) or in blocks "
          "of P x P (patch:P)")
      ->type_name("ORDER");
  command->add_option("--compress", options.compression, "gzip level, 0 for none")
      ->check(CLI::Range(0, 9))
      ->capture_default_str();
  command->add_flag("--force", options.overwrite, "Replace the output if it exists");
  command->add_flag("--json", arguments->json, "Print the counts as one JSON object");
  command->footer(
      "Folders are searched recursively; files are taken in the order of their paths, each as one document.\n"
      "Example: strata pack --output books.h5 --split 0.9,0.05,0.05 books/");
  command->callback([arguments] { run(*arguments); });
}
