// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>

#include "core/error.hpp"
#include "io/hdf5_detail.hpp"

namespace strata::io {

using namespace detail;

namespace {

/// Chunks beyond this are refused, because HDF5 allocates a whole one to read a byte of it.
constexpr double chunk_limit = 64.0 * 1024 * 1024;
/// Deflate cannot expand a stream by more than about 1032.
constexpr double expansion_limit = 1100;
/// A read of 1-D data holds the lock for at most this many elements.
constexpr Index piece = Index{1} << 22;

/// True when every value of type `stored` is exactly a value of type `wanted`.
bool holds(ElementType wanted, ElementType stored) {
  if (wanted == stored) return true;
  auto const is_unsigned = [](ElementType t) {
    return t == ElementType::uint8 || t == ElementType::uint16 || t == ElementType::uint32 ||
           t == ElementType::uint64;
  };
  auto const is_signed = [](ElementType t) {
    return t == ElementType::int8 || t == ElementType::int16 || t == ElementType::int32 ||
           t == ElementType::int64;
  };
  if (element_size(stored) >= element_size(wanted)) return false;
  if (wanted == ElementType::float64) return stored == ElementType::float32;
  if (is_unsigned(wanted)) return is_unsigned(stored);
  return is_signed(wanted) && (is_signed(stored) || is_unsigned(stored));
}

/// Bytes of the whole chunks that hold an array of this shape, before compression.
double chunked_bytes(hid_t dataset, Shape const& shape, ElementType type) {
  Handle const creation = property_handle(H5Dget_create_plist(dataset));
  std::array<hsize_t, H5S_MAX_RANK> chunk{};
  int rank = 0;
  if (H5Pget_layout(creation.get()) == H5D_CHUNKED)
    rank = H5Pget_chunk(creation.get(), H5S_MAX_RANK, chunk.data());
  auto bytes = static_cast<double>(element_size(type));
  for (std::size_t d = 0; d < shape.size(); ++d) {
    auto const extent = static_cast<double>(shape[d]);
    auto const step = d < static_cast<std::size_t>(std::max(rank, 0)) ? static_cast<double>(chunk[d]) : 1.0;
    bytes *= std::ceil(extent / step) * step;
  }
  return bytes;
}

Shape shape_of(hid_t space, bool& good) {
  std::array<hsize_t, H5S_MAX_RANK> extents{};
  good = false;
  H5S_class_t const kind = H5Sget_simple_extent_type(space);
  if (kind == H5S_SCALAR) {
    good = true;
    return {};
  }
  if (kind != H5S_SIMPLE) return {};
  int const rank = H5Sget_simple_extent_ndims(space);
  if (rank < 0 || rank > H5S_MAX_RANK || H5Sget_simple_extent_dims(space, extents.data(), nullptr) < 0)
    return {};
  Shape shape;
  for (int d = 0; d < rank; ++d) {
    hsize_t const extent = extents[static_cast<std::size_t>(d)];
    if (extent > static_cast<hsize_t>(INT64_MAX)) return {};
    shape.push_back(static_cast<Index>(extent));
  }
  good = true;
  return shape;
}

}  // namespace

Dataset::Dataset(Handle id, std::string file, std::string path)
    : id_(std::move(id)), file_(std::move(file)), path_(std::move(path)) {
  Handle const type = type_handle(H5Dget_type(id_.get()));
  Handle const space = space_handle(H5Dget_space(id_.get()));
  if (!type || !space) fail("inspect");
  type_ = stored_type(type.get());
  bool good = false;
  shape_ = shape_of(space.get(), good);
  if (!good) throw core::InputError(file_ + ": " + path_ + " has a shape that cannot be used");
}

void Dataset::fail(std::string const& what) const { detail::fail(file_, what + " " + path_); }

void Dataset::check_layout() const {
  Handle const type = type_handle(H5Dget_type(id_.get()));
  Handle const creation = property_handle(H5Dget_create_plist(id_.get()));
  if (!type || !creation) fail("inspect");
  auto const refuse = [this](std::string const& why) {
    throw core::InputError(file_ + ": " + path_ + " " + why);
  };

  H5D_layout_t const layout = H5Pget_layout(creation.get());
  bool const known = layout == H5D_COMPACT || layout == H5D_CONTIGUOUS || layout == H5D_CHUNKED;
  if (!known || H5Pget_external_count(creation.get()) != 0) refuse("is not stored in the file itself");
  auto const element_bytes = static_cast<double>(H5Tget_size(type.get()));
  bool compressed = false;
  if (layout == H5D_CHUNKED) {
    std::array<hsize_t, H5S_MAX_RANK> chunk{};
    int const rank = H5Pget_chunk(creation.get(), H5S_MAX_RANK, chunk.data());
    if (rank < 1) fail("inspect");
    double bytes = element_bytes;
    for (int d = 0; d < rank; ++d) bytes *= static_cast<double>(chunk[static_cast<std::size_t>(d)]);
    if (bytes > chunk_limit) refuse("has chunks of more than 64 MiB; store it in smaller ones");
    int const filters = H5Pget_nfilters(creation.get());
    for (int f = 0; f < filters; ++f) {
      unsigned flags = 0;
      unsigned config = 0;
      std::size_t values = 0;
      H5Z_filter_t const filter = H5Pget_filter2(creation.get(), static_cast<unsigned>(f), &flags, &values,
                                                 nullptr, 0, nullptr, &config);
      compressed = compressed || filter == H5Z_FILTER_DEFLATE;
      if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_FLETCHER32) {
        refuse("uses a compression other than gzip, which is not supported");
      }
    }
  }

