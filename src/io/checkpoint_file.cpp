// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint_file.hpp"

#include <algorithm>
#include <span>

#include "core/error.hpp"
#include "io/digest.hpp"
#include "io/seal.hpp"

namespace strata::io {

namespace {

/// Fletcher-32 cannot tell 0x0000 from 0xffff, which zeroed or overwritten blocks turn into each other;
/// CRC-32 can.
constexpr char const* checksum_name = "crc32";

std::string group_path(std::string const& group) {
  return group.empty() || group.front() == '/' ? (group.empty() ? "/" : group) : "/" + group;
}

std::string object_path(std::string const& group, std::string const& name) {
  if (name.empty() || name == "." || name.find('/') != std::string::npos ||
      name.find('\0') != std::string::npos) {
    throw core::InputError("'" + name + "' cannot be the name of an array in a checkpoint");
  }
  std::string const path = group_path(group);
  return path == "/" ? path + name : path + "/" + name;
}

/// Arrays are read and written in pieces of this size, so that none is ever held twice.
constexpr Index piece_bytes = Index{1} << 24;

template <class T>
std::uint32_t checksum(std::span<T const> data, std::uint32_t before) {
  return crc32(std::span(reinterpret_cast<std::uint8_t const*>(data.data()), data.size_bytes()), before);
}

/// body(first, count) for the pieces of a dataset.
template <class Body>
void for_pieces(Dataset const& dataset, Body const& body) {
  std::vector<Index> const borders = dataset.pieces(piece_bytes);
  for (std::size_t i = 0; i + 1 < borders.size(); ++i) body(borders[i], borders[i + 1] - borders[i]);
}

Index largest_piece(Dataset const& dataset) {
  Index largest = 0;
  for_pieces(dataset, [&](Index, Index count) { largest = std::max(largest, count); });
  return largest;
}

std::string to_text(Shape const& shape) {
  std::string text = "[";
  for (std::size_t d = 0; d < shape.size(); ++d) text += (d == 0 ? "" : ", ") + std::to_string(shape[d]);
  return text + "]";
}

}  // namespace

struct CheckpointWriter::Impl {
  explicit Impl(std::string const& path) : target(path), file(File::create(target.partial())) {}

  /// piece(first, count) gives a span of these elements, valid until its next call.
  template <class T, class Piece>
  void write(Dataset& dataset, std::string const& object, Piece const& piece) {
    std::uint32_t crc = 0;
    for_pieces(dataset, [&](Index first, Index count) {
      std::span<T const> const part = piece(first, static_cast<std::size_t>(count));
      dataset.write(first, part);
      crc = checksum(part, crc);
    });
    dataset.flush();
    file.set_attribute(object, checksum_name, std::int64_t{crc});
  }

  template <class T>
  void array(std::string const& group, std::string const& name, Shape const& shape, T const* data) {
    std::string const object = object_path(group, name);
    file.make_group(group_path(group));
    Dataset dataset = file.create_dataset(object, element_type<T>(), shape);
    write<T>(dataset, object, [&](Index first, std::size_t count) { return std::span(data + first, count); });
  }

  void array(std::string const& group, std::string const& name, Shape const& shape, FillPiece const& fill) {
    std::string const object = object_path(group, name);
    file.make_group(group_path(group));
    Dataset dataset = file.create_dataset(object, ElementType::float32, shape);
    std::vector<float> buffer(static_cast<std::size_t>(largest_piece(dataset)));
    write<float>(dataset, object, [&](Index first, std::size_t count) {
      std::span<float> const part(buffer.data(), count);
      fill(first, part);
      return std::span<float const>(part);
    });
  }

