// SPDX-License-Identifier: Apache-2.0
#pragma once
// The Mamba-2 stack (Dao and Gu 2024, arXiv 2405.21060): p = [z | x | B | C | dt], the convolution over
// [x | B | C], the state-space dual form of kernels/ssd.hpp, a gated RMS norm, and a final norm over the
// whole stack. Dropout acts on the last layer's output, in training only.

#include "kernels/ssd.hpp"
#include "model/mamba_block.hpp"

namespace strata::model {

template <class T>
class Mamba2Block final : public MambaBlock<T> {
 public:
  Mamba2Block(BlockConfig const& config, Index width, Index layers, std::string const& prefix, Ready ready,
              ParameterStore<T>& parameters);

 private:
  using typename MambaBlock<T>::MixerCall;
  /// Numbers of a layer's parameters in the store.
  struct Mixer {
    std::size_t dt_bias, a_log, d, gain;
  };

  void mix(MixerCall const& call, Mat<T> state, Mat<T> gated) const override;
  void gate(MixerCall const& call, Mat<T> gated) const override;
  void mix_backward(MixerCall const& call, Mat<T> initial, Mat<T> dgated, Mat<T> dprojected,
                    Mat<T> dconvolved, Mat<T> dstate) const override;
  Index mixer_workspace(Sequences shape, bool carries, bool backward) const override;
  double mixer_flops(Sequences shape) const override;

  kernels::SsdShape ssd_shape(Sequences shape) const;
  kernels::SsdInputs<T> ssd_inputs(MixerCall const& call) const;

  std::vector<Mixer> mixers_;
};

}  // namespace strata::model
