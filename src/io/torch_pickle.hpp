// SPDX-License-Identifier: Apache-2.0
#pragma once
// The pickle inside a file of torch.save, without running anything: a machine that knows the opcodes and the
// few names that a dictionary of tensors is made of (the Python package's own list for "weights only"
// loading, cut down to tensors). Whatever else a pickle asks for is refused by name, at the place where it is
// named. Opcodes: Python's Lib/pickletools.py.

#include <cstdint>
#include <string>
#include <vector>

#include "io/tensor_file.hpp"

namespace strata::io {

/// A tensor as the pickle describes it: a view of a storage that lies in an entry of the archive.
struct PickledTensor {
  std::string name;
  StoredType type = StoredType::float32;
  Shape shape;
  Shape strides;            ///< in elements
  std::uint64_t first = 0;  ///< element of the storage
  std::string storage;      ///< key: entry <folder>/data/<key>
  std::uint64_t storage_elements = 0;
};

struct PickledState {
  std::vector<PickledTensor> tensors;  ///< in the order of the dictionary
  std::vector<std::string> others;     ///< names of values that are no tensors
};

/// Reads the state dict: the dictionary itself, or what it holds under MODEL, model_state_dict, state_dict or
/// model. `where` begins every message. Throws core::InputError.
PickledState read_torch_pickle(std::string const& bytes, std::string const& where);

}  // namespace strata::io
