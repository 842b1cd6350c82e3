// SPDX-License-Identifier: Apache-2.0
#include "model/mamba2_block.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/gate.hpp"

namespace strata::model {

using kernels::columns;

template <class T>
Mamba2Block<T>::Mamba2Block(BlockConfig const& config, Index width, Index layers, std::string const& prefix,
                            Ready ready, ParameterStore<T>& parameters)
    : MambaBlock<T>(config, width) {
  Index const channels = config.expand * width, heads = channels / config.headdim, states = config.d_state;
  auto& c = this->columns_;
  c.channels = channels;
  c.projected = 2 * channels + 2 * states + heads;
  c.gate = 0;
  c.convolved = channels + 2 * states;
  c.convolution = channels;
  c.inputs = config.d_conv;
  c.state = channels * states;
  c.kept = 1;
  this->has_final_norm_ = true;
  auto const uniform = [](double bound) { return Initial{Initial::Kind::uniform, bound}; };
  auto const root = [](Index n) { return std::sqrt(static_cast<double>(n)); };
  Initial const one{Initial::Kind::constant, 1};
  for (Index l = 0; l < layers; ++l) {
    std::string const layer = prefix + "layers." + std::to_string(l) + ".", mixer = layer + "mixer.";
    typename MambaBlock<T>::Layer of{};
    Mixer m{};
    of.gain = parameters.declare(layer + "norm.weight", {width}, one, ready);
    m.dt_bias = parameters.declare(mixer + "dt_bias", {heads}, {Initial::Kind::inverse_softplus_step}, ready);
    m.a_log = parameters.declare(mixer + "A_log", {heads}, {Initial::Kind::log_uniform_1_16}, ready);
    m.d = parameters.declare(mixer + "D", {heads}, one, ready);
    of.in_weight =
        parameters.declare(mixer + "in_proj.weight", {c.projected, width}, uniform(1 / root(width)), ready);
    of.conv_weight = parameters.declare(mixer + "conv1d.weight", {c.convolved, 1, c.inputs},
                                        uniform(1 / root(c.inputs)), ready);
    of.conv_bias =
        parameters.declare(mixer + "conv1d.bias", {c.convolved}, uniform(1 / root(c.inputs)), ready);
    m.gain = parameters.declare(mixer + "norm.weight", {channels}, one, ready);
    of.out_weight = parameters.declare(mixer + "out_proj.weight", {width, channels},
                                       uniform(1 / (root(channels) * root(layers))), ready);
    this->layers_.push_back(of);
    mixers_.push_back(m);
  }
  this->final_gain_ = parameters.declare(prefix + "norm_f.weight", {width}, one, ready);
}

template <class T>
kernels::SsdShape Mamba2Block<T>::ssd_shape(Sequences shape) const {
  BlockConfig const& config = this->config_;
  return {shape, this->columns_.channels / config.headdim, config.headdim, config.d_state};
}

template <class T>
kernels::SsdInputs<T> Mamba2Block<T>::ssd_inputs(MixerCall const& call) const {
  Index const channels = this->columns_.channels, states = this->config_.d_state,
              projected = this->columns_.projected;
  Mixer const& m = mixers_[static_cast<std::size_t>(call.layer)];
  ParameterStore<T> const& p = call.pass.parameters;
  return {columns(call.convolved, 0, channels),
          columns(call.convolved, channels, channels + states),
          columns(call.convolved, channels + states, channels + 2 * states),
          columns(call.projected, 2 * channels + 2 * states, projected),
          p.vector(m.dt_bias),
          p.vector(m.a_log),
          p.vector(m.d)};
}

template <class T>
void Mamba2Block<T>::mix(MixerCall const& call, Mat<T> state, Mat<T> gated) const {
  kernels::ssd_forward<T>(call.pass.space, ssd_shape(call.shape), ssd_inputs(call), state, call.mixed,
                          call.workspace);
  gate(call, gated);
}

template <class T>
void Mamba2Block<T>::gate(MixerCall const& call, Mat<T> gated) const {
  Mixer const& m = mixers_[static_cast<std::size_t>(call.layer)];
  kernels::gated_rms_norm_forward<T>(call.pass.space, call.mixed, call.gate(this->columns_),
                                     call.pass.parameters.vector(m.gain), gated, kernels::flat(call.kept));
}

template <class T>
void Mamba2Block<T>::mix_backward(MixerCall const& call, Mat<T> initial, Mat<T> dgated, Mat<T> dprojected,
                                  Mat<T> dconvolved, Mat<T> dstate) const {
  Index const channels = this->columns_.channels, states = this->config_.d_state,
              projected = this->columns_.projected;
  Mixer const& m = mixers_[static_cast<std::size_t>(call.layer)];
  ParameterStore<T> const& p = call.pass.parameters;
  Mat<T> const& dmixed = dgated;
  kernels::gated_rms_norm_backward<T>(call.pass.space, dgated, call.mixed, call.gate(this->columns_),
                                      p.vector(m.gain), kernels::flat(call.kept), dmixed,
                                      columns(dprojected, 0, channels), p.gradient_vector(m.gain),
                                      call.workspace);
  kernels::SsdGradients<T> const out{columns(dconvolved, 0, channels),
                                     columns(dconvolved, channels, channels + states),
                                     columns(dconvolved, channels + states, channels + 2 * states),
                                     columns(dprojected, 2 * channels + 2 * states, projected),
                                     p.gradient_vector(m.dt_bias),
                                     p.gradient_vector(m.a_log),
                                     p.gradient_vector(m.d)};
  kernels::ssd_backward<T>(call.pass.space, ssd_shape(call.shape), ssd_inputs(call), initial, dmixed, out,
                           dstate, call.workspace);
}

template <class T>
Index Mamba2Block<T>::mixer_workspace(Sequences shape, bool carries, bool backward) const {
  if (!backward) return kernels::ssd_forward_workspace<T>(ssd_shape(shape), carries);
  return std::max(kernels::ssd_backward_workspace<T>(ssd_shape(shape), carries),
                  kernels::gated_rms_norm_workspace(shape.rows(), this->columns_.channels));
}

template <class T>
double Mamba2Block<T>::mixer_flops(Sequences shape) const {
  return kernels::ssd_forward_cost<T>(ssd_shape(shape)).flops;
}

template class Mamba2Block<float>;
template class Mamba2Block<double>;

}  // namespace strata::model
