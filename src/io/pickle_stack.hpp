// SPDX-License-Identifier: Apache-2.0
#pragma once
// What any reader of pickles needs before it knows an opcode's meaning: bytes, values, the stack with its
// marks, and the memo. Used by torch_pickle.cpp only.

#include <array>
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "io/tensor_file.hpp"

namespace strata::io {

/// Values are referred to by number, so that shared and cyclic ones cost nothing.
using PickleRef = std::uint32_t;

struct PickleValue {
  enum class Kind { none, boolean, integer, real, text, tuple, list, dict, global, storage, tensor };
  Kind kind = Kind::none;
  std::int64_t integer = 0;           // also: number of a global; elements of a storage; number of a tensor
  std::string text = {};              // also: key of a storage
  std::vector<PickleRef> items = {};  // a dict's keys and values by turns
  StoredType type = {};               // of a storage
  bool ordered = false;               // of a dict
};
inline char const* kind_name(PickleValue::Kind kind) {
  constexpr std::array<char const*, 11> names{"None",       "a truth value", "an integer", "a real number",
                                              "a text",     "a tuple",       "a list",     "a dictionary",
                                              "a function", "a storage",     "a tensor"};
  return names[static_cast<std::size_t>(kind)];
}

/// Every function throws core::InputError, with the place in the pickle, when what it needs is not there.
class PickleStack {
 public:
  /// Both must outlive the object; `where` begins every message.
  PickleStack(std::string const& bytes, std::string const& where) : bytes_(bytes), where_(where) {}

 protected:
  using Ref = PickleRef;
  using Value = PickleValue;
  using Kind = Value::Kind;
  /// Bounds the memory of hostile pickles; a state dict takes some twenty values for each tensor.
  static constexpr std::size_t most_values = std::size_t{1} << 22;

  [[noreturn]] void fail(std::string const& problem) const {
    throw core::InputError(where_ + " " + problem + " (at byte " + std::to_string(at_) + ")");
  }

  // Reading. Numbers are little-endian.
  std::uint64_t natural(std::size_t width) {
    std::string_view const raw = take(width);
    std::uint64_t value = 0;
    for (std::size_t i = width; i-- > 0;) value = value << 8 | static_cast<unsigned char>(raw[i]);
    return value;
  }
  std::string_view take(std::uint64_t count) {
    if (count > bytes_.size() - at_) fail("is cut short");
    std::string_view const part = std::string_view(bytes_).substr(at_, count);
    at_ += count;
    return part;
  }
  std::string line() {
    std::size_t const end = bytes_.find('\n', at_);
    if (end == std::string::npos) fail("is cut short");
    std::string text = bytes_.substr(at_, end - at_);
    at_ = end + 1;
    return text;
  }
  std::int64_t signed_number(std::uint64_t width) {
    if (width > 8) fail("has an integer of " + std::to_string(width) + " bytes");
    if (width == 0) return 0;
    std::uint64_t const raw = natural(width);
    auto const shift = static_cast<unsigned>(64 - 8 * width);
    return std::bit_cast<std::int64_t>(raw << shift) >> shift;
  }

  // The stack. No value below the last mark can be taken.
  Ref make(Value value) {
    if (values_.size() >= most_values) fail("describes more than a dictionary of tensors would");
    values_.push_back(std::move(value));
    return static_cast<Ref>(values_.size() - 1);
  }
  void push(Ref ref) {
    if (stack_.size() >= most_values) fail("describes more than a dictionary of tensors would");
    stack_.push_back(ref);
  }
  void push(Value value) { push(make(std::move(value))); }
  void push_integer(std::int64_t value) { push({.kind = Kind::integer, .integer = value}); }
  void push_text(std::string_view text) { push({.kind = Kind::text, .text = std::string(text)}); }
  void push_boolean(bool value) { push({.kind = Kind::boolean, .integer = value ? 1 : 0}); }
  void push_items(Kind kind, std::vector<Ref> items) { push({.kind = kind, .items = std::move(items)}); }
  Ref top() const {
    if (stack_.size() <= base()) fail("takes a value that is not there");
    return stack_.back();
  }
  Ref pop() {
    Ref const ref = top();
    stack_.pop_back();
    return ref;
  }
  std::size_t base() const { return marks_.empty() ? 0 : marks_.back(); }
  std::vector<Ref> pop_mark() {
    if (marks_.empty()) fail("lacks a mark");
    auto const begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<Ref> items(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return items;
  }
  std::vector<Ref> pop_many(std::size_t count) {
    std::vector<Ref> items(count);
    for (std::size_t i = count; i-- > 0;) items[i] = pop();
    return items;
  }
  Value& expect(Ref ref, Kind kind, char const* what) {
    if (values_[ref].kind != kind)
      fail("has " + std::string(kind_name(values_[ref].kind)) + " as " + what + ", which must be " +
           kind_name(kind));
    return values_[ref];
  }

  // The memo.
  void memoize(std::uint64_t key, Ref ref) { memo_[key] = ref; }
  void recall(std::uint64_t key) {
    auto const found = memo_.find(key);
    if (found == memo_.end()) fail("recalls a value that was never stored");
    push(found->second);
  }

  std::string const& bytes_;
  std::string const& where_;
  std::size_t at_ = 0;
  std::vector<Value> values_;
  std::vector<Ref> stack_;
  std::vector<std::size_t> marks_;
  std::unordered_map<std::uint64_t, Ref> memo_;
};

}  // namespace strata::io
