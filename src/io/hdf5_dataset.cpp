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

/// Extents of the chunks of an array of this rank; all 1 where it is not chunked.
Shape chunk_of(hid_t dataset, std::size_t rank) {
  Handle const creation = property_handle(H5Dget_create_plist(dataset));
  std::array<hsize_t, H5S_MAX_RANK> extents{};
  int stored = 0;
  if (H5Pget_layout(creation.get()) == H5D_CHUNKED)
    stored = H5Pget_chunk(creation.get(), H5S_MAX_RANK, extents.data());
  Shape chunk(rank, 1);
  for (std::size_t d = 0; d < rank && static_cast<int>(d) < stored; ++d)
    chunk[d] = static_cast<Index>(extents[d]);
  return chunk;
}

/// Bytes of the whole chunks that hold an array of this shape, before compression; 0 for one without chunks,
/// whose place was set aside when it was made.
double chunked_bytes(hid_t dataset, Shape const& shape, ElementType type) {
  Handle const creation = property_handle(H5Dget_create_plist(dataset));
  if (H5Pget_layout(creation.get()) != H5D_CHUNKED) return 0;
  Shape const chunk = chunk_of(dataset, shape.size());
  auto bytes = static_cast<double>(element_size(type));
  for (std::size_t d = 0; d < shape.size(); ++d) {
    auto const step = static_cast<double>(chunk[d]);
    bytes *= std::ceil(static_cast<double>(shape[d]) / step) * step;
  }
  return bytes;
}

/// Elements [first, first + count), row-major, as the box start[d] <= i_d < start[d] + extent[d]; false when
/// they are none.
bool box_of(Shape const& shape, Index first, Index count, std::vector<hsize_t>& start,
            std::vector<hsize_t>& extent) {
  start.assign(shape.size(), 0);
  extent.assign(shape.begin(), shape.end());
  Index below = 1;  // elements of one step along dimension d
  std::size_t d = shape.size();
  while (d-- > 0) {
    Index const whole = below * shape[d];
    if (first / whole == (first + count - 1) / whole) break;
    if (d == 0) return false;
    below = whole;
  }
  if (first % below != 0 || count % below != 0) return false;
  extent[d] = static_cast<hsize_t>(count / below);
  Index rest = first / below;
  for (std::size_t outer = d + 1; outer-- > 0; rest /= shape[outer]) {
    start[outer] = static_cast<hsize_t>(rest % shape[outer]);
    if (outer < d) extent[outer] = 1;
  }
  return true;
}

/// Elements [first, first + count) of an array in its file and in memory; null where HDF5 fails.
struct Selection {
  Handle file, memory;

  Selection(hid_t dataset, Shape const& shape, Index first, Index count)
      : file(space_handle(H5Dget_space(dataset))) {
    if (shape.empty()) {
      memory = space_handle(H5Screate(H5S_SCALAR));
      return;
    }
    std::vector<hsize_t> start;
    std::vector<hsize_t> extent;
    if (!box_of(shape, first, count, start, extent))
      throw std::logic_error("elements " + std::to_string(first) + " to " + std::to_string(first + count) +
                             " are no box of the array");
    // Of the same rank on both sides: otherwise HDF5 goes element by element.
    memory = space_handle(H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr));
    if (!file ||
        H5Sselect_hyperslab(file.get(), H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr) < 0)
      memory.reset();
  }
  explicit operator bool() const { return file && memory; }
};

/// body(first, count) for the boxes that elements [first, last), row-major, fall into; at most two for each
/// dimension.
template <class Body>
void for_boxes(Shape const& shape, Index first, Index last, Body const& body) {
  if (shape.empty() && first < last) body(first, last - first);
  while (!shape.empty() && first < last) {
    // The widest step that begins here and fits, and as many of them as the array has in a row.
    Index below = element_count(shape);
    std::size_t d = 0;
    do below /= shape[d++];
    while (first % below != 0 || last - first < below);
    Index const extent = shape[d - 1];
    Index const steps = std::min((last - first) / below, extent - first / below % extent);
    body(first, steps * below);
    first += steps * below;
  }
}

/// Elements [first, first + count) of an array: in its file as boxes, in memory as a line.
struct FlatSelection {
  Handle file, memory;
  bool good = false;

