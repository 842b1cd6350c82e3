// SPDX-License-Identifier: Apache-2.0
#include "data/packer.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <span>

#include "core/error.hpp"
#include "io/digest.hpp"

namespace strata::data {

namespace {

constexpr std::size_t buffer_bytes = std::size_t{1} << 20;

/// Bytes [begin, end) of a file, one document of a split.
struct Document {
  io::Split split = io::Split::train;
  SourceFile file;
  std::int64_t begin = 0, end = 0;
};

/// A file opened for reading at an offset.
class Input {
 public:
  Input(std::string const& path, std::int64_t offset) : path_(path) {
    // Non-blocking, lest a pipe that has taken the file's place makes us wait for ever.
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor_ < 0) throw core::InputError(io::describe_errno("read", path, errno));
    struct stat status {};
    if (fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode) ||
        lseek(descriptor_, offset, SEEK_SET) < 0) {
      ::close(descriptor_);
      throw core::InputError(path + " changed while it was read");
    }
  }
  ~Input() { ::close(descriptor_); }
  Input(Input const&) = delete;
  Input& operator=(Input const&) = delete;

  /// Fills as much of `out` as there is; throws when there is nothing more.
  std::size_t read(std::span<std::uint8_t> out) const {
    while (true) {
      ssize_t const count = ::read(descriptor_, out.data(), out.size());
      if (count > 0) return static_cast<std::size_t>(count);
      if (count == 0)
        throw core::InputError(path_ + " became shorter while it was read; pack again when it is complete");
      if (errno != EINTR) throw core::InputError(io::describe_errno("read", path_, errno));
    }
  }

 private:
  std::string const& path_;
  int descriptor_ = -1;
};

/// The documents split by split, each split sorted by path.
std::vector<Document> plan(PackOptions const& options, Warn const& warn) {
  std::vector<Document> documents;
  for (io::Split const split : io::all_splits) {
    for (SourceFile& file :
         find_files(options.paths[static_cast<std::size_t>(split)], options.output, warn)) {
      std::int64_t const size = file.size;
      documents.push_back({split, std::move(file), 0, size});
    }
  }
  std::vector<SourceFile> const shared = find_files(options.split_paths, options.output, warn);
  if (options.split_within) {
    for (SourceFile const& file : shared) {
      double reached = 0;
      std::int64_t begin = 0;
      for (std::size_t s = 0; s < 3; ++s) {
        reached += options.fractions[s];
        bool const last = std::all_of(options.fractions.begin() + static_cast<std::ptrdiff_t>(s) + 1,
                                      options.fractions.end(), [](double f) { return f <= 0; });
        // Half a millionth of a byte keeps 0.9 * 100 at 90, whatever its rounding.
        std::int64_t const end =
            last ? file.size
                 : std::min(file.size,
                            static_cast<std::int64_t>(reached * static_cast<double>(file.size) + 5e-7));
        if (end > begin) documents.push_back({static_cast<io::Split>(s), file, begin, end});
        begin = std::max(begin, end);
      }
      if (file.size == 0) documents.push_back({io::Split::train, file, 0, 0});
    }
  } else if (!shared.empty()) {
    std::vector<io::Split> const splits = deal_documents(shared, options.fractions);
    for (std::size_t f = 0; f < shared.size(); ++f)
      documents.push_back({splits[f], shared[f], 0, shared[f].size});
  }
  std::stable_sort(documents.begin(), documents.end(), [](Document const& a, Document const& b) {
    return a.split != b.split ? a.split < b.split : a.file.path < b.file.path;
  });
  return documents;
}

void warn_of_leaks(std::vector<Document> const& documents, Warn const& warn) {
  std::vector<std::string const*> paths;
  for (Document const& document : documents) {
    if (document.end - document.begin == document.file.size && document.file.size > 0) {
      paths.push_back(&document.file.path);
    }
  }
  std::sort(paths.begin(), paths.end(), [](auto const* a, auto const* b) { return *a < *b; });
  for (std::size_t i = 1; i < paths.size(); ++i) {
    if (*paths[i] == *paths[i - 1]) warn(*paths[i] + " is in more than one split");
  }
}

