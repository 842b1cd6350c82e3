// SPDX-License-Identifier: Apache-2.0
#include "model/hierarchy.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/cross_patch.hpp"
#include "kernels/linear.hpp"
#include "kernels/reduce.hpp"
#include "model/time_chunks.hpp"

namespace strata::model {

using kernels::reshape;
using kernels::rows;
using kernels::StageRows;

namespace {

/// A pass through a stage as profilers see it; nothing while memory is being measured. "rebuild" is what a
/// backward pass computes again.
class PassRegion {
 public:
  PassRegion(bool measures, std::size_t stage, char const* pass) {
    if (measures) return;
    stage_.emplace("stage", static_cast<Index>(stage) + 1);
    pass_.emplace(pass);
  }

 private:
  std::optional<kernels::Region> stage_, pass_;  // closed in the reverse order
};

}  // namespace

template <class T>
struct Hierarchy<T>::Step {
  enum class Mode { train, evaluate, visit };

  Step(Mode what, core::Arena& memory, Index count, Index length)
      : mode(what), arena(memory), windows(count), padded_length(length) {}
  Step(Mode what, core::Arena& memory, Batch const& of)
      : mode(what),
        arena(memory),
        windows(of.tokens.windows),
        padded_length(of.tokens.padded_length),
        batch(&of) {}

  Mode mode;
  core::Arena& arena;
  Index windows;
  Index padded_length;
  Batch const* batch = nullptr;  // null when measuring
  T scale = 1;
  Vec<double> totals;
  LossVisitor<T> const* loss_visitor = nullptr;
  RowVisitor<T> const* visitor = nullptr;
  std::optional<std::uint64_t> dropout_seed;
  std::function<void()> inner_ready, poll;

  bool trains() const { return mode == Mode::train; }
  bool measures() const { return arena.is_measuring(); }

  /// Runs a call that takes `scratch` bytes from the arena, or only accounts for them.
  template <class F>
  void call(std::size_t scratch, F const& f) {
    if (!measures()) return f();
    core::Arena::Frame const frame(arena);
    arena.template vector<char>(static_cast<Index>(scratch));
  }

