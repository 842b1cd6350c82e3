// SPDX-License-Identifier: Apache-2.0
#include "generate/generator.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

#include "core/error.hpp"
#include "kernels/common/check.hpp"
#include "kernels/lanes.hpp"
#include "kernels/linear.hpp"

namespace strata::generate {

using kernels::Sequences;
using kernels::StageRows;
using model::Position;

namespace {

/// Calls per stage of an advance by one token: row 0 of a new sequence, and the rows behind it.
constexpr Index most_calls = 3;

void check_token(std::int64_t token, Index vocabulary) {
  if (token < 0 || token >= vocabulary)
    throw core::InputError("token " + std::to_string(token) + " is outside the model's vocabulary of " +
                           std::to_string(vocabulary));
}

}  // namespace

template <class T>
Index Generator<T>::most_lanes() {
  return kernels::independent_rows;
}

template <class T>
Generator<T>::Generator(model::Hierarchy<T> const& model, Index lanes, Index capacity)
    : model_(model), capacity_(capacity > 0 ? capacity : model.config().context()) {
  model::ModelConfig const& config = model.config();
  std::size_t const stages = config.stages();
  STRATA_REQUIRE(lanes > 0, lanes << " lanes");
  for (auto const& block : config.block)
    if (!block.causal())
      throw core::InputError("generation needs causal stages; this model has a bidirectional encoder stage");
  Index const outer = config.bytes_per_position(0);
  if (config.block[0].pos_emb_type == Position::fixed) {
    capacity_ = std::min(capacity_, config.context());
  } else if (model.stages()[0]->block().history_width() == 0) {
    capacity_ = std::numeric_limits<Index>::max();
  }
  Index const positions = model.stages()[0]->block().history_width() == 0
                              ? 1
                              : std::max<Index>(1, (capacity_ + outer - 1) / outer);
  // Two outermost positions, and whole ones that hold what the first byte of the older one looks back to.
  history_ = config.patch_history();
  ring_ = (2 + (history_ + outer - 1) / outer) * outer;
  lanes_.assign(static_cast<std::size_t>(lanes), {0, std::vector<Place>(stages)});
  all_.resize(static_cast<std::size_t>(lanes));
  std::iota(all_.begin(), all_.end(), Index(0));

  auto const lay_out = [&](core::Arena& arena) {
    stages_.clear();
    for (std::size_t s = 0; s < stages; ++s) {
      model::Stage<T> const& stage = *model.stages()[s];
      Index const patches = s == 0 ? positions : config.seq_lens[s];
      StageState state;
      state.carry = stage.block().take_carry(arena, lanes, patches + 1, true);
      if (s > 0) state.context = arena.matrix<T>(lanes, patches * stage.width());
      stages_.push_back(state);
    }
    hidden_ = arena.matrix<T>(lanes, config.hidden_dims.back());
    logits_ = arena.matrix<T>(lanes, config.num_tokens);
  };
  core::Arena measuring = core::Arena::measuring();
  lay_out(measuring);
  memory_ = std::make_unique<core::Arena>(measuring.peak());
  lay_out(*memory_);
  for (StageState const& state : stages_)
    if (state.carry.before > 0) Kokkos::deep_copy(state.carry.history, T(0));
  host_logits_ = Kokkos::create_mirror_view(Kokkos::HostSpace(), logits_);

  tokens_ = Tokens("strata::generator::tokens", lanes, ring_);
  host_tokens_ = Kokkos::create_mirror_view(tokens_);
  for (Index lane = 0; lane < lanes; ++lane) forget_tokens(lane);
  full_ = Numbers("strata::generator::full", lanes);
  Kokkos::deep_copy(full_, ring_);
  numbers_ = Numbers("strata::generator::numbers", 4 * most_calls * static_cast<Index>(stages) * lanes);
  host_numbers_ = Kokkos::create_mirror_view(numbers_);

  core::Arena gathering = core::Arena::measuring();
  gathering.matrix<T>(lanes, config.hidden_dims.back());
  std::size_t scratch = gathering.peak();
  for (std::size_t s = 0; s < stages; ++s)
    for (bool const opens : {true, false})
      scratch = std::max(scratch, row_bytes(s, rows_of({s, 0, lanes, opens, 0})));
  scratch_ = std::make_unique<core::Arena>(scratch);
}

/// How far a stage has to be for the token at `position` to be predicted. Head `complete`: the row of the
/// sub-patch that the token is in, which has read the sub-patches before it. Head `reference`: a stage moves
/// on when the first token of its next sub-patch arrives, the last stage with every token.
template <class T>
typename Generator<T>::Place Generator<T>::needed(std::size_t stage, Index position) const {
  model::ModelConfig const& config = model_.config();
  bool const complete = config.head == model::Head::complete;
  if (position == 0) return {0, 1};
  Index const token = complete ? position : position - 1;
  Index const bytes = config.bytes_per_position(stage);
  Index const sequence = stage == 0 ? 0 : config.seq_lens[stage] * bytes;
  Index const start = stage == 0 ? 0 : token / sequence * sequence;
  return {start, (token - start) / bytes + (!complete && config.is_last(stage) ? 2 : 1)};
}

template <class T>
StageRows Generator<T>::rows_of(Call const& call) const {
  Index const all = numbers_per_kind();
  StageRows r;
  r.shape = {call.count, 1, numbers_.data() + call.first,
             call.opens ? nullptr : numbers_.data() + all + call.first};
  r.first_position = call.opens ? 0 : 1;
  r.patches = stages_[call.stage].carry.capacity - 1;
  r.patch_bytes = model_.config().bytes_per_position(call.stage);
  r.origins = numbers_.data() + 2 * all + call.first;
  return r;
}

/// Bytes of the arena that rows of a stage and what they hand down take.
template <class T>
std::size_t Generator<T>::row_bytes(std::size_t s, StageRows const& r) const {
  model::Stage<T> const& stage = *model_.stages()[s];
  core::Arena arena = core::Arena::measuring();
  stage.take_tape(arena, r, false);
  arena.matrix<T>(r.shape.rows(), stage.width());
  arena.matrix<T>(r.shape.count, stage.projected_width());
  arena.vector<char>(static_cast<Index>(
      std::max(stage.input_scratch(r, false), stage.block().forward_scratch(r.shape, true))));
  return arena.peak();
}

/// Notes one row of a stage in each of these lanes, which takes them one row further.
template <class T>
void Generator<T>::add_call(std::size_t stage, std::span<Index const> which, bool opens) {
  if (which.empty()) return;
  Index const all = numbers_per_kind();
  Index const bytes = model_.config().bytes_per_position(stage);
  Index const first = calls_.empty() ? 0 : calls_.back().first + calls_.back().count;
  Call call{stage, first, static_cast<Index>(which.size()), opens, 0};
  STRATA_REQUIRE(first + call.count <= all, "more rows than one token takes");
  for (Index k = 0; k < call.count; ++k) {
    Index const lane = which[static_cast<std::size_t>(k)];
    Place& place = lanes_[static_cast<std::size_t>(lane)].places[stage];
    Index const row = place.rows++, before = (row - 1) * bytes;
    host_numbers_(first + k) = lane;
    host_numbers_(all + first + k) = row;
    host_numbers_(2 * all + first + k) =
        lane * ring_ + std::max<Index>(0, place.start + before) % ring_ - before;
    host_numbers_(3 * all + first + k) = seen_before(stage, place);
    call.latest = std::max(call.latest, row);
  }
  calls_.push_back(call);
}

/// Runs every row that the predictions of these lanes' next tokens need and that has not run yet.
template <class T>
void Generator<T>::advance(std::span<Index const> which) {
  calls_.clear();
  for (std::size_t s = 0; s < stages_.size(); ++s) {
    pending_.clear();
    for (Index const lane : which) {
      Lane& l = lanes_[static_cast<std::size_t>(lane)];
      Place const need = needed(s, l.position);
      Place& place = l.places[s];
      if (place.rows > 0 && place.start == need.start) continue;
      place = {need.start, 0};
      pending_.push_back(lane);
    }
    for (bool opens = true;; opens = false) {
      if (opens || !pending_.empty()) add_call(s, pending_, opens);
      pending_.clear();
      for (Index const lane : which) {
        Lane const& l = lanes_[static_cast<std::size_t>(lane)];
        if (l.places[s].rows < needed(s, l.position).rows) pending_.push_back(lane);
      }
      if (pending_.empty()) break;
    }
  }
  if (calls_.empty()) return;
  Kokkos::deep_copy(kernels::ExecSpace(), numbers_, host_numbers_);
  for (Call const& call : calls_) run(call);
}

template <class T>
model::Pass<T> Generator<T>::pass(core::Arena& arena) const {
  return {kernels::ExecSpace(), arena, model_.parameters(), {}};
}

/// The outputs (rows, D) of rows of a stage, in `arena`; position: how many rows came before, or the most
/// that came before in any lane; seen_before (r.shape.count): of each sequence.
template <class T>
Mat<T> Generator<T>::forward(core::Arena& arena, std::size_t s, kernels::Tokens const& tokens,
                             StageRows const& r, Index position, Index const* seen_before) {
  model::Stage<T> const& stage = *model_.stages()[s];
  StageState& state = stages_[s];
  Mat<T> const y = arena.matrix<T>(r.shape.rows(), stage.width());
  auto tape = stage.take_tape(arena, r, false);
  if (state.carry.before > 0) tape.block.previous.seen = seen_before;
  Mat<T> const slots =
      s == 0 ? Mat<T>() : kernels::reshape(state.context, lanes() * r.patches, stage.width());
  stage.forward_input(pass(arena), tokens, r, slots, tape);
  state.carry.position = position;
  stage.block().forward(pass(arena), tape.block, state.carry, y);
  return y;
}

template <class T>
void Generator<T>::run(Call const& call) {
  StageRows const r = rows_of(call);
  kernels::Tokens tokens;
  tokens.ids = tokens_.data();
  tokens.lengths = full_.data();
  tokens.windows = lanes();
  tokens.stride = tokens.padded_length = ring_;
  tokens.ring = true;
  core::Arena::Frame const frame(*scratch_);
  if (call.opens)
    model_.stages()[call.stage]->block().next_sequence(pass(*scratch_), r.shape, r.patches,
                                                       stages_[call.stage].carry);
  hand_down(*scratch_, call.stage, r.shape,
            forward(*scratch_, call.stage, tokens, r, call.latest,
                    numbers_.data() + 3 * numbers_per_kind() + call.first));
}

/// y (sequences, D), the newest row of each: to the stage below, or to the logits.
template <class T>
void Generator<T>::hand_down(core::Arena& arena, std::size_t s, Sequences shape, Mat<T> y) {
  kernels::ExecSpace const space;
  if (model_.config().is_last(s)) {
    kernels::scatter_lanes<T>(space, shape, y, hidden_);
    return;
  }
  model::Stage<T> const& stage = *model_.stages()[s];
  core::Arena::Frame const frame(arena);
  Mat<T> const context = arena.matrix<T>(shape.count, stage.projected_width());
  stage.project(pass(arena), y, context);
  kernels::scatter_lanes<T>(space, shape, context, stages_[s + 1].context);
}

template <class T>
std::span<T const> Generator<T>::logits(std::span<Index const> which) {
  Index const count = static_cast<Index>(which.size());
  if (count == 0) return {};
  advance(which);
  kernels::ExecSpace const space;
  model::ParameterStore<T> const& p = model_.parameters();
  core::Arena::Frame const frame(*scratch_);
  Mat<T> const hidden = scratch_->matrix<T>(count, hidden_.extent(1)), out = kernels::rows(logits_, 0, count);
  for (Index k = 0; k < count; ++k) host_numbers_(k) = which[static_cast<std::size_t>(k)];
  Kokkos::deep_copy(space, numbers_, host_numbers_);
  kernels::gather_lanes<T>(space, {count, 1, numbers_.data()}, hidden_, hidden);
  kernels::linear_forward<T>(space, hidden, p.value(model_.logits_weight()), p.vector(model_.logits_bias()),
                             out);
  Kokkos::deep_copy(space, Kokkos::subview(host_logits_, std::pair<Index, Index>(0, count), Kokkos::ALL),
                    out);
  space.fence();
  return {host_logits_.data(), static_cast<std::size_t>(count * static_cast<Index>(logits_.extent(1)))};
}

template <class T>
void Generator<T>::check_room(Index lane, Index tokens) const {
  STRATA_REQUIRE(lane >= 0 && lane < lanes(), "lane " << lane << " of " << lanes());
  if (tokens > capacity_ - position(lane))
    throw core::InputError("the sequence is full: " + std::to_string(capacity_) +
                           " tokens is all that the model's position table, or the length asked for, allows");
}

template <class T>
void Generator<T>::append(std::span<Index const> which, std::span<std::int32_t const> tokens) {
  STRATA_REQUIRE(tokens.size() == which.size(), tokens.size() << " tokens for " << which.size() << " lanes");
  for (std::size_t k = 0; k < which.size(); ++k) {
    check_room(which[k], 1);
    check_token(tokens[k], model_.config().num_tokens);
  }
  advance(which);
  for (std::size_t k = 0; k < which.size(); ++k) {
    Lane& lane = lanes_[static_cast<std::size_t>(which[k])];
    Index const place = lane.position++ % ring_;
    host_tokens_(which[k], place) = static_cast<std::uint16_t>(tokens[k]);
    if constexpr (kernels::on_device)
      Kokkos::deep_copy(Kokkos::subview(tokens_, which[k], place), host_tokens_(which[k], place));
  }
}

template <class T>
void Generator<T>::append(std::vector<std::int32_t> const& tokens) {
  append(std::span<Index const>(all_), std::span<std::int32_t const>(tokens));
}

template <class T>
std::vector<T> Generator<T>::logits() {
  std::span<T const> const all = logits(all_);
  return {all.begin(), all.end()};
}

template <class T>
void Generator<T>::read(Index lane, std::span<std::uint8_t const> bytes) {
  read_tokens(lane, bytes);
}

template <class T>
void Generator<T>::read(Index lane, std::span<std::int32_t const> tokens) {
  read_tokens(lane, tokens);
}

template <class T>
template <class Token>
void Generator<T>::read_tokens(Index number, std::span<Token const> tokens) {
  model::ModelConfig const& config = model_.config();
  Index const count = static_cast<Index>(tokens.size());
  check_room(number, count);
  for (Token const token : tokens) check_token(token, config.num_tokens);
  Index at_once = count;
  if (Index const lead = config.lead(1); lead > 0) {
    Index const before = position(number), exact = needed(1, before + count).start;
    at_once = std::max<Index>(0, exact - lead * config.bytes_per_position(0) - before);
  }
  read_at_once(number, tokens.subspan(0, static_cast<std::size_t>(at_once)));
  for (Token const token : tokens.subspan(static_cast<std::size_t>(at_once))) {
    auto const id = static_cast<std::int32_t>(token);
    append(std::span<Index const>(&number, 1), std::span<std::int32_t const>(&id, 1));
  }
}

/// Each stage runs what its current sequence lacks; sequences that end within these tokens are passed over,
/// since nothing below them will be asked again.
template <class T>
template <class Token>
void Generator<T>::read_at_once(Index number, std::span<Token const> tokens) {
  model::ModelConfig const& config = model_.config();
  Index const count = static_cast<Index>(tokens.size());
  if (count == 0) return;
  Lane& lane = lanes_[static_cast<std::size_t>(number)];
  Index const before = lane.position, after = before + count;

  struct Span {
    std::size_t stage;
    Index first, rows, chunk;
    StageRows shape;  // of its largest chunk
  };
  std::vector<Span> spans;
  std::size_t bytes = 0;
  Index most_tokens = 0;
  for (std::size_t s = 0; s < stages_.size(); ++s) {
    Place const need = needed(s, after);
    Place& place = lane.places[s];
    if (place.start != need.start) place = {need.start, 0};
    Index const rows = need.rows - place.rows;
    if (rows == 0) continue;
    Index const whole = s == 0 ? model_.outer_chunk(1, config.context()) : need.rows;
    Span span{s, place.rows, rows, std::min(rows, whole), {}};
    span.shape.shape = {1, span.chunk, numbers_.data()};
    span.shape.first_position = 1;
    span.shape.patches = stages_[s].carry.capacity - 1;
    span.shape.patch_bytes = config.bytes_per_position(s);
    bytes = std::max(bytes, row_bytes(s, span.shape));
    most_tokens = std::max(most_tokens, history_ + span.chunk * span.shape.patch_bytes);
    spans.push_back(span);
  }
  core::Arena arena(bytes);
  Kokkos::View<std::uint16_t*, kernels::MemSpace> const ids("strata::generator::read", most_tokens);
  auto const host_ids = Kokkos::create_mirror_view(ids);
  auto const token_at = [&](Index t) {
    if (t < 0) return static_cast<std::uint16_t>(config.pad_token_id);
    return t < before ? host_tokens_(number, t % ring_)
                      : static_cast<std::uint16_t>(tokens[static_cast<std::size_t>(t - before)]);
  };

  kernels::ExecSpace const space;
  for (Span const& span : spans) {
    Place& place = lane.places[span.stage];
    Index const end = span.first + span.rows;
    for (Index row = span.first; row < end; row += span.chunk) {
      StageRows r = span.shape;
      r.shape.length = std::min(span.chunk, end - row);
      r.first_position = row;
      r.origins = numbers_.data() + 1;
      Index const from = place.start + std::max<Index>(0, row - 1) * r.patch_bytes - history_;
      Index const to = place.start + (row + r.shape.length - 1) * r.patch_bytes;
      space.fence();  // the arrays below are in use by the chunk before
      for (Index t = from; t < to; ++t) host_ids(t - from) = token_at(t);
      host_numbers_(0) = number;
      host_numbers_(1) = place.start - from;
      host_numbers_(2) = to - from;
      host_numbers_(3) = seen_before(span.stage, place);
      Kokkos::deep_copy(space, ids, host_ids);
      Kokkos::deep_copy(space, numbers_, host_numbers_);
      kernels::Tokens chunk;
      chunk.ids = ids.data();
      chunk.lengths = numbers_.data() + 2;
      chunk.windows = 1;
      chunk.stride = chunk.padded_length = std::max<Index>(1, to - from);

      core::Arena::Frame const frame(arena);
      Mat<T> const y = forward(arena, span.stage, chunk, r, row, numbers_.data() + 3);
      place.rows = row + r.shape.length;
      if (place.rows == end)
        hand_down(arena, span.stage, {1, 1, r.shape.slots},
                  kernels::rows(y, r.shape.length - 1, r.shape.length));
    }
  }
  for (Index t = std::max(before, after - ring_); t < after; ++t)
    host_tokens_(number, t % ring_) = token_at(t);
  Kokkos::deep_copy(space, Kokkos::subview(tokens_, number, Kokkos::ALL),
                    Kokkos::subview(host_tokens_, number, Kokkos::ALL));
  space.fence();
  lane.position = after;
}

template class Generator<float>;
template class Generator<double>;

}  // namespace strata::generate
