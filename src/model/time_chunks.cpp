// SPDX-License-Identifier: Apache-2.0
#include "model/time_chunks.hpp"

#include <algorithm>
#include <cmath>

namespace strata::model {

using kernels::StageRows;

template <class T>
TimeChunks<T>::TimeChunks(Stage<T> const& stage, core::Arena& arena, StageRows const& whole, Index chunk,
                          Chunking const& chunking, bool trains)
    : whole_(whole),
      chunk_(chunk),
      count_((whole.shape.length + chunk - 1) / chunk),
      interval_(count_),
      trains_(trains),
      keeps_(trains && chunking.outer_tapes == OuterTapes::keep) {
  if (chunking.outer_tapes == OuterTapes::two_level) {
    auto const root = static_cast<Index>(std::ceil(std::sqrt(static_cast<double>(count_))));
    interval_ = std::clamp<Index>(chunking.border_interval > 0 ? chunking.border_interval : root, 1, count_);
  }
  Block<T> const& block = stage.block();
  Index const sequences = whole.shape.count;
  {
    core::Arena::Purpose const purpose(arena, "stage 1: carry (keys and values, or states)");
    carry_ = block.take_carry(arena, sequences, whole.shape.length, carries());
    if (trains) dcarry_ = block.take_carry(arena, sequences, whole.shape.length, carries());
  }
  if (trains && carries()) {
    core::Arena::Purpose const purpose(arena, "stage 1: carries saved at chunk borders");
    Index const borders = (count_ - 1) / interval_ + interval_ - 1;
    slots_ = arena.template matrix<T>(borders, block.layers() * sequences * block.border_width());
  }
  core::Arena::Purpose const purpose(arena, "stage 1: tapes");
  for (Index c = 0; c < (keeps_ ? count_ : 1); ++c)
    tapes_.push_back(stage.take_tape(arena, keeps_ ? rows(c) : largest(), trains));
}

template <class T>
StageRows TimeChunks<T>::rows(Index c) const {
  StageRows r = whole_;
  r.first_position = c * chunk_;
  r.shape.length = std::min(chunk_, whole_.shape.length - c * chunk_);
  return r;
}

template <class T>
StageRows TimeChunks<T>::largest() const {
  StageRows r = rows(0);
  if (count_ > 1) r.first_position = (count_ - 1) * chunk_;
  return r;
}

template <class T>
typename TimeChunks<T>::StageTape TimeChunks<T>::tape(Index c) const {
  StageTape tape = tapes_[tapes_.size() > 1 ? static_cast<std::size_t>(c) : 0];
  tape.block.shape = rows(c).shape;
  return tape;
}

template <class T>
Mat<T> TimeChunks<T>::slot(Index c) const {
  Index const kept = (count_ - 1) / interval_;  // for good; the slots behind them change hands
  Index const number = c % interval_ == 0 ? c / interval_ - 1 : kept + c % interval_ - 1;
  return Mat<T>(slots_.data() + number * static_cast<Index>(slots_.extent(1)), carry_.border.extent(0),
                carry_.border.extent(1));
}

template <class T>
Carry<T> TimeChunks<T>::before(Index c) const {
  Carry<T> carry = carry_;
  carry.position = c * chunk_;
  if (c > 0) carry.border = slot(c);
  return carry;
}

template <class T>
void TimeChunks<T>::save(Index c) {
  if (trains_ && c > 0) Kokkos::deep_copy(ExecSpace(), slot(c), carry_.border);
}

template <class T>
void TimeChunks<T>::restore(Index c) {
  if (c > 0) Kokkos::deep_copy(ExecSpace(), carry_.border, slot(c));
  carry_.position = c * chunk_;
}

template <class T>
void TimeChunks<T>::clear_gradients() const {
  Kokkos::deep_copy(ExecSpace(), dcarry_.history, T(0));
  if (dcarry_.border.data() != nullptr) Kokkos::deep_copy(ExecSpace(), dcarry_.border, T(0));
}

template class TimeChunks<float>;
template class TimeChunks<double>;

}  // namespace strata::model
