// SPDX-License-Identifier: Apache-2.0
#pragma once
// From a sub-patch's bytes to one vector of a stage's width:
//   last stage:   the byte's row of an embedding table
//   other stages: rows of the stage's own table (local width), with patch_encoder `convolution` through
//   PatchConvolutions, concatenated -> LayerNorm -> Linear -> LayerNorm
// The concatenation is the widest array of a model (R_s * D_local), so it exists for a few rows at a time
// only and is gathered again in backward.

#include <optional>

#include "kernels/embedding.hpp"
#include "model/block.hpp"
#include "model/patch_convolutions.hpp"

namespace strata::model {

template <class T>
class PatchEmbedder {
 public:
  PatchEmbedder(ModelConfig const& config, std::size_t stage, Ready ready, ParameterStore<T>& parameters);

  /// Elements of the tape for `embedded_rows` rows: the Linear's output and the second norm's statistics.
  Index tape_size(Index embedded_rows) const;
  std::size_t forward_scratch(Index embedded_rows) const;
  std::size_t backward_scratch(Index embedded_rows) const;

  /// out (embedded_rows, D).
  void forward(Pass<T> const& pass, kernels::Tokens const& tokens, kernels::StageRows const& rows,
               Vec<T> tape, Mat<T> out) const;
  /// dout (embedded_rows, D) is overwritten.
  void backward(Pass<T> const& pass, kernels::Tokens const& tokens, kernels::StageRows const& rows,
                Vec<T> tape, Mat<T> dout) const;

  /// Floating-point operations of embedding one row.
  double forward_flops_per_row() const;

 private:
  struct Scratch;
  Index piece_rows(Index embedded_rows) const;
  Sequences convolved(Index rows) const { return {rows, history_ + patch_bytes_}; }
  Mat<T> behind_history(Mat<T> const& convolved_rows, Index rows_of_piece) const;
  Mat<T> concatenate(Pass<T> const& pass, kernels::Tokens const& tokens, kernels::StageRows const& piece,
                     Scratch const& scratch) const;
  void concatenate_backward(Pass<T> const& pass, kernels::Tokens const& tokens,
                            kernels::StageRows const& piece, Scratch const& scratch, Mat<T> gradient) const;

  Index width_, local_width_, patch_bytes_, vocabulary_, frozen_row_;
  Index history_;  ///< bytes before a sub-patch that are convolved with it
  bool is_table_;  ///< last stage: the table's rows are the result
  std::size_t table_ = 0, first_gain_ = 0, first_bias_ = 0, weight_ = 0, bias_ = 0, second_gain_ = 0,
              second_bias_ = 0;
  std::optional<PatchConvolutions<T>> convolutions_;
};

}  // namespace strata::model