  double claimed = element_bytes;
  for (Index const extent : shape_) claimed *= static_cast<double>(extent);
  if (claimed == 0) return;
  element_count(shape_);
  auto const stored = static_cast<double>(H5Dget_storage_size(id_.get()));
  std::error_code error;
  auto const file_size = static_cast<double>(std::filesystem::file_size(file_, error));
  bool const text = type_ == ElementType::text && H5Tis_variable_str(type.get()) > 0;
  if (stored * (compressed ? expansion_limit : 1) < claimed || (!error && stored > file_size && !text)) {
    refuse("claims more data than the file holds; it is damaged or was never completely written");
  }
}

template <class T>
void Dataset::read(std::span<T> out) const {
  Lock const lock;
  if (!holds(element_type<T>(), type_)) {
    throw core::InputError(file_ + ": " + path_ + " holds " + to_string(type_) + " where " +
                           to_string(element_type<T>()) + " is expected");
  }
  if (static_cast<Index>(out.size()) != size()) {
    throw core::InputError(file_ + ": " + path_ + " has " + std::to_string(size()) + " elements where " +
                           std::to_string(out.size()) + " are expected");
  }
  if (out.empty()) return;
  if (H5Dread(id_.get(), native_type(element_type<T>()), H5S_ALL, H5S_ALL, H5P_DEFAULT, out.data()) < 0)
    fail("read");
}

template <class T>
void Dataset::read(Index first, std::span<T> out) const {
  auto const count = static_cast<Index>(out.size());
  if (shape_.size() != 1 || !holds(element_type<T>(), type_) || first < 0 || first > shape_[0] ||
      count > shape_[0] - first) {
    throw core::InputError(file_ + ": " + path_ + " has no elements " + std::to_string(first) + " to " +
                           std::to_string(first + count) + " of type " + to_string(element_type<T>()));
  }
  for (Index begin = 0; begin < count; begin += piece) {
    Lock const lock;
    hsize_t const start = static_cast<hsize_t>(first) + static_cast<hsize_t>(begin);
    hsize_t const length = static_cast<hsize_t>(std::min(piece, count - begin));
    Handle const space = space_handle(H5Dget_space(id_.get()));
    Handle const memory = space_handle(H5Screate_simple(1, &length, nullptr));
    if (!space || !memory ||
        H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &start, nullptr, &length, nullptr) < 0 ||
        H5Dread(id_.get(), native_type(element_type<T>()), memory.get(), space.get(), H5P_DEFAULT,
                out.data() + begin) < 0) {
      fail("read");
    }
  }
}

template <class T>
void Dataset::write(std::span<T const> in) {
  Lock const lock;
  if (element_type<T>() != type_ || static_cast<Index>(in.size()) != size()) {
    throw std::logic_error(path_ + ": written with another type or size than it was created with");
  }
  if (in.empty()) return;
  check_size_limit(id_.get(), file_, chunked_bytes(id_.get(), shape_, type_));
  if (H5Dwrite(id_.get(), native_type(type_), H5S_ALL, H5S_ALL, H5P_DEFAULT, in.data()) < 0) fail("write");
  flush();
}

template <class T>
void Dataset::append(std::span<T const> in) {
  Lock const lock;
  if (element_type<T>() != type_ || shape_.size() != 1)
    throw std::logic_error(path_ + ": cannot be appended to");
  if (in.empty()) return;
  check_size_limit(id_.get(), file_, chunked_bytes(id_.get(), {static_cast<Index>(in.size())}, type_));
  hsize_t const start = static_cast<hsize_t>(shape_[0]);
  hsize_t const length = in.size();
  hsize_t const total = start + length;
  if (H5Dset_extent(id_.get(), &total) < 0) fail("extend");
  Handle const space = space_handle(H5Dget_space(id_.get()));
  Handle const memory = space_handle(H5Screate_simple(1, &length, nullptr));
  if (!space || !memory ||
      H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, &start, nullptr, &length, nullptr) < 0 ||
      H5Dwrite(id_.get(), native_type(type_), memory.get(), space.get(), H5P_DEFAULT, in.data()) < 0) {
    fail("write");
  }
  shape_[0] = static_cast<Index>(total);
}

void Dataset::flush() {
  Lock const lock;
  if (H5Dflush(id_.get()) < 0) fail("write");
}

#define STRATA_DATASET(T)                                    \
  template void Dataset::read<T>(std::span<T>) const;        \
  template void Dataset::read<T>(Index, std::span<T>) const; \
  template void Dataset::write<T>(std::span<T const>);       \
  template void Dataset::append<T>(std::span<T const>);
STRATA_DATASET(std::uint8_t)
STRATA_DATASET(std::int8_t)
STRATA_DATASET(std::uint16_t)
STRATA_DATASET(std::int16_t)
STRATA_DATASET(std::uint32_t)
STRATA_DATASET(std::int32_t)
STRATA_DATASET(std::uint64_t)
STRATA_DATASET(std::int64_t)
STRATA_DATASET(float)
STRATA_DATASET(double)
#undef STRATA_DATASET

}  // namespace strata::io
