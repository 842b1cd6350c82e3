// SPDX-License-Identifier: Apache-2.0
#include "model/patch_convolutions.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/residual_conv.hpp"

namespace strata::model {

using kernels::rows;

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
Index PatchConvolutions<T>::level_rows(std::size_t l, Sequences shape) {
  Index before = 0;
  for (; l < layers; ++l) before += patch_convolution_widths[l] - 1;
  return shape.count * (before + shape.length);
}

/// The shape of h_l.
template <class T>
Sequences PatchConvolutions<T>::level(std::size_t l, Sequences shape) {
  return {shape.count, shape.count == 0 ? 0 : level_rows(l, shape) / shape.count};
}

template <class T>
void PatchConvolutions<T>::forward(Pass<T> const& pass, Sequences shape, Levels const& h) const {
  ParameterStore<T> const& p = pass.parameters;
  for (std::size_t l = 0; l < layers; ++l)
    kernels::residual_conv_forward<T>(pass.space, level(l + 1, shape), rows(h[l], 0, level_rows(l, shape)),
                                      p.value(weight_[l]), p.vector(bias_[l]),
                                      rows(h[l + 1], 0, level_rows(l + 1, shape)));
}

template <class T>
Mat<T> PatchConvolutions<T>::backward(Pass<T> const& pass, Sequences shape, Levels const& h, Mat<T> d,
                                      Vec<T> workspace) const {
  ParameterStore<T> const& p = pass.parameters;
  for (std::size_t l = layers; l-- > 0;) {
    Mat<T> const dx = rows(h[l + 1], 0, level_rows(l, shape));  // the last use of h_(l+1) was the layer above
    kernels::residual_conv_backward<T>(
        pass.space, level(l + 1, shape), d, rows(h[l], 0, level_rows(l, shape)), p.value(weight_[l]),
        p.vector(bias_[l]), dx, p.gradient(weight_[l]), p.gradient_vector(bias_[l]), workspace);
    d = dx;
  }
  return d;
}

template <class T>
Index PatchConvolutions<T>::workspace(Index rows_of_first) const {
  Index most = 0;
  for (Index const inputs : patch_convolution_widths)
    most = std::max(most, kernels::residual_conv_workspace(rows_of_first, width_, inputs));
  return most;
}

template <class T>
double PatchConvolutions<T>::forward_flops(Sequences shape) const {
  Index sum = 0;
  for (std::size_t l = 0; l < layers; ++l) sum += patch_convolution_widths[l] * level_rows(l + 1, shape);
  return 2.0 * static_cast<double>(sum * width_);
}

template class PatchConvolutions<float>;
template class PatchConvolutions<double>;

}  // namespace strata::model
