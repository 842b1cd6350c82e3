// SPDX-License-Identifier: Apache-2.0
#include "data/sample_order.hpp"

#include <Random123/philox.h>

#include <algorithm>
#include <string>

#include "core/error.hpp"

namespace strata::data {

Index permute(Index index, Index count, std::uint64_t seed, std::uint64_t stream) {
  if (count <= 1) return index;
  unsigned half = 1;
  while ((std::uint64_t{1} << (2 * half)) < static_cast<std::uint64_t>(count)) ++half;
  std::uint64_t const mask = (std::uint64_t{1} << half) - 1;
  r123::Philox4x32::key_type const key{
      {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)}};
  constexpr std::uint32_t rounds = 8;
  auto value = static_cast<std::uint64_t>(index);
  do {
    std::uint64_t left = value >> half;
    std::uint64_t right = value & mask;
    for (std::uint32_t round = 0; round < rounds; ++round) {
      r123::Philox4x32::ctr_type const counter{{static_cast<std::uint32_t>(right), round,
                                                static_cast<std::uint32_t>(stream),
                                                static_cast<std::uint32_t>(stream >> 32)}};
      std::uint64_t const mixed = left ^ (r123::Philox4x32()(counter, key)[0] & mask);
      left = right;
      right = mixed;
    }
    value = (left << half) | right;
  } while (value >= static_cast<std::uint64_t>(count));
  return static_cast<Index>(value);
}

SampleOrder::SampleOrder(Index total, Index window_length, bool shuffle, std::uint64_t seed)
    : total_(total), window_length_(window_length), shuffle_(shuffle), seed_(seed) {
  if (total < 1) throw core::InputError("there is nothing to read: the split holds no bytes");
  if (window_length < 1) {
    throw core::InputError("a window must hold at least 1 byte, not " + std::to_string(window_length));
  }
}

Index SampleOrder::offset_of(Index epoch) const {
  return total_ > window_length_ ? epoch % window_length_ : 0;
}

Index SampleOrder::windows(Index epoch) const {
  Index const offset = offset_of(epoch);
  Index const rest = total_ - offset;
  return (offset > 0 ? 1 : 0) + rest / window_length_ + (rest % window_length_ > 0 ? 1 : 0);
}

Window SampleOrder::window(Place place) const {
  Index const offset = offset_of(place.epoch);
  Index index = place.index;
  if (shuffle_) index = permute(index, windows(place.epoch), seed_, static_cast<std::uint64_t>(place.epoch));
  if (offset > 0) {
    if (index == 0) return {0, offset};
    --index;
  }
  Index const start = offset + index * window_length_;
  return {start, std::min(window_length_, total_ - start)};
}

Place SampleOrder::advance(Place place, Index count) const {
  place.index += count;
  for (Index in_epoch = windows(place.epoch); place.index >= in_epoch; in_epoch = windows(place.epoch)) {
    place.index -= in_epoch;
    ++place.epoch;
  }
  return place;
}

Index SampleOrder::counter(Place place) const {
  Index count = place.index;
  for (Index epoch = 0; epoch < place.epoch; ++epoch) count += windows(epoch);
  return count;
}

}  // namespace strata::data
