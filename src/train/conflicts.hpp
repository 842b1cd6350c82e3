// SPDX-License-Identifier: Apache-2.0
#pragma once
// Where two decks differ, key by key.

#include <optional>
#include <string>
#include <vector>

namespace strata::train {

/// A key whose values differ, as YAML; "absent" where a deck does not have it.
struct Difference {
  std::string key, before, now;
};

/// Both decks as Deck::text writes them; in the order of the keys' names.
std::vector<Difference> differing_keys(std::string const& before, std::string const& now);

/// The first key whose change would make another run out of `stored` (both decks as Deck::text writes them):
/// a sentence with its two values. Nothing when the run may go on; batch_size and gradient_accumulate_every
/// are left to the caller, who knows the number of ranks.
std::optional<std::string> conflicting_key(std::string const& stored, std::string const& wanted);

}  // namespace strata::train
