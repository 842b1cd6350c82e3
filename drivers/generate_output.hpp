// SPDX-License-Identifier: Apache-2.0
#pragma once
// What `strata generate` writes: samples as raw bytes, as UTF-8 or as one JSON object, to standard output or
// to files. Only the root has an output.

#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "generate/sample_run.hpp"
#include "generate/utf8_stream.hpp"

struct OutputSettings {
  std::string path;  ///< empty: standard output; {} stands for the number of a sample
  bool echo = false, utf8 = false, json = false;

  /// Throws core::InputError if `path` does not suit so many samples.
  void validate(strata::generate::Index samples) const;
};

/// Standard output, or a file that is written over.
class Sink {
 public:
  /// Throws core::InputError when the file cannot be opened.
  explicit Sink(std::string path);
  /// Writes and flushes; throws core::InputError when not everything was taken.
  void put(std::string_view text);

 private:
  struct Close {
    void operator()(std::FILE* file) const {
      if (file != stdout) std::fclose(file);
    }
  };
  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
};

class SampleOutput {
 public:
  /// Sample n continues prompts[n / samples]. Opens the first file, and with a single sample echoes the
  /// prompt.
  SampleOutput(OutputSettings const& settings, std::vector<std::string> const& prompts,
               strata::generate::Index samples);

  /// A byte of a sample, as it is made: shown at once if it is the only sample.
  void byte(std::uint8_t value);
  /// A finished sample. Samples may come in any order, and again; they are written in the order of numbers.
  void end(strata::generate::Sample const& sample);
  /// After all samples; `head` has what the JSON object begins with.
  void finish(nlohmann::ordered_json head);

 private:
  bool streaming() const { return !settings_.json && total_ == 1; }
  std::string path_of(strata::generate::Index number) const;
  std::string const& prompt_of(strata::generate::Index number) const {
    return prompts_[static_cast<std::size_t>(number / samples_)];
  }
  void show(std::string_view bytes, bool last);
  void write(strata::generate::Sample const& sample);

  OutputSettings settings_;
  std::vector<std::string> const& prompts_;
  strata::generate::Index samples_, total_, next_ = 0;
  std::unique_ptr<Sink> sink_;  ///< of the first file until that is complete, of everything without files
  strata::generate::Utf8Stream characters_;
  std::string text_;
  std::map<strata::generate::Index, strata::generate::Sample> waiting_;
  nlohmann::ordered_json list_ = nlohmann::ordered_json::array();
};
