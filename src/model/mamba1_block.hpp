// SPDX-License-Identifier: Apache-2.0
#pragma once
// The Mamba-1 stack (Gu and Dao 2023, arXiv 2312.00752): p = [x | z], the convolution over x,
// [delta | B | C] = W_x v, step sizes softplus(W_dt delta + b_dt), the selective scan of
// kernels/selective_scan.hpp and a gate of SiLU. There is no norm behind the last layer.

#include "kernels/selective_scan.hpp"
#include "model/mamba_block.hpp"

namespace strata::model {

template <class T>
class Mamba1Block final : public MambaBlock<T> {
 public:
  Mamba1Block(BlockConfig const& config, Index width, Index layers, std::string const& prefix, Ready ready,
              ParameterStore<T>& parameters);

 private:
  using typename MambaBlock<T>::MixerCall;
  /// Numbers of a layer's parameters in the store.
  struct Mixer {
    std::size_t a_log, d, x_weight, dt_weight, dt_bias;
  };
  struct Work;  // the mixer's workspace, cut into pieces

  void mix(MixerCall const& call, Mat<T> state, Mat<T> gated) const override;
  void gate(MixerCall const& call, Mat<T> gated) const override;
  void mix_backward(MixerCall const& call, Mat<T> initial, Mat<T> dgated, Mat<T> dprojected,
                    Mat<T> dconvolved, Mat<T> dstate) const override;
  Index mixer_workspace(Sequences shape, bool carries, bool backward) const override;
  double mixer_flops(Sequences shape) const override;

  kernels::SelectiveScanShape scan_shape(Sequences shape) const;
  kernels::SelectiveScanInputs<T> scan_inputs(MixerCall const& call, Mat<T> delta) const;

  Index rank_;  ///< R
  std::vector<Mixer> mixers_;
};

}  // namespace strata::model
