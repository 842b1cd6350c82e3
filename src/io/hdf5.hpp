// SPDX-License-Identifier: Apache-2.0
#pragma once
// HDF5 behind RAII and exceptions. Only this folder includes <hdf5.h>; every object here may be used from any
// thread, because each call takes one lock for the whole process (the library itself is not thread-safe).
//
// Errors: core::InputError for everything that a file or a disk can do wrong, naming the file and carrying
// HDF5's own error stack. A claimed size is checked against what the file really stores before anything is
// allocated for it.

#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace strata::parallel {
class Communicator;
}

namespace strata::io {

using Index = std::int64_t;
using Shape = std::vector<Index>;

/// Product of the extents; throws core::InputError when it does not fit.
Index element_count(Shape const& shape);

/// The lock every function of this header takes. Hold it to make several calls one step.
std::recursive_mutex& hdf5_mutex();

/// An HDF5 identifier with the function that releases it (nullptr: nothing to release).
class Handle {
 public:
  using Close = int (*)(std::int64_t);
  Handle() = default;
  Handle(std::int64_t id, Close close) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept;
  Handle& operator=(Handle&& other) noexcept;
  Handle(Handle const&) = delete;
  Handle& operator=(Handle const&) = delete;
  ~Handle() { reset(); }

  std::int64_t get() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }
  /// Releases now; false when HDF5 reported an error.
  bool reset() noexcept;

 private:
  std::int64_t id_ = -1;
  Close close_ = nullptr;
};

enum class ElementType {
  uint8,
  int8,
  uint16,
  int16,
  uint32,
  int32,
  uint64,
  int64,
  float32,
  float64,
  text,
  other
};
char const* to_string(ElementType type);

/// Of the types of numbers above.
template <class T>
constexpr ElementType element_type();
// clang-format off
template <> constexpr ElementType element_type<std::uint8_t>() { return ElementType::uint8; }
template <> constexpr ElementType element_type<std::int8_t>() { return ElementType::int8; }
template <> constexpr ElementType element_type<std::uint16_t>() { return ElementType::uint16; }
template <> constexpr ElementType element_type<std::int16_t>() { return ElementType::int16; }
template <> constexpr ElementType element_type<std::uint32_t>() { return ElementType::uint32; }
template <> constexpr ElementType element_type<std::int32_t>() { return ElementType::int32; }
template <> constexpr ElementType element_type<std::uint64_t>() { return ElementType::uint64; }
template <> constexpr ElementType element_type<std::int64_t>() { return ElementType::int64; }
template <> constexpr ElementType element_type<float>() { return ElementType::float32; }
template <> constexpr ElementType element_type<double>() { return ElementType::float64; }
// clang-format on

/// How a new dataset is laid out. Everything is chunked with a Fletcher-32 checksum per chunk, except empty
/// arrays and contiguous ones.
struct Layout {
  bool extendible = false;  ///< 1-D only: starts empty and grows by append
  int compression = 0;      ///< gzip level 0 (none) .. 9
  /// In one piece whose place is fixed at creation, as ranks that write together need it. Nothing is stored
  /// before it is written, and there is no checksum: the caller keeps one.
  bool contiguous = false;
};

/// One open dataset of a file; must not outlive its File.
class Dataset {
 public:
  ElementType type() const { return type_; }
  Shape const& shape() const { return shape_; }
  Index size() const { return element_count(shape_); }

