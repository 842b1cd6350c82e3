// SPDX-License-Identifier: Apache-2.0
#pragma once
// From a sub-patch's bytes to one vector of a stage's width:
//   last stage:   the byte's row of an embedding table
//   other stages: rows of the stage's own table (local width), with patch_encoder `convolution` through
//   PatchConvolutions, concatenated -> LayerNorm -> Linear -> LayerNorm
// The concatenation is the widest array of a model (R_s * D_local), so it exists for a few rows at a time
// only and is gathered again in backward. These rows are pieces of sequences, and a piece's bytes are
// convolved as one.

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
  /// No smaller for more or longer sequences.
  std::size_t forward_scratch(kernels::StageRows const& rows) const;
  std::size_t backward_scratch(kernels::StageRows const& rows) const;

  /// out (embedded_rows, D).
  void forward(Pass<T> const& pass, kernels::Tokens const& tokens, kernels::StageRows const& rows,
               Vec<T> tape, Mat<T> out) const;
  /// dout (embedded_rows, D) is overwritten.
  void backward(Pass<T> const& pass, kernels::Tokens const& tokens, kernels::StageRows const& rows,
                Vec<T> tape, Mat<T> dout) const;

  /// Floating-point operations of embedding these rows.
  double forward_flops(kernels::StageRows const& rows) const;

 private:
  struct Scratch;
  Index piece_bytes(kernels::StageRows const& rows) const;
  Sequences convolved(kernels::StageRows const& piece) const;
  Mat<T> concatenate(Pass<T> const& pass, kernels::Tokens const& tokens, kernels::StageRows const& piece,
                     Scratch const& scratch) const;
  void concatenate_backward(Pass<T> const& pass, kernels::Tokens const& tokens, kernels::StageRows piece,
                            Scratch const& scratch, Mat<T> gradient) const;

  Index width_, local_width_, patch_bytes_, vocabulary_, frozen_row_;
  Index history_;  ///< bytes before a piece of a sequence that are convolved with it
  bool is_table_;  ///< last stage: the table's rows are the result
  std::size_t table_ = 0, first_gain_ = 0, first_bias_ = 0, weight_ = 0, bias_ = 0, second_gain_ = 0,
              second_bias_ = 0;
  std::optional<PatchConvolutions<T>> convolutions_;
};

}  // namespace strata::model