  AtomicFile target;
  File file;
};

CheckpointWriter::CheckpointWriter(std::string const& path) : impl_(std::make_unique<Impl>(path)) {
  impl_->file.set_attribute("/", "format", std::string("strata-checkpoint"));
  impl_->file.set_attribute("/", "version", checkpoint_version);
  impl_->file.set_attribute("/", "sealed", std::int64_t{1});
}
CheckpointWriter::~CheckpointWriter() = default;

void CheckpointWriter::array(std::string const& group, std::string const& name, Shape const& shape,
                             float const* data) {
  impl_->array(group, name, shape, data);
}
void CheckpointWriter::array(std::string const& group, std::string const& name, Shape const& shape,
                             double const* data) {
  impl_->array(group, name, shape, data);
}
void CheckpointWriter::array(std::string const& group, std::string const& name, Shape const& shape,
                             std::int64_t const* data) {
  impl_->array(group, name, shape, data);
}

void CheckpointWriter::array(std::string const& group, std::string const& name, Shape const& shape,
                             FillPiece const& fill) {
  impl_->array(group, name, shape, fill);
}

void CheckpointWriter::text(std::string const& name, std::string const& value) {
  impl_->file.write_text(object_path("/", name), value);
}
void CheckpointWriter::text(std::string const& group, std::string const& key, std::string const& value) {
  impl_->file.make_group(group_path(group));
  impl_->file.set_attribute(group_path(group), key, value);
}
void CheckpointWriter::number(std::string const& group, std::string const& key, std::int64_t value) {
  impl_->file.make_group(group_path(group));
  impl_->file.set_attribute(group_path(group), key, value);
}
void CheckpointWriter::number(std::string const& group, std::string const& key, double value) {
  impl_->file.make_group(group_path(group));
  impl_->file.set_attribute(group_path(group), key, value);
}

void CheckpointWriter::close() {
  impl_->file.close();
  seal_file(impl_->target.partial());
  impl_->target.commit();
}

struct CheckpointReader::Impl {
  explicit Impl(std::string const& path) : sealed(check_seal(path)), file(File::open(path)) {}

  Dataset open(std::string const& object, Shape const& shape) const {
    Dataset dataset = file.dataset(object);
    if (dataset.shape() != shape) {
      throw core::InputError(file.path() + ": " + object + " has shape " + to_text(dataset.shape()) +
                             " where " + to_text(shape) + " is expected");
    }
    return dataset;
  }

  /// Reads elements stored as T into room(first, count), piece by piece, shows each to take(first, span) and
  /// compares the checksum.
  template <class T, class Room, class Take>
  void read(Dataset const& dataset, std::string const& object, Room const& room, Take const& take) const {
    std::uint32_t crc = 0;
    for_pieces(dataset, [&](Index first, Index count) {
      std::span<T> const part = room(first, static_cast<std::size_t>(count));
      dataset.read(first, part);
      crc = checksum(std::span<T const>(part), crc);
      take(first, std::span<T const>(part));
    });
    if (file.has_attribute(object, checksum_name) && file.integer_attribute(object, checksum_name) != crc)
      throw core::InputError(file.path() + ": " + object + " is damaged: its checksum differs");
  }

  /// The same through a buffer.
  template <class T, class Take>
  void read_through(Dataset const& dataset, std::string const& object, Take const& take) const {
    std::vector<T> buffer(static_cast<std::size_t>(largest_piece(dataset)));
    read<T>(
        dataset, object, [&](Index, std::size_t count) { return std::span(buffer.data(), count); }, take);
  }

  /// What is stored must be T or, for T = double, float; its checksum is compared in the stored type.
  template <class T>
  void array(std::string const& object, Shape const& shape, T* data) const {
    Dataset const dataset = open(object, shape);
    if (element_type<T>() == ElementType::float64 && dataset.type() == ElementType::float32) {
      read_through<float>(dataset, object, [&](Index first, std::span<float const> part) {
        std::transform(part.begin(), part.end(), data + first, [](float x) { return static_cast<T>(x); });
      });
    } else if (dataset.type() == element_type<T>()) {
      read<T>(
          dataset, object, [&](Index first, std::size_t count) { return std::span(data + first, count); },
          [](Index, std::span<T const>) {});
    } else {
      dataset.read(std::span(data, static_cast<std::size_t>(dataset.size())));  // converts, or throws
    }
  }

  void array(std::string const& object, Shape const& shape, TakePiece const& take) const {
    Dataset const dataset = open(object, shape);
    if (dataset.type() != ElementType::float32) {
      throw core::InputError(file.path() + ": " + object + " holds " + to_string(dataset.type()) +
                             " where float32 is expected");
    }
    read_through<float>(dataset, object, take);
  }

