// SPDX-License-Identifier: Apache-2.0
#include "model/parameters.hpp"

#include <Random123/philox.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "kernels/common/check.hpp"

namespace strata::model {

namespace {

/// FNV-1a: the stream of a parameter's random numbers depends on its name, not on the order of declaration.
std::uint64_t hash(std::string const& text) {
  std::uint64_t value = 14695981039346656037ULL;
  for (unsigned char const c : text) value = (value ^ c) * 1099511628211ULL;
  return value;
}

/// Two uniform numbers in (0, 1) for element i of a stream.
std::pair<double, double> uniforms(std::uint64_t seed, std::uint64_t stream, std::uint64_t i) {
  r123::Philox4x32::ctr_type const counter{
      {static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i >> 32), static_cast<std::uint32_t>(stream),
       static_cast<std::uint32_t>(stream >> 32)}};
  r123::Philox4x32::key_type const key{
      {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)}};
  auto const words = r123::Philox4x32()(counter, key);
  auto const unit = [](std::uint32_t high, std::uint32_t low) {
    return (static_cast<double>((std::uint64_t(high) << 21) ^ (low >> 11)) + 0.5) * 0x1p-53;
  };
  return {unit(words[0], words[1]), unit(words[2], words[3])};
}

/// x with log(1 + exp(x)) = step, from u in (0, 1).
double inverse_softplus_step(double u) {
  constexpr double smallest = 1e-3, largest = 0.1, floor = 1e-4;
  double const step = std::max(smallest * std::exp(u * std::log(largest / smallest)), floor);
  return step + std::log(-std::expm1(-step));
}

/// Element i of a parameter with `columns` columns.
double draw(Initial const& initial, Index columns, std::uint64_t seed, std::uint64_t stream, Index i) {
  using Kind = Initial::Kind;
  if (initial.kind == Kind::constant) return initial.value;
  if (initial.kind == Kind::log_column) return std::log(static_cast<double>(i % columns + 1));
  auto const [u, v] = uniforms(seed, stream, static_cast<std::uint64_t>(i));
  if (initial.kind == Kind::uniform) return initial.value * (2 * u - 1);
  if (initial.kind == Kind::inverse_softplus_step) return inverse_softplus_step(u);
  if (initial.kind == Kind::log_uniform_1_16) return std::log(1 + 15 * u);
  return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v);  // Box-Muller
}

}  // namespace

template <class T>
std::size_t ParameterStore<T>::declare(std::string name, std::vector<Index> shape, Initial initial,
                                       Ready ready, bool adjacent) {
  ParameterInfo info{std::move(name), std::move(shape), initial, ready, adjacent, {}};
  info.place.columns = 1;
  for (std::size_t i = 1; i < info.shape.size(); ++i) info.place.columns *= info.shape[i];
  if (info.shape.size() == 1) {
    info.place.columns = info.shape[0];
  } else {
    info.place.rows = info.shape[0];
  }
  info_.push_back(std::move(info));
  return info_.size() - 1;
}

template <class T>
void ParameterStore<T>::lay_out() {
  constexpr Index alignment = 64;  // elements: whole cache lines, and what wide loads like
  flat_size_ = 0;
  decay_ranges_.clear();
  for (Ready const ready : {Ready::before_outer_backward, Ready::at_end}) {
    Index const begin = flat_size_;
    for (bool const decays : {true, false}) {
      Index const range_begin = flat_size_;
      for (ParameterInfo& info : info_) {
        if (info.ready != ready || info.decays() != decays) continue;
        if (!info.adjacent) flat_size_ = (flat_size_ + alignment - 1) / alignment * alignment;
        info.place.offset = flat_size_;
        flat_size_ += info.place.size();
      }
      flat_size_ = (flat_size_ + alignment - 1) / alignment * alignment;
      if (flat_size_ > range_begin) decay_ranges_.push_back({{range_begin, flat_size_}, decays});
    }
    (ready == Ready::at_end ? at_end_ : before_) = {begin, flat_size_};
  }
}

template <class T>
void ParameterStore<T>::allocate(bool with_gradients) {
  lay_out();
  values_ = Buffer("strata::parameters", flat_size_);
  if (with_gradients) gradients_ = Buffer("strata::gradients", flat_size_);
}

template <class T>
std::size_t ParameterStore<T>::find(std::string const& name) const {
  for (std::size_t p = 0; p < info_.size(); ++p)
    if (info_[p].name == name) return p;
  throw std::out_of_range("no parameter is called " + name);
}

template <class T>
Index ParameterStore<T>::count() const {
  Index sum = 0;
  for (ParameterInfo const& info : info_) sum += info.place.size();
  return sum;
}

template <class T>
kernels::Mat<T> ParameterStore<T>::stacked(Buffer const& buffer, std::size_t first,
                                           std::size_t second) const {
  Parameter const& a = info_[first].place;
  Parameter const& b = info_[second].place;
  STRATA_REQUIRE(a.columns == b.columns && a.offset + a.size() == b.offset,
                 info_[first].name << " and " << info_[second].name << " do not lie side by side");
  return kernels::Mat<T>(buffer.data() + a.offset, a.rows + b.rows, a.columns);
}

template <class T>
void ParameterStore<T>::initialise(std::uint64_t seed) {
  auto const host = Kokkos::create_mirror_view(values_);
  for (ParameterInfo const& info : info_) {
    std::uint64_t const stream = hash(info.name);
    T* const to = host.data() + info.place.offset;
    for (Index i = 0; i < info.place.size(); ++i)
      to[i] = static_cast<T>(draw(info.initial, info.place.columns, seed, stream, i));
    if (info.initial.zero_row >= 0) {
      T* const row = to + info.initial.zero_row * info.place.columns;
      std::fill(row, row + info.place.columns, T(0));
    }
  }
  Kokkos::deep_copy(values_, host);
}

template <class T>
void ParameterStore<T>::copy_out(Buffer const& buffer, std::size_t p, T* host) const {
  Parameter const& at = info_[p].place;
  Kokkos::View<T*, Kokkos::HostSpace, Kokkos::MemoryTraits<Kokkos::Unmanaged>> const to(host, at.size());
  Kokkos::deep_copy(to, Kokkos::subview(buffer, std::pair<Index, Index>(at.offset, at.offset + at.size())));
}

template <class T>
void ParameterStore<T>::set(std::size_t p, T const* host) {
  Parameter const& at = info_[p].place;
  Kokkos::View<T const*, Kokkos::HostSpace, Kokkos::MemoryTraits<Kokkos::Unmanaged>> const from(host,
                                                                                                at.size());
  Kokkos::deep_copy(Kokkos::subview(values_, std::pair<Index, Index>(at.offset, at.offset + at.size())),
                    from);
}

template class ParameterStore<float>;
template class ParameterStore<double>;

}  // namespace strata::model
