// SPDX-License-Identifier: Apache-2.0
#pragma once
// Lossless compression: an arithmetic coder driven by the model's predictions. The content is cut into
// windows of equal length, in each of which the model starts anew, as `strata eval` does. Decoding needs the
// same predictions bit for bit, so the same machine and build; on a host the number of lanes, threads and
// ranks does not matter.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "generate/lane_reader.hpp"
#include "io/compressed_file.hpp"

namespace strata::generate {

/// A stream ends with the window in which it reaches this size; what it adds to the file, some five bytes, is
/// then little beside it. Each stream can be decoded by itself.
constexpr std::size_t stream_size = 4096;

struct CodingSettings {
  Index window = 0;  ///< bytes; 0: the model's context
  Index lanes = 0;  ///< windows, or streams, at a time on a rank; 0, or more: as many as the generator allows
};

/// Called by all ranks with the same content; rank 0 gets the streams (others the rest of the file), and
/// nobody gets anything when it was stopped. The file does not depend on the number of ranks. `digest` is the
/// model's. Throws core::InputError when the model does not know all bytes, looks ahead, or has no room for
/// the window.
std::optional<io::CompressedFile> compress(model::Hierarchy<float> const& model, std::string const& digest,
                                           std::span<std::uint8_t const> content,
                                           CodingSettings const& settings,
                                           parallel::Communicator const& ranks, Follow const& follow = {});

/// The content, on all ranks; nothing when it was stopped. `name` is the file's, for messages. Throws
/// core::InputError when the file is of another model, or its content does not come out as it was.
std::optional<std::vector<std::uint8_t>> decompress(model::Hierarchy<float> const& model,
                                                    std::string const& digest, io::CompressedFile const& file,
                                                    std::string const& name, Index lanes,
                                                    parallel::Communicator const& ranks,
                                                    Follow const& follow = {});

}  // namespace strata::generate
