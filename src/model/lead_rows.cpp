// SPDX-License-Identifier: Apache-2.0
#include "model/lead_rows.hpp"

namespace strata::model {

using kernels::rows;

template <class T>
LeadRows<T>::LeadRows(core::Arena& arena, TimeChunks<T> const& chunks, Index lead, Index windows, Index width,
                      Mat<T> dy_all)
    : chunks_(chunks),
      lead_(std::min(lead, (chunks.count() - 1) * chunks.length())),
      windows_(windows),
      dy_all_(dy_all) {
  if (!needed()) return;
  core::Arena::Purpose const purpose(arena, "stage 1: rows that cross-patch attention looks back on");
  tails_ = arena.template matrix<T>(windows * lead, width);
  y_ = arena.template matrix<T>(lead + chunks.length(), width);
  if (dy_all.extent(0) > 0) dy_ = arena.template matrix<T>(lead + chunks.length(), width);
}

/// f(rows of dy_all, first position) for the pieces that positions [begin, end) of a window have in it.
template <class T>
template <class F>
void LeadRows<T>::for_pieces(Index window, Index begin, Index end, F const& f) const {
  for (Index t = begin; t < end;) {
    Index const c = t / chunks_.length(), first = c * chunks_.length();
    Index const length = chunks_.rows(c).shape.length, to = std::min(end, first + length);
    Index const base = windows_ * first + window * length - first;
    f(rows(dy_all_, base + t, base + to), t - begin);
    t = to;
  }
}

template <class T>
typename LeadRows<T>::Joined LeadRows<T>::join(Index window, Index c, Mat<T> own) const {
  ExecSpace const space;
  Index const earlier = before(c), count = own.extent(0), first = c * chunks_.length();
  Joined joined{rows(y_, 0, earlier + count), {}};
  Mat<T> const tail = rows(tails_, window * lead_, (window + 1) * lead_);
  if (earlier > 0) Kokkos::deep_copy(space, rows(y_, 0, earlier), rows(tail, lead_ - earlier, lead_));
  Kokkos::deep_copy(space, rows(y_, earlier, earlier + count), own);
  Index const latest = std::min(lead_, earlier + count);
  Kokkos::deep_copy(space, rows(tail, lead_ - latest, lead_),
                    rows(y_, earlier + count - latest, earlier + count));
  if (dy_.data() == nullptr) return joined;
  joined.dy = rows(dy_, 0, earlier + count);
  for_pieces(window, first - earlier, first, [&](Mat<T> const& piece, Index at) {
    Kokkos::deep_copy(space, rows(dy_, at, at + Index(piece.extent(0))), piece);
  });
  return joined;
}

template <class T>
void LeadRows<T>::scatter(Index window, Index c, Joined const& joined) const {
  if (joined.dy.data() == nullptr) return;
  Index const first = c * chunks_.length() - before(c);
  for_pieces(window, first, first + Index(joined.dy.extent(0)), [&](Mat<T> const& piece, Index at) {
    Kokkos::deep_copy(ExecSpace(), piece, rows(joined.dy, at, at + Index(piece.extent(0))));
  });
}

template class LeadRows<float>;
template class LeadRows<double>;

}  // namespace strata::model
