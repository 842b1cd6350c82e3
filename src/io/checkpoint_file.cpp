// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint_file.hpp"

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

template <class T>
std::int64_t checksum(T const* data, Index count) {
  return crc32(
      std::span(reinterpret_cast<std::uint8_t const*>(data), static_cast<std::size_t>(count) * sizeof(T)));
}

std::string to_text(Shape const& shape) {
  std::string text = "[";
  for (std::size_t d = 0; d < shape.size(); ++d) text += (d == 0 ? "" : ", ") + std::to_string(shape[d]);
  return text + "]";
}

}  // namespace

struct CheckpointWriter::Impl {
  explicit Impl(std::string const& path) : target(path), file(File::create(target.partial())) {}

  template <class T>
  void array(std::string const& group, std::string const& name, Shape const& shape, T const* data) {
    std::string const object = object_path(group, name);
    Index const count = element_count(shape);
    file.make_group(group_path(group));
    Dataset dataset = file.create_dataset(object, element_type<T>(), shape);
    dataset.write(std::span<T const>(data, static_cast<std::size_t>(count)));
    file.set_attribute(object, checksum_name, checksum(data, count));
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

  /// What is stored must be T or, for T = double, float; its checksum is compared in the stored type.
  template <class T>
  void array(std::string const& object, Shape const& shape, T* data) const {
    Dataset const dataset = file.dataset(object);
    if (dataset.shape() != shape) {
      throw core::InputError(file.path() + ": " + object + " has shape " + to_text(dataset.shape()) +
                             " where " + to_text(shape) + " is expected");
    }
    auto const count = dataset.size();
    std::span<T> const out(data, static_cast<std::size_t>(count));
    if (dataset.type() != element_type<T>()) {
      std::vector<float> narrow;
      if (element_type<T>() == ElementType::float64 && dataset.type() == ElementType::float32) {
        narrow.resize(static_cast<std::size_t>(count));
        array(object, shape, narrow.data());
      }
      dataset.read(out);  // converts, or throws with both types in the message
      return;
    }
    dataset.read(out);
    if (file.has_attribute(object, checksum_name) &&
        file.integer_attribute(object, checksum_name) != checksum(data, count)) {
      throw core::InputError(file.path() + ": " + object + " is damaged: its checksum differs");
    }
  }

  void verify(std::string const& group) const {
    for (std::string const& name : file.children(group)) {
      std::string const object = (group == "/" ? "" : group) + "/" + name;
      if (file.is_group(object)) {
        verify(object);
        continue;
      }
      Dataset const dataset = file.dataset(object);
      Shape const& shape = dataset.shape();
      auto const count = static_cast<std::size_t>(dataset.size());
      switch (dataset.type()) {
        case ElementType::float32:
          array(object, shape, std::vector<float>(count).data());
          break;
        case ElementType::float64:
          array(object, shape, std::vector<double>(count).data());
          break;
        case ElementType::int64:
          array(object, shape, std::vector<std::int64_t>(count).data());
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
