// SPDX-License-Identifier: Apache-2.0
#pragma once
// The dataset file of doc/formats.md: up to three splits of bytes (or 16-bit tokens) with the borders of
// their documents and, optionally, a loss weight for each byte. Bad files end in core::InputError.

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/atomic_file.hpp"
#include "io/hdf5.hpp"

namespace strata::io {

enum class Split { train, validation, test };
inline constexpr std::array<Split, 3> all_splits{Split::train, Split::validation, Split::test};
char const* to_string(Split split);
/// Throws core::InputError for an unknown name.
Split split_from_name(std::string const& name);

inline constexpr std::int64_t dataset_version = 1;

struct DatasetOptions {
  std::int64_t num_tokens = 256;  ///< above 256 the elements are uint16 `tokens` (at most 65536)
  bool loss_weights = false;
  int compression = 0;  ///< gzip level 0 .. 9
  bool overwrite = false;
  std::string tool_version;
};

/// Writes a dataset as a stream; memory does not grow with its size.
class DatasetWriter {
 public:
  DatasetWriter(std::string const& path, DatasetOptions const& options);
  ~DatasetWriter();

  /// Appends to the split's open document. Weights are given exactly when the options say so, one per
  /// element.
  void append(Split split, std::span<std::uint8_t const> bytes, std::span<float const> weights = {});
  void append(Split split, std::span<std::uint16_t const> tokens, std::span<float const> weights = {});
  /// Ends the open document, which may be empty.
  void end_document(Split split);
  /// Completes the file and moves it to its name. `source_digest` is a hexadecimal SHA-256 or empty.
  void close(std::string const& source_digest);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Read access, from any thread.
class DatasetFile {
 public:
  struct SplitInfo {
    Index size = 0;  ///< bytes or tokens
    Index documents = 0;
    bool weights = false;
  };

  /// Checks the structure: format, version, types, shapes and that the document borders cover the split in
  /// order.
  explicit DatasetFile(std::string const& path);
  ~DatasetFile();

  std::string const& path() const;
  std::int64_t version() const;
  std::int64_t num_tokens() const;
  bool wide() const { return num_tokens() > 256; }  ///< tokens of 16 bits instead of bytes
  std::string const& source_digest() const;
  std::string const& tool_version() const;
  SplitInfo info(Split split) const;

  /// Elements [offset, offset + out.size()). Reading bytes of a wide dataset throws; tokens can be read from
  /// either.
  void read(Split split, Index offset, std::span<std::uint8_t> out) const;
  void read(Split split, Index offset, std::span<std::uint16_t> out) const;
  /// Weights; all 1 when the split has none. Negative or non-finite stored weights throw.
  void read_weights(Split split, Index offset, std::span<float> out) const;
  /// The documents+1 borders, first 0 and last info(split).size.
  std::vector<std::uint64_t> document_offsets(Split split) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace strata::io
