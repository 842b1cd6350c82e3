// SPDX-License-Identifier: Apache-2.0
#pragma once
// Which window of a split is the c-th sample of a run: pure functions of (seed, epoch, index), in constant
// memory.
//
// Epoch e cuts the split at o = e mod L, as the reference does: a head [0, o), full windows [o + i L, o +
// (i+1) L) and a tail with what remains. Unlike the reference, which drops head and tail, every byte is seen
// exactly once per epoch. A split that one window holds is never cut.

#include <cstdint>

namespace strata::data {

using Index = std::int64_t;

/// Bytes [start, start + length) of a split.
struct Window {
  Index start = 0;
  Index length = 0;
  friend bool operator==(Window const&, Window const&) = default;
};

/// A sample's place in the stream of epochs; what a checkpoint stores.
struct Place {
  Index epoch = 0;
  Index index = 0;
  friend bool operator==(Place const&, Place const&) = default;
};

/// A bijection of [0, count) chosen by (seed, stream): a Feistel network on the next even power of two whose
/// round function is Philox4x32-10 (Random123), walked along its cycle until it lands inside (Black and
/// Rogaway 2002).
Index permute(Index index, Index count, std::uint64_t seed, std::uint64_t stream);

class SampleOrder {
 public:
  /// `total` bytes in windows of `window_length`; sequential, or shuffled within each epoch.
  /// Throws core::InputError when total or window_length is not positive.
  SampleOrder(Index total, Index window_length, bool shuffle, std::uint64_t seed);

  Index total() const { return total_; }
  Index window_length() const { return window_length_; }

  /// Number of windows of an epoch, at least 1.
  Index windows(Index epoch) const;
  /// The window at a place; place.index must lie in [0, windows(place.epoch)).
  Window window(Place place) const;
  Window window(Index epoch, Index index) const { return window(Place{epoch, index}); }

  /// The place `count` samples further on, across the borders of epochs.
  Place advance(Place place, Index count) const;
  /// Number of samples before a place since the run began.
  Index counter(Place place) const;

 private:
  Index offset_of(Index epoch) const;

  Index total_, window_length_;
  bool shuffle_;
  std::uint64_t seed_;
};

}  // namespace strata::data
