// SPDX-License-Identifier: Apache-2.0
#include "io/zip_archive.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>

#include "io/digest.hpp"

namespace strata::io {

namespace {

constexpr std::uint64_t end_size = 22, locator_size = 20, end64_size = 56;
constexpr std::uint64_t central_size = 46, local_size = 30;
constexpr std::uint64_t largest_directory = std::uint64_t{1} << 28;

std::uint64_t number(std::string const& bytes, std::size_t at, std::size_t width) {
  std::uint64_t value = 0;
  for (std::size_t i = width; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

struct Directory {
  std::uint64_t offset = 0, size = 0, entries = 0;
};

/// Where the directory lies, from the record at the end of the file.
Directory find_directory(InputFile const& file) {
  constexpr std::uint64_t longest_comment = 65535;
  std::uint64_t const tail_size = std::min(file.size(), end_size + longest_comment);
  std::uint64_t const tail_begin = file.size() - tail_size;
  std::string const tail = file.bytes(tail_begin, tail_size);
  std::optional<std::size_t> found;
  for (std::size_t at = tail.size() < end_size ? 0 : tail.size() - end_size + 1; at-- > 0 && !found;)
    if (tail.compare(at, 4, "PK\5\6") == 0 && number(tail, at + 20, 2) == tail.size() - at - end_size)
      found = at;
  if (!found) file.fail("is no ZIP archive or is cut short: the directory at its end is missing");
  std::size_t const at = *found;
  std::uint64_t const end = tail_begin + at;
  Directory directory{number(tail, at + 16, 4), number(tail, at + 12, 4), number(tail, at + 10, 2)};
  std::uint64_t disk = number(tail, at + 4, 2), first_disk = number(tail, at + 6, 2);
  std::uint64_t here = number(tail, at + 8, 2);
  std::uint64_t border = end;
  if (directory.offset == 0xffffffff || directory.size == 0xffffffff || directory.entries == 0xffff) {
    if (end < locator_size + end64_size) file.fail("is a damaged ZIP archive: its ZIP64 record is missing");
    std::string const locator = file.bytes(end - locator_size, locator_size);
    std::uint64_t const record = number(locator, 8, 8);
    if (!locator.starts_with("PK\6\7") || record > end - locator_size - end64_size)
      file.fail("is a damaged ZIP archive: its ZIP64 record is missing");
    std::string const end64 = file.bytes(record, end64_size);
    if (!end64.starts_with("PK\6\6")) file.fail("is a damaged ZIP archive: its ZIP64 record is missing");
    disk = number(end64, 16, 4);
    first_disk = number(end64, 20, 4);
    here = number(end64, 24, 8);
    directory = {number(end64, 48, 8), number(end64, 40, 8), number(end64, 32, 8)};
    border = record;
  }
  if (disk != 0 || first_disk != 0 || here != directory.entries)
    file.fail("is a part of a ZIP archive of several files, which is not read");
  if (directory.size > largest_directory || directory.offset > border ||
      directory.size > border - directory.offset || directory.entries > directory.size / central_size)
    file.fail("is a damaged ZIP archive: its directory does not lie inside it");
  return directory;
}

/// Replaces the fields that say "see the ZIP64 part" by what that part says, in the order of the standard.
void apply_zip64(InputFile const& file, std::string const& extra, std::string const& name,
                 std::vector<std::uint64_t*> const& fields) {
  for (std::size_t at = 0; at + 4 <= extra.size();) {
    std::uint64_t const id = number(extra, at, 2), size = number(extra, at + 2, 2);
    at += 4;
    if (size > extra.size() - at) break;
    if (id == 1) {
      if (size < 8 * fields.size()) break;
      for (std::size_t i = 0; i < fields.size(); ++i) *fields[i] = number(extra, at + 8 * i, 8);
      return;
    }
    at += size;
  }
  file.fail("is a damaged ZIP archive: the ZIP64 sizes of " + name + " are missing");
}

/// Checks the header in front of the content and returns where the content begins.
std::uint64_t content_offset(InputFile const& file, std::string const& name, std::uint64_t local) {
  auto const damaged = [&] {
    file.fail("is a damaged ZIP archive: the entry " + quote(name) + " is not in its place");
  };
  if (!file.holds(local, local_size)) damaged();
  std::string const header = file.bytes(local, local_size);
  std::uint64_t const name_size = number(header, 26, 2), extra_size = number(header, 28, 2);
  if (!header.starts_with("PK\3\4") || name_size != name.size() ||
      !file.holds(local, local_size + name_size + extra_size) ||
      file.bytes(local + local_size, name_size) != name)
    damaged();
  if (number(header, 8, 2) != 0)
    file.fail("is a damaged ZIP archive: the entry " + quote(name) + " is compressed after all");
  return local + local_size + name_size + extra_size;
}

}  // namespace

std::vector<ZipEntry> read_zip_directory(InputFile const& file) {
  Directory const directory = find_directory(file);
  std::string const bytes = file.bytes(directory.offset, directory.size);
  std::vector<ZipEntry> entries;
  std::set<std::string> names;
  std::size_t at = 0;
  for (std::uint64_t i = 0; i < directory.entries; ++i) {
    auto const damaged = [&] { file.fail("is a damaged ZIP archive: its directory is cut short"); };
    if (bytes.size() - at < central_size || bytes.compare(at, 4, "PK\1\2") != 0) damaged();
    std::uint64_t const flags = number(bytes, at + 8, 2), method = number(bytes, at + 10, 2);
    std::size_t const name_size = number(bytes, at + 28, 2), extra_size = number(bytes, at + 30, 2);
    std::size_t const comment_size = number(bytes, at + 32, 2);
    if (bytes.size() - at - central_size < name_size + extra_size + comment_size) damaged();
    ZipEntry entry;
    entry.name = bytes.substr(at + central_size, name_size);
    std::string const shown = quote(entry.name);
    if ((flags & 1U) != 0) file.fail("has the encrypted entry " + shown + ", which is not read");
    if (method != 0)
      file.fail("has the compressed entry " + shown + " (method " + std::to_string(method) +
                "); torch.save stores its entries uncompressed");
    entry.crc = static_cast<std::uint32_t>(number(bytes, at + 16, 4));
    std::uint64_t stored = number(bytes, at + 20, 4), local = number(bytes, at + 42, 4);
    entry.size = number(bytes, at + 24, 4);
    std::vector<std::uint64_t*> wide;
    for (std::uint64_t* field : {&entry.size, &stored, &local})
      if (*field == 0xffffffff) wide.push_back(field);
    if (!wide.empty())
      apply_zip64(file, bytes.substr(at + central_size + name_size, extra_size), shown, wide);
    if (stored != entry.size) file.fail("is a damaged ZIP archive: the entry " + shown + " has two sizes");
    entry.offset = content_offset(file, entry.name, local);
    if (!file.holds(entry.offset, entry.size) || entry.offset + entry.size > directory.offset)
      file.fail("is a damaged ZIP archive: the entry " + shown + " reaches beyond its end");
    if (!names.insert(entry.name).second) file.fail("has two entries called " + shown);
    entries.push_back(std::move(entry));
    at += central_size + name_size + extra_size + comment_size;
  }
  std::vector<std::pair<std::uint64_t, std::uint64_t>> places;
  places.reserve(entries.size());
  for (ZipEntry const& entry : entries) places.emplace_back(entry.offset, entry.size);
  std::sort(places.begin(), places.end());
  for (std::size_t i = 1; i < places.size(); ++i)
    if (places[i - 1].first + places[i - 1].second > places[i].first)
      file.fail("is a damaged ZIP archive: two of its entries overlap");
  return entries;
}

void check_zip_entry(InputFile const& file, ZipEntry const& entry) {
  std::string buffer;
  std::uint32_t crc = 0;
  for (std::uint64_t done = 0; done < entry.size; done += buffer.size()) {
    buffer.resize(std::min<std::uint64_t>(entry.size - done, std::uint64_t{1} << 20));
    file.read(entry.offset + done, buffer);
    crc = crc32({reinterpret_cast<std::uint8_t const*>(buffer.data()), buffer.size()}, crc);
  }
  if (crc != entry.crc) file.fail("is damaged: the checksum of its entry " + entry.name + " differs");
}

}  // namespace strata::io
