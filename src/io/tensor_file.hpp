// SPDX-License-Identifier: Apache-2.0
#pragma once
// Files of named tensors that other programs write: safetensors (io/safetensors.hpp) and torch.save
// (io/torch_file.hpp). In both, the elements of a tensor lie in the file as they are, so one description
// serves both, and reading takes no more memory than a piece of a tensor.

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/hdf5.hpp"
#include "io/input_file.hpp"

namespace strata::io {

/// Types of elements that such files name. Only those with a fraction are read; the others are known so that
/// a file that also holds counters is no damaged file.
enum class StoredType {
  float16,
  bfloat16,
  float32,
  float64,
  boolean,
  uint8,
  int8,
  uint16,
  int16,
  uint32,
  int32,
  uint64,
  int64
};
char const* to_string(StoredType type);
std::uint64_t element_size(StoredType type);
bool is_real(StoredType type);

struct StoredTensor {
  std::string name;
  StoredType type = StoredType::float32;
  Shape shape;
  Shape strides;             ///< in elements; of each dimension
  std::uint64_t offset = 0;  ///< byte of the file that the first element begins at

  /// Number of elements; the readers have made sure that it fits.
  Index size() const;
  bool is_contiguous() const;
};

struct TensorFile {
  InputFile file;
  std::vector<StoredTensor> tensors;
  std::map<std::string, std::string> metadata;  ///< texts beside the tensors; safetensors only
  std::vector<std::string> others;              ///< names of entries that are no tensors; torch only
};

/// Opens a file of either kind, whatever its name, and checks that every tensor lies inside it. Throws
/// core::InputError.
TensorFile open_tensor_file(std::string const& path);

/// Whether a file looks like one of them, by its first bytes or its name; a missing file, by its name.
bool looks_like_tensor_file(std::string const& path);

/// Row-major elements of a tensor as float32, piece by piece.
class TensorReader {
 public:
  /// The tensor must be real; both must outlive the reader.
  TensorReader(InputFile const& file, StoredTensor const& tensor);
  /// Elements [first, first + out.size()). float32 keeps its bits, the other types are rounded to the nearest
  /// float32. Throws core::InputError for a float64 that is beyond float32's range.
  void read(Index first, std::span<float> out);

 private:
  void convert(char const* from, std::span<float> out) const;
  void read_strided(Index first, std::span<float> out);

  InputFile const& file_;
  StoredTensor const& tensor_;
  std::string buffer_;  // a piece, or what a tensor with gaps spans in the file
};

/// Number of elements between the first and the last one that strides reach, both included; nothing when
/// that does not fit 62 bits, or when a size or stride is negative. 0 for an empty tensor.
std::optional<std::uint64_t> reach(Shape const& shape, Shape const& strides);
/// The strides of row-major storage.
Shape row_major(Shape const& shape);
/// "[2, 3]".
std::string shape_text(Shape const& shape);

}  // namespace strata::io
