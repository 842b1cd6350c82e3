// SPDX-License-Identifier: Apache-2.0
#include "generate_output.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <utility>

#include "core/error.hpp"
#include "io/atomic_file.hpp"

using strata::core::InputError;
using strata::generate::Index;
using strata::generate::Sample;

void OutputSettings::validate(Index samples) const {
  bool const numbered = path.find("{}") != std::string::npos;
  if (json && numbered)
    throw InputError(
        fmt::format("--output {}: --json writes one object for all samples, to a name without {{}}", path));
  if (!json && !numbered && !path.empty() && samples > 1)
    throw InputError(
        fmt::format("--output {} is one file for {} samples; put {{}} into the name, which the number of a "
                    "sample replaces",
                    path, samples));
}

Sink::Sink(std::string path)
    : path_(std::move(path)), file_(path_.empty() ? stdout : std::fopen(path_.c_str(), "wb")) {
  if (!file_) throw InputError(strata::io::describe_errno("write", path_, errno));
}

void Sink::put(std::string_view text) {
  bool const written = std::fwrite(text.data(), 1, text.size(), file_.get()) == text.size();
  if (!written || std::fflush(file_.get()) != 0)
    throw InputError(strata::io::describe_errno("write", path_.empty() ? "standard output" : path_, errno));
}

SampleOutput::SampleOutput(OutputSettings const& settings, std::vector<std::string> const& prompts,
                           Index samples)
    : settings_(settings),
      prompts_(prompts),
      samples_(samples),
      total_(samples * static_cast<Index>(prompts.size())),
      sink_(std::make_unique<Sink>(path_of(0))) {
  if (streaming() && settings_.echo) show(prompt_of(0), false);
}

std::string SampleOutput::path_of(Index number) const {
  std::string path = settings_.path, digits = std::to_string(number);
  for (auto at = path.find("{}"); at != std::string::npos; at = path.find("{}", at + digits.size()))
    path.replace(at, 2, digits);
  return path;
}

void SampleOutput::show(std::string_view bytes, bool last) {
  if (!settings_.utf8) {
    sink_->put(bytes);
    return;
  }
  text_.clear();
  characters_.put(bytes, text_);
  if (last) characters_.finish(text_);
  if (!text_.empty()) sink_->put(text_);
}

void SampleOutput::byte(std::uint8_t value) {
  char const c = static_cast<char>(value);
  if (streaming()) show(std::string_view(&c, 1), false);
}

void SampleOutput::end(Sample const& sample) {
  if (sample.number < next_) return;
  waiting_.emplace(sample.number, sample);
  for (auto first = waiting_.begin(); first != waiting_.end() && first->first == next_;
       first = waiting_.erase(first), ++next_)
    write(first->second);
}

void SampleOutput::write(Sample const& sample) {
  std::string_view const made(reinterpret_cast<char const*>(sample.bytes.data()), sample.bytes.size());
  std::string const& prompt = prompt_of(sample.number);
  if (settings_.json) {
    nlohmann::ordered_json entry{{"sample", sample.number}, {"prompt_bytes", prompt.size()}};
    if (settings_.echo) entry["prompt"] = strata::generate::valid_utf8(prompt);
    entry["bytes"] = sample.bytes;
    entry["text"] = strata::generate::valid_utf8(made);
    entry["log_probabilities"] = sample.log_probabilities;
    entry["end"] = strata::generate::name(sample.end);
    list_.push_back(std::move(entry));
    return;
  }
  if (streaming()) {  // its bytes are out already
    show({}, true);
    return;
  }
  bool const files = !settings_.path.empty();
  if (files && sample.number > 0) sink_ = std::make_unique<Sink>(path_of(sample.number));
  if (settings_.echo) show(prompt, false);
  show(made, true);
  if (!files) sink_->put("\n");
}

void SampleOutput::finish(nlohmann::ordered_json head) {
  if (!settings_.json) return;
  head["samples"] = std::move(list_);
  sink_->put(head.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}
