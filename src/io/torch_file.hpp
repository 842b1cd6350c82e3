// SPDX-License-Identifier: Apache-2.0
#pragma once
// Files of torch.save since torch 1.6: a ZIP archive with the entries <folder>/data.pkl (a pickle,
// io/torch_pickle.hpp), <folder>/data/<key> (the storages, raw) and <folder>/byteorder.

#include "io/tensor_file.hpp"

namespace strata::io {

/// The tensors of a state dict; every storage's checksum is compared. Throws core::InputError.
TensorFile read_torch_file(InputFile file);

}  // namespace strata::io
