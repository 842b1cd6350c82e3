// SPDX-License-Identifier: Apache-2.0
// `strata convert`: models of the Python packages into checkpoints, and checkpoints into safetensors.

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "commands.hpp"
#include "core/error.hpp"
#include "core/log.hpp"
#include "core/runtime.hpp"
#include "info.hpp"
#include "train/convert.hpp"

namespace {

using strata::core::InputError;
using strata::train::Export;
using strata::train::Import;
using strata::train::NameStyle;

struct Arguments {
  std::string from, output, names = "mblm";
  std::optional<std::string> deck;
  std::vector<std::string> overrides;
  bool ignore_extra = false, force = false, quiet = false, json = false;
};

char const* name_of(NameStyle style) {
  for (auto const& row : strata::train::name_styles)
    if (row.style == style) return row.name;
  return "";
}

void check_output(Arguments const& arguments, std::vector<std::string> const& endings, char const* what) {
  std::error_code error;
  for (std::string const& ending : endings)
    if (arguments.output.ends_with(ending))
      throw InputError(arguments.output + " would not be what its name says: " + arguments.from +
                       " is converted into " + what);
  if (std::filesystem::equivalent(arguments.from, arguments.output, error))
    throw InputError(arguments.output + " is the file that is read; give the output another name");
  if (!arguments.force && std::filesystem::exists(arguments.output, error))
    throw InputError(arguments.output + " exists already; use --force to replace it");
}

void print(Import const& work) {
  for (auto const& mapped : work.mapping.mapped) {
    auto const& tensor = work.file.tensors[mapped.tensor];
    fmt::print("mapped   {} {} {} -> {}\n", tensor.name, to_string(tensor.type),
               strata::io::shape_text(tensor.shape), mapped.name);
  }
  for (auto const& [name, reason] : work.mapping.ignored) fmt::print("ignored  {}: {}\n", name, reason);
  for (std::string const& name : work.mapping.missing) fmt::print("missing  {}\n", name);
  for (std::string const& name : work.mapping.unknown) fmt::print("unknown  {}\n", name);
  for (std::string const& clause : work.mapping.wrong) fmt::print("wrong    {}\n", clause);
}

nlohmann::ordered_json to_json(Import const& work) {
  nlohmann::ordered_json json;
  json["names"] = name_of(work.style);
  json["encoder"] = work.encoder;
  json["parameters"] = work.parameters;
  json["mapped"] = nlohmann::ordered_json::array();
  for (auto const& mapped : work.mapping.mapped) {
    auto const& tensor = work.file.tensors[mapped.tensor];
    json["mapped"].push_back({{"tensor", tensor.name},
                              {"type", to_string(tensor.type)},
                              {"shape", tensor.shape},
                              {"parameter", mapped.name}});
  }
  json["ignored"] = nlohmann::ordered_json::array();
  for (auto const& [name, reason] : work.mapping.ignored)
    json["ignored"].push_back({{"tensor", name}, {"reason", reason}});
  json["missing"] = work.mapping.missing;
  json["unknown"] = work.mapping.unknown;
  json["wrong"] = work.mapping.wrong;
  return json;
}

void print(nlohmann::ordered_json const& json) {
  // Names in foreign files need not be UTF-8.
  fmt::print("{}\n", json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

void import_model(Arguments const& arguments) {
  check_output(arguments, {".safetensors", ".pth", ".pt"}, "a checkpoint (HDF5)");
  Import const work(arguments.from, arguments.deck, arguments.overrides, arguments.ignore_extra);
  for (std::string const& warning : work.warnings) strata::core::log().warn(warning);
  if (arguments.json) {
    print(to_json(work));
  } else if (!arguments.quiet) {
    print(work);
  }
  std::fflush(stdout);
  work.write(arguments.output);
  if (!arguments.json)
    fmt::print("{} tensors, {} parameters mapped, {} ignored, none missing; wrote {}\n",
               work.mapping.mapped.size(), work.parameters, work.mapping.ignored.size(), arguments.output);
}

void export_model(Arguments const& arguments) {
  check_output(arguments, {".h5", ".hdf5", ".pth", ".pt"}, "safetensors");
  if (arguments.deck || !arguments.overrides.empty())
    throw InputError(arguments.from +
                     " is a checkpoint and has its deck inside; leave --deck and changes to it out");
  NameStyle style = NameStyle::mblm;
  for (auto const& row : strata::train::name_styles)
    if (arguments.names == row.name) style = row.style;
  Export const done =
      strata::train::export_safetensors(arguments.from, arguments.output, style, arguments.force);
  for (std::string const& warning : done.warnings) strata::core::log().warn(warning);
  if (arguments.json) {
    nlohmann::ordered_json json;
    json["names"] = name_of(style);
    json["parameters"] = done.parameters;
    json["mapped"] = nlohmann::ordered_json::array();
    for (auto const& [ours, theirs] : done.tensors)
      json["mapped"].push_back({{"parameter", ours}, {"tensor", theirs}});
    json["added"] = done.buffers;
    return print(json);
  }
  if (!arguments.quiet) {
    for (auto const& [ours, theirs] : done.tensors) fmt::print("mapped   {} -> {}\n", ours, theirs);
    for (std::string const& name : done.buffers) fmt::print("added    {}: rotary frequencies\n", name);
  }
  fmt::print("{} tensors, {} parameters; wrote {}\n", done.tensors.size(), done.parameters, arguments.output);
}

void convert(Arguments const& arguments) {
  if (strata::core::number_of_ranks() > 1)
    throw InputError("strata convert works on one rank; start it without mpiexec");
  std::error_code error;
  if (std::filesystem::is_directory(arguments.from, error) || is_hdf5(arguments.from))
    return export_model(arguments);
  import_model(arguments);
}

}  // namespace

void add_convert(CLI::App& program) {
  auto const arguments = std::make_shared<Arguments>();
  CLI::App* const command = program.add_subcommand(
      "convert", "A model of the Python packages into a checkpoint, or a checkpoint into safetensors");
  command
      ->add_option(
          "--from", arguments->from,
          "safetensors or a file of torch.save (.pth); or a checkpoint or a run's folder (its latest)")
      ->required();
  command
      ->add_option("-o,--output", arguments->output,
                   "Checkpoint (HDF5) to write; of a checkpoint, safetensors")
      ->required();
  command->add_option(
      "--deck", arguments->deck,
      "Deck of the model, such as the package's config.yaml (default: the one in the file, or what the "
      "tensors tell)");
  command->add_option("overrides", arguments->overrides, "Changes to the deck: section.key=value ...");
  std::vector<std::string> names;
  names.reserve(strata::train::name_styles.size());
  for (auto const& row : strata::train::name_styles) names.emplace_back(row.name);
  command->add_option("--names", arguments->names, "Whose names to write into safetensors")
      ->check(CLI::IsMember(names))
      ->capture_default_str();
  command->add_flag("--ignore-extra", arguments->ignore_extra,
                    "Leave out tensors that the model has no place for");
  command->add_flag("--force", arguments->force, "Replace the output if it exists");
  CLI::Option* const quiet = command->add_flag("--quiet", arguments->quiet, "Only the last line");
  command->add_flag("--json", arguments->json, "One JSON object instead of lines")->excludes(quiet);
  command->footer("Example: strata convert --from model.pth --deck config.yaml --output model.h5");
  command->callback([arguments] { convert(*arguments); });
}
