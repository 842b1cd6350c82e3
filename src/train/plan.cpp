// SPDX-License-Identifier: Apache-2.0
#include "train/plan.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.hpp"
#include "core/memory.hpp"
#include "data/loader.hpp"
#include "model/device_batch.hpp"
#include "model/hierarchy.hpp"
#include "parallel/deterministic_sum.hpp"
#include "parallel/gradient_sync.hpp"
#include "train/checkpoint.hpp"
#include "train/deck_keys.hpp"
#include "train/gradient_step.hpp"
#include "train/optimizer.hpp"
#include "train/scalars.hpp"
#include "train/shards.hpp"

namespace strata::train {

using model::OuterTapes;

namespace {

/// More kept tapes than any machine has memory for; counting them one by one would take long.
constexpr Index most_kept_tapes = Index{1} << 20;
constexpr double impossible = 1e300;

/// What the program takes beyond what it holds before the model is made: HDF5's pieces of checkpoints and of
/// the dataset, code, and what the C library does not give back. Measured (doc/architecture.md).
constexpr double growth_bytes = 6 << 20;

/// A BLAS copies a panel of up to panel_depth columns of its operand into buffers that it keeps; the
/// measurement of the machine's speed has made it do so for panel_rows rows. OpenBLAS's figures.
constexpr Index panel_depth = 320, panel_rows = 1024;

/// Columns of the widest matrix that a stage's rows are multiplied with.
Index widest(model::ModelConfig const& config, std::size_t stage) {
  model::BlockConfig const& block = config.block[stage];
  Index const width = config.hidden_dims[stage];
  Index const inside = is_mamba(block.block_type)
                           ? 2 * block.expand * width
                           : std::max(block.ff_multiplier * width, block.inner_width());
  return config.is_last(stage) ? std::max(inside, config.num_tokens) : inside;
}

model::Chunking chunking_with(Deck const& deck, OuterTapes policy) {
  model::Chunking result = chunking(deck);
  result.outer_tapes = policy;
  return result;
}

/// Sizes of a deck's run for any length of window.
class Sizes {
 public:
  Sizes(Deck const& deck, DataFacts const& data, OuterTapes policy)
      : deck_(deck),
        data_(data),
        policy_(policy),
        hierarchy_(model::Hierarchy<float>::plan(deck.params, chunking_with(deck, policy))) {
    hierarchy_.parameters().lay_out();
  }

  model::Hierarchy<float> const& hierarchy() const { return hierarchy_; }
  Index windows() const { return deck_.train.deterministic ? 1 : deck_.train.batch_size; }
  Index train_window(Index length) const { return std::min(length, data_.train_bytes); }
  Index validation_window(Index length) const { return std::min(length, data_.validation_bytes); }
  Index validation_windows() const {
    return deck_.train.eval_batch_size > 0 ? deck_.train.eval_batch_size : deck_.train.batch_size;
  }

  double training_arena(Index length) const {
    Index const window = train_window(length);
    if (policy_ == OuterTapes::keep && hierarchy_.outer_chunks(windows(), window) > most_kept_tapes)
      return impossible;
    return static_cast<double>(hierarchy_.arena_bytes(windows(), window, true));
  }

  /// The last batch may hold any number of windows; of many only some are looked at.
  double evaluation_arena(Index length, Index* worst = nullptr) const {
    if (data_.validation_bytes == 0) return 0;
    Index const window = validation_window(length);
    double largest = 0;
    for (Index w = validation_windows(); w >= 1; w -= 1 + w / 32) {
      auto const bytes = static_cast<double>(hierarchy_.arena_bytes(w, window, false));
      if (bytes > largest && worst != nullptr) *worst = w;
      largest = std::max(largest, bytes);
    }
    return largest;
  }

  /// Rows that each stage works on at once: of a time chunk, or of a chunk of the sequences below so many
  /// rows.
  std::vector<Index> chunk_rows(Index length) const {
    Index const window = train_window(length);
    std::vector<Index> rows = {windows() * hierarchy_.outer_chunk(windows(), window)};
    for (std::size_t s = 1; s < deck_.params.stages(); ++s) {
      Index const sequence = deck_.params.rows(s, deck_.params.seq_lens[s]);
      Index const chunk = hierarchy_.inner_chunk_rows(s, windows(), window);
      rows.push_back(rows.back() < chunk / sequence ? rows.back() * sequence : chunk);
    }
    return rows;
  }

