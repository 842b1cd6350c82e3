// SPDX-License-Identifier: Apache-2.0
#pragma once
// Safetensors (format of the Hugging Face library of that name): 8 bytes with the length of a JSON header,
// little-endian; the header, {"name": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__":
// {texts}}; then the elements, row-major and little-endian, without gaps.

#include <fstream>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "io/atomic_file.hpp"
#include "io/tensor_file.hpp"

namespace strata::io {

/// Reads the header and checks it: known types, sizes that agree, no two tensors in one place, no gaps.
/// Throws core::InputError with the file and the tensor.
TensorFile read_safetensors(InputFile file);

/// Writes float32 tensors beside the final name; close() moves the file into place.
class SafetensorsWriter {
 public:
  struct Tensor {
    std::string name;
    Shape shape;
  };
  /// Throws core::InputError as AtomicFile does.
  SafetensorsWriter(std::string const& path, bool overwrite, std::vector<Tensor> const& tensors,
                    std::map<std::string, std::string> const& metadata);
  /// The next elements, in the order of the tensors.
  void append(std::span<float const> values);
  /// Throws core::InputError when the disk did not take everything.
  void close();

 private:
  void check();

  AtomicFile file_;
  std::ofstream out_;
  std::uint64_t missing_ = 0;  // bytes that are yet to come
};

}  // namespace strata::io
