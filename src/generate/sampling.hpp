// SPDX-License-Identifier: Apache-2.0
#pragma once
// From logits to a token.

#include <cstdint>
#include <span>

#include "kernels/common/types.hpp"

namespace strata::generate {

using kernels::Index;

struct Sampling {
  double temperature = 1;  ///< divides the logits; 0: the most likely token (the lowest id among equals)
  Index top_k = 0;         ///< keep the k most likely tokens; 0: all
  double top_p = 1;        ///< keep the fewest most likely tokens whose probabilities add up to at least p
  std::uint64_t seed = 1;

  /// Throws core::InputError naming the option whose value cannot be used.
  void validate() const;
};

/// One token drawn from softmax(logits / temperature) over the kept tokens; only the first `allowed` ids take
/// part (256 for a model that is to produce bytes). The random number is a function of (seed, sample,
/// position) only.
std::int32_t sample(Sampling const& settings, std::span<float const> logits, Index allowed,
                    std::uint64_t number, std::uint64_t position);

}  // namespace strata::generate
