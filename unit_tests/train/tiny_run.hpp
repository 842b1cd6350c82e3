// SPDX-License-Identifier: Apache-2.0
#pragma once
// A small two-stage model on a few kilobytes, and what its runs leave behind.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "io/checkpoint_file.hpp"
#include "io/dataset_file.hpp"
#include "train/deck.hpp"
#include "train/trainer.hpp"
#include "unit_tests/io/temp_folder.hpp"

namespace strata::test {

/// A folder that all ranks share and rank 0 owns.
class SharedFolder {
 public:
  explicit SharedFolder(parallel::Communicator const& ranks) : ranks_(ranks) {
    if (ranks.is_root()) own_.emplace();
    path_ = ranks.broadcast(ranks.is_root() ? own_->path() : std::string());
  }
  ~SharedFolder() { ranks_.barrier(); }
  std::string operator/(std::string const& name) const { return path_ + "/" + name; }
  std::string const& path() const { return path_; }

 private:
  parallel::Communicator const& ranks_;
  std::optional<TempFolder> own_;
  std::string path_;
};

/// Words from a fixed sequence of pseudo-random numbers.
inline std::string words(std::size_t bytes, unsigned seed) {
  static char const* const list[] = {"the ", "strata ", "of ", "byte ", "model ",
                                     "and ", "layer ",  "a ",  "rock "};
  std::string text;
  unsigned state = seed;
  while (text.size() < bytes) {
    state = state * 1664525U + 1013904223U;
    text += list[(state >> 16) % 9];
  }
  text.resize(bytes);
  return text;
}

inline void write_dataset(std::string const& path, std::vector<std::string> const& train,
                          std::vector<std::string> const& validation) {
  io::DatasetOptions options;
  options.tool_version = "test";
  io::DatasetWriter writer(path, options);
  auto const put = [&](io::Split split, std::string const& text) {
    writer.append(split, std::span(reinterpret_cast<std::uint8_t const*>(text.data()), text.size()));
    writer.end_document(split);
  };
  for (std::string const& text : train) put(io::Split::train, text);
  for (std::string const& text : validation) put(io::Split::validation, text);
  writer.close("");
}

/// Global batch 4 windows of 32 bytes. `changes` are section.key=value.
inline train::Deck tiny_deck(std::string const& folder, std::string const& name,
                             std::vector<std::string> changes = {}) {
  std::string const text = R"(
params:
  num_tokens: 257
  pad_token_id: 256
  hidden_dims: [16, 16]
  num_layers: [2, 1]
  seq_lens: [8, 4]
  train_checkpoint_chunks: null
  input_seq_len: 32
  block: {block_type: transformer, attn_head_dims: 8, attn_num_heads: 2, attn_use_rot_embs: true, pos_emb_type: fixed,
          attn_dropout: 0.1, ff_dropout: 0.1}
train:
  target_elements: 80
  target_elements_strategy: batch
  batch_size: 2
  gradient_accumulate_every: 2
  learning_rate: 0.003
  gradient_clipping: 1.0
  shuffle_train: true
io:
  num_models_to_save: 1
  validate_amount: 4
  log_train_loss_amount: 1000
  checkpoint_every: 3
)";
  changes.push_back("io.output_dir=" + folder);
  changes.push_back("io.name_model=" + name);
  changes.push_back("io.dataset=" + folder + "/data.h5");
  return train::parse_deck(text, "tiny", changes);
}

/// The run's records, without what tells the time.
inline std::vector<nlohmann::json> metrics(train::Deck const& deck) {
  std::vector<nlohmann::json> result;
  std::ifstream in(deck.run_folder() / "metrics.jsonl");
  for (std::string line; std::getline(in, line);) {
    auto record = nlohmann::json::parse(line);
    for (char const* key :
         {"bytes_per_second", "step_seconds", "optimizer_seconds", "communication_exposed_seconds",
          "communication_hidden_seconds", "gemm_fraction", "elapsed_seconds", "peak_memory"})
      record.erase(key);
    result.push_back(record);
  }
  return result;
}

inline std::vector<double> losses(train::Deck const& deck, std::string const& split) {
  std::vector<double> result;
  for (auto const& record : metrics(deck))
    if (record["split"] == split) result.push_back(record["loss"].get<double>());
  return result;
}

/// All arrays of a checkpoint.
inline std::map<std::string, std::vector<float>> arrays(std::string const& path) {
  io::CheckpointReader const reader(path);
  std::map<std::string, std::vector<float>> result;
  for (char const* group : {"parameters", "optimizer/first_moment", "optimizer/second_moment"}) {
    for (std::string const& name : reader.names(group)) {
      io::Shape const shape = reader.shape(group, name);
      std::vector<float> values(static_cast<std::size_t>(io::element_count(shape)));
      reader.array(group, name, shape, values.data());
      result[std::string(group) + "/" + name] = std::move(values);
    }
  }
  return result;
}

inline std::string latest(train::Deck const& deck) { return (deck.run_folder() / "latest.h5").string(); }

inline std::vector<std::string> checkpoints(train::Deck const& deck) {
  std::vector<std::string> names;
  for (auto const& entry : std::filesystem::directory_iterator(deck.run_folder() / "checkpoints"))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace strata::test
