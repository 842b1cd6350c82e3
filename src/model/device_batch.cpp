// SPDX-License-Identifier: Apache-2.0
#include "model/device_batch.hpp"

#include <string>
#include <utility>

#include "core/error.hpp"
#include "kernels/common/check.hpp"

namespace strata::model {

namespace {

/// Where kernels find `n` elements: where they are, or in the copy.
template <class U>
U const* place(ExecSpace const& space, Kokkos::View<U*, kernels::MemSpace> const& copy, U const* from,
               Index n) {
  if constexpr (DeviceBatch::copies) {
    Kokkos::View<U const*, Kokkos::HostSpace, Kokkos::MemoryTraits<Kokkos::Unmanaged>> const source(from, n);
    Kokkos::deep_copy(space, Kokkos::subview(copy, std::pair<Index, Index>(0, n)), source);
    return copy.data();
  }
  return from;
}

template <class U>
void check_tokens(U const* tokens, HostWindows const& windows, Index num_tokens) {
  for (std::size_t r = 0; r < windows.lengths.size(); ++r) {
    U const* const row = tokens + static_cast<Index>(r) * windows.stride;
    for (Index i = 0; i < windows.lengths[r]; ++i) {
      if (row[i] >= num_tokens)
        throw core::InputError("the data holds the token " + std::to_string(row[i]) +
                               ", but the model's num_tokens is " + std::to_string(num_tokens));
    }
  }
}

}  // namespace

HostWindows HostWindows::rows(Index begin, Index end) const {
  HostWindows part = *this;
  if (bytes) part.bytes += begin * stride;
  if (ids) part.ids += begin * stride;
  if (weights) part.weights += begin * stride;
  part.lengths = lengths.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
  part.first_sample += begin;
  return part;
}

HostWindows HostWindows::from(Index offset, std::span<Index const> rest) const {
  HostWindows part = *this;
  if (bytes) part.bytes += offset;
  if (ids) part.ids += offset;
  if (weights) part.weights += offset;
  part.lengths = rest;
  return part;
}

DeviceBatch::DeviceBatch(Index windows, Index length, bool wide, bool weights)
    : windows_(windows),
      length_(length),
      bytes_("strata::batch_bytes", copies && !wide ? windows * length : 0),
      ids_("strata::batch_ids", copies && wide ? windows * length : 0),
      weights_("strata::batch_weights", copies && weights ? windows * length : 0),
      lengths_("strata::batch_lengths", copies ? windows : 0) {}

std::size_t DeviceBatch::memory_bytes(Index windows, Index length, bool wide, bool weights) {
  if (!copies) return 0;
  std::size_t const token = (wide ? sizeof(std::uint16_t) : 1) + (weights ? sizeof(float) : 0);
  return static_cast<std::size_t>(windows) * (static_cast<std::size_t>(length) * token + sizeof(Index));
}

Batch DeviceBatch::upload(ExecSpace const& space, HostWindows const& windows, ModelConfig const& config,
                          Index padded_length) {
  auto const count = static_cast<Index>(windows.lengths.size());
  STRATA_REQUIRE(count <= windows_ && windows.stride <= length_, count << " windows of " << windows.stride
                                                                       << " tokens, room for " << windows_
                                                                       << " of " << length_);
  STRATA_REQUIRE((windows.bytes != nullptr) != (windows.ids != nullptr), "one of bytes and ids");
  // Up to the last window's last token, behind which the caller may have none.
  Index const n = count == 0 ? 0 : (count - 1) * windows.stride + windows.lengths.back();
  Batch batch;
  if (windows.bytes) {
    if (config.num_tokens < 256) check_tokens(windows.bytes, windows, config.num_tokens);
    batch.tokens.bytes = place(space, bytes_, windows.bytes, n);
  } else {
    check_tokens(windows.ids, windows, config.num_tokens);
    batch.tokens.ids = place(space, ids_, windows.ids, n);
  }
  batch.tokens.lengths = place(space, lengths_, windows.lengths.data(), count);
  if (windows.weights) batch.targets.weights = place(space, weights_, windows.weights, n);
  if (copies) space.fence();  // the caller may reuse its memory
  batch.tokens.windows = count;
  batch.tokens.stride = windows.stride;
  batch.tokens.padded_length = padded_length;
  batch.tokens.pad = static_cast<std::int32_t>(config.pad_token_id);
  batch.targets.tokens = batch.tokens;
  batch.targets.ignored = static_cast<std::int32_t>(config.pad_token_id);
  batch.targets.prediction =
      config.head == Head::complete ? kernels::Prediction::same : kernels::Prediction::next;
  batch.first_sample = windows.first_sample;
  return batch;
}

kernels::Targets on_host(kernels::Targets const& targets, std::span<Index const> lengths) {
  kernels::Targets result = targets;
  result.tokens.bytes = nullptr;
  result.tokens.ids = nullptr;
  result.tokens.lengths = lengths.data();
  result.weights = nullptr;
  return result;
}

}  // namespace strata::model
