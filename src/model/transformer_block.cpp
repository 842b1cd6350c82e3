// SPDX-License-Identifier: Apache-2.0
#include "model/transformer_block.hpp"

#include <algorithm>
#include <cmath>

#include "core/error.hpp"
#include "kernels/activation.hpp"
#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/cross_patch.hpp"
#include "kernels/linear.hpp"
#include "kernels/norm.hpp"
#include "kernels/reduce.hpp"

namespace strata::model {

using kernels::columns;
using kernels::flat;
using kernels::RmsForm;
using kernels::rows;

template <class T>
struct TransformerBlock<T>::LayerTape {
  Mat<T> x, x1, x2;  // the residual stream before, between and after the two sub-layers (rows, D)
  Mat<T> q, o;       // (rows, H*d)
  Mat<T> h;          // W1 u without bias (rows, F)
  Mat<T> log_sum;    // (rows, H)
  Vec<T> attention_inverse_norm, feed_inverse_norm, final_inverse_norm;  // (rows)
  Index size;                                                            // of the whole tape
};

template <class T>
struct TransformerBlock<T>::NormTape {
  Mat<T> x, residual;
  Vec<T> inverse_norm;
  std::size_t gain;
};

namespace {
/// More positions than a lane will ever have seen.
constexpr Index longest_past = Index(1) << 40;
}  // namespace

template <class T>
struct TransformerBlock<T>::Scratch {
  // Cosines and sines (T, d), or (sequences, d), empty without rotary positions; and those of the positions
  // before.
  Mat<T> rotation, rotation_before;
  Mat<T> u;              // normalised input, later its gradient (rows, D)
  Mat<T> wide;           // qkv and their gradient (rows, 3*H*d), or gelu's output (rows, F)
  Mat<T> wide_gradient;  // backward: gradient of o, of q (rows, 2*H*d), or of gelu's input (rows, F)
  Mat<T> dnext;          // backward: gradient of the border behind the span (sequences, shifted)
  Vec<T> workspace;

