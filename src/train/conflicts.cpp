// SPDX-License-Identifier: Apache-2.0
#include "train/conflicts.hpp"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <map>
#include <string_view>

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
  static constexpr std::array<std::string_view, 14> keys = {
      "train.max_eval_steps",  "train.eval_batch_size",
      "train.batch_size",      "train.gradient_accumulate_every",
      "train.outer_chunk",     "train.inner_rows",
      "train.outer_tapes",     "train.border_interval",
      "train.memory",          "train.bucket_size",
      "train.shard_optimizer", "train.outer_recompute",
      "train.init_from",       "params.train_checkpoint_chunks"};
  return path.starts_with("io.") || path.starts_with("resume") ||
         std::find(keys.begin(), keys.end(), path) != keys.end();
}

}  // namespace

std::vector<Difference> differing_keys(std::string const& before, std::string const& now) {
  Flat old_values, new_values;
  flatten(YAML::Load(before), "", old_values);
  flatten(YAML::Load(now), "", new_values);
  for (auto const& [key, value] : new_values) old_values.try_emplace(key, "absent");
  std::vector<Difference> result;
  for (auto const& [key, value] : old_values) {
    auto const other = new_values.find(key);
    std::string const new_value = other == new_values.end() ? "absent" : other->second;
    if (value != new_value) result.push_back({key, value, new_value});
  }
  return result;
}

std::optional<std::string> conflicting_key(std::string const& stored, std::string const& wanted) {
  for (Difference const& d : differing_keys(stored, wanted))
    if (!is_harmless(d.key))
      return d.key + " was " + d.before + " when the run began and is " + d.now + " now";
  return {};
}

}  // namespace strata::train
