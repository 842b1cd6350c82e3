// SPDX-License-Identifier: Apache-2.0
#include "model/transformer_block.hpp"

#include <algorithm>
#include <cmath>

#include "core/error.hpp"
#include "kernels/activation.hpp"
#include "kernels/common/check.hpp"
#include "kernels/linear.hpp"
#include "kernels/norm.hpp"
#include "kernels/reduce.hpp"

namespace strata::model {

using kernels::columns;
using kernels::flat;
using kernels::RmsForm;
using kernels::rows;

namespace {
/// Pieces of a tape start on cache lines.
Index padded(Index elements) { return (elements + 15) / 16 * 16; }
}  // namespace

template <class T>
struct TransformerBlock<T>::LayerTape {
  Mat<T> x, x1, x2;  // the residual stream before, between and after the two sub-layers (rows, D)
  Mat<T> q, o;       // (rows, H*d)
  Mat<T> h;          // W1 u without bias (rows, F)
  Mat<T> log_sum;    // (rows, H)
  Mat<T> border;     // the carry's border before this span (sequences, 2 * shifted)
  Vec<T> attention_inverse_norm, feed_inverse_norm;  // (rows)
};

template <class T>
struct TransformerBlock<T>::Scratch {
  Mat<T> rotation;       // cosines and sines (T, d), empty without rotary positions
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
    if (block.config_.attn_use_rot_embs)
      s.rotation = arena.template matrix<T>(shape.length, block.config_.attn_head_dims);
    s.u = arena.template matrix<T>(n, block.width_);
    s.wide = arena.template matrix<T>(n, std::max(3 * inner, feed));
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
  Index start;
  Scratch scratch;
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
Index TransformerBlock<T>::tape_size(Sequences shape, bool keeps) const {
  Index const n = shape.rows();
  Index const inner = config_.inner_width();
  Index const per_layer = 2 * padded(n * inner) + padded(n * config_.ff_multiplier * width_) +
                          padded(n * config_.attn_num_heads) + padded(shape.count * 2 * shifted_) +
                          2 * padded(n);
  Index const streams = keeps ? 2 * layers() + 1 : 2;
  return streams * padded(n * width_) + (keeps ? layers() : 1) * per_layer + padded(n);
}

template <class T>
typename TransformerBlock<T>::LayerTape TransformerBlock<T>::layer_tape(Tape<T> const& tape,
                                                                        Index layer) const {
  Index const n = tape.shape.rows();
  Index const inner = config_.inner_width();
  Index const feed = config_.ff_multiplier * width_;
  T* const base = tape.data.data();
  Index const stream = padded(n * width_);
  Index const streams = tape.keeps ? 2 * layers() + 1 : 2;
  // Without keeping, two stream buffers alternate: a sub-layer reads one and writes the other.
  auto const stream_at = [&](Index i) { return Mat<T>(base + (tape.keeps ? i : i % 2) * stream, n, width_); };
  Index const per_layer = 2 * padded(n * inner) + padded(n * feed) + padded(n * config_.attn_num_heads) +
                          padded(tape.shape.count * 2 * shifted_) + 2 * padded(n);
  T* at = base + streams * stream + (tape.keeps ? layer * per_layer : 0);
  auto const take = [&at](Index rows, Index columns) {
    Mat<T> m(at, rows, columns);
    at += padded(rows * columns);
    return m;
  };
  LayerTape t;
  t.x = stream_at(2 * layer);
  t.x1 = stream_at(2 * layer + 1);
  t.x2 = stream_at(2 * layer + 2);
  t.q = take(n, inner);
  t.o = take(n, inner);
  t.h = take(n, feed);
  t.log_sum = take(n, config_.attn_num_heads);
  t.border = take(tape.shape.count, 2 * shifted_);
  t.attention_inverse_norm = flat(take(1, n));
  t.feed_inverse_norm = flat(take(1, n));
  return t;
}

template <class T>
Vec<T> TransformerBlock<T>::final_inverse_norm(Tape<T> const& tape) const {
  Index const n = tape.shape.rows();
  return kernels::range(tape.data, tape_size(tape.shape, tape.keeps) - padded(n),
                        tape_size(tape.shape, tape.keeps) - padded(n) + n);
}

template <class T>
kernels::KeyValues<T> TransformerBlock<T>::layer_history(Carry<T> const& carry, Index layer) const {
  Index const size = carry.sequences * carry.capacity;
  return {rows(carry.history, layer * size, (layer + 1) * size), carry.capacity};
}

template <class T>
kernels::AttentionShape TransformerBlock<T>::attention_shape(Sequences shape, Index start) const {
  return {shape, start, config_.attn_num_heads, config_.attn_head_dims, config_.causal()};
}

template <class T>
kernels::Dropout TransformerBlock<T>::dropout(DropoutStream const& stream, Index layer,
                                              bool attention) const {
  kernels::Dropout d;
  if (!stream.training) return d;
  d.probability = attention ? config_.attn_dropout : config_.ff_dropout;
  d.seed = stream.seed;
  d.site = stream.first_site + static_cast<std::uint32_t>(2 * layer + (attention ? 0 : 1));
  d.base = stream.base;
  d.length = stream.length;
  d.stride = stream.stride;
  return d;
}

template <class T>
std::size_t TransformerBlock<T>::forward_scratch(Sequences shape) const {
  core::Arena arena = core::Arena::measuring();
  Scratch::take(arena, *this, shape, false);
  return arena.peak();
}

template <class T>
std::size_t TransformerBlock<T>::backward_scratch(Sequences shape) const {
  core::Arena arena = core::Arena::measuring();
  Scratch::take(arena, *this, shape, true);
  return arena.peak();
}

template <class T>
void TransformerBlock<T>::forward(Pass<T> const& pass, Tape<T> const& tape, Carry<T>& carry, Mat<T> y) const {
  STRATA_REQUIRE(config_.causal() || carry.position == 0,
                 "a bidirectional encoder sees a whole sequence at once and cannot continue from a carry");
  STRATA_REQUIRE(carry.sequences == tape.shape.count && carry.position + tape.shape.length <= carry.capacity,
                 "carry of " << carry.sequences << " x " << carry.capacity << " positions, at "
                             << carry.position << ", does not take " << tape.shape.count << " x "
                             << tape.shape.length << " more");
  core::Arena::Frame const frame(pass.arena);
  Span const span{pass, tape, carry.position, Scratch::take(pass.arena, *this, tape.shape, false)};
  if (span.scratch.rotation.data() != nullptr)
    kernels::rotary_table<T>(pass.space, span.start, span.scratch.rotation);
  for (Index l = 0; l < layers(); ++l) {
    attention_forward(span, l, carry);
    feed_forward(span, l, carry);
  }
  LayerTape const last = layer_tape(tape, layers() - 1);
  kernels::shift_rms_norm_forward<T>(pass.space, tape.shape, RmsForm::clamped, 0, last.x2, {},
                                     pass.parameters.vector(final_gain_), y, final_inverse_norm(tape), {},
                                     {});
  carry.position += tape.shape.length;
}

template <class T>
void TransformerBlock<T>::attention_forward(Span const& span, Index l, Carry<T> const& carry) const {
  auto const& [pass, tape, start, scratch] = span;
  Layer const& layer = layers_[l];
  LayerTape const t = layer_tape(tape, l);
  ParameterStore<T> const& p = pass.parameters;
  bool const continues = start > 0 && shifted_ > 0;
  if (carry.border.data() != nullptr && shifted_ > 0) {
    Mat<T> const border = rows(carry.border, l * carry.sequences, (l + 1) * carry.sequences);
    if (continues) Kokkos::deep_copy(pass.space, t.border, border);  // the border is about to be replaced
    kernels::last_rows<T>(pass.space, tape.shape, t.x, columns(border, 0, shifted_));
  }
  kernels::shift_rms_norm_forward<T>(pass.space, tape.shape, RmsForm::clamped, shifted_, t.x,
                                     continues ? columns(t.border, 0, shifted_) : Mat<T>(),
                                     p.vector(layer.attention_gain), scratch.u, t.attention_inverse_norm,
                                     t.x1, {});
  Mat<T> const qkv(scratch.wide.data(), span.count(), 3 * config_.inner_width());
  kernels::linear_forward<T>(pass.space, scratch.u, p.stacked_value(layer.to_q, layer.to_kv), {}, qkv);
  kernels::split_rotate_forward<T>(pass.space, tape.shape, start, config_.attn_num_heads, scratch.rotation,
                                   qkv, t.q, layer_history(carry, l));
  kernels::attention_forward<T>(pass.space, attention_shape(tape.shape, start), t.q, layer_history(carry, l),
                                dropout(pass.dropout, l, true), t.o, t.log_sum);
  kernels::linear_forward_accumulate<T>(pass.space, t.o, p.value(layer.to_out), t.x1);
}

template <class T>
void TransformerBlock<T>::feed_forward(Span const& span, Index l, Carry<T> const& carry) const {
  auto const& [pass, tape, start, scratch] = span;
  Layer const& layer = layers_[l];
  LayerTape const t = layer_tape(tape, l);
  ParameterStore<T> const& p = pass.parameters;
  bool const continues = start > 0 && shifted_ > 0;
  if (carry.border.data() != nullptr && shifted_ > 0) {
    Mat<T> const border = rows(carry.border, l * carry.sequences, (l + 1) * carry.sequences);
    kernels::last_rows<T>(pass.space, tape.shape, t.x1, columns(border, shifted_, 2 * shifted_));
  }
  kernels::shift_rms_norm_forward<T>(pass.space, tape.shape, RmsForm::clamped, shifted_, t.x1,
                                     continues ? columns(t.border, shifted_, 2 * shifted_) : Mat<T>(),
                                     p.vector(layer.feed_gain), scratch.u, t.feed_inverse_norm, t.x2,
                                     p.vector(layer.feed_out_bias));
  kernels::linear_forward<T>(pass.space, scratch.u, p.value(layer.feed_in), {}, t.h);
  Mat<T> const gelu(scratch.wide.data(), t.h.extent(0), t.h.extent(1));
  kernels::bias_gelu_forward<T>(pass.space, t.h, p.vector(layer.feed_in_bias),
                                dropout(pass.dropout, l, false), gelu);
  kernels::linear_forward_accumulate<T>(pass.space, gelu, p.value(layer.feed_out), t.x2);
}

template <class T>
void TransformerBlock<T>::backward(Pass<T> const& pass, Tape<T> const& tape, Index start,
                                   Carry<T> const& carry, Carry<T> const& dcarry, ConstMat<T> dy,
                                   Mat<T> dx) const {
  STRATA_REQUIRE(tape.keeps, "backward needs a tape that keeps all layers");
  core::Arena::Frame const frame(pass.arena);
  Span const span{pass, tape, start, Scratch::take(pass.arena, *this, tape.shape, true)};
  if (span.scratch.rotation.data() != nullptr)
    kernels::rotary_table<T>(pass.space, start, span.scratch.rotation);
  LayerTape const last = layer_tape(tape, layers() - 1);
  Kokkos::deep_copy(pass.space, dx, T(0));
  kernels::shift_rms_norm_backward<T>(pass.space, tape.shape, RmsForm::clamped, 0, dy, last.x2, {},
                                      pass.parameters.vector(final_gain_), final_inverse_norm(tape), {}, dx,
                                      {}, pass.parameters.gradient_vector(final_gain_),
                                      span.scratch.workspace);
  for (Index l = layers() - 1; l >= 0; --l) {
    feed_backward(span, l, dcarry, dx);
    attention_backward(span, l, carry, dcarry, dx);
  }
}

template <class T>
void TransformerBlock<T>::feed_backward(Span const& span, Index l, Carry<T> const& dcarry, Mat<T> dx) const {
  auto const& [pass, tape, start, scratch] = span;
  Layer const& layer = layers_[l];
  LayerTape const t = layer_tape(tape, l);
  ParameterStore<T> const& p = pass.parameters;
  Mat<T> const previous = start > 0 && shifted_ > 0 ? columns(t.border, shifted_, 2 * shifted_) : Mat<T>();
  Mat<T> const gelu(scratch.wide.data(), t.h.extent(0), t.h.extent(1));
  Mat<T> const dh(scratch.wide_gradient.data(), t.h.extent(0), t.h.extent(1));
  kernels::Dropout const keep = dropout(pass.dropout, l, false);

  kernels::bias_gelu_forward<T>(pass.space, t.h, p.vector(layer.feed_in_bias), keep, gelu);
  kernels::linear_backward_weight<T>(pass.space, dx, gelu, p.gradient(layer.feed_out));
  kernels::column_sums<T>(pass.space, dx, p.gradient_vector(layer.feed_out_bias), scratch.workspace);
  kernels::linear_backward_input<T>(pass.space, dx, p.value(layer.feed_out), dh);
  kernels::bias_gelu_backward<T>(pass.space, dh, t.h, p.vector(layer.feed_in_bias), keep, dh,
                                 p.gradient_vector(layer.feed_in_bias), scratch.workspace);
  kernels::shift_rms_norm_forward<T>(pass.space, tape.shape, RmsForm::clamped, shifted_, t.x1, previous,
                                     p.vector(layer.feed_gain), scratch.u, t.feed_inverse_norm, {}, {});
  kernels::linear_backward_weight<T>(pass.space, dh, scratch.u, p.gradient(layer.feed_in));
  kernels::linear_backward_input<T>(pass.space, dh, p.value(layer.feed_in), scratch.u);

  Mat<T> dborder, dnext;
  if (dcarry.border.data() != nullptr && shifted_ > 0) {
    dborder = columns(rows(dcarry.border, l * dcarry.sequences, (l + 1) * dcarry.sequences), shifted_,
                      2 * shifted_);
    dnext = scratch.dnext;
    Kokkos::deep_copy(pass.space, dnext, dborder);
  }
  kernels::shift_rms_norm_backward<T>(pass.space, tape.shape, RmsForm::clamped, shifted_, scratch.u, t.x1,
                                      previous, p.vector(layer.feed_gain), t.feed_inverse_norm, dnext, dx,
                                      dborder, p.gradient_vector(layer.feed_gain), scratch.workspace);
}

template <class T>
void TransformerBlock<T>::attention_backward(Span const& span, Index l, Carry<T> const& carry,
                                             Carry<T> const& dcarry, Mat<T> dx) const {
  auto const& [pass, tape, start, scratch] = span;
  Layer const& layer = layers_[l];
  LayerTape const t = layer_tape(tape, l);
  ParameterStore<T> const& p = pass.parameters;
  Index const inner = config_.inner_width();
  Mat<T> const previous = start > 0 && shifted_ > 0 ? columns(t.border, 0, shifted_) : Mat<T>();
  Mat<T> const dqkv(scratch.wide.data(), span.count(), 3 * inner);
  Mat<T> const dout(scratch.wide_gradient.data(), span.count(), inner);
  Mat<T> const dq(scratch.wide_gradient.data() + span.count() * inner, span.count(), inner);

  kernels::linear_backward_weight<T>(pass.space, dx, t.o, p.gradient(layer.to_out));
  kernels::linear_backward_input<T>(pass.space, dx, p.value(layer.to_out), dout);
  kernels::attention_backward<T>(pass.space, attention_shape(tape.shape, start), t.q, layer_history(carry, l),
                                 t.o, t.log_sum, dout, dropout(pass.dropout, l, true), dq,
                                 layer_history(dcarry, l), scratch.workspace);
  kernels::split_rotate_backward<T>(pass.space, tape.shape, start, config_.attn_num_heads, scratch.rotation,
                                    dq, layer_history(dcarry, l), dqkv);
  kernels::shift_rms_norm_forward<T>(pass.space, tape.shape, RmsForm::clamped, shifted_, t.x, previous,
                                     p.vector(layer.attention_gain), scratch.u, t.attention_inverse_norm, {},
                                     {});
  kernels::linear_backward_weight<T>(pass.space, dqkv, scratch.u,
                                     p.stacked_gradient(layer.to_q, layer.to_kv));
  kernels::linear_backward_input<T>(pass.space, dqkv, p.stacked_value(layer.to_q, layer.to_kv), scratch.u);

  Mat<T> dborder, dnext;
  if (dcarry.border.data() != nullptr && shifted_ > 0) {
    dborder = columns(rows(dcarry.border, l * dcarry.sequences, (l + 1) * dcarry.sequences), 0, shifted_);
    dnext = scratch.dnext;
    Kokkos::deep_copy(pass.space, dnext, dborder);
  }
  kernels::shift_rms_norm_backward<T>(pass.space, tape.shape, RmsForm::clamped, shifted_, scratch.u, t.x,
                                      previous, p.vector(layer.attention_gain), t.attention_inverse_norm,
                                      dnext, dx, dborder, p.gradient_vector(layer.attention_gain),
                                      scratch.workspace);
}

template <class T>
double TransformerBlock<T>::forward_flops(Sequences shape, Index start, bool square) const {
  double const n = static_cast<double>(shape.rows());
  double const products = 2.0 * static_cast<double>(width_) *
                          (4.0 * static_cast<double>(config_.inner_width()) +
                           2.0 * static_cast<double>(config_.ff_multiplier * width_));
  double const keys = static_cast<double>(start + shape.length);
  // Average number of keys a query sees.
  double const seen = square || !config_.causal()
                          ? keys
                          : static_cast<double>(start) + (static_cast<double>(shape.length) + 1) / 2;
  return static_cast<double>(layers()) * n *
         (products + 4.0 * static_cast<double>(config_.inner_width()) * seen);
}

template class TransformerBlock<float>;
template class TransformerBlock<double>;

template <class T>
std::unique_ptr<Block<T>> make_block(BlockConfig const& config, Index width, Index layers,
                                     std::string const& prefix, Ready ready, ParameterStore<T>& parameters) {
  switch (config.block_type) {
    case BlockType::transformer:
    case BlockType::transformer_encoder:
      return std::make_unique<TransformerBlock<T>>(config, width, layers, prefix, ready, parameters);
    case BlockType::mamba1:
    case BlockType::mamba2:
      break;
  }
  throw core::InputError(prefix + ": Mamba blocks are not part of this build yet");
}

template std::unique_ptr<Block<float>> make_block(BlockConfig const&, Index, Index, std::string const&, Ready,
                                                  ParameterStore<float>&);
template std::unique_ptr<Block<double>> make_block(BlockConfig const&, Index, Index, std::string const&,
                                                   Ready, ParameterStore<double>&);

}  // namespace strata::model
