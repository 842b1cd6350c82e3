// SPDX-License-Identifier: Apache-2.0
#include "io/atomic_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "core/error.hpp"

namespace strata::io {

namespace {

namespace fs = std::filesystem;

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "host";
  std::string text = name.data();
  for (char& c : text) {
    if (c == '/' || c == '.') c = '-';
  }
  return text;
}

std::string folder_of(std::string const& path) {
  fs::path const parent = fs::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

/// Removes <name>.<host>.<pid>.partial beside `path` where no such process lives any more.
void remove_stale(std::string const& path, std::string const& host) {
  std::string const prefix = fs::path(path).filename().string() + "." + host + ".";
  std::string const suffix = ".partial";
  std::error_code ignored;
  for (fs::directory_iterator entry(folder_of(path), ignored), end; !ignored && entry != end;
       entry.increment(ignored)) {
    std::string const name = entry->path().filename().string();
    if (name.size() <= prefix.size() + suffix.size() || !name.starts_with(prefix) || !name.ends_with(suffix))
      continue;
    pid_t pid = 0;
    char const* const first = name.data() + prefix.size();
    char const* const last = name.data() + name.size() - suffix.size();
    auto const parsed = std::from_chars(first, last, pid);
    if (parsed.ec != std::errc() || parsed.ptr != last || pid <= 0) continue;
    std::error_code error;
    if (kill(pid, 0) != 0 && errno == ESRCH) fs::remove(entry->path(), error);
  }
}

void sync_path(std::string const& path, int flags) {
  int const descriptor = ::open(path.c_str(), flags | O_CLOEXEC);
  if (descriptor < 0) throw core::InputError(describe_errno("sync", path, errno));
  int const status = fsync(descriptor);
  int const error = errno;
  ::close(descriptor);
  // Some file systems cannot sync a folder; then the rename is as durable as it gets.
  if (status != 0 && error != EINVAL && error != ENOTSUP)
    throw core::InputError(describe_errno("write", path, error));
}

}  // namespace

std::string describe_errno(std::string const& action, std::string const& path, int error) {
  std::string text = "cannot " + action + " " + path + ": " + std::strerror(error);
  if (error == ENOSPC || error == EDQUOT) text += "; free some space or choose another disk";
  return text;
}

AtomicFile::AtomicFile(std::string path, bool overwrite) : path_(std::move(path)), overwrite_(overwrite) {
  struct stat status {};
  if (path_.empty()) throw core::InputError("the name of the file to write is empty");
  if (stat(path_.c_str(), &status) == 0) {
    if (S_ISDIR(status.st_mode)) throw core::InputError(path_ + " is a folder; name a file in it");
    if (!overwrite_) throw core::InputError(path_ + " exists already; use --force to replace it");
    // A name that is a link keeps being one: what it points to is replaced.
    std::error_code error;
    fs::path const target = fs::canonical(path_, error);
    if (!error) path_ = target.string();
  }
  // Beyond a limit on the size of files, writing must fail like on a full disk and not kill the process.
  struct sigaction action {};
  if (sigaction(SIGXFSZ, nullptr, &action) == 0 && action.sa_handler == SIG_DFL) {
    action.sa_handler = SIG_IGN;
    sigaction(SIGXFSZ, &action, nullptr);
  }
  std::string const host = host_name();
  remove_stale(path_, host);
  partial_ = path_ + "." + host + "." + std::to_string(getpid()) + ".partial";
  int const descriptor = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) throw core::InputError(describe_errno("write", path_, errno));
  ::close(descriptor);
}

AtomicFile::~AtomicFile() {
  if (!committed_) ::unlink(partial_.c_str());
}

void AtomicFile::reserve() const {
  int const descriptor = ::open(partial_.c_str(), O_WRONLY | O_CLOEXEC);
  if (descriptor < 0) throw core::InputError(describe_errno("write", path_, errno));
  struct stat status {};
  int error = fstat(descriptor, &status) != 0 ? errno : 0;
  while (error == 0 && fallocate(descriptor, 0, 0, status.st_size) != 0) {
    if (errno != EINTR) error = errno;
  }
  ::close(descriptor);
  if (error == ENOSPC || error == EDQUOT || error == EFBIG || error == EIO)
    throw core::InputError(describe_errno("write", path_, error));
}

void AtomicFile::sync() const { sync_path(partial_, O_RDONLY); }

void AtomicFile::commit() {
  sync();
  if (overwrite_) {
    if (std::rename(partial_.c_str(), path_.c_str()) != 0)
      throw core::InputError(describe_errno("write", path_, errno));
  } else {
    // A link, unlike a rename, fails when somebody else made the file meanwhile.
    if (::link(partial_.c_str(), path_.c_str()) == 0) {
      ::unlink(partial_.c_str());
    } else if (errno == EEXIST) {
      throw core::InputError(path_ + " was made by somebody else meanwhile; use --force to replace it");
    } else if (std::rename(partial_.c_str(), path_.c_str()) != 0) {
      throw core::InputError(describe_errno("write", path_, errno));
    }
  }
  committed_ = true;
  sync_path(folder_of(path_), O_RDONLY | O_DIRECTORY);
}

void require_writable(std::string const& path) {
  int const descriptor = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (descriptor < 0) throw core::InputError(describe_errno("write", path, errno));
  ::close(descriptor);
}

void write_text_file(std::string const& path, std::string const& text) {
  AtomicFile file(path);
  int const descriptor = ::open(file.partial().c_str(), O_WRONLY | O_CLOEXEC);
  if (descriptor < 0) throw core::InputError(describe_errno("write", path, errno));
  std::size_t done = 0;
  while (done < text.size()) {
    ssize_t const count = ::write(descriptor, text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      int const error = errno;
      ::close(descriptor);
      throw core::InputError(describe_errno("write", path, error));
    }
    done += static_cast<std::size_t>(count);
  }
  if (::close(descriptor) != 0) throw core::InputError(describe_errno("write", path, errno));
  file.commit();
}

std::string read_text_file(std::string const& path, std::size_t limit) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) throw core::InputError(describe_errno("read", path, errno));
  if (S_ISDIR(status.st_mode)) throw core::InputError(path + " is a folder where a file is expected");
  int const descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw core::InputError(describe_errno("read", path, errno));
  std::string text;
  std::array<char, 65536> buffer{};
  while (true) {
    ssize_t const count = ::read(descriptor, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    int const error = errno;
    if (count <= 0 || text.size() + static_cast<std::size_t>(count) > limit) {
      ::close(descriptor);
      if (count < 0) throw core::InputError(describe_errno("read", path, error));
      if (count > 0) throw core::InputError(path + " is larger than " + std::to_string(limit) + " bytes");
      return text;
    }
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

}  // namespace strata::io
