// SPDX-License-Identifier: Apache-2.0
#pragma once
// The convolutional patch encoder (Yu et al. 2023, arXiv 2305.07185, section 2.3.1): a stack of causal
// convolutions with filters of 3, 5 and 7 bytes over the embedded bytes of a stage, before they are cut into
// patches. The paper leaves open whether they mix features and what stands between them; here each is
// depthwise, with a SiLU and a residual connection:
//   h_0 = embedded bytes,   h_(l+1)[t] = h_l[t] + silu(b_l + sum over w of W_l[:, w] * h_l[t - F_l + 1 + w])
// The bytes that a call embeds of a sequence are convolved together with the 12 bytes before them, the reach
// of the stack, so that no state crosses from one call to the next: each layer drops the first rows, which
// would need more. Before a window lie pads without end, and the convolutions run over them as over any byte.

#include <array>
#include <string>

#include "model/block.hpp"

namespace strata::model {

template <class T>
class PatchConvolutions {
 public:
  static constexpr std::size_t layers = patch_convolution_widths.size();
  /// Room for h_0 .. h_layers, (level_rows(l), width) each or more. Where no backward follows, two matrices
  /// may take turns.
  using Levels = std::array<Mat<T>, layers + 1>;

  /// Declares <prefix>convolutions.<l>.weight (width, 1, F_l) and .bias (width).
  PatchConvolutions(Index width, std::string const& prefix, Ready ready, ParameterStore<T>& parameters);

  /// Rows of h_l for sequences of shape.length bytes, without those before them: h_0 has 12 more for each
  /// sequence, h_layers none.
  static Index level_rows(std::size_t l, Sequences shape);

  /// h_1 to h_layers from h_0.
  void forward(Pass<T> const& pass, Sequences shape, Levels const& h) const;
  /// From the gradient d (shape.rows(), width) of h_layers to that of h_0, which is returned and stands in
  /// the room of h_1. All h but h_0 are overwritten and so need the room of h_0. workspace: `workspace`
  /// elements.
  Mat<T> backward(Pass<T> const& pass, Sequences shape, Levels const& h, Mat<T> d, Vec<T> workspace) const;
  /// For so many rows of h_0.
  Index workspace(Index rows) const;

  /// Multiply-adds counted twice, of all layers.
  double forward_flops(Sequences shape) const;

 private:
  static Sequences level(std::size_t l, Sequences shape);

  Index width_;
  std::array<std::size_t, layers> weight_, bias_;
};

}  // namespace strata::model