void add_little_endian(io::Sha256& digest, std::int64_t value) {
  std::array<std::uint8_t, 8> bytes{};
  for (std::size_t i = 0; i < 8; ++i)
    bytes[i] = static_cast<std::uint8_t>(static_cast<std::uint64_t>(value) >> (8 * i));
  digest.update(bytes);
}

}  // namespace

double byte_entropy(std::array<std::int64_t, 256> const& histogram) {
  double total = 0;
  for (std::int64_t const count : histogram) total += static_cast<double>(count);
  double bits = 0;
  for (std::int64_t const count : histogram) {
    if (count > 0) bits += static_cast<double>(count) / total * std::log2(total / static_cast<double>(count));
  }
  return bits;
}

PackResult pack(PackOptions const& options) {
  Warn const warn = options.warn ? options.warn : [](std::string const&) {};
  bool const any = options.fractions[0] > 0 || options.fractions[1] > 0 || options.fractions[2] > 0;
  if (!options.split_paths.empty() && !any) {
    throw core::InputError(
        "files were named without a split: use --train, --validation and --test, or --split FRACTIONS");
  }
  if (!options.overwrite && access(options.output.c_str(), F_OK) == 0) {
    throw core::InputError(options.output + " exists already; use --force to replace it");
  }
  if (options.images && options.split_within)
    throw core::InputError("--split-within would cut images; deal whole ones with --split alone");
  std::vector<Document> const documents = plan(options, warn);
  std::int64_t total = 0;
  for (Document const& document : documents) total += document.end - document.begin;
  if (documents.empty()) throw core::InputError("there is nothing to pack: no files were found");
  if (total == 0) throw core::InputError("there is nothing to pack: all files found are empty");
  warn_of_leaks(documents, warn);

  io::DatasetWriter writer(options.output,
                           {256, false, options.compression, options.overwrite, options.tool_version});
  PackResult result;
  std::array<std::array<std::int64_t, 256>, 3> histograms{};
  io::Sha256 digest;
  std::vector<std::uint8_t> buffer(buffer_bytes);
  std::int64_t done = 0;
  for (Document const& document : documents) {
    auto const s = static_cast<std::size_t>(document.split);
    std::int64_t const in_file = document.end - document.begin;
    std::int64_t size = in_file;
    std::vector<std::uint8_t> pixels;
    if (options.images) {
      if (options.stop && options.stop()) throw PackStopped();
      pixels = in_order(io::read_image(document.file.path), *options.images, document.file.path);
      size = static_cast<std::int64_t>(pixels.size());
    }
    digest.update(std::string(to_string(document.split)) + '\0' + document.file.relative + '\0');
    add_little_endian(digest, size);
    auto const take = [&](std::span<std::uint8_t const> part, std::int64_t of_file) {
      digest.update(part);
      for (std::uint8_t const byte : part) ++histograms[s][byte];
      writer.append(document.split, part);
      done += of_file;
      if (options.progress) options.progress(done, total);
    };
    if (options.images) {
      take(pixels, in_file);
    } else {
      Input const input(document.file.path, document.begin);
      for (std::int64_t left = size; left > 0;) {
        if (options.stop && options.stop()) throw PackStopped();
        auto const room = std::min<std::size_t>(buffer.size(), static_cast<std::size_t>(left));
        std::size_t const count = input.read(std::span(buffer.data(), room));
        take(std::span<std::uint8_t const>(buffer.data(), count), static_cast<std::int64_t>(count));
        left -= static_cast<std::int64_t>(count);
      }
    }
    writer.end_document(document.split);
    PackedSplit& split = result.splits[s];
    ++split.documents;
    split.empty_documents += size == 0 ? 1 : 0;
    split.bytes += size;
  }
  if (options.stop && options.stop()) throw PackStopped();
  for (std::size_t s = 0; s < 3; ++s) result.splits[s].entropy = byte_entropy(histograms[s]);
  result.source_digest = digest.finish();
  writer.close(result.source_digest);
  return result;
}

}  // namespace strata::data
