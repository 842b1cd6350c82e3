// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>

#include "core/error.hpp"
#include "data/packer.hpp"

namespace strata::data {

namespace {

/// What tells two names of one file apart from two files.
using Identity = std::pair<dev_t, ino_t>;

class Finder {
 public:
  Finder(std::string const& except, Warn const& warn) : warn_(warn) {
    struct stat status {};
    if (!except.empty() && stat(except.c_str(), &status) == 0) except_ = {status.st_dev, status.st_ino};
  }

  void enter_argument(std::string path) {
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    struct stat status {};
    if (stat(path.c_str(), &status) != 0) throw core::InputError(io::describe_errno("read", path, errno));
    if (!S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode)) {
      throw core::InputError(path + " is neither a file nor a folder");
    }
    auto const slash = path.rfind('/');
    enter(path, slash == std::string::npos ? path : path.substr(slash + 1), status, true);
  }

  std::vector<SourceFile> files;

 private:
  void enter(std::string const& path, std::string const& relative, struct stat const& status, bool top) {
    Identity const identity{status.st_dev, status.st_ino};
    if (S_ISDIR(status.st_mode)) {
      if (std::find(above_.begin(), above_.end(), identity) != above_.end()) {
        warn_(path + " leads back to a folder above it and is skipped");
        return;
      }
      above_.push_back(identity);
      list(path, top ? "" : relative + "/");
      above_.pop_back();
    } else if (!S_ISREG(status.st_mode)) {
      warn_(path + " is not a regular file and is skipped");
    } else if (identity == except_) {
      warn_(path + " is the output and is skipped");
    } else {
      if (access(path.c_str(), R_OK) != 0) throw core::InputError(io::describe_errno("read", path, errno));
      files.push_back({path, relative, status.st_size});
    }
  }

  void list(std::string const& folder, std::string const& relative) {
    std::unique_ptr<DIR, int (*)(DIR*)> const handle(opendir(folder.c_str()), closedir);
    if (!handle) throw core::InputError(io::describe_errno("read the folder", folder, errno));
    std::vector<std::string> names;
    while (true) {
      errno = 0;
      dirent const* const entry = readdir(handle.get());
      if (entry == nullptr) {
        if (errno != 0) throw core::InputError(io::describe_errno("read the folder", folder, errno));
        break;
      }
      std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(std::move(name));
    }
    std::sort(names.begin(), names.end());
    for (std::string const& name : names) {
      std::string const path = folder == "/" ? folder + name : folder + "/" + name;
      struct stat status {};
      if (stat(path.c_str(), &status) != 0) {
        if (errno != ENOENT && errno != ELOOP)
          throw core::InputError(io::describe_errno("read", path, errno));
        warn_(path + " is a link that leads nowhere and is skipped");
        continue;
      }
      enter(path, relative + name, status, false);
    }
  }

  Warn const& warn_;
  Identity except_{};
  std::vector<Identity> above_;
};

}  // namespace

std::vector<SourceFile> find_files(std::vector<std::string> const& paths, std::string const& except,
                                   Warn const& warn) {
  Finder finder(except, warn);
  for (std::string const& path : paths) finder.enter_argument(path);
  auto& files = finder.files;
  auto const by_path = [](SourceFile const& a, SourceFile const& b) { return a.path < b.path; };
  std::stable_sort(files.begin(), files.end(), by_path);
  std::vector<SourceFile> result;
  for (SourceFile& file : files) {
    if (!result.empty() && result.back().path == file.path) {
      warn(file.path + " is named twice and taken once");
    } else {
      result.push_back(std::move(file));
    }
  }
  return result;
}

std::array<double, 3> parse_fractions(std::string const& text) {
  std::array<double, 3> fractions{0, 0, 0};
  auto const refuse = [&text] {
    throw core::InputError(
        "--split takes up to three fractions for train, validation and test that add up to 1, for "
        "example 0.9,0.05,0.05; not '" +
        text + "'");
  };
  char const* at = text.data();
  char const* const end = at + text.size();
  double sum = 0;
  for (std::size_t s = 0;; ++s) {
    double value = 0;
    auto const parsed = std::from_chars(at, end, value);
    if (s == 3 || parsed.ec != std::errc() || !(value >= 0) || !(value <= 1)) refuse();
    fractions[s] = value;
    sum += value;
    at = parsed.ptr;
    if (at == end) break;
    if (*at != ',') refuse();
    ++at;
  }
  if (std::abs(sum - 1) > 1e-6) refuse();
  return fractions;
}

std::vector<io::Split> deal_documents(std::vector<SourceFile> const& files,
                                      std::array<double, 3> const& fractions) {
  std::array<double, 3> dealt{};
  std::array<std::int64_t, 3> filled{};  // documents that are not empty
  double total = 0;
  std::vector<io::Split> result;
  result.reserve(files.size());
  for (SourceFile const& file : files) {
    auto const size = static_cast<double>(file.size);
    total += size;
    std::size_t best = 3;
    for (std::size_t s = 0; s < 3; ++s) {
      if (fractions[s] <= 0) continue;
      if (best == 3 || fractions[s] * total - dealt[s] > fractions[best] * total - dealt[best]) best = s;
    }
    dealt[best] += size;
    if (file.size > 0) ++filled[best];
    result.push_back(static_cast<io::Split>(best));
  }
  // A split that came out with nothing takes, from the splits that can spare one, the document nearest its
  // share.
  for (std::size_t s = 0; s < 3; ++s) {
    if (fractions[s] <= 0 || filled[s] > 0) continue;
    std::size_t nearest = files.size();
    for (std::size_t f = 0; f < files.size(); ++f) {
      auto const distance = [&](std::size_t at) {
        return std::abs(static_cast<double>(files[at].size) - fractions[s] * total);
      };
      if (files[f].size == 0 || filled[static_cast<std::size_t>(result[f])] < 2) continue;
      if (nearest == files.size() || distance(f) < distance(nearest)) nearest = f;
    }
    if (nearest == files.size()) {
      throw core::InputError("too few documents to give every split one: there are " +
                             std::to_string(files.size()) +
                             ", some perhaps empty; add files, or cut each one with --split-within");
    }
    --filled[static_cast<std::size_t>(result[nearest])];
    ++filled[s];
    result[nearest] = static_cast<io::Split>(s);
  }
  return result;
}

}  // namespace strata::data
