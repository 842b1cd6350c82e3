// SPDX-License-Identifier: Apache-2.0
#pragma once
// The checkpoint file of doc/formats.md: named arrays, numbers and texts in groups. Knows nothing of models.
// A reader never sees a half-written file; every array carries checksums that reading verifies.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/atomic_file.hpp"
#include "io/hdf5.hpp"
#include "parallel/block.hpp"

namespace strata::io {

inline constexpr std::int64_t checkpoint_version = 1;

/// Elements [first, first + count), row-major, of an array that lies elsewhere, such as on a device: fills
/// them in, or takes them. Arrays pass in such pieces of at most 16 MiB, and nothing else is held of them.
using FillPiece = std::function<void(Index first, std::span<float> out)>;
using TakePiece = std::function<void(Index first, std::span<float const> in)>;

/// Which elements of an array, row-major, a rank has; those of all ranks together are the array, each once.
using Ranges = std::vector<parallel::Block>;

/// Writes <path> beside itself; close() moves it into place. Groups are paths such as "parameters" or
/// "optimizer/first_moment"; names may contain dots but no slash.
///
/// With several ranks all make the same calls. Rank 0 writes texts, numbers and arrays that are given by a
/// pointer; the others are written by all ranks at once through MPI-IO in close(), each its own elements, so
/// whatever `fill` needs must live until then. The file is that of a single rank, byte for byte. Errors are
/// thrown by close(), on all ranks alike; with one rank, by the call that meets them.
class CheckpointWriter {
 public:
  /// One process alone.
  explicit CheckpointWriter(std::string const& path);
  /// Collective. `ranks` must outlive the writer.
  CheckpointWriter(std::string const& path, parallel::Communicator const& ranks);
  ~CheckpointWriter();

  void array(std::string const& group, std::string const& name, Shape const& shape, float const* data);
  void array(std::string const& group, std::string const& name, Shape const& shape, double const* data);
  void array(std::string const& group, std::string const& name, Shape const& shape, std::int64_t const* data);
  /// Every rank has all elements.
  void array(std::string const& group, std::string const& name, Shape const& shape, FillPiece const& fill);
  /// This rank has `mine`, in ascending order. `fill` is asked for nothing else.
  void array(std::string const& group, std::string const& name, Shape const& shape, FillPiece const& fill,
             Ranges const& mine);
  /// A long text, for example the deck: a dataset /<name>.
  void text(std::string const& name, std::string const& value);
  /// Short texts and numbers: attributes of /<group>; group "/" is the root.
  void text(std::string const& group, std::string const& key, std::string const& value);
  void number(std::string const& group, std::string const& key, std::int64_t value);
  void number(std::string const& group, std::string const& key, double value);
  /// Collective.
  void close();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

class CheckpointReader {
 public:
  /// Checks format, version and the checksum of the whole file (io/seal.hpp), if it has one. Throws
  /// core::InputError for anything but a readable checkpoint.
  explicit CheckpointReader(std::string const& path);
  /// Collective, with the same errors on all ranks: each reads its part of the file to check it, and of the
  /// arrays that go through TakePiece, and all get the whole. The other functions read on each rank for
  /// itself. `ranks` must outlive the reader.
  CheckpointReader(std::string const& path, parallel::Communicator const& ranks);
  ~CheckpointReader();

  std::string const& path() const;
  /// Reads every array once and compares all checksums; throws core::InputError at the first difference.
  void verify() const;

  bool has_group(std::string const& group) const;
  /// Names of the arrays in a group, sorted by bytes; empty when the group is missing.
  std::vector<std::string> names(std::string const& group) const;
  bool has_array(std::string const& group, std::string const& name) const;
  Shape shape(std::string const& group, std::string const& name) const;
  /// Reads into `data`, which holds element_count(shape) elements; throws when the stored shape or type
  /// differs (float32 may be read as double).
  void array(std::string const& group, std::string const& name, Shape const& shape, float* data) const;
  void array(std::string const& group, std::string const& name, Shape const& shape, double* data) const;
  void array(std::string const& group, std::string const& name, Shape const& shape, std::int64_t* data) const;
  /// Collective in a collective reader.
  void array(std::string const& group, std::string const& name, Shape const& shape,
             TakePiece const& take) const;

  bool has_text(std::string const& name) const;
  std::string text(std::string const& name) const;
  bool has(std::string const& group, std::string const& key) const;
  std::vector<std::string> keys(std::string const& group) const;
  std::string text(std::string const& group, std::string const& key) const;
  std::int64_t integer(std::string const& group, std::string const& key) const;
  double real(std::string const& group, std::string const& key) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace strata::io
