// SPDX-License-Identifier: Apache-2.0
#pragma once
// A checksum of a whole file in a line behind its content. HDF5 ignores what lies behind its own end, so such
// a file is an ordinary HDF5 file; but the check comes before HDF5 looks at a single byte, because the
// library can crash on damaged metadata (seen with 1.10.8: freeing the table of a large group that could not
// be read).

#include <string>

#include "parallel/communicator.hpp"

namespace strata::io {

/// Appends the line. Throws core::InputError when the disk does not take it.
void seal_file(std::string const& path);
/// Collective: each rank reads its part of the file, rank 0 writes.
void seal_file(std::string const& path, parallel::Communicator const& ranks);

/// True when the file carries the line and its content agrees; false when there is no such line. Throws
/// core::InputError when the content differs, or when the file cannot be read.
bool check_seal(std::string const& path);
/// Collective: each rank reads its part of the file.
bool check_seal(std::string const& path, parallel::Communicator const& ranks);

}  // namespace strata::io
