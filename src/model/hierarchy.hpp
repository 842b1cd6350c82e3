// SPDX-License-Identifier: Apache-2.0
#pragma once
// The hierarchy of stages, traversed depth first. One training step:
//
//   for each time chunk of the outermost stage:   forward, its carry saved at the border, its tape kept or
//   dropped
//     for each chunk of the rows just made:       the inner stages below them: forward, loss AND backward,
//     then forgotten
//   for each time chunk in reverse:               tape rebuilt if dropped, backward
//
// Memory is therefore one chunk per inner stage plus the outermost stage's row gradients, carries and one
// tape.
//
// With cross-patch attention the sequences of an inner stage depend on those before them, one further back
// with each layer. A chunk then begins with as many earlier sequences, its lead, computed once more: nothing
// further back can reach its own sequences, so these are what they are in the whole, and backward through the
// lead gives the earlier sequences' share of their gradient. No state passes from chunk to chunk.

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "core/arena.hpp"
#include "kernels/cross_entropy.hpp"
#include "model/block.hpp"
#include "model/chunking.hpp"
#include "model/config.hpp"
#include "model/lead_rows.hpp"
#include "model/parameters.hpp"
#include "model/stage.hpp"

namespace strata::model {

/// A batch on the device: what is read and what is predicted.
struct Batch {
  kernels::Tokens tokens;
  kernels::Targets targets;
  /// Position of the first window in the training stream, for dropout.
  Index first_sample = 0;
};

/// Sum of the weighted cross-entropies (nats) and the number of bytes counted in it.
struct LossSum {
  double nats = 0;
  double bytes = 0;
};

/// Called with each block of rows of the last stage: losses (rows) on the device, each row's weighted nats,
/// -1 where a row predicts nothing. Row r predicts byte targets.flat(rows, r) of the padded batch.
template <class T>
using LossVisitor = std::function<void(kernels::StageRows const& rows, Vec<T> losses)>;

/// Called with each block of rows of the last stage: hidden (rows, D) after the final norm, logits (rows, V)
/// with bias.
template <class T>
using RowVisitor = std::function<void(kernels::StageRows const& rows, Mat<T> hidden, Mat<T> logits)>;

template <class T>
class Hierarchy {
 public:
  /// Declares and allocates the parameters (zero; call parameters().initialise or load a checkpoint).
  /// Throws core::InputError when the configuration does not work.
  Hierarchy(ModelConfig config, Chunking chunking, bool with_gradients);
  /// A model without storage, which answers questions about sizes only.
  static Hierarchy plan(ModelConfig config, Chunking chunking) {
    return Hierarchy(std::move(config), std::move(chunking));
  }

  ModelConfig const& config() const { return config_; }
  ParameterStore<T>& parameters() { return parameters_; }
  ParameterStore<T> const& parameters() const { return parameters_; }

  /// Makes room for batches of `windows` windows of `length` tokens, so that later calls allocate nothing.
  void reserve(Index windows, Index length, bool training);
  /// Bytes that `reserve` will take; the same arithmetic as the steps themselves.
  std::size_t arena_bytes(Index windows, Index length, bool training) const;
  /// What these bytes are for.
  std::vector<core::Arena::Use> arena_uses(Index windows, Index length, bool training) const;
  /// Positions of the outermost stage in a time chunk, and chunks, for such a batch.
  Index outer_chunk(Index windows, Index length) const;
  Index outer_chunks(Index windows, Index length) const;
  /// Rows in a chunk of an inner stage.
  Index inner_chunk_rows(std::size_t stage, Index windows, Index length) const;
  /// The most that was in use at once since `reserve`.
  std::size_t arena_peak() const { return arena_ ? arena_->peak() : 0; }

  /// Adds `scale` times the gradient of the loss sum to the gradients, and the loss to `totals` (2 doubles on
  /// the device: nats, bytes). inner_ready runs when the gradients of Ready::before_outer_backward are
  /// complete, poll now and then afterwards (to let messages progress). Dropout is on when dropout_seed has a
  /// value.
  void forward_backward(Batch const& batch, T scale, Vec<double> totals,
                        std::optional<std::uint64_t> dropout_seed = {},
                        std::function<void()> const& inner_ready = {},
                        std::function<void()> const& poll = {});

  /// Loss only, added to `totals`; each row's loss is shown to `visitor`, if there is one.
  void evaluate(Batch const& batch, Vec<double> totals, LossVisitor<T> const& visitor = {});

  /// Forward with a look at every row of the last stage.
  void visit(Batch const& batch, RowVisitor<T> const& visitor);

  /// Padded length of a window: a whole number of positions of the outermost stage.
  Index padded_length(Index length) const;

  /// Useful floating-point operations of one forward pass over a batch; a training step does three times as
  /// much. square: count masked pairs of attention as well.
  double forward_flops(Index windows, Index length, bool square = false) const;

  std::vector<std::unique_ptr<Stage<T>>> const& stages() const { return stages_; }
  std::size_t logits_weight() const { return logits_weight_; }
  std::size_t logits_bias() const { return logits_bias_; }

 private:
  struct Step;  // what one pass over a batch works with

  Hierarchy(ModelConfig config, Chunking chunking);
  core::Arena measure(Index windows, Index length, bool training) const;
  void run(Step& step) const;
  void children(Step& step, std::size_t stage, kernels::StageRows const& rows, Mat<T> y, Mat<T> dy,
                Index lead = 0) const;
  void children_in_time(Step& step, kernels::StageRows const& rows, LeadRows<T> const& before, Index c,
                        Mat<T> y) const;
  void descend(Step& step, std::size_t stage, Index first_sequence, Index lead, Mat<T> parent,
               Mat<T> dparent) const;
  void pass_chunk(Step& step, std::size_t stage, Index first_sequence, Index lead, Mat<T> parent,
                  Mat<T> dparent) const;
  kernels::Previous mark_previous(Step& step, std::size_t stage, kernels::StageRows const& rows) const;
  void head(Step& step, kernels::StageRows const& rows, Mat<T> hidden, Mat<T> dhidden) const;
  Index chunk_of(Index windows, Index length) const;
  Index inner_chunk(std::size_t stage, Index sequences_in_batch) const;

  ModelConfig config_;
  Chunking chunking_;
  ParameterStore<T> parameters_;
  std::vector<std::unique_ptr<Stage<T>>> stages_;
  std::size_t logits_weight_ = 0, logits_bias_ = 0;
  std::unique_ptr<core::Arena> arena_;
  std::size_t reserved_ = 0;
};

}  // namespace strata::model
