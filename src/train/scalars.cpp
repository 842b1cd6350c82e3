// SPDX-License-Identifier: Apache-2.0
#include "train/scalars.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace strata::train {

namespace {

bool digit(char c) { return c >= '0' && c <= '9'; }

/// The number without a leading plus and without underscores between digits; nothing if it is no decimal
/// number. A leading zero is refused: YAML 1.1 would read 010 as eight.
std::optional<std::string> plain_number(std::string_view word) {
  if (!word.empty() && word.front() == '+') word.remove_prefix(1);
  std::string out;
  for (std::size_t i = 0; i < word.size(); ++i) {
    char const c = word[i];
    if (c == '_') {
      if (i == 0 || i + 1 == word.size() || !digit(word[i - 1]) || !digit(word[i + 1])) return {};
      continue;
    }
    bool const exponent = c == 'e' || c == 'E';
    bool const sign =
        (c == '-' || c == '+') && (i == 0 ? c == '-' : word[i - 1] == 'e' || word[i - 1] == 'E');
    if (!digit(c) && c != '.' && !exponent && !sign) return {};
    if (sign && c == '+') continue;
    out.push_back(c);
  }
  std::size_t const first = !out.empty() && out[0] == '-' ? 1 : 0;
  if (out.size() > first + 1 && out[first] == '0' && digit(out[first + 1])) return {};
  return out;
}

std::string lower(std::string_view word) {
  std::string out(word);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

}  // namespace

std::string Bounds::text() const {
  std::string out;
  if (std::isfinite(low)) out = fmt::format("{} {}", low_open ? "above" : "at least", low);
  if (std::isfinite(high)) {
    if (!out.empty()) out += " and ";
    out += (high_open ? "below " : "at most ") + to_yaml(high);
  }
  return out;
}

std::optional<double> parse_real(std::string_view word) {
  auto const number = plain_number(word);
  if (!number) return {};
  double value = 0;
  auto const [end, error] = std::from_chars(number->data(), number->data() + number->size(), value);
  if (error != std::errc() || end != number->data() + number->size() || !std::isfinite(value)) return {};
  return value;
}

std::optional<std::int64_t> parse_integer(std::string_view word) {
  auto const number = plain_number(word);
  if (!number) return {};
  std::int64_t value = 0;
  auto const [end, error] = std::from_chars(number->data(), number->data() + number->size(), value);
  if (error == std::errc() && end == number->data() + number->size()) return value;
  auto const real = parse_real(word);  // 30e9, 1.5e3
  if (!real || *real != std::floor(*real) || std::abs(*real) >= 0x1p63) return {};
  return static_cast<std::int64_t>(*real);
}

std::optional<ByteSize> parse_byte_size(std::string_view word) {
  std::size_t end = word.size();
  while (end > 0 && !digit(word[end - 1]) && word[end - 1] != '.') --end;
  std::string unit = lower(word.substr(end));
  while (!unit.empty() && unit.front() == ' ') unit.erase(0, 1);
  if (!unit.empty() && unit.back() == 'b') unit.pop_back();
  double base = 1000;
  if (unit.size() == 2 && unit.back() == 'i') {
    base = 1024;
    unit.pop_back();
  }
  std::array<std::string_view, 5> const units = {"", "k", "m", "g", "t"};
  auto const found = std::find(units.begin(), units.end(), unit);
  auto const number = parse_real(word.substr(0, end));
  if (!number || found == units.end() || (base == 1024 && unit.empty()) || *number < 0) return {};
  auto const power = static_cast<double>(found - units.begin());
  double const bytes = std::floor(*number * std::pow(base, power));
  if (!(bytes < 0x1p63)) return {};
  return ByteSize{static_cast<std::int64_t>(bytes)};
}

std::optional<bool> parse_bool(std::string_view word) {
  std::string const w = lower(word);
  if (w == "true" || w == "yes" || w == "on") return true;
  if (w == "false" || w == "no" || w == "off") return false;
  return {};
}

std::string to_yaml(std::int64_t value) { return std::to_string(value); }
std::string to_yaml(std::uint64_t value) { return std::to_string(value); }
std::string to_yaml(ByteSize value) { return to_yaml(value.bytes); }
std::string to_yaml(bool value) { return value ? "true" : "false"; }

std::string to_yaml(double value) {
  std::array<char, 64> text{};
  bool const whole = value == std::floor(value) && std::abs(value) < 1e15;
  auto const result = whole ? std::to_chars(text.begin(), text.end(), static_cast<std::int64_t>(value))
                            : std::to_chars(text.begin(), text.end(), value);
  return {text.begin(), result.ptr};
}

std::string to_yaml(std::string const& value) {
  std::string out = "\"";
  for (char const c : value) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string to_yaml(std::vector<std::int64_t> const& value) {
  return fmt::format("[{}]", fmt::join(value, ", "));
}

std::string size_text(double bytes) {
  std::array<char const*, 5> const units = {"bytes", "kB", "MB", "GB", "TB"};
  std::size_t unit = 0;
  while (bytes >= 999.5 && unit + 1 < units.size()) {
    bytes /= 1000;
    ++unit;
  }
  int const digits = unit == 0 || bytes >= 99.95 ? 0 : bytes >= 9.995 ? 1 : 2;
  return fmt::format("{:.{}f} {}", bytes, digits, units[unit]);
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t longest = 60;
  std::string out = "'";
  for (char const c : text.substr(0, longest))
    out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  // A cut in the middle of a UTF-8 character would leave bytes that a terminal cannot show.
  if (text.size() > longest)
    while (out.size() > 1 && (static_cast<unsigned char>(out.back()) & 0x80U)) out.pop_back();
  return out + (text.size() > longest ? "...'" : "'");
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  // Optimal string alignment: rows i-2, i-1 and i of the usual table.
  std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

std::string nearest(std::string_view word, std::vector<std::string> const& candidates) {
  word = word.substr(0, 200);
  std::string const w = lower(word);
  auto const closer = [&](std::string const& x, std::string const& y) {
    return edit_distance(w, lower(x)) < edit_distance(w, lower(y));
  };
  return *std::min_element(candidates.begin(), candidates.end(), closer);
}

bool valid_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    auto const c = static_cast<unsigned char>(text[i]);
    std::size_t const length = c < 0x80                ? 1
                               : c >= 0xc2 && c < 0xe0 ? 2
                               : c >= 0xe0 && c < 0xf0 ? 3
                               : c >= 0xf0 && c < 0xf5 ? 4
                                                       : 0;
    if (length == 0 || i + length > text.size()) return false;
    for (std::size_t k = 1; k < length; ++k)
      if ((static_cast<unsigned char>(text[i + k]) & 0xc0U) != 0x80) return false;
    i += length;
  }
  return true;
}

}  // namespace strata::train
