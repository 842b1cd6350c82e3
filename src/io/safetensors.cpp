// SPDX-License-Identifier: Apache-2.0
#include "io/safetensors.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <utility>

#include "core/error.hpp"

namespace strata::io {

namespace {

using nlohmann::json;

/// The limit of the format's own library.
constexpr std::uint64_t largest_header = 100'000'000;
char const* const metadata_key = "__metadata__";

constexpr std::array<std::pair<char const*, StoredType>, 13> dtypes{{{"F16", StoredType::float16},
                                                                     {"BF16", StoredType::bfloat16},
                                                                     {"F32", StoredType::float32},
                                                                     {"F64", StoredType::float64},
                                                                     {"BOOL", StoredType::boolean},
                                                                     {"U8", StoredType::uint8},
                                                                     {"I8", StoredType::int8},
                                                                     {"U16", StoredType::uint16},
                                                                     {"I16", StoredType::int16},
                                                                     {"U32", StoredType::uint32},
                                                                     {"I32", StoredType::int32},
                                                                     {"U64", StoredType::uint64},
                                                                     {"I64", StoredType::int64}}};

json parse_header(InputFile const& file, std::string const& text) {
  std::set<std::string> seen;
  std::set<std::string> seen_inside;
  auto const check = [&](int depth, json::parse_event_t event, json& value) {
    if (depth > 3) file.fail("has a header that is nested too deeply for safetensors");
    if (event != json::parse_event_t::key) return true;
    if (depth == 1) seen_inside.clear();
    std::set<std::string>& names = depth == 1 ? seen : seen_inside;
    if (auto const& name = value.get_ref<std::string const&>(); !names.insert(name).second)
      file.fail("has the name " + quote(name) + " twice in its header");
    return true;
  };
  try {
    json header = json::parse(text, check);
    if (!header.is_object()) file.fail("has a header that is no JSON object");
    return header;
  } catch (json::exception const& error) {
    file.fail("has a header that is not valid JSON, so it is no safetensors file or a damaged one");
  }
}

std::uint64_t natural(InputFile const& file, std::string const& name, json const& value, char const* what) {
  if (!value.is_number_unsigned())
    file.fail("has a wrong " + std::string(what) + " in the header's entry of " + quote(name));
  auto const number = value.get<std::uint64_t>();
  if (number >= std::uint64_t{1} << 62)
    file.fail("has a " + std::string(what) + " of " + std::to_string(number) + " in the header's entry of " +
              quote(name) + ", which no file holds");
  return number;
}

/// One entry; `data` is where the elements begin. The end of the tensor's bytes goes to `end`.
StoredTensor read_entry(InputFile const& file, std::string const& name, json const& entry, std::uint64_t data,
                        std::uint64_t& end) {
  auto const bad = [&](std::string const& problem) { file.fail("says of " + quote(name) + " " + problem); };
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets"))
    bad("too little: a tensor has a dtype, a shape and data_offsets");
  json const& dtype = entry["dtype"];
  json const& shape = entry["shape"];
  json const& offsets = entry["data_offsets"];
  if (!dtype.is_string() || !shape.is_array() || !offsets.is_array() || offsets.size() != 2)
    bad("something else than a dtype, a shape and two data_offsets");
  StoredTensor tensor;
  tensor.name = name;
  auto const& type_name = dtype.get_ref<std::string const&>();
  auto const* const type =
      std::find_if(dtypes.begin(), dtypes.end(), [&](auto const& known) { return type_name == known.first; });
  if (type == dtypes.end()) bad("that its dtype is " + quote(type_name) + ", which is not known");
  tensor.type = type->second;
  if (shape.size() > 64) bad("that it has " + std::to_string(shape.size()) + " dimensions");
  for (json const& extent : shape)
    tensor.shape.push_back(static_cast<Index>(natural(file, name, extent, "shape")));
  std::uint64_t const begin = natural(file, name, offsets[0], "offset");
  end = natural(file, name, offsets[1], "offset");
  if (end < begin) bad("that it ends at byte " + std::to_string(end) + ", before it begins");
  if (!file.holds(data, end))
    bad("that it ends at byte " + std::to_string(end) + " of the data, but there are only " +
        std::to_string(file.size() - data) + "; the file is cut short or its header is wrong");
  // The product of the sizes is bounded by reach(), which counts empty dimensions as 1.
  Shape const ones(tensor.shape.size(), 1);
  if (!reach(tensor.shape, ones))
    bad("that its shape is " + shape_text(tensor.shape) + ", which is too large");
  tensor.strides = row_major(tensor.shape);
  auto const wanted = static_cast<std::uint64_t>(tensor.size());
  std::uint64_t const width = element_size(tensor.type);
  if ((end - begin) % width != 0 || (end - begin) / width != wanted)
    bad("that it has " + std::to_string(end - begin) + " bytes, but shape " + shape_text(tensor.shape) +
        " of " + to_string(tensor.type) + " needs " + std::to_string(wanted) + " times " +
        std::to_string(width));
  tensor.offset = data + begin;
  return tensor;
}

}  // namespace

TensorFile read_safetensors(InputFile file) {
  if (file.size() < 8) file.fail("is cut short: a safetensors file begins with 8 bytes of length");
  std::uint64_t length = 0;
  file.read(0, {reinterpret_cast<char*>(&length), sizeof length});
  if (length > largest_header)
    file.fail("claims a header of " + std::to_string(length) + " bytes; the most is " +
              std::to_string(largest_header) + ", so it is damaged or no safetensors file");
  if (!file.holds(8, length))
    file.fail("claims a header of " + std::to_string(length) + " bytes, but has only " +
              std::to_string(file.size() - 8) + " after its length; it is cut short");
  json const header = parse_header(file, file.bytes(8, length));
  std::uint64_t const data = 8 + length;
  TensorFile result{std::move(file), {}, {}, {}};
  struct Place {
    std::uint64_t begin, end;
    std::size_t tensor;
  };
  std::vector<Place> places;
  for (auto const& [name, entry] : header.items()) {
    if (name == metadata_key) {
      if (!entry.is_object()) result.file.fail("has metadata that is no JSON object");
      for (auto const& [key, value] : entry.items()) {
        if (!value.is_string()) result.file.fail("has metadata " + quote(key) + " that is no text");
        result.metadata[key] = value.get<std::string>();
      }
      continue;
    }
    std::uint64_t end = 0;
    result.tensors.push_back(read_entry(result.file, name, entry, data, end));
    places.push_back({result.tensors.back().offset, data + end, result.tensors.size() - 1});
  }
  std::sort(places.begin(), places.end(), [](Place const& a, Place const& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::uint64_t border = data;
  std::string before;
  for (Place const& place : places) {
    std::string const& name = result.tensors[place.tensor].name;
    if (place.begin < border)
      result.file.fail("has the tensors " + quote(before) + " and " + quote(name) +
                       " in the same place; its header is wrong");
    if (place.begin > border)
      result.file.fail("has " + std::to_string(place.begin - border) + " bytes before " + quote(name) +
                       " that belong to no tensor; its header is wrong");
    border = place.end;
    before = name;
  }
  if (border != result.file.size())
    result.file.fail("has " + std::to_string(result.file.size() - border) +
                     " bytes at its end that belong to no tensor; its header is wrong");
  return result;
}

SafetensorsWriter::SafetensorsWriter(std::string const& path, bool overwrite,
                                     std::vector<Tensor> const& tensors,
                                     std::map<std::string, std::string> const& metadata)
    : file_(path, overwrite), out_(file_.partial(), std::ios::binary | std::ios::trunc) {
  nlohmann::ordered_json header;
  if (!metadata.empty()) header[metadata_key] = metadata;
  for (Tensor const& tensor : tensors) {
    std::uint64_t const begin = missing_;
    missing_ += static_cast<std::uint64_t>(element_count(tensor.shape)) * sizeof(float);
    header[tensor.name] = {{"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {begin, missing_}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the elements begin at a multiple of 8
  std::uint64_t const length = text.size();
  if (length > largest_header) throw core::InputError(path + " would need too large a header");
  out_.write(reinterpret_cast<char const*>(&length), sizeof length);
  out_.write(text.data(), static_cast<std::streamsize>(text.size()));
  check();
}

void SafetensorsWriter::check() {
  if (!out_) throw core::InputError(describe_errno("write", file_.path(), errno));
}

void SafetensorsWriter::append(std::span<float const> values) {
  if (values.size_bytes() > missing_) throw std::logic_error("more elements than the header names");
  missing_ -= values.size_bytes();
  out_.write(reinterpret_cast<char const*>(values.data()), static_cast<std::streamsize>(values.size_bytes()));
  check();
}

void SafetensorsWriter::close() {
  if (missing_ != 0) throw std::logic_error("fewer elements than the header names");
  out_.close();
  check();
  file_.commit();
}

}  // namespace strata::io