  Pass<T> pass(Hierarchy const& model, std::size_t stage, StageRows const& r) const {
    Pass<T> p{ExecSpace(), arena, model.parameters_, {}};
    if (!dropout_seed || batch == nullptr) return p;
    // Rows are numbered along the training stream: sample, sequence, position.
    Index const whole = model.config_.rows(stage, r.patches);
    Index const sequences_per_window = padded_length / (r.patches * r.patch_bytes);
    p.dropout.training = true;
    p.dropout.seed = *dropout_seed;
    p.dropout.first_site = static_cast<std::uint32_t>(stage) << 16;
    p.dropout.base =
        (batch->first_sample * sequences_per_window + r.first_sequence) * whole + r.first_position;
    p.dropout.length = r.shape.length;
    p.dropout.stride = whole;
    return p;
  }
};

template <class T>
Hierarchy<T>::Hierarchy(ModelConfig config, Chunking chunking, bool with_gradients)
    : Hierarchy(std::move(config), std::move(chunking)) {
  parameters_.allocate(with_gradients);
}

template <class T>
Hierarchy<T>::Hierarchy(ModelConfig config, Chunking chunking)
    : config_(std::move(config)), chunking_(std::move(chunking)) {
  config_.validate();
  for (std::size_t s = 0; s < config_.stages(); ++s)
    stages_.push_back(std::make_unique<Stage<T>>(config_, s, parameters_));
  Index const width = config_.hidden_dims.back();
  Initial const uniform{Initial::Kind::uniform, 1 / std::sqrt(static_cast<double>(width))};
  Ready const ready = config_.stages() == 1 ? Ready::at_end : Ready::before_outer_backward;
  logits_weight_ = parameters_.declare("to_logits.weight", {config_.num_tokens, width}, uniform, ready);
  logits_bias_ = parameters_.declare("to_logits.bias", {config_.num_tokens}, uniform, ready);
}

template <class T>
core::Arena Hierarchy<T>::measure(Index windows, Index length, bool training) const {
  core::Arena measuring = core::Arena::measuring();
  Step step(training ? Step::Mode::train : Step::Mode::evaluate, measuring, windows, padded_length(length));
  run(step);
  return measuring;
}

template <class T>
std::size_t Hierarchy<T>::arena_bytes(Index windows, Index length, bool training) const {
  return measure(windows, length, training).peak();
}

template <class T>
std::vector<core::Arena::Use> Hierarchy<T>::arena_uses(Index windows, Index length, bool training) const {
  return measure(windows, length, training).peak_uses();
}

template <class T>
void Hierarchy<T>::reserve(Index windows, Index length, bool training) {
  std::size_t const bytes = arena_bytes(windows, length, training);
  if (arena_ && bytes <= reserved_) return;
  arena_.reset();
  arena_ = std::make_unique<core::Arena>(bytes);
  reserved_ = bytes;
}

template <class T>
void Hierarchy<T>::forward_backward(Batch const& batch, T scale, Vec<double> totals,
                                    std::optional<std::uint64_t> dropout_seed,
                                    std::function<void()> const& inner_ready,
                                    std::function<void()> const& poll) {
  reserve(batch.tokens.windows, batch.tokens.padded_length, true);
  Step step(Step::Mode::train, *arena_, batch);
  step.scale = scale;
  step.totals = totals;
  step.dropout_seed = dropout_seed;
  step.inner_ready = inner_ready;
  step.poll = poll;
  run(step);
}

template <class T>
void Hierarchy<T>::evaluate(Batch const& batch, Vec<double> totals, LossVisitor<T> const& visitor) {
  reserve(batch.tokens.windows, batch.tokens.padded_length, false);
  Step step(Step::Mode::evaluate, *arena_, batch);
  step.totals = totals;
  if (visitor) step.loss_visitor = &visitor;
  run(step);
}

template <class T>
void Hierarchy<T>::visit(Batch const& batch, RowVisitor<T> const& visitor) {
  reserve(batch.tokens.windows, batch.tokens.padded_length, false);
  Step step(Step::Mode::visit, *arena_, batch);
  step.visitor = &visitor;
  run(step);
}

/// The outermost stage, in time chunks.
template <class T>
void Hierarchy<T>::run(Step& step) const {
  core::Arena& arena = step.arena;
  core::Arena::Frame const frame(arena);
  Stage<T> const& stage = *stages_[0];
  Block<T> const& block = stage.block();
  Index const windows = step.windows, width = stage.width();
  StageRows whole;
  whole.patch_bytes = config_.bytes_per_position(0);
  whole.patches = step.padded_length / whole.patch_bytes;
  whole.shape = {windows, config_.rows(0, whole.patches)};
  STRATA_REQUIRE(config_.block[0].pos_emb_type != Position::fixed || whole.patches <= config_.seq_lens[0],
                 "a window of " << step.padded_length << " bytes has " << whole.patches
                                << " positions in the outermost stage, whose position table ends at "
                                << config_.seq_lens[0]);
  TimeChunks<T> chunks(stage, arena, whole, chunk_of(windows, whole.shape.length), chunking_, step.trains());
  Mat<T> dy_all;
  if (step.trains()) {
    core::Arena::Purpose const purpose(arena, "stage 1: gradients of all rows");
    dy_all = arena.template matrix<T>(whole.shape.rows(), width);
  }
  LeadRows<T> const before(arena, chunks, config_.lead(1), windows, width, dy_all);
  core::Arena::Purpose const purpose(arena, "stage 1: rows and scratch of a chunk");
  Mat<T> const y_all = arena.template matrix<T>(windows * chunks.length(), width);
  auto const rows_of = [&](Index c) { return step.measures() ? chunks.largest() : chunks.rows(c); };
  auto const forward = [&](Index c) {
    StageRows const r = rows_of(c);
    typename Stage<T>::StageTape const tape = chunks.tape(c);
    Pass<T> const pass = step.pass(*this, 0, r);
    step.call(stage.input_scratch(r, false),
              [&] { stage.forward_input(pass, step.batch->tokens, r, Mat<T>(), tape); });
    step.call(block.forward_scratch(r.shape, chunks.carries()),
              [&] { block.forward(pass, tape.block, chunks.carry(), rows(y_all, 0, r.shape.rows())); });
  };
  auto const gradient_rows = [&](Index c, StageRows const& r) {
    Index const first = windows * c * chunks.length();
    return rows(dy_all, first, first + r.shape.rows());
  };

  for (Index c = 0; c < chunks.count(); ++c) {
    StageRows const r = rows_of(c);
    Mat<T> const y = rows(y_all, 0, r.shape.rows());
    Mat<T> const dy = step.trains() ? gradient_rows(c, r) : Mat<T>();
    {
      PassRegion const region(step.measures(), 0, "forward");
      if (!step.measures()) chunks.save(c);
      forward(c);
      if (!config_.is_last(0) && step.trains() && whole.shape.length > whole.patches && !step.measures())
        Kokkos::deep_copy(ExecSpace(), dy, T(0));
    }
    if (config_.is_last(0)) {
      head(step, r, y, dy);
    } else if (before.needed()) {
      children_in_time(step, r, before, c, y);
    } else {
      children(step, 0, r, y, dy);
    }
    if (step.measures()) break;
  }
  if (!step.trains()) return;
  if (step.inner_ready) step.inner_ready();

  if (!step.measures()) {
    PassRegion const region(false, 0, "backward");
    chunks.clear_gradients();
  }
  for (Index c = chunks.count() - 1; c >= 0; --c) {
    StageRows const r = rows_of(c);
    if (!step.measures() && !chunks.has_tape(c)) {
      PassRegion const region(false, 0, "rebuild");
      chunks.rebuild(c, forward);
    }
    {
      PassRegion const region(step.measures(), 0, "backward");
      typename Stage<T>::StageTape const tape = chunks.tape(c);
      Pass<T> const pass = step.pass(*this, 0, r);
      Mat<T> const dx = rows(y_all, 0, r.shape.rows());
      step.call(block.backward_scratch(r.shape, chunks.carries()), [&] {
        block.backward(pass, tape.block, chunks.before(c), chunks.dcarry(), gradient_rows(c, r), dx);
      });
      step.call(stage.input_scratch(r, true),
                [&] { stage.backward_input(pass, step.batch->tokens, r, dx, tape, Mat<T>()); });
    }
    if (step.poll) step.poll();
    if (step.measures()) return;
  }
}

/// As children, below a time chunk of the outermost stage whose sequences look back on the chunks before.
template <class T>
void Hierarchy<T>::children_in_time(Step& step, StageRows const& r, LeadRows<T> const& before, Index c,
                                    Mat<T> y) const {
  Index const parents = r.shape.length;
  for (Index window = 0; window < r.shape.count; ++window) {
    Index const first = (r.first_sequence + window) * r.patches + r.first_position;
    Mat<T> const own = rows(y, window * parents, (window + 1) * parents);
    typename LeadRows<T>::Joined const joined =
        step.measures() ? before.largest() : before.join(window, c, own);
    descend(step, 1, first, step.measures() ? before.most() : before.before(c), joined.y, joined.dy);
    if (step.measures()) return;
    before.scatter(window, c, joined);
  }
}

/// Goes down from the rows of a stage to the sequences of the next one that stand below them. y and dy begin
/// with `lead` rows before those.
template <class T>
void Hierarchy<T>::children(Step& step, std::size_t stage, StageRows const& r, Mat<T> y, Mat<T> dy,
                            Index lead) const {
  // A row after the last sub-patch has nothing below it.
  Index const parents =
      step.measures() ? r.shape.length : std::min(r.shape.length, r.patches - r.first_position);
  bool const contiguous = r.shape.count == 1 || r.shape.length == r.patches;
  Index const groups = contiguous ? 1 : r.shape.count;
  Index const group_rows = contiguous && r.shape.count > 1 ? r.shape.rows() : parents;
  for (Index g = 0; g < groups; ++g) {
    Index const first_row = g * r.shape.length;
    Mat<T> const below = rows(y, first_row, first_row + lead + group_rows);
    Mat<T> const dbelow = step.trains() ? rows(dy, first_row, first_row + lead + group_rows) : Mat<T>();
    descend(step, stage + 1, (r.first_sequence + g) * r.patches + r.first_position, lead, below, dbelow);
    if (step.measures()) return;
  }
}

/// Forward, loss and backward of the sequences below the rows `parent`, chunk by chunk; dparent (same shape)
/// = . The first `lead` rows stand before those of first_sequence, and their dparent += .
template <class T>
void Hierarchy<T>::descend(Step& step, std::size_t s, Index first_sequence, Index lead, Mat<T> parent,
                           Mat<T> dparent) const {
  Index const sequences = static_cast<Index>(parent.extent(0)) - lead;
  Index const window = step.padded_length / (config_.seq_lens[s] * config_.bytes_per_position(s));
  Index const chunk = inner_chunk(s, step.windows * window), most = config_.lead(s);
  auto const before = [&](Index first) {
    // Of chunks with a lead only the latest is measured, which may have a window's whole past before it.
    bool const latest = step.measures() && lead > 0;
    return std::min({most, lead + first, latest ? window - 1 : (first_sequence + first) % window});
  };
  auto const run_chunk = [&](Index first) {
    Index const own = std::min(chunk, sequences - first), begin = lead + first - before(first);
    Mat<T> const dchunk = step.trains() ? rows(dparent, begin, lead + first + own) : Mat<T>();
    pass_chunk(step, s, first_sequence + first, before(first), rows(parent, begin, lead + first + own),
               dchunk);
  };
  if (!step.measures()) {
    for (Index first = 0; first < sequences; first += chunk) run_chunk(first);
    return;
  }
  // The whole chunk with the most before it, and the last one if that is shorter but has even more.
  Index const whole = std::max<Index>(1, sequences / chunk);
  Index largest = 0;
  for (Index c = 1; c < whole && before(largest) < most; ++c)
    if (before(c * chunk) > before(largest)) largest = c * chunk;
  run_chunk(largest);
  if (whole * chunk < sequences && before(whole * chunk) > before(largest)) run_chunk(whole * chunk);
}

/// A chunk of the sequences below `parent`, of which the first `lead` stand before the chunk's own.
template <class T>
void Hierarchy<T>::pass_chunk(Step& step, std::size_t s, Index first_sequence, Index lead, Mat<T> parent,
                              Mat<T> dparent) const {
  core::Arena& arena = step.arena;
  core::Arena::Frame const frame(arena);
  core::Arena::Purpose const purpose(arena, "stage " + std::to_string(s + 1) + ": a chunk of its sequences");
  Stage<T> const& stage = *stages_[s];
  Stage<T> const& above = *stages_[s - 1];
  Block<T> const& block = stage.block();
  Index const patches = config_.seq_lens[s], length = config_.rows(s, patches), width = stage.width();
  Index const count = parent.extent(0);
  StageRows r;
  r.first_sequence = first_sequence - lead;
  r.shape = {count, length};
  r.patches = patches;
  r.patch_bytes = config_.bytes_per_position(s);
  StageRows const own = r.part(lead, count - lead);
  auto const of_own = [&](Mat<T> const& all) { return rows(all, lead * length, count * length); };
  Pass<T> const pass = step.pass(*this, s, r);
  Mat<T> const context = arena.template matrix<T>(count, patches * width);
  Mat<T> const slots = reshape(context, count * patches, width);
  typename Stage<T>::StageTape tape = stage.take_tape(arena, r, step.trains());
  tape.block.previous = mark_previous(step, s, r);
  Carry<T> carry = block.take_carry(arena, count, length, false);
  Mat<T> const y = arena.template matrix<T>(count * length, width);
  Mat<T> const dy = step.trains() ? arena.template matrix<T>(count * length, width) : Mat<T>();

  if (!step.measures()) {
    PassRegion const region(false, s - 1, "forward");
    above.project(pass, parent, context);
  }
  {
    PassRegion const region(step.measures(), s, "forward");
    step.call(stage.input_scratch(r, false),
              [&] { stage.forward_input(pass, step.batch->tokens, r, slots, tape); });
    step.call(block.forward_scratch(r.shape, false), [&] { block.forward(pass, tape.block, carry, y); });
    bool const all = !config_.is_last(s) && length > patches;  // rows that have no children
    if (step.trains() && !step.measures() && (all || lead > 0))
      Kokkos::deep_copy(ExecSpace(), rows(dy, 0, (all ? count : lead) * length), T(0));
  }
  if (config_.is_last(s)) {
    head(step, own, of_own(y), step.trains() ? of_own(dy) : dy);
  } else {
    children(step, s, own, y, dy, lead * length);
  }
  if (!step.trains()) return;
  std::optional<PassRegion> region(std::in_place, step.measures(), s, "backward");
  Carry<T> const dcarry = block.take_carry(arena, count, length, false);
  Mat<T> const& dx = y;  // the rows themselves are not needed any more
  carry.position = 0;
  if (!step.measures()) Kokkos::deep_copy(ExecSpace(), dcarry.history, T(0));
  step.call(block.backward_scratch(r.shape, false),
            [&] { block.backward(pass, tape.block, carry, dcarry, dy, dx); });
  step.call(stage.input_scratch(r, true),
            [&] { stage.backward_input(pass, step.batch->tokens, r, dx, tape, slots); });
  region.reset();
  region.emplace(step.measures(), s - 1, "backward");
  step.call(above.projection_scratch(count),
            [&] { above.project_backward(pass, context, parent, dparent, lead); });
}

/// Which of these sequences see the one before them.
template <class T>
kernels::Previous Hierarchy<T>::mark_previous(Step& step, std::size_t s, StageRows const& r) const {
  Index const seen = config_.block[s].cross_patch_attention;
  if (seen == 0) return {};
  Index const window = step.padded_length / (r.patches * r.patch_bytes), first = r.first_sequence;
  kernels::Vec<Index> const marks = step.arena.template vector<Index>(r.shape.count);
  if (!step.measures()) kernels::mark_previous(ExecSpace(), first, window, seen, marks);
  Index const windows_begun = (first + r.shape.count - 1) / window - first / window;
  return {marks.data(), seen * (r.shape.count - 1 - windows_begun)};
}

/// From the rows of the last stage to the loss, and back to their gradient.
template <class T>
void Hierarchy<T>::head(Step& step, StageRows const& r, Mat<T> hidden, Mat<T> dhidden) const {
  core::Arena& arena = step.arena;
  core::Arena::Frame const frame(arena);
  core::Arena::Purpose const purpose(arena, "logits of a chunk");
  ExecSpace const space;
  Index const count = r.shape.rows();
  Mat<T> const logits = arena.template matrix<T>(count, config_.num_tokens);
  Vec<T> const losses = arena.template vector<T>(count);
  Vec<T> const workspace =
      step.trains() ? arena.template vector<T>(kernels::column_sums_workspace(count, config_.num_tokens))
                    : Vec<T>();
  if (step.measures()) return;
  kernels::Region const region("loss");
  Mat<T> const weight = parameters_.value(logits_weight_);
  Vec<T> const bias = parameters_.vector(logits_bias_);
  if (step.mode == Step::Mode::visit) {
    kernels::linear_forward<T>(space, hidden, weight, bias, logits);
    (*step.visitor)(r, hidden, logits);
    return;
  }
  kernels::linear_forward<T>(space, hidden, weight, {}, logits);
  kernels::Targets const& targets = step.batch->targets;
  if (step.mode == Step::Mode::evaluate) {
    kernels::cross_entropy_forward<T>(space, targets, r, logits, bias, losses);
    if (step.loss_visitor != nullptr) (*step.loss_visitor)(r, losses);
  } else {
    kernels::cross_entropy_forward_backward<T>(space, targets, r, logits, bias, step.scale, losses);
    kernels::linear_backward_weight<T>(space, logits, hidden, parameters_.gradient(logits_weight_));
    kernels::column_sums<T>(space, logits, parameters_.gradient_vector(logits_bias_), workspace);
    kernels::linear_backward_input<T>(space, logits, weight, dhidden);
  }
  kernels::add_losses<T>(space, losses, step.totals);
}

template class Hierarchy<float>;
template class Hierarchy<double>;

}  // namespace strata::model
