// SPDX-License-Identifier: Apache-2.0
#pragma once
// The Transformer stack of MEGABYTE and MBLM. Per layer:
//   x1 = x  + Wo attention(Wq u, Wk u, Wv u),  u = rms(shift(x)) * g
//   x2 = x1 + W2 gelu(W1 u + b1) + b2,          u = rms(shift(x1)) * g
// and a final rms norm. shift moves the second part of the features one position on (kernels/norm.hpp); the
// bidirectional encoder has no shift and no causal mask.
//
// With cross-patch attention (kernels/cross_patch.hpp) a sequence also sees the last keys and values of the
// one before it in the same call, or in the same lane.
//
// Carry: history = keys (rotated) and values; border = the shifted features of the last x and x1 of each
// layer. Tape: the residual stream x, x1, ..., queries, attention outputs and the product W1 u; norms and
// gelu are recomputed.

#include <vector>

#include "kernels/attention.hpp"
#include "model/block.hpp"

namespace strata::model {

template <class T>
class TransformerBlock final : public Block<T> {
 public:
  TransformerBlock(BlockConfig const& config, Index width, Index layers, std::string const& prefix,
                   Ready ready, ParameterStore<T>& parameters);

  Index width() const override { return width_; }
  Index layers() const override { return static_cast<Index>(layers_.size()); }
  Index history_width() const override { return 2 * config_.inner_width(); }
  Index border_width() const override { return 2 * shifted_; }
  Index rows_before() const override { return config_.cross_patch_attention; }
  Index tape_size(Sequences shape, bool keeps) const override;
  std::size_t forward_scratch(Sequences shape, bool carries) const override;
  std::size_t backward_scratch(Sequences shape, bool carries) const override;
  void forward(Pass<T> const& pass, Tape<T> const& tape, Carry<T>& carry, Mat<T> y) const override;
  void backward(Pass<T> const& pass, Tape<T> const& tape, Carry<T> const& before, Carry<T> const& dcarry,
                ConstMat<T> dy, Mat<T> dx) const override;
  void next_sequence(Pass<T> const& pass, Sequences lanes, Index rows, Carry<T> const& carry) const override;
  double forward_flops(Sequences shape, Index start, bool square, Index previous_total) const override;

 private:
  /// Numbers of a layer's parameters in the store.
  struct Layer {
    std::size_t attention_gain, to_q, to_kv, to_out, feed_gain, feed_in, feed_in_bias, feed_out,
        feed_out_bias;
  };
  enum class SubLayer { attention, feed_forward };
  struct LayerTape;  // spans of one layer inside a tape
  struct NormTape;   // what the norm of a sub-layer reads and writes
  struct Scratch;    // spans taken from the arena during a call
  struct Span;       // one call's arguments and what follows from them

  /// Rows of the rotary table that stand before those of the span: for what the first positions see of the
  /// sequence before, where whole sequences lie side by side.
  Index table_before(Sequences shape) const { return shape.slots == nullptr ? rows_before() : 0; }

  LayerTape layer_tape(Tape<T> const& tape, Index layer) const;
  NormTape norm_tape(Tape<T> const& tape, SubLayer part, Index layer) const;
  kernels::KeyValues<T> layer_history(Carry<T> const& carry, Index layer) const;
  kernels::AttentionShape attention_shape(Sequences shape, Index start,
                                          kernels::Previous previous = {}) const;
  kernels::Dropout dropout(DropoutStream const& stream, SubLayer part, Index layer) const;

  /// A sub-layer's part of a border: the features that the token shift takes from the row before.
  Mat<T> shifted_border(Carry<T> const& carry, SubLayer part, Index layer) const;
  Mat<T> previous(Span const& span, SubLayer part, Index layer) const;
  void normalise(Span const& span, SubLayer part, Index layer, bool with_residual) const;
  void normalise_backward(Span const& span, SubLayer part, Index layer, Carry<T> const& dcarry,
                          Mat<T> dx) const;
  void rotary_tables(Span const& span) const;
  /// Whether keys and values of sequences have to go before those that follow; lanes have them there already.
  bool sees_sequences_before(Span const& span) const;
  void attention_forward(Span const& span, Index layer) const;
  void feed_forward(Span const& span, Index layer) const;
  void attention_backward(Span const& span, Index layer, Carry<T> const& dcarry, Mat<T> dx) const;
  void feed_backward(Span const& span, Index layer, Carry<T> const& dcarry, Mat<T> dx) const;

  BlockConfig config_;
  Index width_;
  Index shifted_;  ///< features that the token shift moves: floor(D / 2), none in the encoder
  std::vector<Layer> layers_;
  std::size_t final_gain_ = 0;
};

}  // namespace strata::model
