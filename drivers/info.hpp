// SPDX-License-Identifier: Apache-2.0
#pragma once
// The parts of `strata info`: what a file holds, as JSON; and JSON as text for people.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

/// A deck: parameters by part, FLOPs per byte, planned memory and the longest context that fits in it.
/// memory: bytes to plan with instead of those of train.memory or of this machine. Throws core::InputError.
nlohmann::ordered_json describe_deck(std::string const& path, std::vector<std::string> const& overrides,
                                     std::optional<std::int64_t> memory = {});

/// Which earlier bytes each predicted byte of a deck's stages sees, by changing one byte at a time on random
/// weights. Throws core::InputError for a deck, and when a prediction sees a later byte or, with head
/// `complete`, misses an earlier one.
nlohmann::ordered_json describe_dependencies(std::string const& path,
                                             std::vector<std::string> const& overrides);

/// True for a file that starts like an HDF5 file.
bool is_hdf5(std::string const& path);

/// A dataset or a checkpoint. Throws core::InputError.
nlohmann::ordered_json describe_hdf5(std::string const& path);

/// One line per value, nested objects and lists indented, large numbers in groups of three digits. Whole
/// numbers under a key that ends in _bytes are sizes, as are those below it: 1.23 GB (1 234 567 890).
std::string as_text(nlohmann::ordered_json const& value, int indent = 0, bool sizes = false);
