// SPDX-License-Identifier: Apache-2.0
#pragma once
// Windows of bytes on their way to the device: arrays of fixed size, filled again for every batch.

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
};

class DeviceBatch {
 public:
  /// Room for `windows` windows of at most `length` tokens. Wide: 16-bit ids instead of bytes. Allocates here
  /// only.
  DeviceBatch(Index windows, Index length, bool wide, bool weights);

  /// Copies windows to the device and describes them for a model: each counts as padded to `padded_length`
  /// (Hierarchy::padded_length of the longest window of the run, so that no batch depends on its neighbours).
  /// Every token is predicted but the pad token, whose loss is ignored. Valid until the next upload. Throws
  /// core::InputError for a token that the model has no embedding for.
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

}  // namespace strata::model