  static Scratch take(core::Arena& arena, TransformerBlock const& block, Sequences shape, bool backward) {
    Index const inner = block.config_.inner_width();
    Index const feed = block.config_.ff_multiplier * block.width_;
    Index const n = shape.rows();
    Scratch s;
    if (block.config_.attn_use_rot_embs) {
      s.rotation = arena.template matrix<T>(shape.starts == nullptr ? shape.length : shape.count,
                                            block.config_.attn_head_dims);
      Index const before = block.table_before(shape);
      if (before > 0) s.rotation_before = arena.template matrix<T>(before, block.config_.attn_head_dims);
    }
    s.u = arena.template matrix<T>(n, block.width_);
    s.wide = arena.template matrix<T>(n, std::max(3 * inner, feed));
    if (shape.slots != nullptr) {  // also for longer spans, so that shorter ones never take more
      Sequences const one{shape.count, 1, shape.slots, shape.starts};
      s.workspace = arena.template vector<T>(
          kernels::attention_forward_workspace(block.attention_shape(one, longest_past)));
    }
    if (backward) {
      s.wide_gradient = arena.template matrix<T>(n, std::max(2 * inner, feed));
      s.dnext = arena.template matrix<T>(shape.count, block.shifted_);
      s.workspace = arena.template vector<T>(
          std::max({kernels::shift_rms_norm_workspace(shape, block.width_),
                    kernels::column_sums_workspace(n, block.width_), kernels::bias_gelu_workspace(n, feed),
                    kernels::attention_workspace(block.attention_shape(shape, 0))}));
    }
    return s;
  }
};

template <class T>
struct TransformerBlock<T>::Span {
  Pass<T> const& pass;
  Tape<T> const& tape;
  Carry<T> const& before;  // in forward the carry itself, whose borders are replaced one after the other
  Scratch scratch;
  Index start() const { return before.position; }
  Sequences shape() const { return tape.shape; }
  Index count() const { return tape.shape.rows(); }
};

template <class T>
TransformerBlock<T>::TransformerBlock(BlockConfig const& config, Index width, Index layers,
                                      std::string const& prefix, Ready ready, ParameterStore<T>& parameters)
    : config_(config), width_(width), shifted_(config.causal() ? width / 2 : 0) {
  Index const inner = config.inner_width();
  Index const feed = config.ff_multiplier * width;
  auto const uniform = [](Index fan_in) {
    return Initial{Initial::Kind::uniform, 1 / std::sqrt(static_cast<double>(fan_in))};
  };
  Initial const one{Initial::Kind::constant, 1};
  for (Index l = 0; l < layers; ++l) {
    std::string const attention = prefix + "layers." + std::to_string(l) + ".0.";
    std::string const feed_forward = prefix + "layers." + std::to_string(l) + ".1.";
    Layer layer{};
    layer.attention_gain = parameters.declare(attention + "norm.g", {width}, one, ready);
    layer.to_q = parameters.declare(attention + "to_q.weight", {inner, width}, uniform(width), ready);
    layer.to_kv =
        parameters.declare(attention + "to_kv.weight", {2 * inner, width}, uniform(width), ready, true);
    layer.to_out = parameters.declare(attention + "to_out.weight", {width, inner}, uniform(inner), ready);
    layer.feed_gain = parameters.declare(feed_forward + "0.g", {width}, one, ready);
    layer.feed_in = parameters.declare(feed_forward + "1.weight", {feed, width}, uniform(width), ready);
    layer.feed_in_bias = parameters.declare(feed_forward + "1.bias", {feed}, uniform(width), ready);
    layer.feed_out = parameters.declare(feed_forward + "4.weight", {width, feed}, uniform(feed), ready);
    layer.feed_out_bias = parameters.declare(feed_forward + "4.bias", {width}, uniform(feed), ready);
    layers_.push_back(layer);
  }
  final_gain_ = parameters.declare(prefix + "norm.g", {width}, one, ready);
}

template <class T>
typename TransformerBlock<T>::LayerTape TransformerBlock<T>::layer_tape(Tape<T> const& tape,
                                                                        Index layer) const {
  Index const n = tape.shape.rows(), inner = config_.inner_width(), kept = tape.keeps ? layers() : 1;
  // Without keeping, two stream buffers alternate: a sub-layer reads one and writes the other.
  Index const streams = tape.keeps ? 2 * layers() + 1 : 2;
  auto const stream = [&](Index i) {
    return TapePieces<T>(tape).take_one_of(streams, i % streams, n, width_);
  };
  TapePieces<T> pieces(tape);
  LayerTape t;
  t.x = stream(2 * layer);
  t.x1 = stream(2 * layer + 1);
  t.x2 = stream(2 * layer + 2);
  pieces.take_one_of(streams, 0, n, width_);
  t.final_inverse_norm = pieces.take(n);
  auto const one = [&](Index columns) { return pieces.take_one_of(kept, layer % kept, n, columns); };
  t.q = one(inner);
  t.o = one(inner);
  t.h = one(config_.ff_multiplier * width_);
  t.log_sum = one(config_.attn_num_heads);
  t.attention_inverse_norm = flat(one(1));
  t.feed_inverse_norm = flat(one(1));
  t.size = pieces.used();
  return t;
}

template <class T>
Index TransformerBlock<T>::tape_size(Sequences shape, bool keeps) const {
  return layer_tape({Vec<T>(), shape, keeps}, 0).size;
}

template <class T>
typename TransformerBlock<T>::NormTape TransformerBlock<T>::norm_tape(Tape<T> const& tape, SubLayer part,
                                                                      Index l) const {
  LayerTape const t = layer_tape(tape, l);
  Layer const& layer = layers_[static_cast<std::size_t>(l)];
  if (part == SubLayer::attention) return {t.x, t.x1, t.attention_inverse_norm, layer.attention_gain};
  return {t.x1, t.x2, t.feed_inverse_norm, layer.feed_gain};
}

template <class T>
kernels::KeyValues<T> TransformerBlock<T>::layer_history(Carry<T> const& carry, Index layer) const {
  Index const capacity = carry.before + carry.capacity, size = carry.sequences * capacity;
  return {rows(carry.history, layer * size, (layer + 1) * size), capacity, carry.before};
}

template <class T>
kernels::AttentionShape TransformerBlock<T>::attention_shape(Sequences shape, Index start,
                                                             kernels::Previous previous) const {
  return {shape, start, config_.attn_num_heads, config_.attn_head_dims, config_.causal(), previous};
}

template <class T>
kernels::Dropout TransformerBlock<T>::dropout(DropoutStream const& stream, SubLayer part, Index layer) const {
  bool const attention = part == SubLayer::attention;
  return stream.site(attention ? config_.attn_dropout : config_.ff_dropout, 2 * layer + (attention ? 0 : 1));
}

template <class T>
Mat<T> TransformerBlock<T>::shifted_border(Carry<T> const& carry, SubLayer part, Index layer) const {
  if (carry.border.data() == nullptr || shifted_ == 0) return {};
  Index const first = part == SubLayer::attention ? 0 : shifted_;
  return columns(Block<T>::layer_border(carry, layer), first, first + shifted_);
}

template <class T>
Mat<T> TransformerBlock<T>::previous(Span const& span, SubLayer part, Index layer) const {
  return span.start() > 0 ? shifted_border(span.before, part, layer) : Mat<T>();
}

/// scratch.u = the norm of the shifted input of a sub-layer; with_residual: starts the stream behind it.
template <class T>
void TransformerBlock<T>::normalise(Span const& span, SubLayer part, Index l, bool with_residual) const {
  NormTape const t = norm_tape(span.tape, part, l);
  ParameterStore<T> const& p = span.pass.parameters;
  bool const with_bias = with_residual && part == SubLayer::feed_forward;
  kernels::shift_rms_norm_forward<T>(
      span.pass.space, span.shape(), RmsForm::clamped, shifted_, t.x, previous(span, part, l),
      p.vector(t.gain), span.scratch.u, t.inverse_norm, with_residual ? t.residual : Mat<T>(),
      with_bias ? p.vector(layers_[static_cast<std::size_t>(l)].feed_out_bias) : Vec<T>());
}

/// From the gradient of scratch.u, in its place, to the stream's, and on to the border before the span.
template <class T>
void TransformerBlock<T>::normalise_backward(Span const& span, SubLayer part, Index l, Carry<T> const& dcarry,
                                             Mat<T> dx) const {
  NormTape const t = norm_tape(span.tape, part, l);
  ParameterStore<T> const& p = span.pass.parameters;
  Mat<T> const dborder = shifted_border(dcarry, part, l);
  Mat<T> dnext;
  if (dborder.data() != nullptr) {
    dnext = span.scratch.dnext;
    Kokkos::deep_copy(span.pass.space, dnext, dborder);
  }
  kernels::shift_rms_norm_backward<T>(span.pass.space, span.shape(), RmsForm::clamped, shifted_,
                                      span.scratch.u, t.x, previous(span, part, l), p.vector(t.gain),
                                      t.inverse_norm, dnext, dx, dborder, p.gradient_vector(t.gain),
                                      span.scratch.workspace);
}

template <class T>
std::size_t TransformerBlock<T>::forward_scratch(Sequences shape, bool /*carries*/) const {
  core::Arena arena = core::Arena::measuring();
  Scratch::take(arena, *this, shape, false);
  return arena.peak();
}

template <class T>
std::size_t TransformerBlock<T>::backward_scratch(Sequences shape, bool /*carries*/) const {
  core::Arena arena = core::Arena::measuring();
  Scratch::take(arena, *this, shape, true);
  return arena.peak();
}

template <class T>
void TransformerBlock<T>::rotary_tables(Span const& span) const {
  Scratch const& scratch = span.scratch;
  ExecSpace const& space = span.pass.space;
  Sequences const shape = span.shape();
  if (scratch.rotation.data() != nullptr)
    kernels::rotary_table<T>(space, shape.starts == nullptr ? span.start() : 0, scratch.rotation,
                             shape.starts);
  if (scratch.rotation_before.data() != nullptr)
    kernels::rotary_table<T>(space, -rows_before(), scratch.rotation_before);
}

template <class T>
bool TransformerBlock<T>::sees_sequences_before(Span const& span) const {
  return span.tape.previous.seen != nullptr && span.shape().slots == nullptr;
}

template <class T>
void TransformerBlock<T>::forward(Pass<T> const& pass, Tape<T> const& tape, Carry<T>& carry, Mat<T> y) const {
  STRATA_REQUIRE(config_.causal() || carry.position == 0,
                 "a bidirectional encoder sees a whole sequence at once and cannot continue from a carry");
  STRATA_REQUIRE(tape.shape.fits(carry.sequences) && carry.position + tape.shape.length <= carry.capacity,
                 "carry of " << carry.sequences << " x " << carry.capacity << " positions, at "
                             << carry.position << ", does not take " << tape.shape.count << " x "
                             << tape.shape.length << " more");
  core::Arena::Frame const frame(pass.arena);
  Span const span{pass, tape, carry, Scratch::take(pass.arena, *this, tape.shape, false)};
  STRATA_REQUIRE(tape.previous.seen == nullptr || tape.shape.slots != nullptr || carry.position == 0,
                 "cross-patch attention between sequences in pieces");
  rotary_tables(span);
  for (Index l = 0; l < layers(); ++l) {
    kernels::Region const region("layer", l + 1);
    attention_forward(span, l);
    feed_forward(span, l);
  }
  LayerTape const last = layer_tape(tape, layers() - 1);
  kernels::shift_rms_norm_forward<T>(pass.space, tape.shape, RmsForm::clamped, 0, last.x2, {},
                                     pass.parameters.vector(final_gain_), y, last.final_inverse_norm, {}, {});
  carry.position += tape.shape.length;
}

template <class T>
void TransformerBlock<T>::attention_forward(Span const& span, Index l) const {
  Pass<T> const& pass = span.pass;
  Scratch const& scratch = span.scratch;
  Layer const& layer = layers_[static_cast<std::size_t>(l)];
  LayerTape const t = layer_tape(span.tape, l);
  ParameterStore<T> const& p = pass.parameters;
  normalise(span, SubLayer::attention, l, true);
  Mat<T> const border = shifted_border(span.before, SubLayer::attention, l);
  if (border.data() != nullptr) kernels::last_rows<T>(pass.space, span.shape(), t.x, border);
  Mat<T> const qkv(scratch.wide.data(), span.count(), 3 * config_.inner_width());
  kernels::KeyValues<T> const history = layer_history(span.before, l);
  kernels::linear_forward<T>(pass.space, scratch.u, p.stacked_value(layer.to_q, layer.to_kv), {}, qkv);
  kernels::split_rotate_forward<T>(pass.space, span.shape(), span.start(), config_.attn_num_heads,
                                   scratch.rotation, qkv, t.q, history);
  if (sees_sequences_before(span))
    kernels::cross_patch_forward<T>(pass.space, span.shape(), span.tape.previous, config_.attn_num_heads,
                                    scratch.rotation_before, qkv, history);
  kernels::attention_forward<T>(pass.space, attention_shape(span.shape(), span.start(), span.tape.previous),
                                t.q, history, dropout(pass.dropout, SubLayer::attention, l), t.o, t.log_sum,
                                scratch.workspace);
  kernels::linear_forward_accumulate<T>(pass.space, t.o, p.value(layer.to_out), t.x1);
}

template <class T>
void TransformerBlock<T>::feed_forward(Span const& span, Index l) const {
  Pass<T> const& pass = span.pass;
  Layer const& layer = layers_[static_cast<std::size_t>(l)];
  LayerTape const t = layer_tape(span.tape, l);
  ParameterStore<T> const& p = pass.parameters;
  normalise(span, SubLayer::feed_forward, l, true);
  Mat<T> const border = shifted_border(span.before, SubLayer::feed_forward, l);
  if (border.data() != nullptr) kernels::last_rows<T>(pass.space, span.shape(), t.x1, border);
  kernels::linear_forward<T>(pass.space, span.scratch.u, p.value(layer.feed_in), {}, t.h);
  Mat<T> const gelu(span.scratch.wide.data(), t.h.extent(0), t.h.extent(1));
  kernels::bias_gelu_forward<T>(pass.space, t.h, p.vector(layer.feed_in_bias),
                                dropout(pass.dropout, SubLayer::feed_forward, l), gelu);
  kernels::linear_forward_accumulate<T>(pass.space, gelu, p.value(layer.feed_out), t.x2);
}

template <class T>
void TransformerBlock<T>::backward(Pass<T> const& pass, Tape<T> const& tape, Carry<T> const& before,
                                   Carry<T> const& dcarry, ConstMat<T> dy, Mat<T> dx) const {
  STRATA_REQUIRE(tape.keeps, "backward needs a tape that keeps all layers");
  core::Arena::Frame const frame(pass.arena);
  Span const span{pass, tape, before, Scratch::take(pass.arena, *this, tape.shape, true)};
  rotary_tables(span);
  LayerTape const last = layer_tape(tape, layers() - 1);
  Kokkos::deep_copy(pass.space, dx, T(0));
  kernels::shift_rms_norm_backward<T>(pass.space, tape.shape, RmsForm::clamped, 0, dy, last.x2, {},
                                      pass.parameters.vector(final_gain_), last.final_inverse_norm, {}, dx,
                                      {}, pass.parameters.gradient_vector(final_gain_),
                                      span.scratch.workspace);
  for (Index l = layers() - 1; l >= 0; --l) {
    kernels::Region const region("layer", l + 1);
    feed_backward(span, l, dcarry, dx);
    attention_backward(span, l, dcarry, dx);
  }
}

template <class T>
void TransformerBlock<T>::feed_backward(Span const& span, Index l, Carry<T> const& dcarry, Mat<T> dx) const {
  Pass<T> const& pass = span.pass;
  Scratch const& scratch = span.scratch;
  Layer const& layer = layers_[static_cast<std::size_t>(l)];
  LayerTape const t = layer_tape(span.tape, l);
  ParameterStore<T> const& p = pass.parameters;
  Mat<T> const gelu(scratch.wide.data(), t.h.extent(0), t.h.extent(1));
  Mat<T> const dh(scratch.wide_gradient.data(), t.h.extent(0), t.h.extent(1));
  kernels::Dropout const keep = dropout(pass.dropout, SubLayer::feed_forward, l);

  {
    kernels::Region const region("rebuild");
    kernels::bias_gelu_forward<T>(pass.space, t.h, p.vector(layer.feed_in_bias), keep, gelu);
  }
  kernels::linear_backward_weight<T>(pass.space, dx, gelu, p.gradient(layer.feed_out));
  kernels::column_sums<T>(pass.space, dx, p.gradient_vector(layer.feed_out_bias), scratch.workspace);
  kernels::linear_backward_input<T>(pass.space, dx, p.value(layer.feed_out), dh);
  kernels::bias_gelu_backward<T>(pass.space, dh, t.h, p.vector(layer.feed_in_bias), keep, dh,
                                 p.gradient_vector(layer.feed_in_bias), scratch.workspace);
  {
    kernels::Region const region("rebuild");
    normalise(span, SubLayer::feed_forward, l, false);
  }
  kernels::linear_backward_weight<T>(pass.space, dh, scratch.u, p.gradient(layer.feed_in));
  kernels::linear_backward_input<T>(pass.space, dh, p.value(layer.feed_in), scratch.u);
  normalise_backward(span, SubLayer::feed_forward, l, dcarry, dx);
}

template <class T>
void TransformerBlock<T>::attention_backward(Span const& span, Index l, Carry<T> const& dcarry,
                                             Mat<T> dx) const {
  Pass<T> const& pass = span.pass;
  Scratch const& scratch = span.scratch;
  Layer const& layer = layers_[static_cast<std::size_t>(l)];
  LayerTape const t = layer_tape(span.tape, l);
  ParameterStore<T> const& p = pass.parameters;
  Index const inner = config_.inner_width(), n = span.count();
  Mat<T> const dqkv(scratch.wide.data(), n, 3 * inner);
  Mat<T> const dout(scratch.wide_gradient.data(), n, inner);
  Mat<T> const dq(scratch.wide_gradient.data() + n * inner, n, inner);
  kernels::KeyValues<T> const history = layer_history(span.before, l), dhistory = layer_history(dcarry, l);

  kernels::linear_backward_weight<T>(pass.space, dx, t.o, p.gradient(layer.to_out));
  kernels::linear_backward_input<T>(pass.space, dx, p.value(layer.to_out), dout);
  kernels::attention_backward<T>(
      pass.space, attention_shape(span.shape(), span.start(), span.tape.previous), t.q, history, t.o,
      t.log_sum, dout, dropout(pass.dropout, SubLayer::attention, l), dq, dhistory, scratch.workspace);
  kernels::split_rotate_backward<T>(pass.space, span.shape(), span.start(), config_.attn_num_heads,
                                    scratch.rotation, dq, dhistory, dqkv);
  if (sees_sequences_before(span))
    kernels::cross_patch_backward<T>(pass.space, span.shape(), span.tape.previous, config_.attn_num_heads,
                                     scratch.rotation_before, dhistory, dqkv);
  {
    kernels::Region const region("rebuild");
    normalise(span, SubLayer::attention, l, false);
  }
  kernels::linear_backward_weight<T>(pass.space, dqkv, scratch.u,
                                     p.stacked_gradient(layer.to_q, layer.to_kv));
  kernels::linear_backward_input<T>(pass.space, dqkv, p.stacked_value(layer.to_q, layer.to_kv), scratch.u);
  normalise_backward(span, SubLayer::attention, l, dcarry, dx);
}

template <class T>
void TransformerBlock<T>::next_sequence(Pass<T> const& pass, Sequences lanes, Index rows,
                                        Carry<T> const& carry) const {
  if (rows_before() == 0 || lanes.count == 0) return;
  core::Arena::Frame const frame(pass.arena);
  Mat<T> rotation;
  if (config_.attn_use_rot_embs) {
    rotation = pass.arena.template matrix<T>(1, config_.attn_head_dims);
    kernels::rotary_table<T>(pass.space, -rows, rotation);
  }
  for (Index l = 0; l < layers(); ++l)
    kernels::cross_patch_next<T>(pass.space, lanes, rows, config_.attn_num_heads, rotation,
                                 layer_history(carry, l));
}

template <class T>
double TransformerBlock<T>::forward_flops(Sequences shape, Index start, bool square,
                                          Index previous_total) const {
  double const n = static_cast<double>(shape.rows());
  double const products = 2.0 * static_cast<double>(width_) *
                          (4.0 * static_cast<double>(config_.inner_width()) +
                           2.0 * static_cast<double>(config_.ff_multiplier * width_));
  double const keys = static_cast<double>(start + shape.length);
  // Average number of keys a query sees.
  double const seen = square || !config_.causal()
                          ? keys
                          : static_cast<double>(start) + (static_cast<double>(shape.length) + 1) / 2;
  double const pairs = n * seen + static_cast<double>(shape.length * previous_total);
  return static_cast<double>(layers()) *
         (n * products + 4.0 * static_cast<double>(config_.inner_width()) * pairs);
}

template class TransformerBlock<float>;
template class TransformerBlock<double>;

}  // namespace strata::model
