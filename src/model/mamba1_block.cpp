// SPDX-License-Identifier: Apache-2.0
#include "model/mamba1_block.hpp"

#include <cmath>

#include "kernels/common/profile.hpp"
#include "kernels/gate.hpp"
#include "kernels/linear.hpp"

namespace strata::model {

using kernels::columns;

template <class T>
struct Mamba1Block<T>::Work {
  Mat<T> delta;   // (rows, E): step sizes before bias and softplus
  Mat<T> ddelta;  // backward, its gradient
  Mat<T> dkept;   // backward (rows, R + 2N): gradient of delta before W_dt, of B and of C
  Vec<T> scan;
  Index size = 0;

  Work(Mamba1Block const& block, Sequences shape, bool backward, T* base) {
    Index const n = shape.rows(), channels = block.columns_.channels;
    auto const take = [&](Index elements) {
      T* const at = base == nullptr ? nullptr : base + size;
      size += (elements + 15) / 16 * 16;
      return at;
    };
    delta = Mat<T>(take(n * channels), n, channels);
    if (backward) {
      ddelta = Mat<T>(take(n * channels), n, channels);
      dkept = Mat<T>(take(n * block.columns_.kept), n, block.columns_.kept);
    }
    kernels::SelectiveScanShape const scan_shape = block.scan_shape(shape);
    Index const elements = backward ? kernels::selective_scan_backward_workspace(scan_shape)
                                    : kernels::selective_scan_forward_workspace(scan_shape);
    scan = Vec<T>(take(elements), elements);
  }
};

template <class T>
Mamba1Block<T>::Mamba1Block(BlockConfig const& config, Index width, Index layers, std::string const& prefix,
                            Ready ready, ParameterStore<T>& parameters)
    : MambaBlock<T>(config, width), rank_(BlockConfig::dt_rank(width)) {
  Index const channels = config.expand * width, states = config.d_state;
  auto& c = this->columns_;
  c.channels = channels;
  c.projected = 2 * channels;
  c.gate = channels;
  c.convolved = channels;
  c.convolution = 0;
  c.inputs = config.d_conv;
  c.state = channels * states;
  c.kept = rank_ + 2 * states;
  auto const uniform = [](Index n) {
    return Initial{Initial::Kind::uniform, 1 / std::sqrt(static_cast<double>(n))};
  };
  Initial const one{Initial::Kind::constant, 1};
  for (Index l = 0; l < layers; ++l) {
    std::string const layer = prefix + "layers." + std::to_string(l) + ".", mixer = layer + "mixer.";
    typename MambaBlock<T>::Layer of{};
    Mixer m{};
    m.a_log = parameters.declare(mixer + "A_log", {channels, states}, {Initial::Kind::log_column}, ready);
    m.d = parameters.declare(mixer + "D", {channels}, one, ready);
    of.in_weight = parameters.declare(mixer + "in_proj.weight", {c.projected, width}, uniform(width), ready);
    of.conv_weight =
        parameters.declare(mixer + "conv1d.weight", {channels, 1, c.inputs}, uniform(c.inputs), ready);
    of.conv_bias = parameters.declare(mixer + "conv1d.bias", {channels}, uniform(c.inputs), ready);
    m.x_weight = parameters.declare(mixer + "x_proj.weight", {c.kept, channels}, uniform(channels), ready);
    m.dt_weight = parameters.declare(mixer + "dt_proj.weight", {channels, rank_}, uniform(rank_), ready);
    m.dt_bias =
        parameters.declare(mixer + "dt_proj.bias", {channels}, {Initial::Kind::inverse_softplus_step}, ready);
    of.out_weight =
        parameters.declare(mixer + "out_proj.weight", {width, channels}, uniform(channels), ready);
    of.gain = parameters.declare(layer + "norm.weight", {width}, one, ready);
    this->layers_.push_back(of);
    mixers_.push_back(m);
  }
}

template <class T>
kernels::SelectiveScanShape Mamba1Block<T>::scan_shape(Sequences shape) const {
  return {shape, this->columns_.channels, this->config_.d_state};
}

template <class T>
kernels::SelectiveScanInputs<T> Mamba1Block<T>::scan_inputs(MixerCall const& call, Mat<T> delta) const {
  Index const states = this->config_.d_state;
  Mixer const& m = mixers_[static_cast<std::size_t>(call.layer)];
  ParameterStore<T> const& p = call.pass.parameters;
  return {delta,
          p.vector(m.dt_bias),
          call.convolved,
          columns(call.kept, rank_, rank_ + states),
          columns(call.kept, rank_ + states, rank_ + 2 * states),
          p.value(m.a_log),
          p.vector(m.d)};
}

template <class T>
void Mamba1Block<T>::mix(MixerCall const& call, Mat<T> state, Mat<T> gated) const {
  Mixer const& m = mixers_[static_cast<std::size_t>(call.layer)];
  ParameterStore<T> const& p = call.pass.parameters;
  Work const work(*this, call.shape, false, call.workspace.data());
  kernels::linear_forward<T>(call.pass.space, call.convolved, p.value(m.x_weight), {}, call.kept);
  kernels::linear_forward<T>(call.pass.space, columns(call.kept, 0, rank_), p.value(m.dt_weight), {},
                             work.delta);
  kernels::selective_scan_forward<T>(call.pass.space, scan_shape(call.shape), scan_inputs(call, work.delta),
                                     state, call.mixed, work.scan);
  gate(call, gated);
}

template <class T>
void Mamba1Block<T>::gate(MixerCall const& call, Mat<T> gated) const {
  kernels::silu_gate_forward<T>(call.pass.space, call.mixed, call.gate(this->columns_), gated);
}

template <class T>
void Mamba1Block<T>::mix_backward(MixerCall const& call, Mat<T> initial, Mat<T> dgated, Mat<T> dprojected,
                                  Mat<T> dconvolved, Mat<T> dstate) const {
  Index const channels = this->columns_.channels, states = this->config_.d_state;
  Mixer const& m = mixers_[static_cast<std::size_t>(call.layer)];
  ParameterStore<T> const& p = call.pass.parameters;
  Work const work(*this, call.shape, true, call.workspace.data());
  Mat<T> const &dmixed = dgated, low = columns(call.kept, 0, rank_), dlow = columns(work.dkept, 0, rank_);
  kernels::silu_gate_backward<T>(call.pass.space, dgated, call.mixed, call.gate(this->columns_), dmixed,
                                 columns(dprojected, channels, 2 * channels));
  {
    kernels::Region const region("rebuild");
    kernels::linear_forward<T>(call.pass.space, low, p.value(m.dt_weight), {}, work.delta);
  }
  kernels::SelectiveScanGradients<T> const out{work.ddelta,
                                               dconvolved,
                                               columns(work.dkept, rank_, rank_ + states),
                                               columns(work.dkept, rank_ + states, rank_ + 2 * states),
                                               p.gradient_vector(m.dt_bias),
                                               p.gradient(m.a_log),
                                               p.gradient_vector(m.d)};
  kernels::selective_scan_backward<T>(call.pass.space, scan_shape(call.shape), scan_inputs(call, work.delta),
                                      initial, dmixed, out, dstate, work.scan);
  kernels::linear_backward_weight<T>(call.pass.space, work.ddelta, low, p.gradient(m.dt_weight));
  kernels::linear_backward_input<T>(call.pass.space, work.ddelta, p.value(m.dt_weight), dlow);
  kernels::linear_backward_weight<T>(call.pass.space, work.dkept, call.convolved, p.gradient(m.x_weight));
  kernels::linear_backward_input_accumulate<T>(call.pass.space, work.dkept, p.value(m.x_weight), dconvolved);
}

template <class T>
Index Mamba1Block<T>::mixer_workspace(Sequences shape, bool /*carries*/, bool backward) const {
  return Work(*this, shape, backward, nullptr).size;
}

template <class T>
double Mamba1Block<T>::mixer_flops(Sequences shape) const {
  double const channels = static_cast<double>(this->columns_.channels);
  double const products = 2.0 * channels * static_cast<double>(this->columns_.kept + rank_);
  return static_cast<double>(shape.rows()) * products +
         kernels::selective_scan_forward_cost<T>(scan_shape(shape)).flops;
}

template class Mamba1Block<float>;
template class Mamba1Block<double>;

}  // namespace strata::model
