// SPDX-License-Identifier: Apache-2.0
#include "io/hdf5.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "core/error.hpp"
#include "io/atomic_file.hpp"
#include "io/hdf5_detail.hpp"
#include "parallel/communicator.hpp"

namespace strata::io {

using namespace detail;

namespace {

constexpr Index stream_chunk_bytes = 1
                                     << 16;  // small, so that a shuffled window does not drag much else along
constexpr Index offsets_chunk = 1024;        // elements of 8 bytes; documents are few
constexpr Index array_chunk_bytes = 1 << 20;
constexpr std::size_t children_limit = 1000000;

Handle access_properties(bool writing) {
  Handle access = property_handle(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG);
  // Version 1.10 metadata carries checksums.
  if (writing) H5Pset_libver_bounds(access.get(), H5F_LIBVER_V110, H5F_LIBVER_V110);
#if H5_VERSION_GE(1, 12, 1) || (H5_VERSION_GE(1, 10, 7) && !H5_VERSION_GE(1, 12, 0))
  // Files are replaced, never changed, so locks would only fail on file systems that have none.
  H5Pset_file_locking(access.get(), false, true);
#endif
  return access;
}

/// No times, so that equal content gives equal files; links and attributes stay in the object header under
/// its checksum, also when there are many.
void set_object_properties(Handle const& creation, bool group) {
  constexpr unsigned most = 128;
  H5Pset_obj_track_times(creation.get(), false);
  H5Pset_attr_phase_change(creation.get(), most, 0);
  if (group) H5Pset_link_phase_change(creation.get(), most, 0);
}

/// "/a/b" as its prefixes "/a" and "/a/b".
std::vector<std::string> prefixes(std::string const& object) {
  std::vector<std::string> result;
  for (std::size_t at = 1; at <= object.size(); ++at) {
    if (at == object.size() || object[at] == '/') {
      if (object[at - 1] != '/') result.push_back(object.substr(0, at));
    }
  }
  return result;
}

herr_t append_name(hid_t /*group*/, char const* name, H5L_info_t const* /*info*/, void* data) noexcept {
  auto& names = *static_cast<std::vector<std::string>*>(data);
  if (names.size() >= children_limit) return -1;
  names.emplace_back(name);
  return 0;
}

}  // namespace

File::File(Handle id, std::string path, bool writing, bool shared)
    : id_(std::move(id)), path_(std::move(path)), writing_(writing), shared_(shared) {}

File File::create(std::string const& path) {
  Lock const lock;
  check_size_limit(-1, path, 0);
  Handle const creation = property_handle(H5Pcreate(H5P_FILE_CREATE));
  set_object_properties(creation, true);
  Handle const access = access_properties(true);
  hid_t const id = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.get(), access.get());
  if (id < 0) detail::fail(path, "create the file");
  return {Handle(id, close_with<H5Fclose>), path, true};
}

File File::open(std::string const& path) {
  // Asked first, because HDF5 would wait for ever on a pipe and describes a missing file in many words.
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) throw core::InputError(describe_errno("open", path, errno));
  if (!S_ISREG(status.st_mode)) throw core::InputError(path + " is not a regular file");
  int const descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw core::InputError(describe_errno("open", path, errno));
  ::close(descriptor);
  Lock const lock;
  Handle const access = access_properties(false);
  hid_t const id = H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get());
  if (id < 0) {
    throw core::InputError(path + ": not an HDF5 file, or a truncated or damaged one (" + error_stack() +
                           ")");
  }
  return {Handle(id, close_with<H5Fclose>), path, false};
}

File File::reopen(std::string const& path) {
  Lock const lock;
  Handle const access = access_properties(true);
  hid_t const id = H5Fopen(path.c_str(), H5F_ACC_RDWR, access.get());
  if (id < 0) detail::fail(path, "open the file again");
  return {Handle(id, close_with<H5Fclose>), path, true};
}

File File::open_shared(std::string const& path, parallel::Communicator const& ranks) {
  Lock const lock;
  Handle const access = access_properties(true);
  H5Pset_fapl_mpio(access.get(), ranks.get(), MPI_INFO_NULL);
  // One rank reads where things are and tells the others.
  H5Pset_all_coll_metadata_ops(access.get(), true);
  H5Pset_coll_metadata_write(access.get(), true);
  hid_t const id = H5Fopen(path.c_str(), H5F_ACC_RDWR, access.get());
  if (id < 0) detail::fail(path, "open the file on all ranks");
  return {Handle(id, close_with<H5Fclose>), path, true, true};
}

