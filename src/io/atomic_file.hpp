// SPDX-License-Identifier: Apache-2.0
#pragma once
// Files that appear whole or not at all: written beside their final name, synced, renamed.

#include <functional>
#include <string>

namespace strata::io {

/// The life of one output file. Write to partial(), then commit(); without commit the destructor removes what
/// is there. The partial file is named <path>.<host>.<pid>.partial. Those that killed processes of this host
/// left are removed.
class AtomicFile {
 public:
  /// Throws core::InputError when the folder does not exist or cannot be written, when `path` is a folder, or
  /// when it exists and `overwrite` is false.
  explicit AtomicFile(std::string path, bool overwrite = true);
  ~AtomicFile();
  AtomicFile(AtomicFile const&) = delete;
  AtomicFile& operator=(AtomicFile const&) = delete;

  std::string const& path() const { return path_; }
  std::string const& partial() const { return partial_; }
  /// Asks for the disk space of the partial file's whole length now, where the file system can say so,
  /// because a full disk is harder to tell once several ranks write. Throws core::InputError.
  void reserve() const;
  /// Waits until the partial file is on the disk.
  void sync() const;
  /// Syncs the file, renames it and syncs the folder.
  void commit();

 private:
  std::string path_, partial_;
  bool overwrite_;
  bool committed_ = false;
};

/// Throws core::InputError when this process cannot write to the existing file.
void require_writable(std::string const& path);

/// Writes a text file atomically.
void write_text_file(std::string const& path, std::string const& text);

/// Reads a text file of at most `limit` bytes.
std::string read_text_file(std::string const& path, std::size_t limit = std::size_t{1} << 26);

/// One sentence for a failed system call on a file: "cannot write X: no space left on the disk (ENOSPC)".
std::string describe_errno(std::string const& action, std::string const& path, int error);

}  // namespace strata::io
