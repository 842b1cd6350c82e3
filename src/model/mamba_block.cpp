// SPDX-License-Identifier: Apache-2.0
#include "model/mamba_block.hpp"

#include <algorithm>

#include "kernels/causal_conv.hpp"
#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/gate.hpp"
#include "kernels/lanes.hpp"
#include "kernels/linear.hpp"
#include "kernels/norm.hpp"

namespace strata::model {

using kernels::columns;
using kernels::RmsForm;

template <class T>
struct MambaBlock<T>::LayerTape {
  Mat<T> x, next;                           // the residual stream before and behind the layer (rows, D)
  Mat<T> projected;                         // (rows, P)
  Mat<T> mixed;                             // (rows, E)
  Mat<T> kept;                              // (rows, Columns::kept)
  Vec<T> inverse_norm, final_inverse_norm;  // (rows)
  Index size = 0;                           // of the whole tape
};

template <class T>
struct MambaBlock<T>::Scratch {
  Mat<T> u;  // normalised input, later its gradient; a layer's output while it is being dropped (rows, D)
  Mat<T> convolved;   // (rows, C)
  Mat<T> gated;       // (rows, E), later its gradient
  Mat<T> dprojected;  // backward (rows, P)
  Mat<T> dconvolved;  // backward (rows, C)
  Vec<T> mixer, workspace;

