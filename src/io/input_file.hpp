// SPDX-License-Identifier: Apache-2.0
#pragma once
// A file of another program, read at positions. What is asked for is checked against the file's size first.

#include <cstdint>
#include <span>
#include <string>

namespace strata::io {

class InputFile {
 public:
  /// Throws core::InputError when the file is missing, a folder, or cannot be read.
  explicit InputFile(std::string path);
  ~InputFile();
  InputFile(InputFile&& other) noexcept;
  InputFile(InputFile const&) = delete;
  InputFile& operator=(InputFile const&) = delete;
  InputFile& operator=(InputFile&&) = delete;

  std::string const& path() const { return path_; }
  std::uint64_t size() const { return size_; }
  /// True when the file holds `count` bytes from `offset` on.
  bool holds(std::uint64_t offset, std::uint64_t count) const {
    return offset <= size_ && count <= size_ - offset;
  }
  /// Fills `out` from byte `offset` on. Throws core::InputError when the file ends before.
  void read(std::uint64_t offset, std::span<char> out) const;
  std::string bytes(std::uint64_t offset, std::uint64_t count) const;

  /// Throws core::InputError: the file's name and what is wrong with it.
  [[noreturn]] void fail(std::string const& problem) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

/// A text of a file in quotes, for a message: at most 80 characters, none that would break the line.
std::string quote(std::string const& text);

}  // namespace strata::io
