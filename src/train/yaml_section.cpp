// SPDX-License-Identifier: Apache-2.0
#include "train/yaml_section.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.hpp"

namespace strata::train {

using core::InputError;

namespace {

/// A word that was written without quotes, as numbers, booleans and null are.
bool plain(YAML::Node const& node) { return node.IsScalar() && node.Tag() != "!"; }

std::optional<YAML::Node> child(YAML::Node const& map, std::string const& key) {
  for (auto const& entry : map)
    if (entry.first.IsScalar() && entry.first.Scalar() == key) return YAML::Node(entry.second);
  return {};
}

/// The same mapping with one key's value replaced or added.
YAML::Node with_child(YAML::Node const& map, std::string const& key, YAML::Node const& value) {
  YAML::Node copy(YAML::NodeType::Map);
  bool found = false;
  for (auto const& entry : map) {
    bool const here = entry.first.IsScalar() && entry.first.Scalar() == key;
    copy.force_insert(entry.first, here ? value : entry.second);
    found = found || here;
  }
  if (!found) copy.force_insert(YAML::Node(key), value);
  return copy;
}

YAML::Node replaced(YAML::Node const& node, std::string_view path, YAML::Node const& value,
                    std::string const& text) {
  if (path.empty()) return value;
  std::size_t const dot = path.find('.');
  std::string const key(path.substr(0, dot));
  std::string_view const rest = dot == std::string_view::npos ? std::string_view() : path.substr(dot + 1);
  if (node.IsSequence()) {
    auto const index = parse_integer(key);
    if (!index || *index < 0 || static_cast<std::size_t>(*index) >= node.size())
      throw InputError(
          fmt::format("the override {} needs a number from 0 to {} in place of {}, because there is a list",
                      in_quotes(text), static_cast<std::int64_t>(node.size()) - 1, in_quotes(key)));
    // Built anew: assigning to an entry would change every user of its anchor.
    YAML::Node copy(YAML::NodeType::Sequence);
    for (std::size_t i = 0; i < node.size(); ++i)
      copy.push_back(static_cast<std::int64_t>(i) == *index ? replaced(node[i], rest, value, text) : node[i]);
    return copy;
  }
  if (!node.IsMap() && !node.IsNull())
    throw InputError(fmt::format("the override {} looks for the key {} inside a plain value", in_quotes(text),
                                 in_quotes(key)));
  auto const old = child(node, key);
  return with_child(node, key, replaced(old ? *old : YAML::Node(YAML::NodeType::Null), rest, value, text));
}

}  // namespace

std::string shown(YAML::Node const& node) {
  if (node.IsNull()) return "null";
  if (node.IsSequence()) return "a list";
  if (node.IsMap()) return "a mapping";
  return in_quotes(node.Scalar());
}

YamlDocument::YamlDocument(std::string_view text, std::string name, std::vector<std::string> const& overrides)
    : name_(std::move(name)) {
  auto const control = [](char c) {
    auto const u = static_cast<unsigned char>(c);
    return u < 0x20 && c != '\n' && c != '\t' && c != '\r';
  };
  if (std::any_of(text.begin(), text.end(), control) || !valid_utf8(text))
    throw InputError(name_ + " is not a YAML text: it holds bytes that no UTF-8 text has");
  std::vector<YAML::Node> documents;
  try {
    documents = YAML::LoadAll(std::string(text));
  } catch (YAML::Exception const& error) {
    throw InputError(fmt::format("{}{} is not valid YAML: {}", name_,
                                 error.mark.is_null() ? "" : fmt::format(":{}", error.mark.line + 1),
                                 error.msg));
  }
  if (documents.size() > 1)
    throw InputError(fmt::format("{} holds {} YAML documents; a deck is one", name_, documents.size()));
  if (documents.empty() || documents[0].IsNull())
    throw InputError(name_ + " is empty or all comment; a deck needs the sections params, train and io");
  if (!documents[0].IsMap())
    throw InputError(fmt::format("{} must be a mapping of keys to values; it is {}", name_,
                                 documents[0].IsSequence() ? "a list" : "a plain text"));
  root_.reset(documents[0]);
  for (std::string const& one : overrides) apply(one);
}

void YamlDocument::apply(std::string const& text) {
  std::size_t const equals = text.find('=');
  std::string const path = text.substr(0, equals);
  std::size_t const dot = path.find('.');
  if (equals == std::string::npos || dot == 0 || dot == std::string::npos || path.back() == '.' ||
      path.find("..") != std::string::npos)
    throw InputError(fmt::format("the override {} must look like section.key=value", in_quotes(text)));
  if (std::count(path.begin(), path.end(), '.') > 8 || !valid_utf8(text))
    throw InputError(fmt::format("the override {} names no key of a deck", in_quotes(text)));
  YAML::Node value;
  try {
    value.reset(YAML::Load(text.substr(equals + 1)));
  } catch (YAML::Exception const& error) {
    throw InputError(
        fmt::format("the value of the override {} is not valid YAML: {}", in_quotes(text), error.msg));
  }
  root_.reset(replaced(root_, path, value, text));
  overridden_.push_back(path);
}

void YamlDocument::fail(std::string const& path, YAML::Node const& at, std::string const& problem) const {
  std::string place = name_;
  auto const from_command_line = [&](std::string const& o) {
    return o == path || o.rfind(path + ".", 0) == 0;
  };
  if (std::any_of(overridden_.begin(), overridden_.end(), from_command_line)) {
    place += " with the command line's override";
  } else if (at.IsDefined() && !at.Mark().is_null()) {
    place += fmt::format(":{}", at.Mark().line + 1);
  }
  throw InputError(fmt::format("{}: {} {}", place, path, problem));
}

void YamlDocument::warn(std::string const& path, std::string const& remark) {
  std::string const text = fmt::format("{}: {} {}", name_, path, remark);
  if (std::find(warnings_.begin(), warnings_.end(), text) == warnings_.end()) warnings_.push_back(text);
}

Section::Section(YamlDocument& document, YAML::Node node, std::string path,
                 std::vector<std::string> const& known)
    : document_(document), node_(node), path_(std::move(path)), known_(known) {
  if (!node_.IsMap())
    document_.fail(path_, node_, fmt::format("must be a mapping of keys to values; it is {}", shown(node_)));
  std::vector<std::string> seen;
  for (auto const& entry : node_) {
    if (!entry.first.IsScalar())
      document_.fail(path_.empty() ? "the deck" : path_, entry.first, "has a key that is not a word");
    std::string const& key = entry.first.Scalar();
    if (std::find(seen.begin(), seen.end(), key) != seen.end())
      document_.fail(this->path(key), entry.first, "is given twice; keep one");
    seen.push_back(key);
  }
}

std::optional<YAML::Node> Section::find(std::string const& key) const { return child(node_, key); }

std::optional<YAML::Node> Section::ask(char const* key, bool is_required) {
  known_here_.emplace_back(key);
  auto node = find(key);
  if (!node && is_required && missing_.empty()) missing_ = key;
  return node;
}

void Section::ignored(char const* key, char const* reason) {
  known_here_.emplace_back(key);
  if (!has(key)) return;
  // One remark for a key of several blocks.
  std::string const where =
      path_.rfind("params.block.", 0) == 0 ? std::string("params.block.") + key : path(key);
  document_.warn(where, std::string("has no meaning here: ") + reason);
}

void Section::refused(char const* key, char const* reason) {
  known_here_.emplace_back(key);
  if (auto const node = find(key)) document_.fail(path(key), *node, std::string("cannot be used: ") + reason);
}

std::string Section::suggestion(std::string const& key) const {
  // The same name in another section is what was meant; otherwise the closest name of this section.
  for (std::string const& full : known_)
    if (full.substr(full.rfind('.') + 1) == key) return full;
  return path(nearest(key, known_here_));
}

void Section::finish() {
  for (auto const& entry : node_) {
    std::string const& key = entry.first.Scalar();
    if (std::find(known_here_.begin(), known_here_.end(), key) == known_here_.end())
      document_.fail(path(key.size() > 80 ? key.substr(0, 80) : key), entry.first,
                     "is not a known key; the nearest known key is " + suggestion(key));
  }
  if (!missing_.empty()) document_.fail(path(missing_), node_, "is missing; it has no default");
}

std::size_t Section::chosen(std::string const& path, YAML::Node const& node,
                            std::vector<std::string> const& names) const {
  std::string const word = node.IsNull() ? "null" : node.IsScalar() ? node.Scalar() : "";
  auto const found = std::find(names.begin(), names.end(), word);
  if (found == names.end())
    document_.fail(path, node,
                   fmt::format("must be one of {}; it is {}", fmt::join(names, ", "), shown(node)));
  return static_cast<std::size_t>(found - names.begin());
}

void Section::read(std::string const& path, YAML::Node const& node, std::int64_t& value,
                   Bounds bounds) const {
  auto const number = plain(node) ? parse_integer(node.Scalar()) : std::nullopt;
  if (!number) document_.fail(path, node, fmt::format("must be a whole number; it is {}", shown(node)));
  if (!bounds.contains(static_cast<double>(*number)))
    document_.fail(path, node, fmt::format("must be {}; it is {}", bounds.text(), *number));
  value = *number;
}

void Section::read(std::string const& path, YAML::Node const& node, std::uint64_t& value,
                   Bounds bounds) const {
  std::int64_t number = 0;
  read(path, node, number, bounds);
  value = static_cast<std::uint64_t>(number);
}

void Section::read(std::string const& path, YAML::Node const& node, double& value, Bounds bounds) const {
  auto const number = plain(node) ? parse_real(node.Scalar()) : std::nullopt;
  if (!number) document_.fail(path, node, fmt::format("must be a number; it is {}", shown(node)));
  if (!bounds.contains(*number))
    document_.fail(path, node, fmt::format("must be {}; it is {}", bounds.text(), to_yaml(*number)));
  value = *number;
}

void Section::read(std::string const& path, YAML::Node const& node, bool& value, Bounds /*bounds*/) const {
  auto const truth = plain(node) ? parse_bool(node.Scalar()) : std::nullopt;
  if (!truth) document_.fail(path, node, fmt::format("must be true or false; it is {}", shown(node)));
  value = *truth;
}

void Section::read(std::string const& path, YAML::Node const& node, ByteSize& value, Bounds bounds) const {
  auto const size = plain(node) ? parse_byte_size(node.Scalar()) : std::nullopt;
  if (!size)
    document_.fail(
        path, node,
        fmt::format("must be a number of bytes, such as 600M, 80G or 1.5GiB; it is {}", shown(node)));
  if (!bounds.contains(static_cast<double>(size->bytes)))
    document_.fail(path, node, fmt::format("must be {} bytes; it is {}", bounds.text(), shown(node)));
  value = *size;
}

void Section::read(std::string const& path, YAML::Node const& node, std::string& value,
                   Bounds /*bounds*/) const {
  if (!node.IsScalar() || node.IsNull())
    document_.fail(path, node, fmt::format("must be a text; it is {}", shown(node)));
  value = node.Scalar();
}

void Section::read(std::string const& path, YAML::Node const& node, std::vector<std::int64_t>& value,
                   Bounds bounds) const {
  if (!node.IsSequence())
    document_.fail(path, node, fmt::format("must be a list of whole numbers; it is {}", shown(node)));
  constexpr std::size_t longest = 64;
  if (node.size() > longest)
    document_.fail(path, node,
                   fmt::format("has {} entries; no list of a deck has more than {}", node.size(), longest));
  value.clear();
  for (std::size_t i = 0; i < node.size(); ++i) {
    value.emplace_back();
    read(fmt::format("{}.{}", path, i), node[i], value.back(), bounds);
  }
}

}  // namespace strata::train
