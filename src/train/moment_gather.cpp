// SPDX-License-Identifier: Apache-2.0
#include "train/moment_gather.hpp"

#include <vector>

namespace strata::train {

namespace {

/// What rank 0 wants of the others.
struct Request {
  bool ends = true;
  MomentGather::Moment moment = MomentGather::Moment::first;
  model::FlatRange range;
};

std::span<float> part(std::span<float> out, Index begin, Index end) {
  return out.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
}

}  // namespace

MomentGather::MomentGather(model::ParameterStore<float> const& parameters, Optimizer const& optimizer,
                           parallel::Communicator const& ranks)
    : parameters_(parameters), optimizer_(optimizer), ranks_(ranks) {}

MomentGather::~MomentGather() {
  if (!ranks_.is_root() || !optimizer_.is_shared()) return;
  Request last;
  ranks_.broadcast(&last, sizeof last);
}

void MomentGather::copy(Moment moment, Index place, std::span<float> out) const {
  using Host = Kokkos::View<float*, Kokkos::HostSpace, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;
  auto const count = static_cast<Index>(out.size());
  Kokkos::deep_copy(
      Host(out.data(), count),
      kernels::range(moment == Moment::first ? optimizer_.first_moment() : optimizer_.second_moment(), place,
                     place + count));
}

void MomentGather::read(Moment moment, Index first, std::span<float> out) const {
  Request request = {false, moment, {first, first + static_cast<Index>(out.size())}};
  if (optimizer_.is_shared()) ranks_.broadcast(&request, sizeof request);
  for_elements_of(optimizer_.ranges(), request.range, [&](Index begin, Index end, Index place) {
    copy(moment, place, part(out, begin - first, end - first));
  });
  if (!optimizer_.is_shared()) return;
  for (int rank = 1; rank < ranks_.size(); ++rank)
    for_elements_of(shard_ranges(parameters_, rank, ranks_.size()), request.range,
                    [&](Index begin, Index end, Index) {
                      std::span<float> const to = part(out, begin - first, end - first);
                      ranks_.receive(to.data(), to.size_bytes(), rank);
                    });
}

void MomentGather::serve() const {
  if (!optimizer_.is_shared()) return;
  std::vector<float> buffer;
  while (true) {
    Request request;
    ranks_.broadcast(&request, sizeof request);
    if (request.ends) return;
    for_elements_of(optimizer_.ranges(), request.range, [&](Index begin, Index end, Index place) {
      buffer.resize(static_cast<std::size_t>(end - begin));
      copy(request.moment, place, buffer);
      ranks_.send(buffer.data(), buffer.size() * sizeof(float), 0);
    });
  }
}

}  // namespace strata::train
