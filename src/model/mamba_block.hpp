// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the stacks of Mamba-1 (Gu and Dao 2023, arXiv 2312.00752) and Mamba-2 (Dao and Gu 2024, arXiv
// 2405.21060) have in common. Per layer, with E = expand * D channels:
//   p  = W_in rms(x)                                    (P columns: gate z, inputs of the convolution, ...)
//   v  = silu(causal convolution of C columns of p)
//   o  = gate(mix(v, p), z)                             (E columns; `mix` is the scan over positions)
//   x' = x + W_out o
// mamba1_block.hpp and mamba2_block.hpp say which columns are what, mix, gate, and end the stack.
//
// Carry: history = nothing; border = per layer the last W - 1 inputs of the convolution (oldest first), then
// the state. Tape: the residual stream, p, the output of mix and a few columns of the mixer's, all linear in
// the positions; the states within the span are rebuilt in backward.

#include <vector>

#include "model/block.hpp"

namespace strata::model {

template <class T>
class MambaBlock : public Block<T> {
 public:
  Index width() const override { return width_; }
  Index layers() const override { return static_cast<Index>(layers_.size()); }
  Index history_width() const override { return 0; }
  Index border_width() const override { return tail_size() + columns_.state; }
  Index tape_size(Sequences shape, bool keeps) const override;
  std::size_t forward_scratch(Sequences shape, bool carries) const override;
  std::size_t backward_scratch(Sequences shape, bool carries) const override;
  void forward(Pass<T> const& pass, Tape<T> const& tape, Carry<T>& carry, Mat<T> y) const override;
  void backward(Pass<T> const& pass, Tape<T> const& tape, Carry<T> const& before, Carry<T> const& dcarry,
                ConstMat<T> dy, Mat<T> dx) const override;
  double forward_flops(Sequences shape, Index start, bool square, Index previous_total) const override;

 protected:
  /// Widths and places of a layer's arrays.
  struct Columns {
    Index channels = 0;     ///< E
    Index projected = 0;    ///< P
    Index gate = 0;         ///< first of the E columns of z in p
    Index convolved = 0;    ///< C
    Index convolution = 0;  ///< first of the C columns of p that the convolution reads
    Index inputs = 0;       ///< W: positions it sees
    Index state = 0;        ///< numbers of a sequence's state
    Index kept = 0;         ///< columns of the tape that the mixer uses
  };
  /// Numbers of a layer's parameters in the store.
  struct Layer {
    std::size_t gain, in_weight, conv_weight, conv_bias, out_weight;
  };
  /// What a mixer sees of a layer's call. `state` is empty when nothing comes before or after the span.
  struct MixerCall {
    Pass<T> const& pass;
    Index layer;
    Sequences shape;
    Mat<T> projected;  ///< (rows, P)
    Mat<T> convolved;  ///< (rows, C): v
    Mat<T> mixed;      ///< (rows, E): the output of mix
    Mat<T> kept;       ///< (rows, Columns::kept)
    Vec<T> workspace;

    Mat<T> gate(Columns const& c) const { return kernels::columns(projected, c.gate, c.gate + c.channels); }
  };

  MambaBlock(BlockConfig const& config, Index width) : config_(config), width_(width) {}

  /// mixed and gated (rows, E) from v and p; state (count, Columns::state) or empty goes from before the span
  /// to behind it.
  virtual void mix(MixerCall const& call, Mat<T> state, Mat<T> gated) const = 0;
  /// gated (rows, E) again, from `mixed` and p.
  virtual void gate(MixerCall const& call, Mat<T> gated) const = 0;
  /// dgated (rows, E), overwritten, -> dconvolved (rows, C) = and the columns of dprojected outside the
  /// convolution's. initial (count, Columns::state) or empty: the state before the span; dstate as in
  /// kernels/ssd.hpp.
  virtual void mix_backward(MixerCall const& call, Mat<T> initial, Mat<T> dgated, Mat<T> dprojected,
                            Mat<T> dconvolved, Mat<T> dstate) const = 0;
  virtual Index mixer_workspace(Sequences shape, bool carries, bool backward) const = 0;
  virtual double mixer_flops(Sequences shape) const = 0;

  BlockConfig config_;
  Index width_;
  Columns columns_;
  std::vector<Layer> layers_;
  bool has_final_norm_ = false;
  std::size_t final_gain_ = 0;

 private:
  struct LayerTape;
  struct Scratch;

  Index tail_size() const { return (columns_.inputs - 1) * columns_.convolved; }
  Mat<T> tail(Mat<T> border) const;
  Mat<T> state(Mat<T> border) const;
  LayerTape layer_tape(Tape<T> const& tape, Index layer, Mat<T> y) const;
  kernels::Dropout dropout(Pass<T> const& pass, Index layer) const;
  void layer_forward(Pass<T> const& pass, LayerTape const& t, Scratch const& scratch, Sequences shape,
                     Index layer, Carry<T> const& carry) const;
  void layer_backward(Pass<T> const& pass, LayerTape const& t, Scratch const& scratch, Sequences shape,
                      Index layer, Carry<T> const& before, Carry<T> const& dcarry, Mat<T> dx) const;
};

}  // namespace strata::model
