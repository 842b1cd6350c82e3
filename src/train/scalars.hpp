// SPDX-License-Identifier: Apache-2.0
#pragma once
// Words of a deck into values and back, stricter than YAML: nothing is guessed.

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace strata::train {

/// What a number may be.
struct Bounds {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false;
  bool high_open = false;

  bool contains(double x) const {
    return (low_open ? x > low : x >= low) && (high_open ? x < high : x <= high);
  }
  /// "at least 1", "above 0 and at most 1"; empty when anything goes.
  std::string text() const;
};

constexpr double largest_size =
    1099511627776.0;  // 2^40: products of two still fit 64 bits with room to spare

constexpr Bounds any() { return {}; }
constexpr Bounds at_least(double low, double high = largest_size) { return {low, high, false, false}; }
constexpr Bounds above(double low) { return {low, std::numeric_limits<double>::infinity(), true, false}; }
constexpr Bounds at_least_below(double low, double high) { return {low, high, false, true}; }

/// Whole numbers, also as 8_000_000, 30e9 or 1e3; nothing for anything else, fractions and overflow included.
std::optional<std::int64_t> parse_integer(std::string_view word);
/// Finite decimal numbers.
std::optional<double> parse_real(std::string_view word);
/// A number of bytes.
struct ByteSize {
  std::int64_t bytes = 0;
};
/// Bytes, or a number with a unit: k, M, G, T count in 1000s, Ki, Mi, Gi, Ti in 1024s, each with or without a
/// B, in either case. Fractions of a byte are dropped; nothing for a negative size.
std::optional<ByteSize> parse_byte_size(std::string_view word);
/// true, false, yes, no, on, off.
std::optional<bool> parse_bool(std::string_view word);

/// The shortest text that reads back to the same value.
std::string to_yaml(std::int64_t value);
std::string to_yaml(std::uint64_t value);
std::string to_yaml(double value);
std::string to_yaml(bool value);
std::string to_yaml(ByteSize value);            ///< in bytes
std::string to_yaml(std::string const& value);  ///< in double quotes
std::string to_yaml(std::vector<std::int64_t> const& value);
template <class T>
std::string to_yaml(std::optional<T> const& value) {
  return value ? to_yaml(*value) : "null";
}

/// For people: "1.23 GB" in powers of 1000, three digits.
std::string size_text(double bytes);

/// Text for a message: in single quotes, cut at 60 characters, control characters replaced.
std::string in_quotes(std::string_view text);

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
std::size_t edit_distance(std::string_view a, std::string_view b);

/// The closest of `candidates` (which must not be empty); the first one on a tie.
std::string nearest(std::string_view word, std::vector<std::string> const& candidates);

bool valid_utf8(std::string_view text);

}  // namespace strata::train
