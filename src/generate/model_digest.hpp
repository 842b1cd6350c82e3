// SPDX-License-Identifier: Apache-2.0
#pragma once
// Whether two models are the same: what a saved state or a compressed file was made with.

#include <string>

#include "model/hierarchy.hpp"

namespace strata::generate {

/// SHA-256, 64 hexadecimal digits, of everything that decides a prediction: the configuration without its
/// dropout, and names, shapes and values of all parameters.
std::string model_digest(model::Hierarchy<float> const& model);

}  // namespace strata::generate
