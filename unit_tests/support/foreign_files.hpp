// SPDX-License-Identifier: Apache-2.0
#pragma once
// Files as other programs write them, byte by byte, and deliberately wrong ones: safetensors, and
// torch.save's ZIP archive with a pickle. Written from the formats' descriptions, not with the code under
// test.

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "io/digest.hpp"

namespace strata::test {

/// A number's bytes, little-endian.
template <class T>
std::string raw(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}
template <class T>
std::string raw(std::vector<T> const& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

/// Length, header and data as they are given.
inline std::string safetensors(std::string const& header, std::string const& data) {
  return raw(static_cast<std::uint64_t>(header.size())) + header + data;
}

struct RawTensor {
  std::string name, dtype;  ///< dtype as safetensors spells it
  std::vector<std::int64_t> shape;
  std::string data;
};

inline std::string numbers(std::vector<std::int64_t> const& values) {
  std::string text;
  for (std::int64_t const v : values) text += (text.empty() ? "" : ",") + std::to_string(v);
  return text;
}

/// A correct file; `metadata` is a JSON object or empty.
inline std::string safetensors(std::vector<RawTensor> const& tensors, std::string const& metadata = "") {
  std::string header = metadata.empty() ? "" : "\"__metadata__\":" + metadata, data;
  for (RawTensor const& t : tensors) {
    header += (header.empty() ? "\"" : ",\"") + t.name + "\":{\"dtype\":\"" + t.dtype + "\",\"shape\":[" +
              numbers(t.shape) + "],\"data_offsets\":[" + std::to_string(data.size()) + "," +
              std::to_string(data.size() + t.data.size()) + "]}";
    data += t.data;
  }
  return safetensors("{" + header + "}", data);
}

struct RawEntry {
  std::string name, content;
  std::uint16_t method = 0, flags = 0;
  int crc_error = 0;
  bool wide = false;  ///< sizes and place in a ZIP64 part
};

/// A ZIP archive of stored entries. `wide_end` writes the ZIP64 record at the end.
inline std::string zip(std::vector<RawEntry> const& entries, bool wide_end = false,
                       std::string const& comment = "") {
  auto const u16 = [](std::size_t v) { return raw(static_cast<std::uint16_t>(v)); };
  auto const u32 = [](std::size_t v) { return raw(static_cast<std::uint32_t>(v)); };
  auto const u64 = [](std::size_t v) { return raw(static_cast<std::uint64_t>(v)); };
  std::string file, directory;
  for (RawEntry const& e : entries) {
    std::size_t const place = file.size(), size = e.content.size();
    std::uint32_t const crc = io::crc32({reinterpret_cast<std::uint8_t const*>(e.content.data()), size}) +
                              static_cast<std::uint32_t>(e.crc_error);
    std::string const common = u16(e.flags) + u16(e.method) + u16(0) + u16(0) + u32(crc);
    std::string const padding = u16(0x4246) + u16(3) + "ZZZ";  // torch aligns contents with such a part
    file += "PK\3\4" + u16(20) + common + u32(size) + u32(size) + u16(e.name.size()) + u16(padding.size()) +
            e.name + padding + e.content;
    std::string const extra = e.wide ? padding + u16(1) + u16(24) + u64(size) + u64(size) + u64(place) : "";
    std::string const sizes = e.wide ? u32(0xffffffff) + u32(0xffffffff) : u32(size) + u32(size);
    directory += "PK\1\2" + u16(45) + u16(20) + common + sizes + u16(e.name.size()) + u16(extra.size()) +
                 u16(0) + u16(0) + u16(0) + u32(0) + u32(e.wide ? 0xffffffff : place) + e.name + extra;
  }
  std::size_t const begin = file.size();
  file += directory;
  if (wide_end) {
    std::size_t const record = file.size();
    file += "PK\6\6" + u64(44) + u16(45) + u16(45) + u32(0) + u32(0) + u64(entries.size()) +
            u64(entries.size()) + u64(directory.size()) + u64(begin);
    file += "PK\6\7" + u32(0) + u64(record) + u32(1);
  }
  std::size_t const count = wide_end ? 0xffff : entries.size();
  file += "PK\5\6" + u16(0) + u16(0) + u16(count) + u16(count) +
          u32(wide_end ? 0xffffffff : directory.size()) + u32(wide_end ? 0xffffffff : begin) +
          u16(comment.size()) + comment;
  return file;
}

// Pieces of a pickle of protocol 2.
namespace pickle {
inline std::string const begin = "\x80\x02", stop = ".", mark = "(", tuple = "t", reduce = "R",
                         persistent = "Q";
inline std::string text(std::string const& value) {
  return "X" + raw(static_cast<std::uint32_t>(value.size())) + value;
}
inline std::string integer(std::int64_t value) {
  if (value >= 0 && value < 256) return "K" + raw(static_cast<std::uint8_t>(value));
  if (value >= INT32_MIN && value <= INT32_MAX) return "J" + raw(static_cast<std::int32_t>(value));
  return "\x8a\x08" + raw(value);
}
inline std::string global(std::string const& module, std::string const& name) {
  return "c" + module + "\n" + name + "\n";
}
inline std::string integers(std::vector<std::int64_t> const& values) {
  std::string items;
  for (std::int64_t const v : values) items += integer(v);
  return mark + items + tuple;
}
inline std::string ordered_dict() { return global("collections", "OrderedDict") + ")" + reduce; }
inline std::string storage(std::string const& type, std::string const& key, std::int64_t elements) {
  return mark + text("storage") + global("torch", type) + text(key) + text("cpu") + integer(elements) +
         tuple + persistent;
}
/// A tensor of a storage.
inline std::string tensor(std::string const& of, std::int64_t first, std::vector<std::int64_t> const& shape,
                          std::vector<std::int64_t> const& strides) {
  return global("torch._utils", "_rebuild_tensor_v2") + mark + of + integer(first) + integers(shape) +
         integers(strides) + "\x89" + ordered_dict() + tuple + reduce;
}
/// A dictionary of what `items` hold: keys and values by turns.
inline std::string dict(std::string const& items) { return ordered_dict() + mark + items + "u"; }
}  // namespace pickle

/// A file of torch.save: the pickle and the storages by key.
inline std::string torch_file(std::string const& data, std::vector<RawEntry> const& storages) {
  std::vector<RawEntry> entries{{"archive/data.pkl", data}, {"archive/byteorder", "little"}};
  for (RawEntry storage : storages) {
    storage.name = "archive/data/" + storage.name;
    entries.push_back(storage);
  }
  entries.push_back({"archive/version", "3\n"});
  return zip(entries);
}

}  // namespace strata::test
