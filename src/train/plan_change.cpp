// SPDX-License-Identifier: Apache-2.0
// What to change in a deck that takes too much memory.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.hpp"
#include "train/plan.hpp"
#include "train/scalars.hpp"

namespace strata::train {

using model::OuterTapes;

namespace {

/// Chunks are not made smaller than so many rows: matrix products would slow down too much.
constexpr Index least_rows = 64;

constexpr OuterTapes policies[] = {OuterTapes::keep, OuterTapes::rebuild, OuterTapes::two_level};

/// The ways to try: the deck's own, and those that take less.
std::vector<std::optional<OuterTapes>> milder(std::optional<OuterTapes> own) {
  std::vector<std::optional<OuterTapes>> result = {own};
  for (OuterTapes const policy : policies)
    if (own && policy > *own) result.emplace_back(policy);
  return result;
}

/// The deck with fewer rows in its inner chunks, in its time chunks or both: halved so many times, until
/// nothing more can be halved.
struct Halved {
  bool inner, outer;
  std::optional<Deck> operator()(Deck const& deck, MemoryPlan const& plan, int times) const {
    Deck result = deck;
    Index const rows = plan.inner_rows.empty()
                           ? 0
                           : *std::max_element(plan.inner_rows.begin(), plan.inner_rows.end()) >> times;
    Index const positions = plan.outer_chunk >> times;
    bool any = false;
    if (inner && rows >= least_rows) {
      result.train.inner_rows = rows;
      any = true;
    }
    if (outer && positions * deck.train.batch_size >= least_rows) {
      result.train.outer_chunk = positions;
      any = true;
    }
    if (!any) return {};
    // What can be halved no further stays at its least.
    if (inner && rows < least_rows && !plan.inner_rows.empty()) result.train.inner_rows = least_rows;
    return result;
  }
};

Deck with_single_windows(Deck const& deck) {
  Deck result = deck;
  result.train.gradient_accumulate_every *= result.train.batch_size;
  result.train.batch_size = 1;
  if (result.train.eval_batch_size > 1) result.train.eval_batch_size = 1;
  return result;
}

class Search {
 public:
  Search(DataFacts const& data, MemoryLimit const& limit) : data_(data), limit_(limit) {}

  bool fits(Deck const& deck) const { return limit_.fits(make_plan(deck, data_, limit_).total()); }

  /// The mildest change of policy and chunks.
  std::optional<Deck> of_chunks(Deck const& deck) const {
    for (auto const policy : milder(deck.train.outer_tapes)) {
      Deck changed = deck;
      changed.train.outer_tapes = policy;
      if (fits(changed)) return changed;
    }
    for (Halved const halved : {Halved{true, false}, Halved{false, true}, Halved{true, true}}) {
      for (auto const policy : milder(deck.train.outer_tapes)) {
        if (halved.outer && policy == OuterTapes::keep) continue;  // what is kept does not depend on chunks
        Deck changed = deck;
        changed.train.outer_tapes = policy;
        MemoryPlan const plan = make_plan(changed, data_, limit_);
        for (int times = 1;; ++times) {
          auto candidate = halved(changed, plan, times);
          if (!candidate) break;
          if (fits(*candidate)) return candidate;
        }
      }
    }
    return {};
  }

  /// The longest window of a deck under its own policy, or under the best.
  std::optional<Deck> of_length(Deck const& deck) const {
    Index longest = 0;
    for (OuterTapes const policy : policies)
      if (deck.train.outer_tapes.value_or(policy) == policy)
        longest = std::max(longest, longest_context(deck, data_, policy, limit_, deck.input_seq_len));
    if (longest == 0) return {};
    Deck changed = deck;
    changed.input_seq_len = std::min(longest, deck.input_seq_len);
    return changed;
  }

 private:
  DataFacts const& data_;
  MemoryLimit const& limit_;
};

std::vector<std::string> overrides(Deck const& before, Deck const& after) {
  std::vector<std::string> result;
  auto const note = [&](char const* key, Index from, Index to) {
    if (from != to) result.push_back(fmt::format("{}={}", key, to));
  };
  TrainConfig const& a = before.train;
  TrainConfig const& b = after.train;
  note("params.input_seq_len", before.input_seq_len, after.input_seq_len);
  if (a.outer_tapes != b.outer_tapes)
    result.push_back(fmt::format("train.outer_tapes={}", name_of(b.outer_tapes.value_or(OuterTapes::keep))));
  note("train.inner_rows", a.inner_rows, b.inner_rows);
  note("train.outer_chunk", a.outer_chunk, b.outer_chunk);
  note("train.batch_size", a.batch_size, b.batch_size);
  note("train.gradient_accumulate_every", a.gradient_accumulate_every, b.gradient_accumulate_every);
  note("train.eval_batch_size", a.eval_batch_size, b.eval_batch_size);
  return result;
}

}  // namespace

std::vector<std::string> nearest_change(Deck const& deck, DataFacts const& data, MemoryLimit const& limit) {
  Search const search(data, limit);
  if (auto const found = search.of_chunks(deck)) return overrides(deck, *found);
  Deck const single = with_single_windows(deck);
  if (auto const found = search.of_chunks(single)) return overrides(deck, *found);
  Deck frugal = single;
  if (deck.train.outer_tapes) frugal.train.outer_tapes = OuterTapes::two_level;
  frugal.train.inner_rows = least_rows;
  frugal.train.outer_chunk = least_rows;
  // Few changes are better than many, unless the window would become much shorter.
  std::optional<Deck> best;
  for (Deck const& from : {deck, single, frugal}) {
    auto const found = search.of_length(from);
    if (found && (!best || found->input_seq_len > 2 * best->input_seq_len)) best = found;
  }
  return best ? overrides(deck, *best) : std::vector<std::string>();
}

double smallest_memory(Deck const& deck, DataFacts const& data, MemoryLimit const& limit) {
  double const least = limit.base + (1 + MemoryLimit::margin) * make_plan(deck, data, limit).total();
  double const unit = std::pow(10.0, std::floor(std::log10(least)) - 2);
  return (std::floor(least / unit) + 1) * unit;
}

std::string refusal(Deck const& deck, DataFacts const& data, MemoryLimit const& limit) {
  MemoryPlan const plan = make_plan(deck, data, limit);
  double const peak = limit.peak(plan.total());
  std::string const text = fmt::format(
      "this run would take {} of memory ({:.0f} bytes predicted, and {:.0f} % of them as a margin), but {} "
      "({:.0f} "
      "bytes) are {}; ",
      size_text(peak), peak, 100 * MemoryLimit::margin, size_text(limit.bytes), limit.bytes,
      limit.is_given ? "allowed by train.memory"
                     : (data.ranks > 1 ? "available to each rank" : "available on this machine"));
  std::vector<std::string> const change = nearest_change(deck, data, limit);
  if (!change.empty()) return text + fmt::format("it would fit with {}", fmt::join(change, " "));
  return text +
         fmt::format("not even a window of {} bytes fits, and the deck as it is needs train.memory={:.0f}",
                     deck.params.bytes_per_position(0), smallest_memory(deck, data, limit));
}

MemoryPlan checked_plan(Deck const& deck, DataFacts const& data, MemoryLimit const& limit) {
  MemoryPlan plan = make_plan(deck, data, limit);
  if (!limit.fits(plan.total())) throw core::InputError(refusal(deck, data, limit));
  return plan;
}

}  // namespace strata::train
