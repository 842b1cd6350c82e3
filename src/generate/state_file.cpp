// SPDX-License-Identifier: Apache-2.0
#include "generate/state_file.hpp"

#include <fmt/format.h>

#include <cstring>

#include "core/error.hpp"
#include "io/checkpoint_file.hpp"

namespace strata::generate {

namespace {

constexpr char const* kind = "generation state";
constexpr Index bytes_per_word = sizeof(std::int64_t);

Index words_of(Index bytes) { return (bytes + bytes_per_word - 1) / bytes_per_word; }

std::string group_of(std::size_t stage) { return fmt::format("state/stage_{}", stage + 1); }

}  // namespace

void save_state(std::string const& path, std::string const& digest, SavedState const& state) {
  LaneState<float> const& lane = state.lane;
  io::CheckpointWriter file(path);
  file.text("state", "kind", kind);
  file.text("state", "model_digest", digest);
  file.number("state", "position", lane.position);
  file.number("state", "stages", static_cast<std::int64_t>(lane.stages.size()));
  std::vector<std::int64_t> words(static_cast<std::size_t>(words_of(static_cast<Index>(state.bytes.size()))));
  if (!state.bytes.empty()) std::memcpy(words.data(), state.bytes.data(), state.bytes.size());
  file.array("state", "bytes", {static_cast<Index>(words.size())}, words.data());
  std::vector<std::int64_t> const recent(lane.recent.begin(), lane.recent.end());
  file.array("state", "recent", {static_cast<Index>(recent.size())}, recent.data());
  file.array("state", "hidden", {static_cast<Index>(lane.hidden.size())}, lane.hidden.data());
  for (std::size_t s = 0; s < lane.stages.size(); ++s) {
    auto const& stage = lane.stages[s];
    file.array(group_of(s), "values", {static_cast<Index>(stage.values.size())}, stage.values.data());
    file.number(group_of(s), "start", stage.start);
    file.number(group_of(s), "rows", stage.rows);
  }
  file.close();
}

SavedState load_state(std::string const& path, std::string const& digest) {
  io::CheckpointReader const file(path);
  if (!file.has("state", "kind") || file.text("state", "kind") != kind)
    throw core::InputError(path + " is not a saved state of generation");
  if (file.text("state", "model_digest") != digest)
    throw core::InputError(path + " was saved with another model than this checkpoint's");
  SavedState out;
  LaneState<float>& lane = out.lane;
  auto const size_of = [&](std::string const& group, char const* name) {
    io::Shape const shape = file.shape(group, name);
    if (shape.size() != 1) throw core::InputError(path + ": " + group + "/" + name + " is not a list");
    return shape[0];
  };
  auto const numbers = [&](char const* name) {
    std::vector<std::int64_t> values(static_cast<std::size_t>(size_of("state", name)));
    file.array("state", name, {static_cast<Index>(values.size())}, values.data());
    return values;
  };
  auto const floats = [&](std::string const& group, char const* name) {
    std::vector<float> values(static_cast<std::size_t>(size_of(group, name)));
    file.array(group, name, {static_cast<Index>(values.size())}, values.data());
    return values;
  };
  lane.position = file.integer("state", "position");
  std::vector<std::int64_t> const words = numbers("bytes");
  if (lane.position < 0 || words_of(lane.position) != static_cast<Index>(words.size()))
    throw core::InputError(path + " does not hold the bytes of its " + std::to_string(lane.position) +
                           " positions");
  out.bytes.resize(static_cast<std::size_t>(lane.position));
  if (!out.bytes.empty()) std::memcpy(out.bytes.data(), words.data(), out.bytes.size());
  for (std::int64_t const token : numbers("recent")) lane.recent.push_back(static_cast<std::uint16_t>(token));
  lane.hidden = floats("state", "hidden");
  std::int64_t const stages = file.integer("state", "stages");
  for (std::int64_t s = 0; s < stages; ++s) {
    std::string const group = group_of(static_cast<std::size_t>(s));
    LaneState<float>::Stage stage;
    stage.start = file.integer(group, "start");
    stage.rows = file.integer(group, "rows");
    stage.values = floats(group, "values");
    lane.stages.push_back(std::move(stage));
  }
  return out;
}

}  // namespace strata::generate
