// SPDX-License-Identifier: Apache-2.0
#include "generate/generator.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "kernels/common/check.hpp"
#include "kernels/linear.hpp"

namespace strata::generate {

using kernels::StageRows;
using model::Position;

namespace {

/// The next row of every sequence of a stage.
StageRows one_row(model::ModelConfig const& config, std::size_t stage, Index batch, Index row,
                  Index patches) {
  StageRows r;
  r.shape = {batch, 1};
  r.first_position = row;
  r.patches = patches;
  r.patch_bytes = config.bytes_per_position(stage);
  return r;
}

template <class T>
std::size_t row_scratch(model::Stage<T> const& stage, StageRows const& r, bool carries) {
  return std::max(stage.input_scratch(r, false), stage.block().forward_scratch(r.shape, carries));
}

}  // namespace

template <class T>
Generator<T>::Generator(model::Hierarchy<T> const& model, Index batch, Index max_tokens)
    : model_(model), batch_(batch), max_tokens_(max_tokens > 0 ? max_tokens : model.config().context()) {
  model::ModelConfig const& config = model.config();
  for (auto const& block : config.block)
    if (!block.causal())
      throw core::InputError("generation needs causal stages; this model has a bidirectional encoder stage");
  if (config.block[0].pos_emb_type == Position::fixed) max_tokens_ = std::min(max_tokens_, config.context());

  Index const outer = config.bytes_per_position(0);
  Index const positions = std::max<Index>(1, (max_tokens_ + outer - 1) / outer);
  auto const lay_out = [&](core::Arena& arena) {
    stages_.clear();
    for (std::size_t s = 0; s < config.stages(); ++s) {
      model::Stage<T> const& stage = *model.stages()[s];
      Index const patches = s == 0 ? positions : config.seq_lens[s];
      StageState state;
      state.length = patches;
      state.carry = stage.block().take_carry(arena, batch, patches + 1, true);
      state.tape = stage.take_tape(arena, one_row(config, s, batch, 1, patches), false);
      state.row = arena.matrix<T>(batch, stage.width());
      if (s > 0) state.context = arena.matrix<T>(batch, patches * stage.width());
      stages_.push_back(state);
    }
    logits_ = arena.matrix<T>(batch, config.num_tokens);
  };
  core::Arena measuring = core::Arena::measuring();
  lay_out(measuring);
  memory_ = std::make_unique<core::Arena>(measuring.peak());
  lay_out(*memory_);

  std::size_t scratch = 0;
  for (std::size_t s = 0; s < config.stages(); ++s) {
    // A table of rotations for the stage's positions is longest at the last row.
    Index const last = stages_[s].length;
    scratch = std::max(scratch, row_scratch(*model.stages()[s], one_row(config, s, batch, last, last), true));
  }
  scratch_ = std::make_unique<core::Arena>(scratch);

  tokens_ = decltype(tokens_)("strata::generator::tokens", batch, positions * outer);
  lengths_ = Kokkos::View<Index*, kernels::MemSpace>("strata::generator::lengths", batch);
  Kokkos::deep_copy(lengths_, positions * outer);
}

/// Runs row `row` of a stage, whose current sequence starts at token first_token, and projects it downwards.
template <class T>
void Generator<T>::run_row(std::size_t s, Index row, Index first_token) {
  model::ModelConfig const& config = model_.config();
  model::Stage<T> const& stage = *model_.stages()[s];
  StageState& state = stages_[s];
  StageRows const r = one_row(config, s, batch_, row, state.length);
  if (row == 0) state.carry.position = 0;
  kernels::Tokens tokens;
  tokens.ids = tokens_.data() + first_token;
  tokens.lengths = lengths_.data();
  tokens.windows = batch_;
  tokens.stride = static_cast<Index>(tokens_.extent(1));
  tokens.padded_length = state.length * r.patch_bytes;
  tokens.pad = static_cast<std::int32_t>(config.pad_token_id);
  model::Pass<T> const pass{kernels::ExecSpace(), *scratch_, model_.parameters(), {}};
  Mat<T> const slots =
      s == 0 ? Mat<T>() : kernels::reshape(state.context, batch_ * state.length, stage.width());
  stage.forward_input(pass, tokens, r, slots, state.tape);
  stage.block().forward(pass, state.tape.block, state.carry, state.row);
  if (!config.is_last(s)) stage.project(pass, state.row, stages_[s + 1].context);
}

/// Runs every row that the prediction of the token at position_ needs and that has not run yet.
template <class T>
void Generator<T>::advance() {
  model::ModelConfig const& config = model_.config();
  std::size_t const n = config.stages();
  Index const t = position_;
  auto const sequence_start = [&](std::size_t s, Index token) {
    if (s == 0) return Index(0);
    Index const bytes = stages_[s].length * config.bytes_per_position(s);
    return token / bytes * bytes;
  };
  if (complete()) {
    for (std::size_t s = 0; s < n; ++s) {
      Index const bytes = config.bytes_per_position(s);
      // The outermost stage has one sequence only: the token after its last sub-patch takes one more row of
      // it.
      Index const row = s == 0 ? t / bytes : t / bytes % stages_[s].length;
      if (t % bytes == 0) run_row(s, row, sequence_start(s, t));
    }
  } else {
    // A stage moves on when the first token of its next sub-patch arrives; the stages below it start anew.
    Index const token = t - 1;
    std::size_t opened = t == 0 ? 0 : n;
    for (std::size_t s = 0; token > 0 && s + 1 < n && opened == n; ++s) {
      Index const bytes = config.bytes_per_position(s);
      if (token % bytes != 0) continue;
      run_row(s, (token / bytes - 1) % stages_[s].length + 1, sequence_start(s, token - 1));
      opened = s + 1;
    }
    for (std::size_t s = opened; s < n; ++s) run_row(s, 0, sequence_start(s, std::max<Index>(token, 0)));
    if (t > 0) run_row(n - 1, token % stages_[n - 1].length + 1, sequence_start(n - 1, token));
  }
  advanced_ = true;
}

template <class T>
std::vector<T> Generator<T>::logits() {
  if (!advanced_) advance();
  model::ParameterStore<T> const& p = model_.parameters();
  kernels::linear_forward<T>(kernels::ExecSpace(), stages_.back().row, p.value(model_.logits_weight()),
                             p.vector(model_.logits_bias()), logits_);
  auto const host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), logits_);
  kernels::ExecSpace().fence();
  return std::vector<T>(host.data(), host.data() + host.size());
}

