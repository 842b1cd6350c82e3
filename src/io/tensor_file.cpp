// SPDX-License-Identifier: Apache-2.0
#include "io/tensor_file.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <system_error>

#include "core/error.hpp"
#include "io/safetensors.hpp"
#include "io/torch_file.hpp"

namespace strata::io {

static_assert(std::endian::native == std::endian::little, "both kinds of file hold little-endian numbers");

namespace {

constexpr std::uint64_t largest_count = std::uint64_t{1} << 62;

struct TypeRow {
  StoredType type;
  char const* name;
  std::uint64_t size;
  bool real;
};
constexpr std::array<TypeRow, 13> types{{{StoredType::float16, "float16", 2, true},
                                         {StoredType::bfloat16, "bfloat16", 2, true},
                                         {StoredType::float32, "float32", 4, true},
                                         {StoredType::float64, "float64", 8, true},
                                         {StoredType::boolean, "bool", 1, false},
                                         {StoredType::uint8, "uint8", 1, false},
                                         {StoredType::int8, "int8", 1, false},
                                         {StoredType::uint16, "uint16", 2, false},
                                         {StoredType::int16, "int16", 2, false},
                                         {StoredType::uint32, "uint32", 4, false},
                                         {StoredType::int32, "int32", 4, false},
                                         {StoredType::uint64, "uint64", 8, false},
                                         {StoredType::int64, "int64", 8, false}}};

TypeRow const& row(StoredType type) { return types[static_cast<std::size_t>(type)]; }

template <class T>
T load(char const* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

/// IEEE binary16: every value is a float32.
float from_half(std::uint16_t bits) {
  std::uint32_t const sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
  std::uint32_t const exponent = (bits >> 10) & 0x1fU, fraction = bits & 0x3ffU;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000U | fraction << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  float const small = static_cast<float>(fraction) * 0x1p-24F;
  return sign != 0 ? -small : small;
}

float from_bfloat(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

}  // namespace

char const* to_string(StoredType type) { return row(type).name; }
std::uint64_t element_size(StoredType type) { return row(type).size; }
bool is_real(StoredType type) { return row(type).real; }

std::string shape_text(Shape const& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

Shape row_major(Shape const& shape) {
  Shape strides(shape.size());
  Index stride = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<Index>(1, shape[i]);
  }
  return strides;
}

std::optional<std::uint64_t> reach(Shape const& shape, Shape const& strides) {
  std::uint64_t count = 1, last = 0;
  bool empty = false;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < 0 || strides[i] < 0) return {};
    empty = empty || shape[i] == 0;
    // Bounds the product of all sizes as well, with empty dimensions taken for 1.
    auto const size = static_cast<std::uint64_t>(std::max<Index>(1, shape[i]));
    auto const stride = static_cast<std::uint64_t>(strides[i]);
    if (count > largest_count / size) return {};
    count *= size;
    if (size > 1 && stride > largest_count / (size - 1)) return {};
    last += (size - 1) * stride;
    if (last >= largest_count) return {};
  }
  return empty ? 0 : last + 1;
}

Index StoredTensor::size() const {
  Index count = 1;
  for (Index const extent : shape) count *= extent;
  return count;
}

bool StoredTensor::is_contiguous() const {
  Shape const wanted = row_major(shape);
  for (std::size_t i = 0; i < shape.size(); ++i)
    if (shape[i] > 1 && strides[i] != wanted[i]) return false;
  return true;
}

TensorReader::TensorReader(InputFile const& file, StoredTensor const& tensor)
    : file_(file), tensor_(tensor) {}

void TensorReader::read(Index first, std::span<float> out) {
  if (out.empty()) return;
  if (!tensor_.is_contiguous()) return read_strided(first, out);
  std::uint64_t const width = element_size(tensor_.type);
  constexpr std::size_t piece = std::size_t{1} << 18;
  for (std::size_t done = 0; done < out.size(); done += piece) {
    std::size_t const count = std::min(piece, out.size() - done);
    buffer_.resize(count * width);
    file_.read(tensor_.offset + (static_cast<std::uint64_t>(first) + done) * width, buffer_);
    convert(buffer_.data(), out.subspan(done, count));
  }
}

/// Transposed or cut tensors are rare and small beside what they are part of: all they span is held.
void TensorReader::read_strided(Index first, std::span<float> out) {
  std::uint64_t const width = element_size(tensor_.type);
  if (buffer_.empty())
    buffer_ = file_.bytes(tensor_.offset, reach(tensor_.shape, tensor_.strides).value_or(0) * width);
  for (std::size_t i = 0; i < out.size(); ++i) {
    Index rest = first + static_cast<Index>(i);
    std::uint64_t at = 0;
    for (std::size_t d = tensor_.shape.size(); d-- > 0;) {
      at += static_cast<std::uint64_t>(rest % tensor_.shape[d] * tensor_.strides[d]);
      rest /= tensor_.shape[d];
    }
    convert(buffer_.data() + at * width, out.subspan(i, 1));
  }
}

void TensorReader::convert(char const* from, std::span<float> out) const {
  switch (tensor_.type) {
    case StoredType::float32:
      std::memcpy(out.data(), from, out.size_bytes());
      return;
    case StoredType::float16:
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = from_half(load<std::uint16_t>(from + 2 * i));
      return;
    case StoredType::bfloat16:
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = from_bfloat(load<std::uint16_t>(from + 2 * i));
      return;
    case StoredType::float64:
      for (std::size_t i = 0; i < out.size(); ++i) {
        auto const value = load<double>(from + 8 * i);
        // Converting a double beyond float's range is undefined, so it is asked first.
        if (std::isfinite(value) && std::abs(value) > static_cast<double>(std::numeric_limits<float>::max()))
          file_.fail("holds " + std::to_string(value) + " in " + quote(tensor_.name) +
                     ", which is beyond the range of float32");
        out[i] = static_cast<float>(value);
      }
      return;
    default:
      file_.fail("holds " + std::string(to_string(tensor_.type)) + " numbers in " + quote(tensor_.name) +
                 " where real numbers are expected");
  }
}

namespace {

enum class Kind { safetensors, torch, old_torch, other };

Kind kind_of(std::string const& start, std::string const& path) {
  if (start.starts_with("\x89HDF")) return Kind::other;
  if (start.starts_with("PK\3\4")) return Kind::torch;
  if (start.starts_with("\x80\x02\x8a\x0a") || start.starts_with("\x80\x02}")) return Kind::old_torch;
  if (start.size() == 9 && start[8] == '{') return Kind::safetensors;
  if (path.ends_with(".safetensors")) return Kind::safetensors;
  if (path.ends_with(".pth") || path.ends_with(".pt")) return Kind::torch;
  return Kind::other;
}

}  // namespace

bool looks_like_tensor_file(std::string const& path) {
  std::string start(9, '\0');
  std::error_code error;
  if (std::filesystem::is_regular_file(path, error)) {
    std::ifstream file(path, std::ios::binary);
    file.read(start.data(), static_cast<std::streamsize>(start.size()));
    start.resize(static_cast<std::size_t>(file.gcount()));
  }
  return kind_of(start, path) != Kind::other;
}

TensorFile open_tensor_file(std::string const& path) {
  InputFile file(path);
  switch (kind_of(file.bytes(0, std::min<std::uint64_t>(file.size(), 9)), path)) {
    case Kind::torch:
      return read_torch_file(std::move(file));
    case Kind::safetensors:
      return read_safetensors(std::move(file));
    case Kind::old_torch:
      file.fail(
          "is in the format of torch before 1.6, which is not read; load it in Python and save it again with "
          "torch.save");
    case Kind::other:
      break;
  }
  file.fail("is neither a safetensors file, nor a file of torch.save, nor a checkpoint of strata");
}

}  // namespace strata::io
