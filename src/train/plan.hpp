// SPDX-License-Identifier: Apache-2.0
#pragma once
// What a training run takes of memory, before it takes any. The sizes are those of the code that allocates:
// arenas are measured by the steps themselves (Hierarchy::arena_bytes), buffers by the classes that own them.

#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/dataset_file.hpp"
#include "model/chunking.hpp"
#include "parallel/communicator.hpp"
#include "train/deck.hpp"

namespace strata::train {

/// What sizes depend on besides the deck. The defaults are what is assumed without a dataset: bytes without
/// weights, in splits longer than any window, on one rank.
struct DataFacts {
  static constexpr Index endless = std::numeric_limits<Index>::max();
  Index train_bytes = endless;
  Index validation_bytes = endless;  ///< 0: nothing to validate on
  bool wide = false;                 ///< 16-bit tokens
  bool train_weights = false;
  bool validation_weights = false;
  Index ranks = 1;
};
DataFacts data_facts(io::DatasetFile const& file, Index ranks);

/// Memory that a rank may have in use at once, and what of it the program itself takes: libraries, their
/// buffers and code, whatever the model. Both count main memory, or on a GPU its memory.
struct MemoryLimit {
  /// Kept free of what is planned, as a fraction of it: no prediction is off by more.
  static constexpr double margin = 0.05;

  double bytes = std::numeric_limits<double>::infinity();
  double base = 0;
  bool is_given = false;  ///< train.memory or --memory; otherwise what the machine has

  /// What a run peaks at that plans so many bytes, and whether that fits with the margin.
  double peak(double planned) const { return base + planned; }
  bool fits(double planned) const { return base + (1 + margin) * planned <= bytes; }
};

/// The limit for a single rank: train.memory, or else what this machine has free, on a GPU what that has.
MemoryLimit memory_limit(Deck const& deck);
/// For each of many: what a node has free is shared out to its ranks. Collective; the same on all ranks.
MemoryLimit memory_limit(Deck const& deck, parallel::Communicator const& ranks);

struct MemoryUse {
  std::string what;
  double bytes = 0;
  bool on_host = false;  ///< main memory also where the model lives on a GPU
};

struct MemoryPlan {
  model::Chunking chunking;  ///< with the policy that the run will follow
  bool is_automatic = false;
  /// Policies that `auto` passed over, and the peak memory each would have taken.
  std::vector<std::pair<model::OuterTapes, double>> passed_over;
  Index outer_chunk = 0, outer_chunks = 0;  ///< positions in a time chunk, and chunks
  std::vector<Index> inner_rows;            ///< rows in a chunk of stages 2, 3, ...
  bool evaluation_is_larger = false;        ///< the arena's uses below are those of evaluation
  double training_arena = 0, evaluation_arena = 0;
  std::vector<MemoryUse> uses;

  /// What the limit applies to: all uses, on a GPU those on it.
  double total() const;
};

/// The plan of a run. `auto` follows the first of keep, rebuild and two_level that fits; if none does, the
/// one that takes least. Throws core::InputError when the model does not work.
MemoryPlan make_plan(Deck const& deck, DataFacts const& data, MemoryLimit const& limit);

/// As make_plan, for one policy whatever the deck says.
MemoryPlan plan_with(Deck const& deck, DataFacts const& data, model::OuterTapes policy);

/// The longest input_seq_len that fits under a policy, in whole positions of the outermost stage, at most
/// `most`, 2^40 and what fixed positions allow; 0 when not even one position fits.
Index longest_context(Deck const& deck, DataFacts const& data, model::OuterTapes policy,
                      MemoryLimit const& limit, Index most = DataFacts::endless);

/// Overrides (section.key=value) that make a deck fit, the mildest first: another policy, smaller chunks,
/// single windows with more accumulation, and what of them is needed together; if nothing of that helps, the
/// longest window that fits, together with the others where that makes it more than twice as long. Empty when
/// nothing fits.
std::vector<std::string> nearest_change(Deck const& deck, DataFacts const& data, MemoryLimit const& limit);

/// The smallest train.memory that the deck fits in, rounded up to three digits.
double smallest_memory(Deck const& deck, DataFacts const& data, MemoryLimit const& limit);

/// One line for people: what is predicted and available, the policy and why, chunk sizes.
std::string describe(MemoryPlan const& plan, MemoryLimit const& limit);

/// One sentence that refuses a plan which does not fit.
std::string refusal(Deck const& deck, DataFacts const& data, MemoryLimit const& limit);

/// The plan, or core::InputError with the refusal.
MemoryPlan checked_plan(Deck const& deck, DataFacts const& data, MemoryLimit const& limit);

char const* name_of(model::OuterTapes policy);

}  // namespace strata::train
