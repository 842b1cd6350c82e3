// SPDX-License-Identifier: Apache-2.0
#pragma once
// Shared by hdf5.cpp and hdf5_dataset.cpp only: the one place that includes the library.

#include <hdf5.h>

#include <mutex>
#include <string>
#include <type_traits>

#include "io/hdf5.hpp"

namespace strata::io::detail {

static_assert(std::is_same_v<hid_t, std::int64_t>, "HDF5 1.10 or newer");

/// Held by every function. The first one also silences HDF5's printing of errors; they go into exceptions
/// instead.
class Lock {
 public:
  Lock();

 private:
  std::lock_guard<std::recursive_mutex> guard_;
};

/// HDF5's error stack in a few words, innermost cause first, and cleared. A failed system call is put in
/// plain words.
std::string error_stack();

/// Throws core::InputError "<file>: cannot <what> <object> (<error stack>)".
[[noreturn]] void fail(std::string const& file, std::string const& what);

/// Throws core::InputError when a file would grow by `bytes` beyond this process's limit (ulimit -f). Asked
/// before writing, because HDF5 cannot recover from a refused write as long as the limit stands. `id` is the
/// file or anything in it.
void check_size_limit(hid_t id, std::string const& file, double bytes);

/// The stored type of a dataset or attribute, `other` for all that Strata does not know.
ElementType stored_type(hid_t type);
hid_t native_type(ElementType type);
std::size_t element_size(ElementType type);

/// A string type of `length` bytes (at least 1), padded with NUL, UTF-8.
Handle text_type(std::size_t length);

/// The only texts longer than this are hostile ones.
inline constexpr std::size_t text_limit = std::size_t{1} << 26;

/// Reads one text through `read(memory type, buffer)`, of fixed or variable length; throws nothing
/// HDF5-specific: an empty optional-like flag says that it failed.
template <class Read>
bool read_one_text(hid_t type, Read const& read, std::string& out) {
  htri_t const variable = H5Tis_variable_str(type);
  if (variable < 0) return false;
  if (variable > 0) {
    char* text = nullptr;
    if (read(type, static_cast<void*>(&text)) < 0) return false;
    out = text != nullptr ? text : "";
    H5free_memory(text);
    return true;
  }
  std::size_t const length = H5Tget_size(type);
  if (length == 0 || length > text_limit) return false;
  out.assign(length, '\0');
  if (read(type, static_cast<void*>(out.data())) < 0) return false;
  while (!out.empty() && out.back() == '\0') out.pop_back();
  return true;
}

/// H5Xclose functions as Handle::Close, with HDF5's own return type.
template <herr_t (*Function)(hid_t)>
int close_with(std::int64_t id) {
  return Function(id);
}

inline Handle dataset_handle(hid_t id) { return {id, close_with<H5Dclose>}; }
inline Handle space_handle(hid_t id) { return {id, close_with<H5Sclose>}; }
inline Handle type_handle(hid_t id) { return {id, close_with<H5Tclose>}; }
inline Handle property_handle(hid_t id) { return {id, close_with<H5Pclose>}; }
inline Handle attribute_handle(hid_t id) { return {id, close_with<H5Aclose>}; }
inline Handle object_handle(hid_t id) { return {id, close_with<H5Oclose>}; }
inline Handle group_handle(hid_t id) { return {id, close_with<H5Gclose>}; }

}  // namespace strata::io::detail
