// SPDX-License-Identifier: Apache-2.0
// Lanes emptied, copied, and taken out of a generator and back in.
#include <algorithm>

#include "core/error.hpp"
#include "generate/generator.hpp"

namespace strata::generate {

using kernels::rows;

namespace {

template <class T>
std::vector<T> to_host(Mat<T> const& m) {
  auto const host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), m);
  std::vector<T> values;
  values.reserve(m.size());
  for (std::size_t i = 0; i < host.extent(0); ++i)
    for (std::size_t j = 0; j < host.extent(1); ++j) values.push_back(host(i, j));
  return values;
}

template <class T>
void from_host(T const* values, Mat<T> const& m) {
  Kokkos::View<T const**, Kokkos::LayoutRight, Kokkos::HostSpace,
               Kokkos::MemoryTraits<Kokkos::Unmanaged>> const host(values, m.extent(0), m.extent(1));
  Kokkos::deep_copy(m, host);
}

}  // namespace

/// What a lane has in a stage: per layer the keys and values of its rows and of those it sees of the sequence
/// before, per layer the border, and the context.
template <class T>
typename Generator<T>::Pieces Generator<T>::pieces(Index lane, std::size_t s) const {
  StageState const& state = stages_[s];
  Index const layers = model_.stages()[s]->block().layers();
  Place const& place = lanes_[static_cast<std::size_t>(lane)].places[s];
  Index const capacity = state.carry.before + state.carry.capacity, seen = seen_before(s, place);
  Pieces all;
  for (Index l = 0; l < layers; ++l) {
    Index const first = (l * lanes() + lane) * capacity + state.carry.before;
    bool const keeps = state.carry.history.extent(1) > 0;
    all.push_back(keeps ? rows(state.carry.history, first - seen, first + place.rows) : Mat<T>());
    all.push_back(rows(state.carry.border, l * lanes() + lane, l * lanes() + lane + 1));
  }
  if (s > 0) all.push_back(rows(state.context, lane, lane + 1));
  return all;
}

template <class T>
void Generator<T>::reset(Index lane) {
  check_room(lane, 0);
  lanes_[static_cast<std::size_t>(lane)] = {0, std::vector<Place>(stages_.size())};
  forget_tokens(lane);
}

template <class T>
void Generator<T>::forget_tokens(Index lane) {
  if (history_ == 0) return;
  for (Index t = 0; t < ring_; ++t)
    host_tokens_(lane, t) = static_cast<std::uint16_t>(model_.config().pad_token_id);
  Kokkos::deep_copy(Kokkos::subview(tokens_, lane, Kokkos::ALL),
                    Kokkos::subview(host_tokens_, lane, Kokkos::ALL));
}

template <class T>
void Generator<T>::copy(Index from, Index to) {
  check_room(from, 0);
  check_room(to, 0);
  if (from == to) return;
  kernels::ExecSpace const space;
  lanes_[static_cast<std::size_t>(to)] = lanes_[static_cast<std::size_t>(from)];
  for (std::size_t s = 0; s < stages_.size(); ++s) {
    Pieces const source = pieces(from, s), target = pieces(to, s);
    for (std::size_t i = 0; i < source.size(); ++i)
      if (source[i].size() > 0) Kokkos::deep_copy(space, target[i], source[i]);
  }
  Kokkos::deep_copy(space, rows(hidden_, to, to + 1), rows(hidden_, from, from + 1));
  for (Index t = 0; t < ring_; ++t) host_tokens_(to, t) = host_tokens_(from, t);
  Kokkos::deep_copy(space, Kokkos::subview(tokens_, to, Kokkos::ALL),
                    Kokkos::subview(tokens_, from, Kokkos::ALL));
  space.fence();
}

template <class T>
LaneState<T> Generator<T>::state(Index lane) {
  check_room(lane, 0);
  advance(std::span<Index const>(&lane, 1));
  kernels::ExecSpace().fence();
  Lane const& from = lanes_[static_cast<std::size_t>(lane)];
  LaneState<T> out;
  out.position = from.position;
  for (Index t = std::max<Index>(0, from.position - ring_); t < from.position; ++t)
    out.recent.push_back(host_tokens_(lane, t % ring_));
  out.hidden = to_host<T>(rows(hidden_, lane, lane + 1));
  for (std::size_t s = 0; s < stages_.size(); ++s) {
    typename LaneState<T>::Stage stage;
    stage.start = from.places[s].start;
    stage.rows = from.places[s].rows;
    for (Mat<T> const& piece : pieces(lane, s)) {
      std::vector<T> const values = to_host<T>(piece);
      stage.values.insert(stage.values.end(), values.begin(), values.end());
    }
    out.stages.push_back(std::move(stage));
  }
  return out;
}

template <class T>
void Generator<T>::restore(Index lane, LaneState<T> const& in) {
  core::InputError const other("the saved state is not one of this model");
  reset(lane);
  check_room(lane, in.position);
  if (in.position < 0 || in.stages.size() != stages_.size() || in.hidden.size() != hidden_.extent(1) ||
      static_cast<Index>(in.recent.size()) != std::min(in.position, ring_))
    throw other;
  Lane restored{in.position, {}};
  for (std::size_t s = 0; s < stages_.size(); ++s) {
    Place const need = needed(s, in.position);
    if (in.stages[s].start != need.start || in.stages[s].rows != need.rows) throw other;
    restored.places.push_back(need);
  }
  std::swap(lanes_[static_cast<std::size_t>(lane)], restored);  // pieces() looks at the rows
  for (std::size_t s = 0; s < stages_.size(); ++s) {
    Pieces const target = pieces(lane, s);
    std::size_t total = 0;
    for (Mat<T> const& piece : target) total += piece.size();
    if (total != in.stages[s].values.size()) {
      reset(lane);
      throw other;
    }
    T const* from = in.stages[s].values.data();
    for (Mat<T> const& piece : target) {
      if (piece.size() > 0) from_host<T>(from, piece);
      from += piece.size();
    }
  }
  from_host<T>(in.hidden.data(), rows(hidden_, lane, lane + 1));
  Index const first = in.position - static_cast<Index>(in.recent.size());
  for (Index t = first; t < in.position; ++t)
    host_tokens_(lane, t % ring_) = in.recent[static_cast<std::size_t>(t - first)];
  Kokkos::deep_copy(Kokkos::subview(tokens_, lane, Kokkos::ALL),
                    Kokkos::subview(host_tokens_, lane, Kokkos::ALL));
}

#define STRATA_GENERATOR_STATE(T)                                                        \
  template typename Generator<T>::Pieces Generator<T>::pieces(Index, std::size_t) const; \
  template void Generator<T>::reset(Index);                                              \
  template void Generator<T>::forget_tokens(Index);                                      \
  template void Generator<T>::copy(Index, Index);                                        \
  template LaneState<T> Generator<T>::state(Index);                                      \
  template void Generator<T>::restore(Index, LaneState<T> const&);
STRATA_INSTANTIATE(STRATA_GENERATOR_STATE)

}  // namespace strata::generate
