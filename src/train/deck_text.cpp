// SPDX-License-Identifier: Apache-2.0
// A deck written out: canonical YAML, and the key reference.
#include <fmt/format.h>

#include <type_traits>

#include "train/deck_keys.hpp"

namespace strata::train {

namespace {

template <class E>
char const* name_of(E value, std::vector<Choice<E>> const& choices) {
  for (auto const& c : choices)
    if (c.value == value) return c.name;
  return "null";
}

/// Writes "key: value" lines.
class Writer {
 public:
  Writer(std::string& out, std::string indent) : out_(out), indent_(std::move(indent)) {}

  void line(char const* key, std::string const& value) {
    out_ += fmt::format("{}{}: {}\n", indent_, key, value);
  }

  template <class T>
  void required(char const* key, T& value, Bounds, char const*) {
    line(key, to_yaml(value));
  }
  template <class T>
  void optional(char const* key, T& value, Bounds, char const*) {
    line(key, to_yaml(value));
  }
  template <class E>
  void choice(char const* key, E& value, bool, std::vector<Choice<E>> const& choices, char const*) {
    line(key, name_of(value, choices));
  }
  void list_or_null(char const* key, std::vector<Index>& value, Bounds, char const*) {
    line(key, value.empty() ? "null" : to_yaml(value));
  }
  void nested(char const*, char const*, char const*, char const*) {}
  void older(char const*, char const*) {}
  void ignored(char const*, char const*) {}
  void refused(char const*, char const*) {}

 private:
  std::string& out_;
  std::string indent_;
};

std::string type_name(Index const&) { return "whole number"; }
std::string type_name(std::uint64_t const&) { return "whole number"; }
std::string type_name(double const&) { return "number"; }
std::string type_name(bool const&) { return "true or false"; }
std::string type_name(ByteSize const&) { return "size"; }
std::string type_name(std::string const&) { return "text"; }
std::string type_name(std::vector<Index> const&) { return "list of whole numbers"; }
template <class T>
std::string type_name(std::optional<T> const&) {
  return type_name(T{}) + " or null";
}

/// Writes rows of a Markdown table.
class Reference {
 public:
  explicit Reference(std::string& out) : out_(out) {}

  void row(char const* key, std::string const& type, std::string const& preset, std::string const& meaning) {
    out_ += fmt::format("| `{}` | {} | {} | {} |\n", key, type, preset, meaning);
  }
  template <class T>
  void required(char const* key, T& value, Bounds bounds, char const* meaning) {
    row(key, type_name(value) + range(bounds), "required", meaning);
  }
  template <class T>
  void optional(char const* key, T& value, Bounds bounds, char const* meaning) {
    row(key, type_name(value) + range(bounds), to_yaml(value), meaning);
  }
  template <class E>
  void choice(char const* key, E& value, bool required, std::vector<Choice<E>> const& choices,
              char const* meaning) {
    std::string names;
    for (auto const& c : choices) names += (names.empty() ? "" : ", ") + std::string(c.name);
    row(key, names, required ? "required" : name_of(value, choices), meaning);
  }
  void list_or_null(char const* key, std::vector<Index>& value, Bounds bounds, char const* meaning) {
    row(key, type_name(value) + " or null" + range(bounds), "null", meaning);
  }
  void nested(char const* key, char const* type, char const* preset, char const* meaning) {
    row(key, type, preset, meaning);
  }
  void older(char const* key, char const* meaning) {
    row(key, "", "", std::string("Other form: ") + meaning + ".");
  }
  void ignored(char const* key, char const* reason) {
    row(key, "anything", "", std::string("Accepted, without effect: ") + reason + ".");
  }
  void refused(char const* key, char const* reason) {
    row(key, "", "", std::string("Refused: ") + reason + ".");
  }

 private:
  static std::string range(Bounds bounds) {
    if (bounds.high >= largest_size) bounds.high = any().high;  // a limit that no sensible deck reaches
    std::string const text = bounds.text();
    return text.empty() ? "" : ", " + text;
  }

  std::string& out_;
};

void table_head(std::string& out, std::string const& remark) {
  out += fmt::format("\n{}\n\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n", remark);
}

void heading(std::string& out, std::string const& section, std::string const& remark) {
  out += fmt::format("\n### `{}`\n", section);
  table_head(out, remark);
}

}  // namespace

std::string Deck::text() const {
  Deck copy = *this;  // visitors take what they visit as mutable
  std::string out = "params:\n";
  Writer section(out, "  ");
  visit_params(section, copy);
  out += "  block:\n";
  for (model::BlockConfig& block : copy.params.block) {
    out += fmt::format("    - block_type: {}\n", name_of(block.block_type, block_types()));
    Writer writer(out, "      ");
    visit_block(writer, block);
  }
  out += "train:\n";
  visit_train(section, copy.train);
  out += "io:\n";
  visit_io(section, copy.io);
  out += "resume: null\n";
  return out;
}

std::string key_reference() {
  Deck deck;
  model::BlockConfig block;
  std::string out;
  Reference table(out);
  heading(out, "deck", "The four sections.");
  visit_root(table);
  heading(out, "params", "The model.");
  visit_params(table, deck);
  heading(out, "params.block", "One kind of layer per stage. Keys of all layers:");
  visit_any_block(table, block);
  table_head(out, "Keys of Transformer layers (transformer, transformerEncoder):");
  visit_transformer(table, block);
  table_head(out, "Keys of Mamba layers (mamba1, mamba2):");
  block.block_type = model::BlockType::mamba2;
  visit_mamba(table, block);
  heading(out, "train", "Optimiser, budget and batches.");
  visit_train(table, deck.train);
  heading(out, "io", "Files and cadence.");
  visit_io(table, deck.io);
  heading(out, "resume",
          "What the package has in place of `train.init_from`. Null or absent: random weights.");
  visit_resume(table);
  return out;
}

}  // namespace strata::train
