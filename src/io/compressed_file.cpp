// SPDX-License-Identifier: Apache-2.0
#include "io/compressed_file.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "core/error.hpp"
#include "io/digest.hpp"
#include "kernels/common/check.hpp"

namespace strata::io {

namespace {

constexpr std::array<std::uint8_t, 7> magic{'S', 'T', 'R', 'A', 'T', 'A', 0x1A};
constexpr std::uint8_t version = 1;
constexpr std::size_t checked_from = 12;  ///< behind magic, version and the checksum of all that follows
constexpr std::size_t fixed_size = 32;
constexpr std::uint64_t largest_number = std::uint64_t{1} << 56;

void put_u32(std::vector<std::uint8_t>& out, std::uint32_t value) {
  for (unsigned i = 0; i < 4; ++i) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}

std::uint32_t get_u32(std::span<std::uint8_t const> bytes, std::size_t place) {
  std::uint32_t value = 0;
  for (unsigned i = 0; i < 4; ++i) value |= std::uint32_t{bytes[place + i]} << (8 * i);
  return value;
}

/// Seven bits a byte, the lowest first; all but the last byte have the top bit set.
void put_number(std::vector<std::uint8_t>& out, std::uint64_t value) {
  for (; value >= 128; value >>= 7U) out.push_back(static_cast<std::uint8_t>(value | 128U));
  out.push_back(static_cast<std::uint8_t>(value));
}

/// Numbers one after the other; nothing once the bytes end or a number is larger than any file.
class NumberReader {
 public:
  NumberReader(std::span<std::uint8_t const> bytes, std::size_t place) : bytes_(bytes), place_(place) {}
  std::size_t place() const { return place_; }

  std::optional<std::uint64_t> next() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift <= 56 && place_ < bytes_.size(); shift += 7) {
      std::uint64_t const byte = bytes_[place_++];
      value |= (byte & 127U) << shift;
      if (byte < 128) return value <= largest_number ? std::optional(value) : std::nullopt;
    }
    return std::nullopt;
  }

 private:
  std::span<std::uint8_t const> bytes_;
  std::size_t place_;
};

/// What the numbers of the header say.
struct Table {
  CompressedFile file;               ///< its streams empty
  std::vector<std::uint64_t> sizes;  ///< of the streams
  std::uint64_t total = 0;           ///< the whole file's size
  std::size_t streams_from = 0;
};

/// Nothing if they cannot be right.
std::optional<Table> read_table(std::span<std::uint8_t const> bytes) {
  NumberReader reader(bytes, fixed_size);
  auto const length = reader.next();
  auto const window = reader.next();
  auto const count = reader.next();
  // A stream takes two bytes of the table at least.
  if (!count || *window == 0 || *count > bytes.size() / 2) return std::nullopt;
  Table table;
  table.file.length = static_cast<Index>(*length);
  table.file.window = static_cast<Index>(*window);
  std::uint64_t windows = 0, payload = 0;
  for (std::uint64_t s = 0; s < *count; ++s) {
    auto const n = reader.next();
    auto const size = reader.next();
    if (!size || *n == 0 || *n > largest_number - windows || *size > largest_number - payload)
      return std::nullopt;
    windows += *n;
    payload += *size;
    table.file.streams.push_back({static_cast<Index>(*n), {}});
    table.sizes.push_back(*size);
  }
  if (windows != static_cast<std::uint64_t>(table.file.windows())) return std::nullopt;
  table.streams_from = reader.place();
  table.total = table.streams_from + payload;
  return table;
}

}  // namespace

std::vector<std::uint8_t> to_bytes(CompressedFile const& file) {
  std::vector<std::uint8_t> out(magic.begin(), magic.end());
  out.push_back(version);
  put_u32(out, 0);  // the checksum's place
  STRATA_REQUIRE(file.digest.size() >= stored_digits, "a digest of " << file.digest.size() << " digits");
  for (std::size_t i = 0; i < stored_digits; i += 2) {
    std::uint8_t value = 0;
    std::from_chars(file.digest.data() + i, file.digest.data() + i + 2, value, 16);
    out.push_back(value);
  }
  put_u32(out, file.content_crc);
  put_number(out, static_cast<std::uint64_t>(file.length));
  put_number(out, static_cast<std::uint64_t>(file.window));
  put_number(out, file.streams.size());
  for (CodedStream const& stream : file.streams) {
    put_number(out, static_cast<std::uint64_t>(stream.windows));
    put_number(out, stream.bytes.size());
  }
  for (CodedStream const& stream : file.streams)
    out.insert(out.end(), stream.bytes.begin(), stream.bytes.end());
  std::uint32_t const crc = io::crc32(std::span(out).subspan(checked_from));
  for (unsigned i = 0; i < 4; ++i) out[magic.size() + 1 + i] = static_cast<std::uint8_t>(crc >> (8 * i));
  return out;
}

CompressedFile parse_compressed(std::span<std::uint8_t const> bytes, std::string const& name) {
  if (bytes.size() < magic.size() || !std::equal(magic.begin(), magic.end(), bytes.begin()))
    throw core::InputError(name + " is not a file that strata compress wrote");
  if (bytes.size() > magic.size() && bytes[magic.size()] != version)
    throw core::InputError(name + " is a compressed file of version " + std::to_string(bytes[magic.size()]) +
                           "; this program reads version " + std::to_string(version));
  std::optional<Table> table = bytes.size() > fixed_size ? read_table(bytes) : std::nullopt;
  bool const intact =
      bytes.size() > fixed_size && io::crc32(bytes.subspan(checked_from)) == get_u32(bytes, magic.size() + 1);
  if (!intact && (bytes.size() <= fixed_size || (table && table->total > bytes.size())))
    throw core::InputError(name + " is cut short: it ends after " + std::to_string(bytes.size()) + " bytes" +
                           (table ? " of " + std::to_string(table->total) : std::string()));
  if (!intact) throw core::InputError(name + " is damaged: its checksum is not that of its bytes");
  if (!table || table->total != bytes.size())
    throw core::InputError(name + " is damaged: the sizes that it states do not add up");

  CompressedFile file = std::move(table->file);
  for (std::size_t i = checked_from; i < checked_from + stored_digits / 2; ++i)
    for (unsigned const digit : {bytes[i] / 16U, bytes[i] % 16U}) file.digest += "0123456789abcdef"[digit];
  file.content_crc = get_u32(bytes, checked_from + stored_digits / 2);
  std::size_t place = table->streams_from;
  for (std::size_t s = 0; s < file.streams.size(); ++s) {
    auto const stream = bytes.subspan(place, static_cast<std::size_t>(table->sizes[s]));
    file.streams[s].bytes.assign(stream.begin(), stream.end());
    place += stream.size();
  }
  return file;
}

}  // namespace strata::io