File::~File() {
  // A shared one holds no changes to its structure, so nothing waits in buffers.
  if (!id_ || !writing_ || shared_) return;
  // HDF5 insists on writing its buffers at close, also after the disk refused them, and complains at exit if
  // it cannot. Let it write into memory instead.
  Lock const lock;
  void* handle = nullptr;
  if (H5Fget_vfd_handle(id_.get(), H5P_DEFAULT, &handle) >= 0 && handle != nullptr) {
    int const sink = memfd_create("abandoned", MFD_CLOEXEC);
    if (sink >= 0) {
      dup2(sink, *static_cast<int*>(handle));
      ::close(sink);
    }
  }
  id_.reset();
  H5Eclear2(H5E_DEFAULT);
}

void File::fail(std::string const& what) const { detail::fail(path_, what); }

void File::close() {
  Lock const lock;
  if (!id_) return;
  if (writing_ && H5Fflush(id_.get(), H5F_SCOPE_GLOBAL) < 0) fail("write the file");
  if (!id_.reset()) fail("close the file");
}

bool File::exists(std::string const& object) const {
  Lock const lock;
  for (std::string const& prefix : prefixes(object)) {
    H5L_info_t info;
    htri_t const there = H5Lexists(id_.get(), prefix.c_str(), H5P_DEFAULT);
    if (there == 0) return false;
    if (there < 0) {
      std::string const parent = prefix.substr(0, prefix.rfind('/') + 1);
      Handle const above = object_handle(H5Oopen(id_.get(), parent.c_str(), H5P_DEFAULT));
      if (!above || H5Iget_type(above.get()) == H5I_GROUP) fail("look up " + object);
      H5Eclear2(H5E_DEFAULT);
      return false;
    }
    if (H5Lget_info(id_.get(), prefix.c_str(), &info, H5P_DEFAULT) < 0) fail("look up " + object);
    // Links to elsewhere could name any file of this machine.
    if (info.type != H5L_TYPE_HARD) return false;
  }
  return true;
}

Handle File::open_object(std::string const& object) const {
  if (!exists(object)) throw core::InputError(path_ + ": has no " + object);
  hid_t const id = H5Oopen(id_.get(), object.c_str(), H5P_DEFAULT);
  if (id < 0) fail("open " + object);
  return object_handle(id);
}

bool File::is_group(std::string const& object) const {
  Lock const lock;
  return exists(object) && H5Iget_type(open_object(object).get()) == H5I_GROUP;
}

bool File::is_dataset(std::string const& object) const {
  Lock const lock;
  return exists(object) && H5Iget_type(open_object(object).get()) == H5I_DATASET;
}

std::vector<std::string> File::children(std::string const& group) const {
  Lock const lock;
  if (!is_group(group)) throw core::InputError(path_ + ": has no group " + group);
  Handle const handle = open_object(group);
  std::vector<std::string> names;
  hsize_t position = 0;
  // Native order: the sorted one of HDF5 1.10 frees uninitialised pointers when a large group is damaged.
  if (H5Literate(handle.get(), H5_INDEX_NAME, H5_ITER_NATIVE, &position, append_name, &names) < 0)
    fail("list " + group);
  std::sort(names.begin(), names.end());
  return names;
}

void File::make_group(std::string const& group) {
  Lock const lock;
  Handle const creation = property_handle(H5Pcreate(H5P_GROUP_CREATE));
  set_object_properties(creation, true);
  for (std::string const& prefix : prefixes(group)) {
    if (exists(prefix)) continue;
    Handle const handle =
        group_handle(H5Gcreate2(id_.get(), prefix.c_str(), H5P_DEFAULT, creation.get(), H5P_DEFAULT));
    if (!handle) fail("create " + prefix);
  }
}

Dataset File::dataset(std::string const& object) const {
  Lock const lock;
  if (!is_dataset(object)) throw core::InputError(path_ + ": has no dataset " + object);
  hid_t const id = H5Dopen2(id_.get(), object.c_str(), H5P_DEFAULT);
  if (id < 0) fail("open " + object);
  Dataset result(dataset_handle(id), path_, object);
  if (!writing_) result.check_layout();
  return result;
}

