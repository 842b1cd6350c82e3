// SPDX-License-Identifier: Apache-2.0
#pragma once
// Windows of bytes where kernels read them: in the caller's own memory, or copied to a device.

#include <cstdint>
#include <span>

#include "kernels/common/types.hpp"
#include "model/hierarchy.hpp"

namespace strata::model {

/// Windows in host memory. Row r holds lengths[r] tokens at [r * stride]; exactly one of bytes and ids is
/// given.
struct HostWindows {
  std::uint8_t const* bytes = nullptr;
  std::uint16_t const* ids = nullptr;
  float const* weights = nullptr;  ///< loss weight per token, laid out alike; null: 1 everywhere
  std::span<Index const> lengths;
  Index stride = 0;
  Index first_sample = 0;  ///< place of row 0 in the training stream

  /// Rows [begin, end) of these.
  HostWindows rows(Index begin, Index end) const;
  /// The windows without their first `offset` tokens; `rest`: how many each then has, at least 0.
  HostWindows from(Index offset, std::span<Index const> rest) const;
};

/// Describes windows to a model. Where kernels can read host memory nothing is copied and nothing allocated:
/// the batch points at the caller's bytes, ids, weights and lengths. Elsewhere they are copied to arrays of
/// fixed size that every batch fills again.
class DeviceBatch {
 public:
  /// True when batches are copies.
  static constexpr bool copies =
      !Kokkos::SpaceAccessibility<kernels::ExecSpace, Kokkos::HostSpace>::accessible;

  /// For at most `windows` windows of at most `length` tokens. Wide: 16-bit ids instead of bytes. Allocates
  /// here only, and only where batches are copies.
  DeviceBatch(Index windows, Index length, bool wide, bool weights);
  /// Device memory that such a batch takes.
  static std::size_t memory_bytes(Index windows, Index length, bool wide, bool weights);

  /// Describes windows for a model: each counts as padded to `padded_length` (Hierarchy::padded_length of the
  /// longest window of the run, so that no batch depends on its neighbours). Every token is predicted but the
  /// pad token, whose loss is ignored. Valid until the next upload and, because it may point at them, as long
  /// as the caller's arrays stay where they are, unchanged; those of a loader's batch do until its next().
  /// Throws core::InputError for a token that the model has no embedding for.
  Batch upload(ExecSpace const& space, HostWindows const& windows, ModelConfig const& config,
               Index padded_length);

 private:
  template <class U>
  using Device = Kokkos::View<U*, kernels::MemSpace>;

  Index windows_, length_;
  Device<std::uint8_t> bytes_;
  Device<std::uint16_t> ids_;
  Device<float> weights_;
  Device<Index> lengths_;
};

/// The targets of an uploaded batch for the host, which may ask them which byte a row predicts
/// (kernels::Targets::flat) and nothing else. lengths: of the windows that were uploaded.
kernels::Targets on_host(kernels::Targets const& targets, std::span<Index const> lengths);

}  // namespace strata::model
