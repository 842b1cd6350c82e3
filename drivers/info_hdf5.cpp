// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <fstream>

#include "core/error.hpp"
#include "info.hpp"
#include "io/checkpoint_file.hpp"
#include "io/dataset_file.hpp"
#include "io/hdf5.hpp"

namespace {

nlohmann::ordered_json describe_dataset(std::string const& path) {
  strata::io::DatasetFile const file(path);
  nlohmann::ordered_json json;
  json["file"] = path;
  json["kind"] = "dataset";
  json["version"] = file.version();
  json["num_tokens"] = file.num_tokens();
  json["source_digest"] = file.source_digest();
  json["tool_version"] = file.tool_version();
  for (strata::io::Split const split : strata::io::all_splits) {
    auto const info = file.info(split);
    json[strata::io::to_string(split)] = {{file.wide() ? "tokens" : "bytes", info.size},
                                          {"documents", info.documents},
                                          {"loss_weights", info.weights}};
  }
  return json;
}

/// Attributes of a group: numbers as numbers, texts as texts.
nlohmann::ordered_json attributes(strata::io::File const& file, std::string const& group) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (std::string const& key : file.attributes(group)) {
    try {
      json[key] = file.integer_attribute(group, key);
    } catch (strata::core::InputError const&) {
      try {
        json[key] = file.real_attribute(group, key);
      } catch (strata::core::InputError const&) {
        json[key] = file.text_attribute(group, key);
      }
    }
  }
  return json;
}

nlohmann::ordered_json describe_checkpoint(std::string const& path) {
  strata::io::CheckpointReader const reader(path);
  reader.verify();
  nlohmann::ordered_json json;
  json["file"] = path;
  json["kind"] = "checkpoint";
  std::int64_t parameters = 0;
  std::vector<std::string> const names = reader.names("parameters");
  for (std::string const& name : names)
    parameters += strata::io::element_count(reader.shape("parameters", name));
  json["parameters"] = parameters;
  json["arrays"] = names.size();
  strata::io::File const file = strata::io::File::open(path);
  for (char const* group : {"progress", "provenance"})
    if (reader.has_group(group)) json[group] = attributes(file, std::string("/") + group);
  if (reader.has_text("config")) json["config"] = reader.text("config");
  return json;
}

}  // namespace

bool is_hdf5(std::string const& path) {
  constexpr std::array<char, 8> signature{'\x89', 'H', 'D', 'F', '\r', '\n', '\x1a', '\n'};
  std::array<char, 8> start{};
  std::ifstream file(path, std::ios::binary);
  file.read(start.data(), start.size());
  return file.gcount() == static_cast<std::streamsize>(start.size()) && start == signature;
}

nlohmann::ordered_json describe_hdf5(std::string const& path) {
  std::string format;
  {
    strata::io::File const file = strata::io::File::open(path);
    if (file.has_attribute("/", "format")) format = file.text_attribute("/", "format");
  }
  if (format == "strata-dataset") return describe_dataset(path);
  if (format == "strata-checkpoint") return describe_checkpoint(path);
  throw strata::core::InputError(path + " is an HDF5 file, but neither a dataset nor a checkpoint of strata");
}
