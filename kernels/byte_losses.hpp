// SPDX-License-Identifier: Apache-2.0
#pragma once
// From the losses of rows to the losses of bytes.

#include "kernels/cross_entropy.hpp"

namespace strata::kernels {

/// byte_losses (flat bytes of the padded batch): element targets.flat(rows, r) = losses[r] for every row r
/// that predicts a byte; other elements are left alone. losses (rows.shape.rows()).
template <class T>
void scatter_byte_losses(ExecSpace const& space, Targets const& targets, StageRows const& rows,
                         ConstVec<T> losses, Vec<T> byte_losses);

}  // namespace strata::kernels