template <class T>
void Generator<T>::append(std::vector<std::int32_t> const& tokens) {
  STRATA_REQUIRE(static_cast<Index>(tokens.size()) == batch_,
                 tokens.size() << " tokens for " << batch_ << " sequences");
  if (position_ >= max_tokens_)
    throw core::InputError("the sequence is full: " + std::to_string(max_tokens_) +
                           " tokens is all that the model's position table, or the length asked for, allows");
  for (std::int32_t const token : tokens)
    if (token < 0 || token >= model_.config().num_tokens)
      throw core::InputError("token " + std::to_string(token) + " is outside the model's vocabulary of " +
                             std::to_string(model_.config().num_tokens));
  if (!advanced_) advance();
  for (Index b = 0; b < batch_; ++b) {
    auto const place = Kokkos::subview(tokens_, b, position_);
    Kokkos::deep_copy(place, static_cast<std::uint16_t>(tokens[static_cast<std::size_t>(b)]));
  }
  ++position_;
  advanced_ = false;
}

template <class T>
std::vector<double> empty_prompt_logits(model::Hierarchy<T> const& model) {
  model::ModelConfig const& config = model.config();
  auto const run = [&](core::Arena& memory, bool measuring) {
    Mat<T> row, context;
    kernels::Tokens const none;
    model::Pass<T> const pass{kernels::ExecSpace(), memory, model.parameters(), {}};
    for (std::size_t s = 0; s < config.stages(); ++s) {
      model::Stage<T> const& stage = *model.stages()[s];
      StageRows const r = one_row(config, s, 1, 0, config.seq_lens[s]);
      auto const tape = stage.take_tape(memory, r, false);
      model::Carry<T> carry = stage.block().take_carry(memory, 1, 1, false);
      row = memory.template matrix<T>(1, stage.width());
      Mat<T> const projected = memory.template matrix<T>(1, stage.projected_width());
      if (measuring) {
        core::Arena::Frame const frame(memory);
        memory.template vector<char>(static_cast<Index>(row_scratch(stage, r, false)));
        continue;
      }
      Mat<T> const slots = s == 0 ? Mat<T>() : kernels::reshape(context, config.seq_lens[s], stage.width());
      stage.forward_input(pass, none, r, slots, tape, true);
      stage.block().forward(pass, tape.block, carry, row);
      if (!config.is_last(s)) stage.project(pass, row, projected);
      context = projected;
    }
    Mat<T> const logits = memory.template matrix<T>(1, config.num_tokens);
    if (measuring) return std::vector<double>();
    kernels::linear_forward<T>(pass.space, row, model.parameters().value(model.logits_weight()),
                               model.parameters().vector(model.logits_bias()), logits);
    auto const host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), logits);
    return std::vector<double>(host.data(), host.data() + host.size());
  };
  core::Arena measuring = core::Arena::measuring();
  run(measuring, true);
  core::Arena memory(measuring.peak());
  return run(memory, false);
}

template class Generator<float>;
template class Generator<double>;
template std::vector<double> empty_prompt_logits(model::Hierarchy<float> const&);
template std::vector<double> empty_prompt_logits(model::Hierarchy<double> const&);

}  // namespace strata::generate
