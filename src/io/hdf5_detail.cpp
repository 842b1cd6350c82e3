// SPDX-License-Identifier: Apache-2.0
#include "io/hdf5_detail.hpp"

#include <sys/resource.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "core/error.hpp"
#include "io/atomic_file.hpp"

namespace strata::io {

std::recursive_mutex& hdf5_mutex() {
  // Never destroyed: handles in static objects may outlive any other static object.
  static auto* mutex = new std::recursive_mutex;
  return *mutex;
}

Index element_count(Shape const& shape) {
  Index count = 1;
  for (Index const extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(count, extent, &count)) {
      throw core::InputError("an array's shape is negative or too large for this machine");
    }
  }
  return count;
}

Handle::Handle(Handle&& other) noexcept : id_(other.id_), close_(other.close_) {
  other.id_ = -1;
  other.close_ = nullptr;
}

Handle& Handle::operator=(Handle&& other) noexcept {
  if (this != &other) {
    reset();
    id_ = other.id_;
    close_ = other.close_;
    other.id_ = -1;
    other.close_ = nullptr;
  }
  return *this;
}

bool Handle::reset() noexcept {
  if (id_ < 0 || close_ == nullptr) {
    id_ = -1;
    return true;
  }
  detail::Lock const lock;
  bool const good = close_(id_) >= 0;
  id_ = -1;
  close_ = nullptr;
  return good;
}

char const* to_string(ElementType type) {
  switch (type) {
    case ElementType::uint8:
      return "uint8";
    case ElementType::int8:
      return "int8";
    case ElementType::uint16:
      return "uint16";
    case ElementType::int16:
      return "int16";
    case ElementType::uint32:
      return "uint32";
    case ElementType::int32:
      return "int32";
    case ElementType::uint64:
      return "uint64";
    case ElementType::int64:
      return "int64";
    case ElementType::float32:
      return "float32";
    case ElementType::float64:
      return "float64";
    case ElementType::text:
      return "text";
    case ElementType::other:
      break;
  }
  return "an unknown type";
}

namespace detail {

Lock::Lock() : guard_(hdf5_mutex()) {
  static bool const quiet = [] {
    H5open();
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    return true;
  }();
  static_cast<void>(quiet);
}

namespace {

herr_t collect(unsigned /*depth*/, H5E_error2_t const* error, void* data) {
  auto& causes = *static_cast<std::vector<std::string>*>(data);
  if (error->desc != nullptr && *error->desc != '\0' && causes.size() < 32) causes.emplace_back(error->desc);
  return 0;
}

}  // namespace

std::string error_stack() {
  std::vector<std::string> causes;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, collect, &causes);
  H5Eclear2(H5E_DEFAULT);
  if (causes.empty()) return "HDF5 gave no reason";
  for (std::string const& cause : causes) {
    auto const at = cause.find("errno = ");
    if (at == std::string::npos) continue;
    int const number = std::atoi(cause.c_str() + at + 8);
    if (number != 0) return std::strerror(number);
  }
  std::string text = "HDF5: " + causes.front();
  if (causes.size() > 1 && causes[1] != causes.front()) text += ", " + causes[1];
  if (causes.size() > 2) text += ", " + causes.back();
  return text;
}

void fail(std::string const& file, std::string const& what) {
  throw core::InputError(file + ": cannot " + what + " (" + error_stack() + ")");
}

void check_size_limit(hid_t id, std::string const& file, double bytes) {
  constexpr double metadata = 65536;
  rlimit limit{};
  if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
  hsize_t size = 0;
  if (id >= 0) {
    Handle const owner(H5Iget_file_id(id), close_with<H5Fclose>);
    if (!owner || H5Fget_filesize(owner.get(), &size) < 0) fail(file, "inspect the file");
  }
  if (static_cast<double>(size) + bytes + metadata > static_cast<double>(limit.rlim_cur)) {
    throw core::InputError(describe_errno("write", file, EFBIG) +
                           "; raise the limit on file sizes (ulimit -f)");
  }
}

ElementType stored_type(hid_t type) {
  std::size_t const size = H5Tget_size(type);
  switch (H5Tget_class(type)) {
    case H5T_STRING:
      return ElementType::text;
    case H5T_FLOAT:
      if (H5Tequal(type, H5T_IEEE_F32LE) > 0 || H5Tequal(type, H5T_IEEE_F32BE) > 0)
        return ElementType::float32;
      if (H5Tequal(type, H5T_IEEE_F64LE) > 0 || H5Tequal(type, H5T_IEEE_F64BE) > 0)
        return ElementType::float64;
      return ElementType::other;
    case H5T_INTEGER: {
      if (H5Tget_precision(type) != 8 * size || H5Tget_offset(type) != 0) return ElementType::other;
      bool const is_signed = H5Tget_sign(type) == H5T_SGN_2;
      switch (size) {
        case 1:
          return is_signed ? ElementType::int8 : ElementType::uint8;
        case 2:
          return is_signed ? ElementType::int16 : ElementType::uint16;
        case 4:
          return is_signed ? ElementType::int32 : ElementType::uint32;
        case 8:
          return is_signed ? ElementType::int64 : ElementType::uint64;
        default:
          return ElementType::other;
      }
    }
    default:
      return ElementType::other;
  }
}

hid_t native_type(ElementType type) {
  switch (type) {
    case ElementType::uint8:
      return H5T_NATIVE_UINT8;
    case ElementType::int8:
      return H5T_NATIVE_INT8;
    case ElementType::uint16:
      return H5T_NATIVE_UINT16;
    case ElementType::int16:
      return H5T_NATIVE_INT16;
    case ElementType::uint32:
      return H5T_NATIVE_UINT32;
    case ElementType::int32:
      return H5T_NATIVE_INT32;
    case ElementType::uint64:
      return H5T_NATIVE_UINT64;
    case ElementType::int64:
      return H5T_NATIVE_INT64;
    case ElementType::float32:
      return H5T_NATIVE_FLOAT;
    case ElementType::float64:
      return H5T_NATIVE_DOUBLE;
    case ElementType::text:
    case ElementType::other:
      break;
  }
  return H5I_INVALID_HID;
}

std::size_t element_size(ElementType type) {
  switch (type) {
    case ElementType::uint8:
    case ElementType::int8:
      return 1;
    case ElementType::uint16:
    case ElementType::int16:
      return 2;
    case ElementType::uint32:
    case ElementType::int32:
    case ElementType::float32:
      return 4;
    case ElementType::uint64:
    case ElementType::int64:
    case ElementType::float64:
      return 8;
    case ElementType::text:
    case ElementType::other:
      break;
  }
  return 1;
}

Handle text_type(std::size_t length) {
  Handle type = type_handle(H5Tcopy(H5T_C_S1));
  H5Tset_size(type.get(), length == 0 ? 1 : length);
  H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  return type;
}

}  // namespace detail
}  // namespace strata::io