Dataset File::create_dataset(std::string const& object, ElementType type, Shape const& shape, Layout layout) {
  Lock const lock;
  Handle const creation = property_handle(H5Pcreate(H5P_DATASET_CREATE));
  set_object_properties(creation, false);
  // Every stored byte is defined, so equal content gives equal files.
  H5Pset_fill_time(creation.get(), H5D_FILL_TIME_ALLOC);
  Handle space;
  auto const size = static_cast<Index>(element_size(type));
  std::vector<hsize_t> chunk;
  if (layout.extendible) {
    hsize_t const none = 0;
    hsize_t const unlimited = H5S_UNLIMITED;
    space = space_handle(H5Screate_simple(1, &none, &unlimited));
    chunk.push_back(static_cast<hsize_t>(size < 8 ? stream_chunk_bytes / size : offsets_chunk));
  } else if (shape.empty()) {
    space = space_handle(H5Screate(H5S_SCALAR));
    H5Pset_layout(creation.get(), H5D_COMPACT);  // inside the object header, which has a checksum
  } else {
    std::vector<hsize_t> extents(shape.begin(), shape.end());
    space = space_handle(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr));
    if (layout.contiguous) {
      H5Pset_alloc_time(creation.get(), H5D_ALLOC_TIME_EARLY);
      H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER);
      check_size_limit(id_.get(), path_,
                       static_cast<double>(element_count(shape)) * static_cast<double>(size));
    } else if (element_count(shape) > 0) {
      chunk = extents;
      auto budget = static_cast<hsize_t>(array_chunk_bytes / size);
      for (std::size_t d = chunk.size(); d-- > 0;) {
        chunk[d] = std::min(extents[d], std::max<hsize_t>(budget, 1));
        budget /= chunk[d];
      }
    }
  }
  if (!chunk.empty()) {
    H5Pset_chunk(creation.get(), static_cast<int>(chunk.size()), chunk.data());
    if (layout.compression > 0) {
      if (size > 1) H5Pset_shuffle(creation.get());
      H5Pset_deflate(creation.get(), static_cast<unsigned>(layout.compression));
    }
    H5Pset_fletcher32(creation.get());
  }
  hid_t const id = H5Dcreate2(id_.get(), object.c_str(), native_type(type), space.get(), H5P_DEFAULT,
                              creation.get(), H5P_DEFAULT);
  if (id < 0) fail("create " + object);
  return {dataset_handle(id), path_, object};
}

template <class T>
std::vector<T> File::read(std::string const& object, Shape* shape) const {
  Lock const lock;
  Dataset const data = dataset(object);
  if (shape != nullptr) *shape = data.shape();
  std::vector<T> values(static_cast<std::size_t>(data.size()));
  data.read(std::span<T>(values));
  return values;
}

#define STRATA_FILE(T) template std::vector<T> File::read<T>(std::string const&, Shape*) const;
STRATA_FILE(std::uint8_t)
STRATA_FILE(std::int8_t)
STRATA_FILE(std::uint16_t)
STRATA_FILE(std::int16_t)
STRATA_FILE(std::uint32_t)
STRATA_FILE(std::int32_t)
STRATA_FILE(std::uint64_t)
STRATA_FILE(std::int64_t)
STRATA_FILE(float)
STRATA_FILE(double)
#undef STRATA_FILE

void File::write_text(std::string const& object, std::string const& text) {
  Lock const lock;
  if (text.size() > text_limit)
    throw core::InputError(path_ + ": the text for " + object + " is longer than 64 MiB");
  Handle const type = text_type(text.size());
  hsize_t const one = 1;
  Handle const space = space_handle(H5Screate_simple(1, &one, nullptr));
  Handle const creation = property_handle(H5Pcreate(H5P_DATASET_CREATE));
  set_object_properties(creation, false);
  H5Pset_chunk(creation.get(), 1, &one);
  H5Pset_fletcher32(creation.get());
  Handle const id = dataset_handle(H5Dcreate2(id_.get(), object.c_str(), type.get(), space.get(), H5P_DEFAULT,
                                              creation.get(), H5P_DEFAULT));
  std::string const padded = text.empty() ? std::string(1, '\0') : text;
  check_size_limit(id_.get(), path_, static_cast<double>(padded.size()));
  if (!id || H5Dwrite(id.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, padded.data()) < 0 ||
      H5Dflush(id.get()) < 0) {
    fail("write " + object);
  }
}

std::string File::read_text(std::string const& object) const {
  Lock const lock;
  Dataset const data = dataset(object);
  if (data.type() != ElementType::text || data.size() != 1)
    throw core::InputError(path_ + ": " + object + " is not a text");
  Handle const type = type_handle(H5Dget_type(data.id_.get()));
  std::string text;
  auto const read = [&](hid_t memory, void* buffer) {
    return H5Dread(data.id_.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, buffer);
  };
  if (!read_one_text(type.get(), read, text)) fail("read " + object);
  return text;
}

}  // namespace strata::io
