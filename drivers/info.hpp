// SPDX-License-Identifier: Apache-2.0
#pragma once
// The parts of `strata info`: what a file holds, as JSON; and JSON as text for people.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

/// A deck: parameters by part, FLOPs per byte, predicted memory. Throws core::InputError.
nlohmann::ordered_json describe_deck(std::string const& path, std::vector<std::string> const& overrides);

/// Which earlier bytes each predicted byte of a deck's stages sees, by changing one byte at a time on random
/// weights. Throws core::InputError for a deck, and when a prediction sees a later byte or, with head
/// `complete`, misses an earlier one.
nlohmann::ordered_json describe_dependencies(std::string const& path,
                                             std::vector<std::string> const& overrides);

/// True for a file that starts like an HDF5 file.
bool is_hdf5(std::string const& path);

/// A dataset or a checkpoint. Throws core::InputError.
nlohmann::ordered_json describe_hdf5(std::string const& path);

/// One line per value, nested objects and lists indented, large numbers in groups of three digits.
std::string as_text(nlohmann::ordered_json const& value, int indent = 0);
