// SPDX-License-Identifier: Apache-2.0
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <map>
#include <string_view>

#include "train/run_folder.hpp"

namespace strata::train {

namespace {

using Flat = std::map<std::string, std::string>;

/// Every scalar of a deck under its path; lists of scalars count as one value.
void flatten(YAML::Node const& node, std::string const& path, Flat& flat) {
  if (node.IsMap()) {
    for (auto const& item : node)
      flatten(item.second, path.empty() ? item.first.Scalar() : path + "." + item.first.Scalar(), flat);
  } else if (node.IsSequence() && node.size() > 0 && node[0].IsMap()) {
    for (std::size_t i = 0; i < node.size(); ++i) flatten(node[i], path + "." + std::to_string(i), flat);
  } else {
    flat[path] = node.IsNull() ? "null" : YAML::Dump(node);
  }
}

/// Keys that change neither the model nor what it learns from, only how that is computed, watched or stored.
bool is_harmless(std::string const& path) {
  static constexpr std::array<std::string_view, 11> keys = {"train.max_eval_steps",
                                                            "train.eval_batch_size",
                                                            "train.batch_size",
                                                            "train.gradient_accumulate_every",
                                                            "train.outer_chunk",
                                                            "train.inner_rows",
                                                            "train.outer_tapes",
                                                            "train.border_interval",
                                                            "train.memory",
                                                            "train.outer_recompute",
                                                            "params.train_checkpoint_chunks"};
  return path.starts_with("io.") || path.starts_with("resume") ||
         std::find(keys.begin(), keys.end(), path) != keys.end();
}

}  // namespace

std::optional<std::string> conflicting_key(std::string const& stored, std::string const& wanted) {
  Flat before, now;
  flatten(YAML::Load(stored), "", before);
  flatten(YAML::Load(wanted), "", now);
  for (auto const& [path, value] : now) before.try_emplace(path, "absent");
  for (auto const& [path, value] : before) {
    auto const other = now.find(path);
    std::string const new_value = other == now.end() ? "absent" : other->second;
    if (value != new_value && !is_harmless(path))
      return path + " was " + value + " when the run began and is " + new_value + " now";
  }
  return {};
}

}  // namespace strata::train
