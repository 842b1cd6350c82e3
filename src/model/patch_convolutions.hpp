// SPDX-License-Identifier: Apache-2.0
#pragma once
// The convolutional patch encoder (Yu et al. 2023, arXiv 2305.07185, section 2.3.1): a stack of causal
// convolutions with filters of 3, 5 and 7 bytes over the embedded bytes of a stage, before they are cut into
// patches. The paper leaves open whether they mix features and what stands between them; here each is
// depthwise, with a SiLU and a residual connection:
//   h_0 = embedded bytes,   h_(l+1)[t] = h_l[t] + silu(b_l + sum over w of W_l[:, w] * h_l[t - F_l + 1 + w])
// A sub-patch's bytes are convolved together with the 12 bytes before them, the reach of the stack, so that
// no state crosses from one sub-patch to the next. Before a window lie pads without end, and the convolutions
// run over them as over any byte.

#include <array>
#include <string>

#include "model/block.hpp"

namespace strata::model {

template <class T>
class PatchConvolutions {
 public:
  static constexpr std::size_t layers = patch_convolution_widths.size();
  /// h_0 .. h_layers, each (rows, width). Where no backward follows, two matrices may take turns.
  using Levels = std::array<Mat<T>, layers + 1>;

  /// Declares <prefix>convolutions.<l>.weight (width, 1, F_l) and .bias (width).
  PatchConvolutions(Index width, std::string const& prefix, Ready ready, ParameterStore<T>& parameters);

  /// h_1 to h_layers from h_0. Each sequence is a sub-patch with its history; the first rows of that are not
  /// what they would be with an infinite past, the rows of the sub-patch are.
  void forward(Pass<T> const& pass, Sequences shape, Levels const& h) const;
  /// d (rows, width): from the gradient of h_layers to that of h_0. All h but h_0 are overwritten. dx (rows,
  /// width) and workspace (`workspace` elements) are scratch.
  void backward(Pass<T> const& pass, Sequences shape, Levels const& h, Mat<T> d, Mat<T> dx,
                Vec<T> workspace) const;
  Index workspace(Sequences shape) const;

  /// Multiply-adds counted twice, of one row through all layers.
  double forward_flops_per_byte() const;

 private:
  Index width_;
  std::array<std::size_t, layers> weight_, bias_;
};

}  // namespace strata::model
