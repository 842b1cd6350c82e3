// SPDX-License-Identifier: Apache-2.0
// `strata eval`: bits per byte of a model over a split, or over files read byte by byte.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>

#include "commands.hpp"
#include "core/error.hpp"
#include "core/log.hpp"
#include "core/profiler.hpp"
#include "core/runtime.hpp"
#include "generate/score.hpp"
#include "io/atomic_file.hpp"
#include "parallel/communicator.hpp"
#include "train/checkpoint.hpp"
#include "train/evaluation.hpp"
#include "train/machine.hpp"
#include "train/profile.hpp"
#include "train/progress_line.hpp"

namespace {

using strata::train::Evaluation;
using strata::train::EvaluationSettings;
using strata::train::Index;
using strata::train::LossOf;

struct Arguments {
  std::string checkpoint, data, split = "test";
  std::vector<std::string> files;
  Index window = 0, stride = 0, batch = 0, max_batches = 0;
  bool strided = false, json = false, profile = false;
};

void put(nlohmann::ordered_json& object, LossOf const& loss) {
  object["bytes"] = loss.bytes;
  object["nats"] = loss.nats;
  object["bits_per_byte"] = loss.bytes > 0 ? nlohmann::ordered_json(loss.bits_per_byte()) : nullptr;
}

nlohmann::ordered_json to_json(Evaluation const& result) {
  nlohmann::ordered_json json;
  json["bytes"] = result.total.bytes;
  json["loss"] = result.total.loss();
  json["bits_per_byte"] = result.total.bits_per_byte();
  json["seconds"] = result.seconds;
  json["documents"] = nlohmann::ordered_json::array();
  for (std::size_t d = 0; d < result.documents.size(); ++d) {
    nlohmann::ordered_json entry{{"document", d}};
    put(entry, result.documents[d]);
    json["documents"].push_back(std::move(entry));
  }
  json["position_in_context"] = nlohmann::ordered_json::array();
  for (std::size_t k = 0; k < result.context.size(); ++k) {
    Index const first = k == 0 ? 0 : Index{1} << (k - 1);
    Index const last = k == 0 ? 0 : (Index{1} << k) - 1;
    nlohmann::ordered_json entry{{"first", first}, {"last", last}};
    put(entry, result.context[k]);
    json["position_in_context"].push_back(std::move(entry));
  }
  json["position_in_patch"] = nlohmann::ordered_json::array();
  for (std::size_t p = 0; p < result.patch.size(); ++p) {
    nlohmann::ordered_json entry{{"position", p}};
    put(entry, result.patch[p]);
    json["position_in_patch"].push_back(std::move(entry));
  }
  return json;
}

/// Who made the result, and the limits of the machine it stands against.
void add_origin(nlohmann::ordered_json& json, strata::train::Machine const& limits) {
  json["made_by"] = strata::train::origin_json();
  json["limits"] = strata::train::limits_json(limits);
}

nlohmann::ordered_json score_entry(LossOf const& loss) {
  nlohmann::ordered_json entry;
  put(entry, loss);
  entry["log_probability"] = -loss.nats;
  return entry;
}

void print_scores(Arguments const& arguments, strata::train::LoadedModel const& model, Index window,
                  strata::train::Machine const& limits, std::vector<LossOf> const& scores, double seconds) {
  LossOf total;
  for (LossOf const& loss : scores) {
    total.bytes += loss.bytes;
    total.nats += loss.nats;
  }
  if (arguments.json) {
    nlohmann::ordered_json json;
    json["checkpoint"] = model.path;
    json["step"] = model.step;
    json["window"] = window;
    add_origin(json, limits);
    json["files"] = nlohmann::ordered_json::array();
    for (std::size_t i = 0; i < scores.size(); ++i) {
      nlohmann::ordered_json entry{{"file", arguments.files[i]}};
      entry.update(score_entry(scores[i]));
      json["files"].push_back(std::move(entry));
    }
    json.update(score_entry(total));
    json["seconds"] = seconds;
    std::printf("%s\n", json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    return;
  }
  for (std::size_t i = 0; i < scores.size(); ++i)
    std::printf("%s: %.6f bits per byte over %lld bytes, log-probability %.6f nats\n",
                arguments.files[i].c_str(), scores[i].bits_per_byte(),
                static_cast<long long>(scores[i].bytes), -scores[i].nats);
  std::printf(
      "total: %.6f bits per byte over %lld bytes, log-probability %.6f nats (window %lld, %.0f bytes/s)\n",
      total.bits_per_byte(), static_cast<long long>(total.bytes), -total.nats, static_cast<long long>(window),
      static_cast<double>(total.bytes) / seconds);
}

/// The same windows as `evaluate` on a dataset of one of the files.
void score(Arguments const& arguments) {
  strata::core::catch_stop_signals();
  strata::parallel::Communicator const ranks;
  std::vector<std::string> texts;
  Index size = 0;
  for (std::string const& path : arguments.files) {
    texts.push_back(strata::io::read_text_file(path, SIZE_MAX));
    size += static_cast<Index>(texts.back().size());
  }
  std::vector<std::span<std::uint8_t const>> spans;
  spans.reserve(texts.size());
  for (std::string const& text : texts)
    spans.emplace_back(reinterpret_cast<std::uint8_t const*>(text.data()), text.size());
  strata::train::LoadedModel const model = strata::train::load_model(arguments.checkpoint, ranks);
  Index const window = arguments.window > 0 ? arguments.window : model.deck.input_seq_len;

  strata::train::Machine limits;
  if (arguments.json) limits = strata::train::measure_machine(ranks);

  strata::train::ProgressLine line(arguments.json || !ranks.is_root());
  auto const begin = std::chrono::steady_clock::now();
  auto const seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  strata::generate::Follow follow;
  follow.stop = strata::core::stop_requested;
  follow.progress = [&](Index done) {
    if (seconds() < 1 || !line.wants()) return;
    double const rate = static_cast<double>(done) / seconds();
    line.show("scored " + std::to_string(done) + " of " + std::to_string(size) + " bytes  " +
              strata::train::rate_text(rate) + "  " +
              strata::train::duration_text(static_cast<double>(size - done) / rate) + " left");
  };
  auto const scores =
      strata::generate::score(*model.hierarchy, spans, window, arguments.batch, ranks, follow);
  line.end();
  if (!scores) {
    strata::core::log().warn("stopped by a signal");
    throw CLI::RuntimeError(static_cast<int>(strata::core::ExitStatus::interrupted));
  }
  if (!ranks.is_root()) return;
  std::vector<LossOf> losses;
  for (strata::generate::Score const& of_file : *scores) losses.push_back({of_file.nats, of_file.bytes});
  print_scores(arguments, model, window, limits, losses, seconds());
}

/// What the profile of an evaluation tells besides the times. Collective.
void describe(strata::train::LoadedModel const& model, EvaluationSettings const& settings,
              strata::io::DatasetFile const& file, strata::parallel::Communicator const& ranks,
              Evaluation const& result, strata::train::Profile const& profile,
              strata::train::ProfiledRun& profiled) {
  profiled.what = "strata eval";
  profiled.ranks = ranks.size();
  profiled.flops = result.flops;
  profiled.peak_memory = strata::core::peak_resident_bytes();
  profiled.over_ranks = strata::train::spread_over_ranks(profile, ranks);
  profiled.memory.push_back(
      {"parameters", 4.0 * static_cast<double>(model.hierarchy->parameters().flat_size())});
  Index const window = std::min(settings.window, file.info(settings.split).size);
  for (auto const& use : model.hierarchy->arena_uses(settings.batch_size, window, false))
    profiled.memory.push_back({use.purpose, static_cast<double>(use.bytes)});
}

void evaluate(Arguments const& arguments) {
  if (arguments.data.empty() == arguments.files.empty())
    throw strata::core::InputError("name what to evaluate on: --data DATASET, or --score FILE...");
  if (!arguments.files.empty()) return score(arguments);
  strata::parallel::Communicator const ranks;
  strata::train::LoadedModel const model = strata::train::load_model(arguments.checkpoint, ranks);
  strata::io::DatasetFile const file(arguments.data);
  strata::train::TrainConfig const& train = model.deck.train;
  EvaluationSettings settings;
  settings.split = strata::io::split_from_name(arguments.split);
  settings.window = arguments.window > 0 ? arguments.window : model.deck.input_seq_len;
  settings.stride = arguments.stride;
  settings.batch_size = train.eval_batch_size > 0 ? train.eval_batch_size : train.batch_size;
  if (arguments.batch > 0) settings.batch_size = arguments.batch;
  settings.max_batches = arguments.max_batches;
  settings.strided = arguments.strided;
  settings.details = arguments.json;
  if (settings.stride > settings.window)
    throw strata::core::InputError("--stride " + std::to_string(settings.stride) +
                                   " is larger than the window of " + std::to_string(settings.window) +
                                   " bytes, which would leave bytes out");
  strata::train::ProfiledRun profiled;
  if (arguments.profile || arguments.json) profiled.limits = strata::train::measure_machine(ranks);
  strata::train::Evaluator evaluator(*model.hierarchy, file, ranks, settings);
  std::optional<strata::core::Profiler> profiler;
  if (arguments.profile) profiler.emplace();
  Evaluation const result = evaluator.run();
  strata::train::Profile profile;
  if (profiler) {
    profiler->stop();
    profile = strata::train::summarise(*profiler, profiled.limits);
    describe(model, settings, file, ranks, result, profile, profiled);
  }
  if (!ranks.is_root()) return;
  if (arguments.json) {
    nlohmann::ordered_json json;
    json["checkpoint"] = model.path;
    json["step"] = model.step;
    json["data"] = arguments.data;
    json["split"] = arguments.split;
    json["window"] = settings.window;
    json["stride"] = settings.stride > 0 ? settings.stride : settings.window;
    json["strided"] = settings.strided;
    add_origin(json, profiled.limits);
    json.update(to_json(result));
    if (profiler)
      json["profile"] = nlohmann::ordered_json::parse(strata::train::profile_json(profile, profiled));
    std::printf("%s\n", json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  } else {
    std::printf("%s: %.6f bits per byte over %lld bytes (%.6f nats per byte, window %lld, %.0f bytes/s)\n",
                arguments.split.c_str(), result.total.bits_per_byte(),
                static_cast<long long>(result.total.bytes), result.total.loss(),
                static_cast<long long>(settings.window),
                static_cast<double>(result.total.bytes) / result.seconds);
    if (profiler) std::printf("%s", strata::train::profile_table(profile, profiled).c_str());
  }
}

}  // namespace

void add_eval(CLI::App& program) {
  auto const arguments = std::make_shared<Arguments>();
  CLI::App* const command =
      program.add_subcommand("eval", "Bits per byte of a model over a split, every byte counted once");
  command
      ->add_option("--checkpoint", arguments->checkpoint, "Checkpoint, or the folder of a run (its latest)")
      ->required();
  CLI::Option* const data = command->add_option("--data", arguments->data, "Dataset made by strata pack");
  CLI::Option* const split =
      command->add_option("--split", arguments->split, "train, validation or test")->capture_default_str();
  CLI::Option* const files =
      command->add_option("--score", arguments->files, "Instead of a dataset: files, each read byte by byte");
  command
      ->add_option("--window", arguments->window,
                   "Bytes that a window holds (default: the deck's input_seq_len)")
      ->check(CLI::PositiveNumber);
  CLI::Option* const stride =
      command
          ->add_option("--stride", arguments->stride,
                       "Bytes from window to window; below --window each byte is scored with more context "
                       "(default: the window)")
          ->check(CLI::PositiveNumber);
  command->add_option("--batch", arguments->batch, "Windows at a time (default: the deck's)")
      ->check(CLI::PositiveNumber);
  CLI::Option* const most = command
                                ->add_option("--max-batches", arguments->max_batches,
                                             "Only so many batches from the start of the split")
                                ->check(CLI::PositiveNumber);
  CLI::Option* const strided = command->add_flag(
      "--strided", arguments->strided,
      "Strided inference: two passes, the second offset by half a patch; of every patch the "
      "first half counts");
  command->add_flag("--json", arguments->json,
                    "Also by document, by position in the context and in the patch");
  CLI::Option* const profile = command->add_flag("--profile", arguments->profile,
                                                 "Time every kernel and stage; with --json as `profile`");
  for (CLI::Option* const other : {data, split, stride, most, strided, profile}) files->excludes(other);
  command->callback([arguments] { evaluate(*arguments); });
}
