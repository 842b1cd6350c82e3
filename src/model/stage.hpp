// SPDX-License-Identifier: Apache-2.0
#pragma once
// One stage of the hierarchy: what it reads (start vector, embedded sub-patches, positions, the parent's
// context), its block, and the projection of its rows into contexts for the stage below.

#include <memory>
#include <optional>

#include "kernels/embedding.hpp"
#include "model/block.hpp"
#include "model/patch_embedder.hpp"

namespace strata::model {

template <class T>
class Stage {
 public:
  /// `block_ready`: when the gradients of everything but the projection are complete (the projection's always
  /// are before the outermost stage's backward).
  Stage(ModelConfig const& config, std::size_t stage, ParameterStore<T>& parameters);

  Block<T> const& block() const { return *block_; }
  PatchEmbedder<T> const& embedder() const { return embedder_; }
  Index width() const { return width_; }
  /// Width of a row's projection: P_{s+1} * D_{s+1}; 0 for the last stage.
  Index projected_width() const { return projected_width_; }

  /// What a call of the stage keeps for backward.
  struct StageTape {
    Vec<T> embedder;
    Tape<T> block;
  };
  StageTape take_tape(core::Arena& arena, kernels::StageRows const& rows, bool keeps) const;

  std::size_t input_scratch(kernels::StageRows const& rows, bool backward) const;
  std::size_t projection_scratch(Index parent_rows) const;

  /// Fills the block's input rows. context (sequences * patches, D) or empty. start_reads_context: row t
  /// reads slot t whatever the head (the package's path for an empty prompt).
  void forward_input(Pass<T> const& pass, kernels::Tokens const& tokens, kernels::StageRows const& rows,
                     Mat<T> context, StageTape const& tape, bool start_reads_context = false) const;
  /// From the gradient of the input rows to those of all that made them; dcontext (sequences * patches, D) =
  /// or empty.
  void backward_input(Pass<T> const& pass, kernels::Tokens const& tokens, kernels::StageRows const& rows,
                      Mat<T> dx, StageTape const& tape, Mat<T> dcontext) const;

  /// context (rows, projected_width) = this stage's rows projected for their children.
  void project(Pass<T> const& pass, ConstMat<T> rows, Mat<T> context) const;
  /// drows (rows, D) = , but += in the first `lead` rows.
  void project_backward(Pass<T> const& pass, ConstMat<T> dcontext, ConstMat<T> rows, Mat<T> drows,
                        Index lead = 0) const;

  /// Floating-point operations of a forward call: embedding, block, and the projection of every row.
  double forward_flops(kernels::StageRows const& rows, bool square, Index previous_total = 0) const;

 private:
  struct InputScratch;

  Index width_, projected_width_, lag_;
  PatchEmbedder<T> embedder_;
  Position position_;
  Index positions_;  ///< rows of the position table
  std::size_t start_ = 0, table_ = 0, projection_ = 0, projection_bias_ = 0;
  std::unique_ptr<Block<T>> block_;
};

}  // namespace strata::model
