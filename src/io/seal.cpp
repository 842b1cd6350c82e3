// SPDX-License-Identifier: Apache-2.0
#include "io/seal.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "core/error.hpp"
#include "io/atomic_file.hpp"
#include "io/digest.hpp"
#include "parallel/block.hpp"
#include "parallel/together.hpp"

namespace strata::io {

namespace {

using Line = std::array<char, 32>;  // "\nstrata-crc32 xxxxxxxx\n" and its end
constexpr std::int64_t line_length = 23;

Line line_of(std::uint32_t crc) {
  Line line{};
  std::snprintf(line.data(), line.size(), "\nstrata-crc32 %08x\n", static_cast<unsigned>(crc));
  return line;
}

class Descriptor {
 public:
  Descriptor(std::string const& path, int flags) : path_(path), fd_(::open(path.c_str(), flags | O_CLOEXEC)) {
    if (fd_ < 0) fail("open");
  }
  ~Descriptor() { ::close(fd_); }
  Descriptor(Descriptor const&) = delete;
  Descriptor& operator=(Descriptor const&) = delete;

  [[noreturn]] void fail(char const* action) const {
    throw core::InputError(describe_errno(action, path_, errno));
  }
  std::int64_t size() const {
    struct stat status {};
    if (::fstat(fd_, &status) != 0) fail("read");
    if (!S_ISREG(status.st_mode)) throw core::InputError(path_ + " is not a regular file");
    return status.st_size;
  }
  /// Up to `count` bytes from `offset` on.
  std::size_t read(void* data, std::size_t count, std::int64_t offset) const {
    ssize_t got = -1;
    do got = ::pread(fd_, data, count, offset);
    while (got < 0 && errno == EINTR);
    if (got < 0) fail("read");
    return static_cast<std::size_t>(got);
  }
  void write(char const* data, std::size_t count) const {
    while (count > 0) {
      ssize_t const written = ::write(fd_, data, count);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail("write");
      data += written;
      count -= static_cast<std::size_t>(written);
    }
  }

 private:
  std::string path_;
  int fd_;
};

std::uint32_t crc_of(Descriptor const& file, std::int64_t first, std::int64_t last) {
  std::vector<std::uint8_t> buffer(std::size_t{1} << 20);
  std::uint32_t crc = 0;
  for (std::int64_t offset = first; offset < last;) {
    auto const want = static_cast<std::size_t>(std::min<std::int64_t>(last - offset, std::int64_t{1} << 20));
    std::size_t const got = file.read(buffer.data(), want, offset);
    if (got == 0) break;  // the file shrank; the checksum will tell
    crc = crc32({buffer.data(), got}, crc);
    offset += static_cast<std::int64_t>(got);
  }
  return crc;
}

/// CRC-32 of the first `size` bytes, on every rank.
std::uint32_t shared_crc(std::string const& path, std::int64_t size, parallel::Communicator const& ranks) {
  auto const block = [&](int rank) { return parallel::block_of(size, rank, ranks.size()); };
  std::uint32_t mine = 0;
  parallel::together(ranks, [&] {
    Descriptor const file(path, O_RDONLY | O_NONBLOCK);
    mine = crc_of(file, block(ranks.rank()).first, block(ranks.rank()).last);
  });
  std::uint32_t crc = 0;
  for (int rank = 0; rank < ranks.size(); ++rank) {
    std::uint32_t theirs = mine;
    ranks.broadcast(&theirs, sizeof theirs, rank);
    crc = crc32_joined(crc, theirs, static_cast<std::uint64_t>(block(rank).size()));
  }
  return crc;
}

/// The checksum at the end of a file and the size of what it is of, if there is one.
struct Seal {
  std::int64_t size = -1;
  unsigned crc = 0;
};
Seal seal_of(std::string const& path) {
  // Not to wait for ever on a pipe.
  Descriptor const file(path, O_RDONLY | O_NONBLOCK);
  std::int64_t const size = file.size() - line_length;
  if (size < 0) return {};
  Line found{};
  file.read(found.data(), static_cast<std::size_t>(line_length), size);
  unsigned crc = 0;
  if (std::sscanf(found.data(), "\nstrata-crc32 %8x", &crc) != 1 || line_of(crc) != found) return {};
  return {size, crc};
}

void append(std::string const& path, std::uint32_t crc) {
  Line const line = line_of(crc);
  Descriptor(path, O_WRONLY | O_APPEND).write(line.data(), static_cast<std::size_t>(line_length));
}

[[noreturn]] void refuse(std::string const& path) {
  throw core::InputError(path + " is damaged: its content does not match its checksum");
}

}  // namespace

void seal_file(std::string const& path) {
  Descriptor const file(path, O_RDONLY);
  append(path, crc_of(file, 0, file.size()));
}

void seal_file(std::string const& path, parallel::Communicator const& ranks) {
  std::int64_t size = 0;
  parallel::on_root(ranks, [&] { size = Descriptor(path, O_RDONLY).size(); });
  ranks.broadcast(&size, sizeof size);
  std::uint32_t const crc = shared_crc(path, size, ranks);
  parallel::on_root(ranks, [&] { append(path, crc); });
}

bool check_seal(std::string const& path) {
  Seal const seal = seal_of(path);
  if (seal.size < 0) return false;
  if (crc_of(Descriptor(path, O_RDONLY | O_NONBLOCK), 0, seal.size) != seal.crc) refuse(path);
  return true;
}

bool check_seal(std::string const& path, parallel::Communicator const& ranks) {
  Seal seal;
  parallel::on_root(ranks, [&] { seal = seal_of(path); });
  ranks.broadcast(&seal, sizeof seal);
  if (seal.size < 0) return false;
  if (shared_crc(path, seal.size, ranks) != seal.crc) refuse(path);
  return true;
}

}  // namespace strata::io
