// SPDX-License-Identifier: Apache-2.0
#pragma once
// What tests of decks share: a small deck, and the message that refuses one.

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "train/deck.hpp"

namespace strata::train {

inline char const* const minimal = R"(
params:
  hidden_dims: [32, 16]
  num_layers: [2, 1]
  seq_lens: [64, 8]
  input_seq_len: 512
  block:
    block_type: transformer
    attn_head_dims: 8
    attn_num_heads: 2
    attn_use_rot_embs: true
train:
  target_elements: 8_000_000
  target_elements_strategy: sequence
  batch_size: 4
  learning_rate: 1e-3
io:
  name_model: small
  output_dir: runs
)";

/// The message that refuses the deck; fails the test when it is accepted.
inline std::string refusal(std::string const& yaml, std::vector<std::string> const& overrides = {}) {
  try {
    parse_deck(yaml, "deck.yaml", overrides);
  } catch (core::InputError const& error) {
    return error.what();
  }
  ADD_FAILURE() << "accepted: " << yaml;
  return "";
}

inline std::string refusal_with(std::string const& override_text) {
  return refusal(minimal, {override_text});
}

inline testing::AssertionResult says(std::string const& message, std::vector<std::string> const& parts) {
  for (std::string const& part : parts)
    if (message.find(part) == std::string::npos)
      return testing::AssertionFailure() << "'" << message << "' lacks '" << part << "'";
  if (message.find('\n') != std::string::npos)
    return testing::AssertionFailure() << "more than one line: " << message;
  return testing::AssertionSuccess();
}

inline bool warned(Deck const& deck, std::string const& text) {
  return std::any_of(deck.warnings.begin(), deck.warnings.end(),
                     [&](std::string const& w) { return w.find(text) != std::string::npos; });
}

inline std::string replaced(std::string text, std::string const& from, std::string const& to) {
  std::size_t const at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

}  // namespace strata::train
