// SPDX-License-Identifier: Apache-2.0
#pragma once
// Softmax cross-entropy over the logits of a block of rows, its gradient written over the logits.
//   loss[r] = weight * (log sum_v exp z[r, v] - z[r, target]),   dz[r, v] = scale * weight * (softmax(z)[v] -
//   [v == target])
// with z = logits + bias. A row does not count, and has loss -1 and gradient 0, if it has no target inside
// its window, if its target is the ignored id, or if its weight is 0. Every other loss is >= 0, or NaN or
// infinite where a logit of the row is: exclude rows by `loss < 0`, never by `!(loss >= 0)`, which would hide
// a diverged model. Targets must be below V.

#include "kernels/common/types.hpp"
#include "kernels/embedding.hpp"

namespace strata::kernels {

/// Which byte each row of the last stage predicts.
enum class Prediction {
  same,  ///< row t of a sequence predicts byte t of its patch (head `complete`)
  next,  ///< row t >= 1 predicts the byte after byte t - 1; row 0 only byte 0 of the window (head
         ///< `reference`)
  self,  ///< row t >= 1 predicts byte t - 1 itself (masked language model)
};

struct Targets {
  Tokens tokens;  ///< what is predicted, laid out as the inputs
  float const* weights =
      nullptr;  ///< (windows, tokens.stride) per token, or null for 1 everywhere; never negative
  std::int32_t ignored = -1;  ///< a target id that does not count; -1: none
  Prediction prediction = Prediction::same;

  /// Flat byte (of the padded batch) that row r of `rows` predicts, or -1: none inside its window.
  KOKKOS_INLINE_FUNCTION Index flat(StageRows const& rows, Index r) const {
    Index const sequence = r / rows.shape.length;
    Index const t = rows.first_position + (r - sequence * rows.shape.length);
    Index const first = (rows.first_sequence + sequence) * rows.patches;  // first byte of the patch
    Index target = first + t;
    if (prediction == Prediction::self) target = t == 0 ? -1 : first + t - 1;
    if (prediction == Prediction::next && t == 0 && first % tokens.padded_length != 0) target = -1;
    if (prediction == Prediction::next && t > 0 && target % tokens.padded_length == 0) target = -1;
    if (target < 0) return -1;
    Index const window = target / tokens.padded_length;
    return target - window * tokens.padded_length < tokens.lengths[window] ? target : -1;
  }
  /// Weight of a flat byte.
  KOKKOS_INLINE_FUNCTION float weight(Index flat_byte) const {
    if (weights == nullptr) return 1.0F;
    Index const window = flat_byte / tokens.padded_length;
    return weights[window * tokens.stride + flat_byte - window * tokens.padded_length];
  }
};

/// logits (rows.shape.rows(), V) without bias; bias (V). losses (rows) out.
template <class T>
void cross_entropy_forward(ExecSpace const& space, Targets const& targets, StageRows const& rows,
                           ConstMat<T> logits, ConstVec<T> bias, Vec<T> losses);

/// The same, and logits become their gradient.
template <class T>
void cross_entropy_forward_backward(ExecSpace const& space, Targets const& targets, StageRows const& rows,
                                    Mat<T> logits, ConstVec<T> bias, std::type_identity_t<T> scale,
                                    Vec<T> losses);

template <class T>
Cost cross_entropy_cost(Index rows, Index vocabulary);

}  // namespace strata::kernels