  void verify(std::string const& group) const {
    for (std::string const& name : file.children(group)) {
      std::string const object = (group == "/" ? "" : group) + "/" + name;
      if (file.is_group(object)) {
        verify(object);
        continue;
      }
      Dataset const dataset = file.dataset(object);
      auto const nothing = [](Index, auto) {};
      switch (dataset.type()) {
        case ElementType::float32:
          read_through<float>(dataset, object, nothing);
          break;
        case ElementType::float64:
          read_through<double>(dataset, object, nothing);
          break;
        case ElementType::int64:
          read_through<std::int64_t>(dataset, object, nothing);
          break;
        case ElementType::text:
          file.read_text(object);
          break;
        default:
          break;
      }
    }
  }

  bool sealed;
  File file;
};

CheckpointReader::CheckpointReader(std::string const& path) : impl_(std::make_unique<Impl>(path)) {
  File const& file = impl_->file;
  if (!file.has_attribute("/", "format") || file.text_attribute("/", "format") != "strata-checkpoint") {
    throw core::InputError(path + " is not a Strata checkpoint");
  }
  if (file.has_attribute("/", "sealed") && !impl_->sealed)
    throw core::InputError(path + " is damaged: the checksum at its end is missing");
  std::int64_t const version = file.integer_attribute("/", "version");
  if (version < 1 || version > checkpoint_version) {
    throw core::InputError(path + " is a checkpoint of format version " + std::to_string(version) +
                           ", but this program reads up to version " + std::to_string(checkpoint_version) +
                           "; use a newer program");
  }
}
CheckpointReader::~CheckpointReader() = default;

std::string const& CheckpointReader::path() const { return impl_->file.path(); }
void CheckpointReader::verify() const { impl_->verify("/"); }

bool CheckpointReader::has_group(std::string const& group) const {
  return impl_->file.is_group(group_path(group));
}

std::vector<std::string> CheckpointReader::names(std::string const& group) const {
  std::vector<std::string> result;
  if (!has_group(group)) return result;
  for (std::string const& name : impl_->file.children(group_path(group))) {
    if (impl_->file.is_dataset(object_path(group, name))) result.push_back(name);
  }
  return result;
}

bool CheckpointReader::has_array(std::string const& group, std::string const& name) const {
  return impl_->file.is_dataset(object_path(group, name));
}

Shape CheckpointReader::shape(std::string const& group, std::string const& name) const {
  return impl_->file.dataset(object_path(group, name)).shape();
}

void CheckpointReader::array(std::string const& group, std::string const& name, Shape const& shape,
                             float* data) const {
  impl_->array(object_path(group, name), shape, data);
}
void CheckpointReader::array(std::string const& group, std::string const& name, Shape const& shape,
                             double* data) const {
  impl_->array(object_path(group, name), shape, data);
}
void CheckpointReader::array(std::string const& group, std::string const& name, Shape const& shape,
                             std::int64_t* data) const {
  impl_->array(object_path(group, name), shape, data);
}

void CheckpointReader::array(std::string const& group, std::string const& name, Shape const& shape,
                             TakePiece const& take) const {
  impl_->array(object_path(group, name), shape, take);
}

bool CheckpointReader::has_text(std::string const& name) const {
  return impl_->file.is_dataset(object_path("/", name));
}
std::string CheckpointReader::text(std::string const& name) const {
  return impl_->file.read_text(object_path("/", name));
}
bool CheckpointReader::has(std::string const& group, std::string const& key) const {
  return impl_->file.has_attribute(group_path(group), key);
}
std::vector<std::string> CheckpointReader::keys(std::string const& group) const {
  return impl_->file.attributes(group_path(group));
}
std::string CheckpointReader::text(std::string const& group, std::string const& key) const {
  return impl_->file.text_attribute(group_path(group), key);
}
std::int64_t CheckpointReader::integer(std::string const& group, std::string const& key) const {
  return impl_->file.integer_attribute(group_path(group), key);
}
double CheckpointReader::real(std::string const& group, std::string const& key) const {
  return impl_->file.real_attribute(group_path(group), key);
}

}  // namespace strata::io
