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

std::uint32_t crc_of(Descriptor const& file, std::int64_t size) {
  std::vector<std::uint8_t> buffer(std::size_t{1} << 20);
  std::uint32_t crc = 0;
  for (std::int64_t offset = 0; offset < size;) {
    auto const want = static_cast<std::size_t>(std::min<std::int64_t>(size - offset, std::int64_t{1} << 20));
    std::size_t const got = file.read(buffer.data(), want, offset);
    if (got == 0) break;  // the file shrank; the checksum will tell
    crc = crc32({buffer.data(), got}, crc);
    offset += static_cast<std::int64_t>(got);
  }
  return crc;
}

}  // namespace

void seal_file(std::string const& path) {
  Descriptor const file(path, O_RDWR | O_APPEND);
  Line const line = line_of(crc_of(file, file.size()));
  file.write(line.data(), static_cast<std::size_t>(line_length));
}

bool check_seal(std::string const& path) {
  // Not to wait for ever on a pipe.
  Descriptor const file(path, O_RDONLY | O_NONBLOCK);
  std::int64_t const size = file.size() - line_length;
  if (size < 0) return false;
  Line found{};
  file.read(found.data(), static_cast<std::size_t>(line_length), size);
  unsigned crc = 0;
  if (std::sscanf(found.data(), "\nstrata-crc32 %8x", &crc) != 1) return false;
  if (line_of(crc) != found) return false;
  if (crc_of(file, size) != crc)
    throw core::InputError(path + " is damaged: its content does not match its checksum");
  return true;
}

}  // namespace strata::io