  /// Everything but the arena.
  std::vector<MemoryUse> buffers(Index length) const {
    std::vector<MemoryUse> uses;
    auto const add = [&](char const* what, double bytes, bool on_host = false) {
      if (bytes > 0) uses.push_back({what, bytes, on_host});
    };
    Index const flat = hierarchy_.parameters().flat_size();
    auto const floats = 4.0 * static_cast<double>(flat);
    add("parameters", floats);
    add("gradients", floats);
    bool const shared = deck_.train.shard_optimizer && data_.ranks > 1;
    double const moments =
        4.0 * static_cast<double>(largest_shard(hierarchy_.parameters(), shared ? data_.ranks : 1));
    add("optimiser: first moments", moments);
    add("optimiser: second moments", moments);
    double const norm = 8.0 * static_cast<double>(Optimizer::norm_blocks(hierarchy_.parameters()));
    add("optimiser: partial sums of the norm", norm);
    if (shared) add("optimiser: partial sums of the norm, for messages", norm, true);
    Index const batch = deck_.train.batch_size;
    Index const global = data_.ranks * batch * deck_.train.gradient_accumulate_every;
    if (deck_.train.deterministic) {
      // The number of ranks is checked where the sum is made.
      add("sums in fixed order",
          static_cast<double>(parallel::DeterministicSum<float>::buffer_bytes(flat, global, data_.ranks)));
    }
    if (!deck_.train.deterministic || shared)
      add("messages between ranks",
          static_cast<double>(
              parallel::GradientSync<float>::buffer_bytes(flat, data_.ranks, sync_settings(deck_.train))),
          parallel::through_host);
    Index const window = train_window(length);
    auto const device_batch = [](Index windows, Index of, bool wide, bool weights) {
      return static_cast<double>(model::DeviceBatch::memory_bytes(windows, of, wide, weights));
    };
    add("windows on the device", device_batch(windows(), window, data_.wide, data_.train_weights));
    add("windows read ahead: training",
        static_cast<double>(data::BatchMemory{batch, window, data_.wide, data_.train_weights}.loader_bytes()),
        true);
    if (data_.validation_bytes > 0) {
      Index const of = validation_window(length);
      add("windows on the device: validation",
          device_batch(validation_windows(), of, data_.wide, data_.validation_weights));
      add("windows read ahead: validation",
          static_cast<double>(
              data::BatchMemory{validation_windows(), of, data_.wide, data_.validation_weights}
                  .loader_bytes()),
          true);
    }
    double panel = 0;
    std::vector<Index> const rows = chunk_rows(length);
    for (std::size_t s = 0; s < rows.size(); ++s) {
      Index const columns = std::min(panel_depth, widest(deck_.params, s));
      panel = std::max(panel, static_cast<double>(std::max<Index>(rows[s] - panel_rows, 0) * columns));
    }
    add("BLAS: packed panels", sizeof(float) * panel, true);
    return uses;
  }

  double total(Index length) const {
    MemoryPlan plan;
    plan.uses = buffers(length);
    return plan.total() + std::max(training_arena(length), evaluation_arena(length));
  }

  MemoryPlan plan() const {
    Index const length = deck_.input_seq_len;
    MemoryPlan plan;
    plan.chunking = chunking_with(deck_, policy_);
    plan.is_automatic = !deck_.train.outer_tapes;
    plan.outer_chunk = hierarchy_.outer_chunk(windows(), train_window(length));
    plan.outer_chunks = hierarchy_.outer_chunks(windows(), train_window(length));
    plan.inner_rows = chunk_rows(length);
    plan.inner_rows.erase(plan.inner_rows.begin());
    Index worst = validation_windows();
    plan.training_arena = training_arena(length);
    plan.evaluation_arena = evaluation_arena(length, &worst);
    plan.evaluation_is_larger = plan.evaluation_arena > plan.training_arena;
    plan.uses = buffers(length);
    if (plan.training_arena >= impossible) {
      plan.uses.push_back({"stage 1: tapes", plan.training_arena, false});
      return plan;
    }
    auto const arena = plan.evaluation_is_larger
                           ? hierarchy_.arena_uses(worst, validation_window(length), false)
                           : hierarchy_.arena_uses(windows(), train_window(length), true);
    std::size_t const first = plan.uses.size();
    for (auto const& use : arena) {
      if (use.bytes == 0) continue;
      auto const same = std::find_if(plan.uses.begin() + static_cast<std::ptrdiff_t>(first), plan.uses.end(),
                                     [&](MemoryUse const& u) { return u.what == use.purpose; });
      if (same == plan.uses.end()) {
        plan.uses.push_back({use.purpose, static_cast<double>(use.bytes), false});
      } else {
        same->bytes += static_cast<double>(use.bytes);
      }
    }
    return plan;
  }

