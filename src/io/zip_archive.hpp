// SPDX-License-Identifier: Apache-2.0
#pragma once
// The directory of a ZIP archive whose entries are stored without compression, as torch.save writes them
// (PKWARE's APPNOTE, sections 4.3 and 4.5.3). Archives above 4 GiB (ZIP64) are read; compressed, encrypted
// and split ones are refused.

#include <cstdint>
#include <string>
#include <vector>

#include "io/input_file.hpp"

namespace strata::io {

struct ZipEntry {
  std::string name;
  std::uint64_t offset = 0;  ///< byte of the file that the content begins at
  std::uint64_t size = 0;
  std::uint32_t crc = 0;
};

/// All entries, in the order of the directory; no two share a name or a byte. Throws core::InputError.
std::vector<ZipEntry> read_zip_directory(InputFile const& file);

/// Compares the content with its CRC-32; throws core::InputError when it differs.
void check_zip_entry(InputFile const& file, ZipEntry const& entry);

}  // namespace strata::io
