// SPDX-License-Identifier: Apache-2.0
#pragma once
// An evaluation's losses, byte by byte.

#include <stdexcept>
#include <vector>

#include "model/device_batch.hpp"
#include "model/hierarchy.hpp"

namespace strata::test {

/// The weighted nats that `evaluate` finds for each byte of a padded batch of windows of these lengths,
/// (windows, padded length); -1 where nothing is predicted. Throws when two rows predict the same byte.
template <class T>
std::vector<T> byte_losses(model::Hierarchy<T>& model, model::Batch const& batch,
                           std::vector<kernels::Index> const& lengths) {
  Kokkos::View<double*, kernels::MemSpace> const totals("totals", 2);
  std::vector<T> result(static_cast<std::size_t>(batch.tokens.windows * batch.tokens.padded_length), T(-1));
  kernels::Targets const targets = model::on_host(batch.targets, lengths);
  model.evaluate(batch, kernels::Vec<double>(totals.data(), 2),
                 [&](kernels::StageRows const& rows, kernels::Vec<T> losses) {
                   auto const host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), losses);
                   for (kernels::Index r = 0; r < rows.shape.rows(); ++r) {
                     if (host(r) < 0) continue;
                     T& place = result.at(static_cast<std::size_t>(targets.flat(rows, r)));
                     if (place >= 0) throw std::logic_error("a byte is predicted twice");
                     place = host(r);
                   }
                 });
  return result;
}

}  // namespace strata::test