  /// Reads all elements, row-major. `out` must have exactly size() elements. The stored type must be T
  /// itself, or one whose values T holds exactly: float32 for double, a narrower integer for a wider one.
  template <class T>
  void read(std::span<T> out) const;
  /// Reads elements [first, first + out.size()), row-major, of an array or list.
  template <class T>
  void read(Index first, std::span<T> out) const;
  /// Writes all elements, row-major, and flushes.
  template <class T>
  void write(std::span<T const> in);
  /// Writes elements [first, first + in.size()), of an array one of its pieces. They may wait in a buffer
  /// until flush(). Pieces written one after the other make the same file as the whole at once.
  template <class T>
  void write(Index first, std::span<T const> in);
  /// Collective, in a file of File::open_shared: each rank writes its elements [first, first + in.size()) of
  /// a contiguous array, or none. Returns this rank's error in words, empty without one, because the ranks
  /// have to learn of it together.
  template <class T>
  std::string write_shared(Index first, std::span<T const> in);
  /// Borders 0 = b0 < b1 < ... = size() of pieces of whole chunks and about `bytes` bytes, in which an array
  /// of any size can be read or written without a second copy of it; only 0 for an empty one.
  std::vector<Index> pieces(Index bytes) const;
  /// Appends to an extendible dataset. What is appended may wait in a buffer until flush().
  template <class T>
  void append(std::span<T const> in);
  /// Hands everything to the operating system; throws core::InputError when the disk does not take it.
  void flush();

 private:
  friend class File;
  Dataset(Handle id, std::string file, std::string path);
  [[noreturn]] void fail(std::string const& what) const;
  void check_layout() const;

  Handle id_;
  std::string file_, path_;
  ElementType type_ = ElementType::other;
  Shape shape_;
};

/// An HDF5 file. Paths inside it are absolute ("/train/bytes"); dots in names are ordinary characters.
class File {
 public:
  /// Creates or truncates for writing. Metadata is checksummed and holds no times: same content, same file.
  static File create(std::string const& path);
  /// Opens for reading, without taking file locks.
  static File open(std::string const& path);
  /// Opens what create() wrote and close() closed, to write more.
  static File reopen(std::string const& path);
  /// The same on all ranks at once through MPI-IO, for Dataset::write_shared. All ranks make the same calls.
  static File open_shared(std::string const& path, parallel::Communicator const& ranks);
  File(File&&) noexcept = default;
  File& operator=(File&&) noexcept = default;
  /// A file created and not closed is abandoned: what HDF5 still buffers goes nowhere.
  ~File();

  std::string const& path() const { return path_; }

  bool exists(std::string const& object) const;
  bool is_group(std::string const& object) const;
  bool is_dataset(std::string const& object) const;
  /// Names inside a group, sorted by bytes.
  std::vector<std::string> children(std::string const& group) const;
  /// Creates a group and those above it; existing ones are kept.
  void make_group(std::string const& group);

  Dataset dataset(std::string const& object) const;
  Dataset create_dataset(std::string const& object, ElementType type, Shape const& shape, Layout layout = {});
  /// A whole dataset as a vector, with the conversions of Dataset::read. Its shape goes to `shape` when asked
  /// for.
  template <class T>
  std::vector<T> read(std::string const& object, Shape* shape = nullptr) const;
  /// Text as a dataset of one fixed-length string, of any length. Reading also takes variable-length strings.
  void write_text(std::string const& object, std::string const& text);
  std::string read_text(std::string const& object) const;

  /// Attributes of a group or dataset ("/" is the root). Setting one again replaces a value of the same type.
  std::vector<std::string> attributes(std::string const& object) const;
  bool has_attribute(std::string const& object, std::string const& name) const;
  void set_attribute(std::string const& object, std::string const& name, std::string const& value);
  void set_attribute(std::string const& object, std::string const& name, std::int64_t value);
  void set_attribute(std::string const& object, std::string const& name, double value);
  std::string text_attribute(std::string const& object, std::string const& name) const;
  std::int64_t integer_attribute(std::string const& object, std::string const& name) const;
  /// A real number; an integer is converted.
  double real_attribute(std::string const& object, std::string const& name) const;

  /// Flushes and closes; throws core::InputError when the disk did not take everything.
  void close();

 private:
  File(Handle id, std::string path, bool writing, bool shared = false);
  [[noreturn]] void fail(std::string const& what) const;
  Handle open_object(std::string const& object) const;
  Handle open_attribute(std::string const& object, std::string const& name, ElementType& type) const;

  Handle id_;
  std::string path_;
  bool writing_ = false;
  bool shared_ = false;  // through MPI-IO
};

}  // namespace strata::io
