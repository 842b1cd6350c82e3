// SPDX-License-Identifier: Apache-2.0
// `strata eval`: bits per byte of a model over a split.

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "commands.hpp"
#include "core/error.hpp"
#include "parallel/communicator.hpp"
#include "train/checkpoint.hpp"
#include "train/evaluation.hpp"

namespace {

using strata::train::Evaluation;
using strata::train::EvaluationSettings;
using strata::train::Index;
using strata::train::LossOf;

struct Arguments {
  std::string checkpoint, data, split = "test";
  Index window = 0, stride = 0, batch = 0, max_batches = 0;
  bool json = false;
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

void evaluate(Arguments const& arguments) {
  strata::parallel::Communicator const ranks;
  strata::train::LoadedModel const model = strata::train::load_model(arguments.checkpoint);
  strata::io::DatasetFile const file(arguments.data);
  strata::train::TrainConfig const& train = model.deck.train;
  EvaluationSettings settings;
  settings.split = strata::io::split_from_name(arguments.split);
  settings.window = arguments.window > 0 ? arguments.window : model.deck.input_seq_len;
  settings.stride = arguments.stride;
  settings.batch_size = train.eval_batch_size > 0 ? train.eval_batch_size : train.batch_size;
  if (arguments.batch > 0) settings.batch_size = arguments.batch;
  settings.max_batches = arguments.max_batches;
  settings.details = arguments.json;
  if (settings.stride > settings.window)
    throw strata::core::InputError("--stride " + std::to_string(settings.stride) +
                                   " is larger than the window of " + std::to_string(settings.window) +
                                   " bytes, which would leave bytes out");
  Evaluation const result = strata::train::Evaluator(*model.hierarchy, file, ranks, settings).run();
  if (!ranks.is_root()) return;
  if (arguments.json) {
    nlohmann::ordered_json json;
    json["checkpoint"] = model.path;
    json["step"] = model.step;
    json["data"] = arguments.data;
    json["split"] = arguments.split;
    json["window"] = settings.window;
    json["stride"] = settings.stride > 0 ? settings.stride : settings.window;
    json.update(to_json(result));
    std::printf("%s\n", json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  } else {
    std::printf("%s: %.6f bits per byte over %lld bytes (%.6f nats per byte, window %lld, %.0f bytes/s)\n",
                arguments.split.c_str(), result.total.bits_per_byte(),
                static_cast<long long>(result.total.bytes), result.total.loss(),
                static_cast<long long>(settings.window),
                static_cast<double>(result.total.bytes) / result.seconds);
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
  command->add_option("--data", arguments->data, "Dataset made by strata pack")->required();
  command->add_option("--split", arguments->split, "train, validation or test")->capture_default_str();
  command
      ->add_option("--window", arguments->window,
                   "Bytes that a window holds (default: the deck's input_seq_len)")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--stride", arguments->stride,
                   "Bytes from window to window; below --window each byte is scored with more context "
                   "(default: the window)")
      ->check(CLI::PositiveNumber);
  command->add_option("--batch", arguments->batch, "Windows at a time (default: the deck's)")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--max-batches", arguments->max_batches,
                   "Only so many batches from the start of the split")
      ->check(CLI::PositiveNumber);
  command->add_flag("--json", arguments->json,
                    "Also by document, by position in the context and in the patch");
  command->callback([arguments] { evaluate(*arguments); });
}
