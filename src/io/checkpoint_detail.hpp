// SPDX-License-Identifier: Apache-2.0
#pragma once
// Shared by checkpoint_writer.cpp and checkpoint_reader.cpp only: names, pieces and checksums of the arrays.

#include <algorithm>
#include <span>
#include <string>

#include "core/error.hpp"
#include "io/digest.hpp"
#include "io/hdf5.hpp"

namespace strata::io::detail {

/// Fletcher-32 cannot tell 0x0000 from 0xffff, which zeroed or overwritten blocks turn into each other;
/// CRC-32 can.
inline constexpr char const* checksum_name = "crc32";

inline std::string group_path(std::string const& group) {
  return group.empty() || group.front() == '/' ? (group.empty() ? "/" : group) : "/" + group;
}

inline std::string object_path(std::string const& group, std::string const& name) {
  if (name.empty() || name == "." || name.find('/') != std::string::npos ||
      name.find('\0') != std::string::npos) {
    throw core::InputError("'" + name + "' cannot be the name of an array in a checkpoint");
  }
  std::string const path = group_path(group);
  return path == "/" ? path + name : path + "/" + name;
}

/// Arrays are read and written in pieces of this size, so that none is ever held twice.
inline constexpr Index piece_bytes = Index{1} << 24;

template <class T>
std::uint32_t checksum(std::span<T const> data, std::uint32_t before = 0) {
  return crc32(std::span(reinterpret_cast<std::uint8_t const*>(data.data()), data.size_bytes()), before);
}

/// body(first, count) for the pieces of a dataset.
template <class Body>
void for_pieces(Dataset const& dataset, Body const& body) {
  std::vector<Index> const borders = dataset.pieces(piece_bytes);
  for (std::size_t i = 0; i + 1 < borders.size(); ++i) body(borders[i], borders[i + 1] - borders[i]);
}

inline Index largest_piece(Dataset const& dataset) {
  Index largest = 0;
  for_pieces(dataset, [&](Index, Index count) { largest = std::max(largest, count); });
  return largest;
}

}  // namespace strata::io::detail
