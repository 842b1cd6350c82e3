// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "core/error.hpp"
#include "io/hdf5_detail.hpp"

namespace strata::io {

using namespace detail;

namespace {

herr_t append_attribute(hid_t /*object*/, char const* name, H5A_info_t const* /*info*/, void* data) noexcept {
  auto& names = *static_cast<std::vector<std::string>*>(data);
  if (names.size() >= 1000000) return -1;
  names.emplace_back(name);
  return 0;
}

bool write_scalar(hid_t object, char const* name, hid_t type, void const* value) {
  Handle const space = space_handle(H5Screate(H5S_SCALAR));
  Handle const attribute = attribute_handle(
      H5Aexists(object, name) > 0 ? H5Aopen(object, name, H5P_DEFAULT)
                                  : H5Acreate2(object, name, type, space.get(), H5P_DEFAULT, H5P_DEFAULT));
  return attribute && H5Awrite(attribute.get(), type, value) >= 0;
}

}  // namespace

std::vector<std::string> File::attributes(std::string const& object) const {
  Lock const lock;
  Handle const handle = open_object(object);
  std::vector<std::string> names;
  hsize_t position = 0;
  if (H5Aiterate2(handle.get(), H5_INDEX_NAME, H5_ITER_NATIVE, &position, append_attribute, &names) < 0) {
    fail("list the attributes of " + object);
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool File::has_attribute(std::string const& object, std::string const& name) const {
  Lock const lock;
  if (!exists(object)) return false;
  htri_t const there = H5Aexists(open_object(object).get(), name.c_str());
  if (there < 0) fail("look up attribute " + name + " of " + object);
  return there > 0;
}

void File::set_attribute(std::string const& object, std::string const& name, std::string const& value) {
  Lock const lock;
  std::string const padded = value.empty() ? std::string(1, '\0') : value;
  if (!write_scalar(open_object(object).get(), name.c_str(), text_type(padded.size()).get(), padded.data())) {
    fail("write attribute " + name + " of " + object);
  }
}

void File::set_attribute(std::string const& object, std::string const& name, std::int64_t value) {
  Lock const lock;
  if (!write_scalar(open_object(object).get(), name.c_str(), H5T_NATIVE_INT64, &value)) {
    fail("write attribute " + name + " of " + object);
  }
}

void File::set_attribute(std::string const& object, std::string const& name, double value) {
  Lock const lock;
  if (!write_scalar(open_object(object).get(), name.c_str(), H5T_NATIVE_DOUBLE, &value)) {
    fail("write attribute " + name + " of " + object);
  }
}

/// Opens an attribute that holds exactly one element.
Handle File::open_attribute(std::string const& object, std::string const& name, ElementType& type) const {
  if (!has_attribute(object, name)) {
    throw core::InputError(path_ + ": " + object + " has no attribute " + name);
  }
  Handle attribute = attribute_handle(H5Aopen(open_object(object).get(), name.c_str(), H5P_DEFAULT));
  if (!attribute) fail("open attribute " + name + " of " + object);
  Handle const space = space_handle(H5Aget_space(attribute.get()));
  Handle const stored = type_handle(H5Aget_type(attribute.get()));
  if (!space || !stored) fail("inspect attribute " + name + " of " + object);
  if (H5Sget_simple_extent_npoints(space.get()) != 1) {
    throw core::InputError(path_ + ": attribute " + name + " of " + object + " is not a single value");
  }
  type = stored_type(stored.get());
  return attribute;
}

std::string File::text_attribute(std::string const& object, std::string const& name) const {
  Lock const lock;
  ElementType type = ElementType::other;
  Handle const attribute = open_attribute(object, name, type);
  if (type != ElementType::text) {
    throw core::InputError(path_ + ": attribute " + name + " of " + object + " is not a text");
  }
  Handle const stored = type_handle(H5Aget_type(attribute.get()));
  std::string text;
  auto const read = [&](hid_t memory, void* buffer) { return H5Aread(attribute.get(), memory, buffer); };
  if (!read_one_text(stored.get(), read, text)) fail("read attribute " + name + " of " + object);
  return text;
}

std::int64_t File::integer_attribute(std::string const& object, std::string const& name) const {
  Lock const lock;
  ElementType type = ElementType::other;
  Handle const attribute = open_attribute(object, name, type);
  bool const is_unsigned = type == ElementType::uint64;
  bool const integer = type != ElementType::text && type != ElementType::other &&
                       type != ElementType::float32 && type != ElementType::float64;
  if (!integer)
    throw core::InputError(path_ + ": attribute " + name + " of " + object + " is not an integer");
  std::int64_t value = 0;
  std::uint64_t wide = 0;
  herr_t const status = is_unsigned ? H5Aread(attribute.get(), H5T_NATIVE_UINT64, &wide)
                                    : H5Aread(attribute.get(), H5T_NATIVE_INT64, &value);
  if (status < 0) fail("read attribute " + name + " of " + object);
  if (wide > static_cast<std::uint64_t>(INT64_MAX)) {
    throw core::InputError(path_ + ": attribute " + name + " of " + object + " is out of range");
  }
  return is_unsigned ? static_cast<std::int64_t>(wide) : value;
}

double File::real_attribute(std::string const& object, std::string const& name) const {
  Lock const lock;
  ElementType type = ElementType::other;
  Handle const attribute = open_attribute(object, name, type);
  if (type == ElementType::text || type == ElementType::other) {
    throw core::InputError(path_ + ": attribute " + name + " of " + object + " is not a number");
  }
  double value = 0;
  if (H5Aread(attribute.get(), H5T_NATIVE_DOUBLE, &value) < 0)
    fail("read attribute " + name + " of " + object);
  return value;
}

}  // namespace strata::io
