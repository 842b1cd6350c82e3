// SPDX-License-Identifier: Apache-2.0
// `strata compress` and `strata decompress`: files into fewer bytes by a model's predictions, and back.

#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "commands.hpp"
#include "core/error.hpp"
#include "core/log.hpp"
#include "core/runtime.hpp"
#include "generate/compression.hpp"
#include "generate/model_digest.hpp"
#include "io/atomic_file.hpp"
#include "io/digest.hpp"
#include "parallel/communicator.hpp"
#include "train/checkpoint.hpp"
#include "train/progress_line.hpp"

namespace {

using strata::core::InputError;
using strata::generate::Index;
using strata::parallel::Communicator;
using Bytes = std::span<std::uint8_t const>;

struct Arguments {
  std::string checkpoint, input, output;
  Index window = 0, batch = 0;
  bool force = false, quiet = false;
};

Bytes bytes_of(std::string const& text) {
  return {reinterpret_cast<std::uint8_t const*>(text.data()), text.size()};
}

/// The file's bytes, on all ranks alike.
std::string read_input(std::string const& path, Communicator const& ranks) {
  std::string text = strata::io::read_text_file(path, SIZE_MAX);
  auto const crc = static_cast<double>(strata::io::crc32(bytes_of(text)));
  if (ranks.min(crc) < ranks.max(crc)) throw InputError(path + " is not the same file on all ranks");
  return text;
}

/// The file to write, which rank 0 holds. Made before the work, so that nobody waits for what cannot be
/// stored.
class Output {
 public:
  Output(Arguments const& a, std::string const& default_path, Communicator const& ranks) {
    std::string error;
    if (ranks.is_root()) {
      std::string const path = a.output.empty() ? default_path : a.output;
      try {
        std::error_code none;
        if (std::filesystem::equivalent(a.input, path, none))
          throw InputError(path + " is the file to read; name another one with --output");
        file_ = std::make_unique<strata::io::AtomicFile>(path, a.force || !a.output.empty());
      } catch (InputError const& problem) {
        error = problem.what();
      }
    }
    error = ranks.broadcast(error);
    if (!error.empty()) throw InputError(error);
  }

  /// On rank 0.
  void write(Bytes bytes) {
    strata::io::AtomicFile& file = *file_;
    std::ofstream out(file.partial(), std::ios::binary | std::ios::trunc);
    out.write(reinterpret_cast<char const*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    out.close();
    if (!out) throw InputError(strata::io::describe_errno("write", file.path(), errno));
    file.commit();
  }

 private:
  std::unique_ptr<strata::io::AtomicFile> file_;  ///< on rank 0
};

/// Shows how far the work is and passes on a wish to stop.
class Meter {
 public:
  Meter(char const* verb, Index total, bool quiet) : verb_(verb), total_(total), line_(quiet) {
    follow_.progress = [this](Index done) { show(done); };
    follow_.stop = strata::core::stop_requested;
  }
  strata::generate::Follow const& follow() const { return follow_; }
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }
  void end() { line_.end(); }

 private:
  void show(Index done) {
    if (seconds() < 1 || !line_.wants()) return;
    double const rate = static_cast<double>(done) / seconds();
    line_.show(fmt::format("{} {} of {} bytes  {}  {} left", verb_, done, total_,
                           strata::train::rate_text(rate),
                           strata::train::duration_text(static_cast<double>(total_ - done) / rate)));
  }