  static Scratch take(core::Arena& arena, MambaBlock const& block, Sequences shape, bool carries,
                      bool backward) {
    Columns const& c = block.columns_;
    Index const n = shape.rows();
    Scratch s;
    s.u = arena.template matrix<T>(n, block.width_);
    s.convolved = arena.template matrix<T>(n, c.convolved);
    s.gated = arena.template matrix<T>(n, c.channels);
    s.mixer = arena.template vector<T>(block.mixer_workspace(shape, carries, backward));
    if (backward) {
      s.dprojected = arena.template matrix<T>(n, c.projected);
      s.dconvolved = arena.template matrix<T>(n, c.convolved);
      s.workspace =
          arena.template vector<T>(std::max(kernels::shift_rms_norm_workspace(shape, block.width_),
                                            kernels::causal_conv_workspace(shape, c.convolved, c.inputs)));
    }
    return s;
  }
};

template <class T>
Mat<T> MambaBlock<T>::tail(Mat<T> border) const {
  return border.data() == nullptr || tail_size() == 0 ? Mat<T>() : columns(border, 0, tail_size());
}

template <class T>
Mat<T> MambaBlock<T>::state(Mat<T> border) const {
  return border.data() == nullptr ? Mat<T>() : columns(border, tail_size(), border_width());
}

/// y takes the place of the stream behind the last layer when no final norm reads it.
template <class T>
typename MambaBlock<T>::LayerTape MambaBlock<T>::layer_tape(Tape<T> const& tape, Index layer,
                                                            Mat<T> y) const {
  Index const n = tape.shape.rows(), kept = tape.keeps ? layers() : 1;
  // Without keeping, two stream buffers alternate.
  Index const streams = tape.keeps ? layers() + (has_final_norm_ ? 1 : 0) : 2;
  auto const stream = [&](Index i) {
    return TapePieces<T>(tape).take_one_of(streams, i % streams, n, width_);
  };
  TapePieces<T> pieces(tape);
  LayerTape t;
  t.x = stream(layer);
  t.next = layer + 1 == layers() && !has_final_norm_ ? y : stream(layer + 1);
  pieces.take_one_of(streams, 0, n, width_);
  if (has_final_norm_) t.final_inverse_norm = pieces.take(n);
  auto const one = [&](Index width) { return pieces.take_one_of(kept, layer % kept, n, width); };
  t.projected = one(columns_.projected);
  t.mixed = one(columns_.channels);
  t.kept = one(columns_.kept);
  t.inverse_norm = kernels::flat(one(1));
  t.size = pieces.used();
  return t;
}

template <class T>
Index MambaBlock<T>::tape_size(Sequences shape, bool keeps) const {
  return layer_tape({Vec<T>(), shape, keeps}, 0, {}).size;
}

template <class T>
std::size_t MambaBlock<T>::forward_scratch(Sequences shape, bool carries) const {
  core::Arena arena = core::Arena::measuring();
  Scratch::take(arena, *this, shape, carries, false);
  return arena.peak();
}

template <class T>
std::size_t MambaBlock<T>::backward_scratch(Sequences shape, bool carries) const {
  core::Arena arena = core::Arena::measuring();
  Scratch::take(arena, *this, shape, carries, true);
  return arena.peak();
}

/// Of the last layer's output only, before it joins the stream.
template <class T>
kernels::Dropout MambaBlock<T>::dropout(Pass<T> const& pass, Index layer) const {
  bool const drops = has_final_norm_ && layer + 1 == layers();
  return drops ? pass.dropout.site(config_.dropout, layer) : kernels::Dropout();
}

template <class T>
void MambaBlock<T>::forward(Pass<T> const& pass, Tape<T> const& tape, Carry<T>& carry, Mat<T> y) const {
  STRATA_REQUIRE(tape.shape.fits(carry.sequences),
                 "carry of " << carry.sequences << " sequences for " << tape.shape.count);
  STRATA_REQUIRE(carry.position == 0 || carry.border.data() != nullptr, "nothing to continue from");
  core::Arena::Frame const frame(pass.arena);
  bool const carries = carry.border.data() != nullptr;
  Scratch const scratch = Scratch::take(pass.arena, *this, tape.shape, carries, false);
  for (Index l = 0; l < layers(); ++l) {
    kernels::Region const region("layer", l + 1);
    layer_forward(pass, layer_tape(tape, l, y), scratch, tape.shape, l, carry);
  }
  if (has_final_norm_) {
    LayerTape const t = layer_tape(tape, layers() - 1, y);
    kernels::shift_rms_norm_forward<T>(pass.space, tape.shape, RmsForm::epsilon, 0, t.next, {},
                                       pass.parameters.vector(final_gain_), y, t.final_inverse_norm, {}, {});
  }
  carry.position += tape.shape.length;
}

template <class T>
void MambaBlock<T>::layer_forward(Pass<T> const& pass, LayerTape const& t, Scratch const& scratch,
                                  Sequences shape, Index l, Carry<T> const& carry) const {
  Layer const& layer = layers_[static_cast<std::size_t>(l)];
  Columns const& c = columns_;
  ParameterStore<T> const& p = pass.parameters;
  Mat<T> const border = Block<T>::layer_border(carry, l), inputs_before = tail(border),
               through = state(border);
  bool const continues = carry.position > 0;
  if (!continues && through.data() != nullptr) kernels::clear_lanes<T>(pass.space, shape, through);

  kernels::shift_rms_norm_forward<T>(pass.space, shape, RmsForm::epsilon, 0, t.x, {}, p.vector(layer.gain),
                                     scratch.u, t.inverse_norm, t.next, {});
  kernels::linear_forward<T>(pass.space, scratch.u, p.value(layer.in_weight), {}, t.projected);
  Mat<T> const inputs = columns(t.projected, c.convolution, c.convolution + c.convolved);
  Mat<T> const previous = continues ? inputs_before : Mat<T>();
  kernels::causal_conv_silu_forward<T>(pass.space, shape, inputs, previous, p.value(layer.conv_weight),
                                       p.vector(layer.conv_bias), scratch.convolved);
  if (inputs_before.data() != nullptr)
    kernels::causal_conv_border<T>(pass.space, shape, inputs, previous, inputs_before);
  mix({pass, l, shape, t.projected, scratch.convolved, t.mixed, t.kept, scratch.mixer}, through,
      scratch.gated);
  kernels::Dropout const keep = dropout(pass, l);
  if (keep.active()) {
    kernels::linear_forward<T>(pass.space, scratch.gated, p.value(layer.out_weight), {}, scratch.u);
    kernels::add_dropped<T>(pass.space, keep, scratch.u, t.next);
  } else {
    kernels::linear_forward_accumulate<T>(pass.space, scratch.gated, p.value(layer.out_weight), t.next);
  }
}

template <class T>
void MambaBlock<T>::backward(Pass<T> const& pass, Tape<T> const& tape, Carry<T> const& before,
                             Carry<T> const& dcarry, ConstMat<T> dy, Mat<T> dx) const {
  STRATA_REQUIRE(tape.keeps, "backward needs a tape that keeps all layers");
  core::Arena::Frame const frame(pass.arena);
  bool const carries = dcarry.border.data() != nullptr;
  Scratch const scratch = Scratch::take(pass.arena, *this, tape.shape, carries, true);
  if (has_final_norm_) {
    LayerTape const t = layer_tape(tape, layers() - 1, {});
    Kokkos::deep_copy(pass.space, dx, T(0));
    kernels::shift_rms_norm_backward<T>(pass.space, tape.shape, RmsForm::epsilon, 0, dy, t.next, {},
                                        pass.parameters.vector(final_gain_), t.final_inverse_norm, {}, dx, {},
                                        pass.parameters.gradient_vector(final_gain_), scratch.workspace);
  } else {
    Kokkos::deep_copy(pass.space, dx, dy);
  }
  for (Index l = layers() - 1; l >= 0; --l) {
    kernels::Region const region("layer", l + 1);
    layer_backward(pass, layer_tape(tape, l, {}), scratch, tape.shape, l, before, dcarry, dx);
  }
}

template <class T>
void MambaBlock<T>::layer_backward(Pass<T> const& pass, LayerTape const& t, Scratch const& scratch,
                                   Sequences shape, Index l, Carry<T> const& before, Carry<T> const& dcarry,
                                   Mat<T> dx) const {
  Layer const& layer = layers_[static_cast<std::size_t>(l)];
  Columns const& c = columns_;
  ParameterStore<T> const& p = pass.parameters;
  Mat<T> const border = before.position > 0 ? Block<T>::layer_border(before, l) : Mat<T>();
  Mat<T> const dborder = Block<T>::layer_border(dcarry, l);
  Mat<T> const inputs = columns(t.projected, c.convolution, c.convolution + c.convolved);
  Mat<T> const dinputs = columns(scratch.dprojected, c.convolution, c.convolution + c.convolved);
  MixerCall const call{pass, l, shape, t.projected, scratch.convolved, t.mixed, t.kept, scratch.mixer};

  {
    kernels::Region const region("rebuild");
    kernels::causal_conv_silu_forward<T>(pass.space, shape, inputs, tail(border), p.value(layer.conv_weight),
                                         p.vector(layer.conv_bias), scratch.convolved);
    gate(call, scratch.gated);
  }
  ConstMat<T> dout = dx;
  kernels::Dropout const keep = dropout(pass, l);
  if (keep.active()) {
    kernels::drop<T>(pass.space, keep, dx, scratch.u);
    dout = scratch.u;
  }
  kernels::linear_backward_weight<T>(pass.space, dout, scratch.gated, p.gradient(layer.out_weight));
  kernels::linear_backward_input<T>(pass.space, dout, p.value(layer.out_weight), scratch.gated);
  mix_backward(call, state(border), scratch.gated, scratch.dprojected, scratch.dconvolved, state(dborder));
  kernels::causal_conv_silu_backward<T>(pass.space, shape, scratch.dconvolved, inputs, tail(border),
                                        p.value(layer.conv_weight), p.vector(layer.conv_bias), dinputs,
                                        tail(dborder), p.gradient(layer.conv_weight),
                                        p.gradient_vector(layer.conv_bias), scratch.workspace);
  {
    kernels::Region const region("rebuild");
    kernels::shift_rms_norm_forward<T>(pass.space, shape, RmsForm::epsilon, 0, t.x, {}, p.vector(layer.gain),
                                       scratch.u, t.inverse_norm, {}, {});
  }
  kernels::linear_backward_weight<T>(pass.space, scratch.dprojected, scratch.u, p.gradient(layer.in_weight));
  kernels::linear_backward_input<T>(pass.space, scratch.dprojected, p.value(layer.in_weight), scratch.u);
  kernels::shift_rms_norm_backward<T>(pass.space, shape, RmsForm::epsilon, 0, scratch.u, t.x, {},
                                      p.vector(layer.gain), t.inverse_norm, {}, dx, {},
                                      p.gradient_vector(layer.gain), scratch.workspace);
}

template <class T>
double MambaBlock<T>::forward_flops(Sequences shape, Index /*start*/, bool /*square*/,
                                    Index /*previous_total*/) const {
  Columns const& c = columns_;
  double const per_row = 2.0 * static_cast<double>(width_) * static_cast<double>(c.projected + c.channels) +
                         2.0 * static_cast<double>(c.convolved * c.inputs);
  return static_cast<double>(layers()) * (static_cast<double>(shape.rows()) * per_row + mixer_flops(shape));
}

template class MambaBlock<float>;
template class MambaBlock<double>;

}  // namespace strata::model