 private:
  Deck const& deck_;
  DataFacts const& data_;
  OuterTapes policy_;
  model::Hierarchy<float> hierarchy_;
};

}  // namespace

DataFacts data_facts(io::DatasetFile const& file, Index ranks) {
  DataFacts facts;
  facts.train_bytes = file.info(io::Split::train).size;
  facts.validation_bytes = file.info(io::Split::validation).size;
  facts.wide = file.wide();
  facts.train_weights = file.info(io::Split::train).weights;
  facts.validation_weights = file.info(io::Split::validation).weights;
  facts.ranks = ranks;
  return facts;
}

namespace {

MemoryLimit limit_of(Deck const& deck, int sharing) {
  MemoryLimit limit;
  // A GPU's free memory is already without what its runtime took.
  if (!kernels::on_device) limit.base = static_cast<double>(core::resident_bytes()) + growth_bytes;
  limit.is_given = deck.train.memory.has_value();
  if (limit.is_given) {
    limit.bytes = static_cast<double>(deck.train.memory->bytes);
  } else {
    double const held = kernels::on_device ? 0 : static_cast<double>(core::resident_bytes());
    limit.bytes = held + static_cast<double>(core::free_device_bytes()) / sharing;
  }
  return limit;
}

}  // namespace

MemoryLimit memory_limit(Deck const& deck) { return limit_of(deck, 1); }

MemoryLimit memory_limit(Deck const& deck, parallel::Communicator const& ranks) {
  MemoryLimit limit = limit_of(deck, kernels::on_device ? 1 : ranks.size_on_node());
  limit.base = ranks.max(limit.base);
  limit.bytes = ranks.min(limit.bytes);
  return limit;
}

double MemoryPlan::total() const {
  double sum = 0;
  for (MemoryUse const& use : uses)
    if (!kernels::on_device || !use.on_host) sum += use.bytes;
  return sum;
}

MemoryPlan plan_with(Deck const& deck, DataFacts const& data, OuterTapes policy) {
  return Sizes(deck, data, policy).plan();
}

MemoryPlan make_plan(Deck const& deck, DataFacts const& data, MemoryLimit const& limit) {
  if (deck.train.outer_tapes) return plan_with(deck, data, *deck.train.outer_tapes);
  std::vector<std::pair<OuterTapes, double>> passed_over;
  std::optional<MemoryPlan> least;
  for (OuterTapes const policy : {OuterTapes::keep, OuterTapes::rebuild, OuterTapes::two_level}) {
    MemoryPlan plan = plan_with(deck, data, policy);
    double const total = plan.total();
    if (limit.fits(total)) {
      plan.passed_over = std::move(passed_over);
      return plan;
    }
    passed_over.emplace_back(policy, limit.peak(total));
    if (!least || total < least->total()) least = std::move(plan);
  }
  return *least;
}

Index longest_context(Deck const& deck, DataFacts const& data, OuterTapes policy, MemoryLimit const& limit,
                      Index most) {
  Sizes const sizes(deck, data, policy);
  Index const position = deck.params.bytes_per_position(0);
  most = std::min(most, static_cast<Index>(largest_size)) / position;
  if (deck.params.block[0].pos_emb_type == model::Position::fixed)
    most = std::min(most, deck.params.seq_lens[0]);
  most = std::max<Index>(most, 1);
  auto const total = [&](Index positions) { return sizes.total(positions * position); };

  double low_bytes = total(1);
  if (!limit.fits(low_bytes)) return 0;
  Index low = 1, high = 0;  // low fits, high does not
  double high_bytes = 0;
  while (high == 0) {
    if (low == most) return most * position;
    Index const next = std::min(most, 2 * low);
    double const bytes = total(next);
    (limit.fits(bytes) ? low : high) = next;
    (limit.fits(bytes) ? low_bytes : high_bytes) = bytes;
  }
  // Memory is nearly linear in the length, so interpolation needs few measurements; a bisection follows where
  // it gained little.
  double const room = (limit.bytes - limit.base) / (1 + MemoryLimit::margin);
  bool bisect = false;
  while (high - low > 1) {
    Index const gap = high - low;
    Index next = low + gap / 2;
    if (!bisect && high_bytes < impossible)
      next =
          low + static_cast<Index>((room - low_bytes) / (high_bytes - low_bytes) * static_cast<double>(gap));
    next = std::clamp(next, low + 1, high - 1);
    double const bytes = total(next);
    (limit.fits(bytes) ? low : high) = next;
    (limit.fits(bytes) ? low_bytes : high_bytes) = bytes;
    bisect = high - low > gap / 2;
  }
  return low * position;
}

char const* name_of(OuterTapes policy) {
  for (auto const& choice : outer_tapes())
    if (choice.value == policy) return choice.name;
  return "";
}

std::string describe(MemoryPlan const& plan, MemoryLimit const& limit) {
  std::string policy = plan.is_automatic ? fmt::format("{} (auto", name_of(plan.chunking.outer_tapes))
                                         : std::string(name_of(plan.chunking.outer_tapes));
  for (auto const& [other, peak] : plan.passed_over)
    policy += fmt::format("; {} would take {}", name_of(other),
                          peak < impossible ? size_text(peak) : "more than any machine has");
  if (plan.is_automatic) policy += ')';
  return fmt::format(
      "memory: {} predicted, {} of them for the program, {} {}; outer_tapes {}, {} time chunk{} of {} "
      "positions{}{}",
      size_text(limit.peak(plan.total())), size_text(limit.base), size_text(limit.bytes),
      limit.is_given ? "allowed" : "available", policy, plan.outer_chunks, plan.outer_chunks == 1 ? "" : "s",
      plan.outer_chunk, plan.inner_rows.empty() ? "" : ", inner chunks of ",
      plan.inner_rows.empty() ? "" : fmt::format("{} rows", fmt::join(plan.inner_rows, " and ")));
}

}  // namespace strata::train