  char const* verb_;
  Index total_;
  strata::train::ProgressLine line_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  strata::generate::Follow follow_;
};

[[noreturn]] void end_interrupted() {
  strata::core::log().warn("stopped by a signal; nothing was written");
  throw CLI::RuntimeError(static_cast<int>(strata::core::ExitStatus::interrupted));
}

std::string summary(std::string const& path, Index in, Index out, Index content, Index coded,
                    double seconds) {
  std::string const bits = content > 0
                               ? fmt::format(", {:.4f} bits per byte",
                                             8.0 * static_cast<double>(coded) / static_cast<double>(content))
                               : std::string();
  return fmt::format("{}: {} bytes in, {} bytes out{}, {:.0f} bytes/s\n", path, in, out, bits,
                     static_cast<double>(content) / seconds);
}

void compress(Arguments const& a) {
  Communicator const ranks;
  std::string const content = read_input(a.input, ranks);
  auto const size = static_cast<Index>(content.size());
  strata::train::LoadedModel const model = strata::train::load_model(a.checkpoint, ranks);
  Output output(a, a.input + ".strata", ranks);
  Meter meter("compressed", size, a.quiet || !ranks.is_root());
  strata::generate::CodingSettings const settings{a.window > 0 ? a.window : model.deck.input_seq_len,
                                                  a.batch};
  auto const file =
      strata::generate::compress(*model.hierarchy, strata::generate::model_digest(*model.hierarchy),
                                 bytes_of(content), settings, ranks, meter.follow());
  meter.end();
  if (!file) end_interrupted();
  if (!ranks.is_root()) return;
  std::vector<std::uint8_t> const bytes = to_bytes(*file);
  output.write(bytes);
  auto const coded = static_cast<Index>(bytes.size());
  fmt::print("{}", summary(a.input, size, coded, size, coded, meter.seconds()));
}

std::string without_suffix(Arguments const& a) {
  std::string const suffix = ".strata";
  if (a.output.empty() && (!a.input.ends_with(suffix) || a.input.size() == suffix.size()))
    throw InputError(a.input + " does not end in .strata; name the file to write with --output");
  return a.output.empty() ? a.input.substr(0, a.input.size() - suffix.size()) : a.output;
}

void decompress(Arguments const& a) {
  Communicator const ranks;
  std::string const default_path = without_suffix(a);
  std::string const coded = read_input(a.input, ranks);
  auto const file = strata::io::parse_compressed(bytes_of(coded), a.input);
  strata::train::LoadedModel const model = strata::train::load_model(a.checkpoint, ranks);
  Output output(a, default_path, ranks);
  Meter meter("decompressed", file.length, a.quiet || !ranks.is_root());
  auto const content =
      strata::generate::decompress(*model.hierarchy, strata::generate::model_digest(*model.hierarchy), file,
                                   a.input, a.batch, ranks, meter.follow());
  meter.end();
  if (!content) end_interrupted();
  if (!ranks.is_root()) return;
  output.write(*content);
  auto const in = static_cast<Index>(coded.size());
  fmt::print("{}", summary(a.input, in, file.length, file.length, in, meter.seconds()));
}

void add_common(CLI::App* command, Arguments& a, char const* output) {
  command->add_option("--checkpoint", a.checkpoint, "Checkpoint, or the folder of a run (its latest)")
      ->required();
  command->add_option("-o,--output", a.output, output);
  command
      ->add_option("--batch", a.batch, "At most so many windows at a time on a rank; the result is the same")
      ->check(CLI::PositiveNumber);
  command->add_flag("--force", a.force, "Replace the file of the default name");
  command->add_flag("--quiet", a.quiet, "No progress line");
}

}  // namespace

void add_compress(CLI::App& program) {
  auto const a = std::make_shared<Arguments>();
  CLI::App* const command =
      program.add_subcommand("compress", "Compress a file without loss by a model's predictions");
  command->add_option("file", a->input, "File to compress")->required();
  command
      ->add_option("--window", a->window,
                   "Bytes after which the model starts anew (default: the deck's input_seq_len)")
      ->check(CLI::PositiveNumber);
  add_common(command, *a, "File to write, replaced if it exists (default: FILE.strata)");
  command->footer("Decompressing takes the same checkpoint and build on the same kind of machine.");
  command->callback([a] { compress(*a); });
}

void add_decompress(CLI::App& program) {
  auto const a = std::make_shared<Arguments>();
  CLI::App* const command =
      program.add_subcommand("decompress", "Restore a file that strata compress made smaller");
  command->add_option("file", a->input, "Compressed file")->required();
  add_common(command, *a, "File to write, replaced if it exists (default: FILE without .strata)");
  command->callback([a] { decompress(*a); });
}
