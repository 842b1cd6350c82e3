// SPDX-License-Identifier: Apache-2.0
#include "model/patch_convolutions.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/add.hpp"
#include "kernels/causal_conv.hpp"

namespace strata::model {

using kernels::flat;

template <class T>
PatchConvolutions<T>::PatchConvolutions(Index width, std::string const& prefix, Ready ready,
                                        ParameterStore<T>& parameters)
    : width_(width) {
  for (std::size_t l = 0; l < layers; ++l) {
    Index const inputs = patch_convolution_widths[l];
    Initial const uniform{Initial::Kind::uniform, 1 / std::sqrt(static_cast<double>(inputs))};
    std::string const name = prefix + "convolutions." + std::to_string(l) + ".";
    weight_[l] = parameters.declare(name + "weight", {width, 1, inputs}, uniform, ready);
    bias_[l] = parameters.declare(name + "bias", {width}, uniform, ready);
  }
}

template <class T>
void PatchConvolutions<T>::forward(Pass<T> const& pass, Sequences shape, Levels const& h) const {
  ParameterStore<T> const& p = pass.parameters;
  for (std::size_t l = 0; l < layers; ++l) {
    kernels::causal_conv_silu_forward<T>(pass.space, shape, h[l], {}, p.value(weight_[l]), p.vector(bias_[l]),
                                         h[l + 1]);
    kernels::add<T>(pass.space, flat(h[l]), flat(h[l + 1]));
  }
}

template <class T>
void PatchConvolutions<T>::backward(Pass<T> const& pass, Sequences shape, Levels const& h, Mat<T> d,
                                    Mat<T> dx, Vec<T> workspace) const {
  ParameterStore<T> const& p = pass.parameters;
  for (std::size_t l = layers; l-- > 0;) {
    Mat<T> const& dy = h[l + 1];  // its last use was the layer above
    Kokkos::deep_copy(pass.space, dy, d);
    kernels::causal_conv_silu_backward<T>(pass.space, shape, dy, h[l], {}, p.value(weight_[l]),
                                          p.vector(bias_[l]), dx, {}, p.gradient(weight_[l]),
                                          p.gradient_vector(bias_[l]), workspace);
    kernels::add<T>(pass.space, flat(dx), flat(d));
  }
}

template <class T>
Index PatchConvolutions<T>::workspace(Sequences shape) const {
  Index most = 0;
  for (Index const inputs : patch_convolution_widths)
    most = std::max(most, kernels::causal_conv_workspace(shape, width_, inputs));
  return most;
}

template <class T>
double PatchConvolutions<T>::forward_flops_per_byte() const {
  Index inputs = 0;
  for (Index const of_layer : patch_convolution_widths) inputs += of_layer;
  return 2.0 * static_cast<double>(inputs * width_);
}

template class PatchConvolutions<float>;
template class PatchConvolutions<double>;

}  // namespace strata::model
