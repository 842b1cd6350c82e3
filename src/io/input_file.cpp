// SPDX-License-Identifier: Apache-2.0
#include "io/input_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "core/error.hpp"
#include "io/atomic_file.hpp"

namespace strata::io {

InputFile::InputFile(std::string path) : path_(std::move(path)) {
  struct stat status {};
  // Asked before opening: opening a pipe would wait for its writer.
  if (stat(path_.c_str(), &status) != 0) throw core::InputError(describe_errno("read", path_, errno));
  if (!S_ISREG(status.st_mode)) fail("is no ordinary file; name the file itself");
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) throw core::InputError(describe_errno("read", path_, errno));
  size_ = static_cast<std::uint64_t>(status.st_size);
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), size_(other.size_) {}

InputFile::~InputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void InputFile::fail(std::string const& problem) const { throw core::InputError(path_ + " " + problem); }

void InputFile::read(std::uint64_t offset, std::span<char> out) const {
  if (!holds(offset, out.size())) fail("is cut short: it ends at byte " + std::to_string(size_));
  std::size_t done = 0;
  while (done < out.size()) {
    ssize_t const count =
        ::pread(descriptor_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw core::InputError(describe_errno("read", path_, errno));
    if (count == 0) fail("became shorter while it was read");
    done += static_cast<std::size_t>(count);
  }
}

std::string InputFile::bytes(std::uint64_t offset, std::uint64_t count) const {
  if (!holds(offset, count)) fail("is cut short: it ends at byte " + std::to_string(size_));
  std::string text(count, '\0');
  read(offset, text);
  return text;
}

std::string quote(std::string const& text) {
  std::string shown;
  for (char const c : text.substr(0, 80)) shown += c >= ' ' && c <= '~' ? c : '?';
  return "'" + shown + (text.size() > 80 ? "...'" : "'");
}

}  // namespace strata::io
