// SPDX-License-Identifier: Apache-2.0
#pragma once
// `strata pack`: files and folders in, one dataset out, as a stream.

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "data/image_order.hpp"
#include "io/dataset_file.hpp"

namespace strata::data {

/// One file to be packed.
struct SourceFile {
  std::string path;      ///< how it is opened; what the order sorts by, byte by byte
  std::string relative;  ///< path below the folder that was named, or the file's name; enters the digest
  std::int64_t size = 0;
};

using Warn = std::function<void(std::string const&)>;

/// The regular files among and below `paths`, sorted by path bytes. Symbolic links are followed; a folder
/// that contains itself through one is entered once. What is neither file nor folder is skipped with a
/// warning, and so is a path met twice and the file `except` (the output). Throws core::InputError for a path
/// that does not exist or cannot be read.
std::vector<SourceFile> find_files(std::vector<std::string> const& paths, std::string const& except,
                                   Warn const& warn);

/// Fractions "0.9,0.05,0.05" for train, validation and test; missing ones are 0. They must add up to 1.
std::array<double, 3> parse_fractions(std::string const& text);

/// Deals whole documents to the splits: in order, each to the split that its bytes would leave furthest
/// behind its fraction. Every split with a positive fraction gets at least one document that is not empty, or
/// core::InputError.
std::vector<io::Split> deal_documents(std::vector<SourceFile> const& files,
                                      std::array<double, 3> const& fractions);

struct PackOptions {
  std::string output;
  std::array<std::vector<std::string>, 3> paths;  ///< per split: --train, --validation, --test
  std::vector<std::string> split_paths;           ///< to be dealt by `fractions`
  std::array<double, 3> fractions{0, 0, 0};
  bool split_within = false;  ///< cut each file by the fractions instead of dealing whole files
  /// Each file is an image, and its pixels in this order are the document's bytes.
  std::optional<ImageOrder> images;
  int compression = 0;
  bool overwrite = false;
  std::string tool_version;
  std::function<void(std::int64_t done, std::int64_t total)> progress;  ///< called after each piece
  std::function<bool()> stop;  ///< true: give up and leave nothing behind
  Warn warn;
};

struct PackedSplit {
  std::int64_t documents = 0;
  std::int64_t empty_documents = 0;
  std::int64_t bytes = 0;
  double entropy = 0;  ///< order-0 entropy in bits per byte
};

struct PackResult {
  std::array<PackedSplit, 3> splits;
  std::string source_digest;
};

/// Packing was stopped by PackOptions::stop.
class PackStopped : public std::runtime_error {
 public:
  PackStopped() : std::runtime_error("packing was stopped; no file was written") {}
};

/// Order-0 entropy in bits of a histogram of bytes: sum p log2(1/p); 0 when it is empty.
double byte_entropy(std::array<std::int64_t, 256> const& histogram);

/// Packs. Memory is a few buffers, and one image where images are packed. Throws core::InputError (nothing to
/// pack, unreadable file, bad image, output exists, disk full, a file that shrinks while it is read) and
/// leaves no partial file.
PackResult pack(PackOptions const& options);

}  // namespace strata::data