  FlatSelection(hid_t dataset, Shape const& shape, Index first, Index count)
      : file(space_handle(H5Dget_space(dataset))) {
    auto const length = static_cast<hsize_t>(count);
    memory = space_handle(H5Screate_simple(1, &length, nullptr));
    if (!file || !memory) return;
    if (count == 0) {
      good = H5Sselect_none(file.get()) >= 0 && H5Sselect_none(memory.get()) >= 0;
      return;
    }
    good = true;
    H5S_seloper_t operation = H5S_SELECT_SET;
    for_boxes(shape, first, first + count, [&](Index begin, Index elements) {
      std::vector<hsize_t> start;
      std::vector<hsize_t> extent;
      box_of(shape, begin, elements, start, extent);
      good = good &&
             H5Sselect_hyperslab(file.get(), operation, start.data(), nullptr, extent.data(), nullptr) >= 0;
      operation = H5S_SELECT_OR;
    });
  }
};

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

std::vector<Index> Dataset::pieces(Index bytes) const {
  Lock const lock;
  Index const size = this->size();
  std::vector<Index> borders{0};
  if (size == 0) return borders;
  if (shape_.empty()) return {0, 1};
  // Along dimension d, the first of which a step is not too large; all before it one by one.
  Shape const chunk = chunk_of(id_.get(), shape_.size());
  Index const most = std::max<Index>(bytes / static_cast<Index>(element_size(type_)), 1);
  std::size_t d = 0;
  Index below = size / shape_[0];
  while (below > most && d + 1 < shape_.size()) below /= shape_[++d];
  Index const steps = std::max<Index>(most / below / chunk[d], 1) * chunk[d];
  Index const whole = below * shape_[d];
  for (Index begin = 0; begin < size; begin += whole) {
    for (Index step = steps; step < shape_[d]; step += steps) borders.push_back(begin + step * below);
    borders.push_back(begin + whole);
  }
  return borders;
}

template <class T>
void Dataset::read(Index first, std::span<T> out) const {
  auto const count = static_cast<Index>(out.size());
  if (!holds(element_type<T>(), type_) || first < 0 || first > size() || count > size() - first) {
    throw core::InputError(file_ + ": " + path_ + " has no elements " + std::to_string(first) + " to " +
                           std::to_string(first + count) + " of type " + to_string(element_type<T>()));
  }
  for_boxes(shape_, first, first + count, [&](Index box, Index elements) {
    Index const most = shape_.size() == 1 ? piece : elements;
    for (Index begin = box; begin < box + elements; begin += most) {
      Lock const lock;
      Index const length = std::min(most, box + elements - begin);
      Selection const selection(id_.get(), shape_, begin, length);
      if (!selection || H5Dread(id_.get(), native_type(element_type<T>()), selection.memory.get(),
                                selection.file.get(), H5P_DEFAULT, out.data() + (begin - first)) < 0) {
        fail("read");
      }
    }
  });
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
void Dataset::write(Index first, std::span<T const> in) {
  Lock const lock;
  auto const count = static_cast<Index>(in.size());
  if (element_type<T>() != type_ || first < 0 || first > size() || count > size() - first)
    throw std::logic_error(path_ + ": written with another type or beyond its size");
  if (in.empty()) return;
  // Asked for the whole array at its first piece, because what waits in buffers counts in no file's size yet.
  check_size_limit(id_.get(), file_, first == 0 ? chunked_bytes(id_.get(), shape_, type_) : 0);
  Selection const selection(id_.get(), shape_, first, count);
  if (!selection || H5Dwrite(id_.get(), native_type(type_), selection.memory.get(), selection.file.get(),
                             H5P_DEFAULT, in.data()) < 0) {
    fail("write");
  }
}

template <class T>
std::string Dataset::write_shared(Index first, std::span<T const> in) {
  Lock const lock;
  auto const count = static_cast<Index>(in.size());
  if (element_type<T>() != type_ || shape_.empty() || first < 0 || first > size() || count > size() - first)
    throw std::logic_error(path_ + ": written with another type or beyond its size");
  Handle const transfer = property_handle(H5Pcreate(H5P_DATASET_XFER));
  H5Pset_dxpl_mpio(transfer.get(), H5FD_MPIO_COLLECTIVE);
  FlatSelection const selection(id_.get(), shape_, first, count);
  if (selection.good && H5Dwrite(id_.get(), native_type(type_), selection.memory.get(), selection.file.get(),
                                 transfer.get(), in.data()) >= 0)
    return {};
  return file_ + ": cannot write " + path_ + " (" + error_stack() + ")";
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

#define STRATA_DATASET(T)                                                   \
  template void Dataset::read<T>(std::span<T>) const;                       \
  template void Dataset::read<T>(Index, std::span<T>) const;                \
  template void Dataset::write<T>(std::span<T const>);                      \
  template void Dataset::write<T>(Index, std::span<T const>);               \
  template std::string Dataset::write_shared<T>(Index, std::span<T const>); \
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
