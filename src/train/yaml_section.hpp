// SPDX-License-Identifier: Apache-2.0
#pragma once
// Strict reading of YAML: every key is either known, or the user hears which known key is nearest.

#include <yaml-cpp/yaml.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "train/scalars.hpp"

namespace strata::train {

/// One YAML text, its name for messages and what the command line changed in it.
class YamlDocument {
 public:
  /// Throws core::InputError unless the text is one YAML document holding a mapping, and for malformed
  /// overrides.
  YamlDocument(std::string_view text, std::string name, std::vector<std::string> const& overrides);

  YAML::Node const& root() const { return root_; }
  void replace_root(YAML::Node const& root) { root_.reset(root); }
  std::string const& name() const { return name_; }
  std::vector<std::string>& warnings() { return warnings_; }

  /// Throws core::InputError: "<file>:<line>: <path> <problem>".
  [[noreturn]] void fail(std::string const& path, YAML::Node const& at, std::string const& problem) const;
  /// Adds "<file>: <path> <remark>" once.
  void warn(std::string const& path, std::string const& remark);

 private:
  void apply(std::string const& text);

  std::string name_;
  YAML::Node root_;
  std::vector<std::string> overridden_;  // key paths
  std::vector<std::string> warnings_;
};

/// A named value of an enumeration; the name "null" stands for YAML's null.
template <class E>
struct Choice {
  char const* name;
  E value;
};

/// One mapping of a document. Keys are asked for one by one; finish() then refuses the others.
class Section {
 public:
  /// `known` are the paths of all keys of a deck, for suggestions across sections.
  Section(YamlDocument& document, YAML::Node node, std::string path, std::vector<std::string> const& known);

  /// The value of a key; nothing when it is absent.
  std::optional<YAML::Node> find(std::string const& key) const;
  bool has(std::string const& key) const { return find(key).has_value(); }
  std::string path(std::string const& key) const { return path_.empty() ? key : path_ + "." + key; }
  YamlDocument& document() { return document_; }

  // What a table of keys (train/deck_keys.hpp) calls.
  template <class T>
  void required(char const* key, T& value, Bounds bounds, char const*) {
    if (auto const node = ask(key, true)) read(path(key), *node, value, bounds);
  }
  template <class T>
  void optional(char const* key, T& value, Bounds bounds, char const*) {
    if (auto const node = ask(key, false)) read(path(key), *node, value, bounds);
  }
  /// Null is the empty list.
  void list_or_null(char const* key, std::vector<std::int64_t>& value, Bounds bounds, char const*) {
    auto const node = ask(key, false);
    if (node && !node->IsNull()) read(path(key), *node, value, bounds);
  }
  template <class E>
  void choice(char const* key, E& value, bool is_required, std::vector<Choice<E>> const& choices,
              char const*) {
    auto const node = ask(key, is_required);
    if (!node) return;
    std::vector<std::string> names;
    names.reserve(choices.size());
    for (auto const& c : choices) names.emplace_back(c.name);
    value = choices[chosen(path(key), *node, names)].value;
  }
  /// A key that the caller reads by itself.
  void nested(char const* key, char const*, char const*, char const*) { known_here_.emplace_back(key); }
  /// A key that another one has replaced; the caller reads it by itself.
  void older(char const* key, char const*) { known_here_.emplace_back(key); }
  /// A key of the package that changes nothing here.
  void ignored(char const* key, char const* reason);
  /// A key of the package that asks for something this program does not do.
  void refused(char const* key, char const* reason);

  /// Throws for an unknown key, else for a required one that is missing.
  void finish();

 private:
  std::optional<YAML::Node> ask(char const* key, bool is_required);
  std::size_t chosen(std::string const& path, YAML::Node const& node,
                     std::vector<std::string> const& names) const;
  std::string suggestion(std::string const& key) const;

  void read(std::string const& path, YAML::Node const& node, std::int64_t& value, Bounds bounds) const;
  void read(std::string const& path, YAML::Node const& node, std::uint64_t& value, Bounds bounds) const;
  void read(std::string const& path, YAML::Node const& node, double& value, Bounds bounds) const;
  void read(std::string const& path, YAML::Node const& node, bool& value, Bounds bounds) const;
  void read(std::string const& path, YAML::Node const& node, ByteSize& value, Bounds bounds) const;
  void read(std::string const& path, YAML::Node const& node, std::string& value, Bounds bounds) const;
  void read(std::string const& path, YAML::Node const& node, std::vector<std::int64_t>& value,
            Bounds bounds) const;
  template <class T>
  void read(std::string const& path, YAML::Node const& node, std::optional<T>& value, Bounds bounds) const {
    value.reset();
    if (!node.IsNull()) read(path, node, value.emplace(), bounds);
  }

  YamlDocument& document_;
  YAML::Node node_;
  std::string path_;
  std::vector<std::string> const& known_;
  std::vector<std::string> known_here_;
  std::string missing_;
};

/// "'abc'", "a list", "a mapping" or "null".
std::string shown(YAML::Node const& node);

}  // namespace strata::train
