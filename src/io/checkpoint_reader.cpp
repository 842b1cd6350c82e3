// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <optional>
#include <span>

#include "core/error.hpp"
#include "io/checkpoint_detail.hpp"
#include "io/checkpoint_file.hpp"
#include "io/seal.hpp"
#include "parallel/together.hpp"

namespace strata::io {

using namespace detail;

namespace {

std::string to_text(Shape const& shape) {
  std::string text = "[";
  for (std::size_t d = 0; d < shape.size(); ++d) text += (d == 0 ? "" : ", ") + std::to_string(shape[d]);
  return text + "]";
}

}  // namespace

struct CheckpointReader::Impl {
  explicit Impl(std::string const& path) : sealed(check_seal(path)), file(File::open(path)) {}
  Impl(std::string const& path, parallel::Communicator const& all)
      : ranks(all.size() > 1 ? &all : nullptr), sealed(check_seal(path, all)), file(open_on_all(path, all)) {}

  static File open_on_all(std::string const& path, parallel::Communicator const& all) {
    std::optional<File> opened;
    parallel::together(all, [&] { opened.emplace(File::open(path)); });
    return std::move(*opened);
  }

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
    compare(object, crc);
  }

  void compare(std::string const& object, std::uint32_t crc) const {
    if (file.has_attribute(object, checksum_name) && file.integer_attribute(object, checksum_name) != crc)
      throw core::InputError(file.path() + ": " + object + " is damaged: its checksum differs");
  }

  /// As read(), through a buffer.
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

  Dataset open_floats(std::string const& object, Shape const& shape) const {
    Dataset dataset = open(object, shape);
    if (dataset.type() == ElementType::float32) return dataset;
    throw core::InputError(file.path() + ": " + object + " holds " + to_string(dataset.type()) +
                           " where float32 is expected");
  }

  void array(std::string const& object, Shape const& shape, TakePiece const& take) const {
    if (ranks == nullptr) return read_through<float>(open_floats(object, shape), object, take);
    std::optional<Dataset> dataset;
    parallel::together(*ranks, [&] { dataset.emplace(open_floats(object, shape)); });
    std::uint32_t crc = 0;
    std::string const wrong = read_shared(*dataset, take, crc);
    parallel::together(*ranks, [&] {
      if (!wrong.empty()) throw core::InputError(wrong);
      compare(object, crc);
    });
  }

  /// Collective: each of the readers reads its part of a stretch, and sends it and its checksum to all.
  /// Returns this rank's problem with `take`.
  std::string read_shared(Dataset const& dataset, TakePiece const& take, std::uint32_t& crc) const {
    constexpr auto most = piece_bytes / static_cast<Index>(sizeof(float));
    constexpr Index least = most / 16;  // what is less is not worth the messages
    Index const size = dataset.size();
    Index const readers = std::clamp<Index>(size / least, 1, ranks->size());
    std::vector<float> mine;
    std::vector<float> theirs;
    std::string wrong;
    for (Index begin = 0; begin < size; begin += readers * most) {
      Index const stretch = std::min(readers * most, size - begin);
      auto const block = [&](Index reader) {
        return reader < readers ? parallel::block_of(stretch, reader, readers) : parallel::Block{};
      };
      parallel::Block const own = block(ranks->rank());
      std::uint32_t own_crc = 0;
      parallel::together(*ranks, [&] {
        mine.resize(static_cast<std::size_t>(own.size()));
        dataset.read(begin + own.first, std::span(mine));
        own_crc = checksum(std::span<float const>(mine));
      });
      for (Index reader = 0; reader < readers; ++reader) {
        parallel::Block const part = block(reader);
        bool const is_own = reader == ranks->rank();
        std::vector<float>& values = is_own ? mine : theirs;
        values.resize(static_cast<std::size_t>(part.size()));
        std::size_t const bytes = values.size() * sizeof(float);
        std::uint32_t part_crc = own_crc;
        ranks->broadcast(&part_crc, sizeof part_crc, static_cast<int>(reader));
        ranks->broadcast(values.data(), bytes, static_cast<int>(reader));
        crc = crc32_joined(crc, part_crc, bytes);
        if (wrong.empty()) wrong = parallel::problem_of([&] { take(begin + part.first, values); });
      }
    }
    return wrong;
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

  void require_format(std::string const& path) const;

  parallel::Communicator const* ranks = nullptr;  // null: this process alone
  bool sealed;
  File file;
};

CheckpointReader::CheckpointReader(std::string const& path) : impl_(std::make_unique<Impl>(path)) {
  impl_->require_format(path);
}
CheckpointReader::CheckpointReader(std::string const& path, parallel::Communicator const& ranks)
    : impl_(std::make_unique<Impl>(path, ranks)) {
  parallel::together(ranks, [&] { impl_->require_format(path); });
}

void CheckpointReader::Impl::require_format(std::string const& path) const {
  if (!file.has_attribute("/", "format") || file.text_attribute("/", "format") != "strata-checkpoint") {
    throw core::InputError(path + " is not a Strata checkpoint");
  }
  if (file.has_attribute("/", "sealed") && !sealed)
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
