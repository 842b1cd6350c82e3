// SPDX-License-Identifier: Apache-2.0
#pragma once
// From a model's logits to the integer frequencies of bytes that an arithmetic coder works with.

#include <array>
#include <cstdint>
#include <span>

#include "generate/arithmetic_coder.hpp"

namespace strata::generate {

/// Frequencies of the 256 bytes, in proportion to softmax(logits) over them, each at least 1, adding up to
/// coder_total. They are a function of the logits' bits alone: double arithmetic in a fixed order.
class ByteModel {
 public:
  /// Only the first 256 logits take part. Returns false, and leaves equal frequencies, if one of them is not
  /// a number or all are infinite.
  bool set(std::span<float const> logits);

  Share share(std::uint8_t byte) const;
  /// The byte whose share holds a cumulative frequency.
  std::uint8_t find(std::uint32_t cumulative) const;

 private:
  std::array<std::uint64_t, 257> starts_{};
};

}  // namespace strata::generate
