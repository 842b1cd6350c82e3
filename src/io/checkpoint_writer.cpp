// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <optional>
#include <tuple>

#include "io/checkpoint_detail.hpp"
#include "io/checkpoint_file.hpp"
#include "io/seal.hpp"
#include "parallel/together.hpp"

namespace strata::io {

using namespace detail;
using parallel::agree;
using parallel::Block;

namespace {

/// An array that all ranks write.
struct SharedArray {
  std::string object;
  Shape shape;
  FillPiece fill;
  Ranges mine;
};

/// Elements that a rank wrote, and their checksum.
struct Part {
  std::uint64_t array = 0;
  Index first = 0, count = 0;
  std::uint32_t crc = 0;
};

/// Pieces of at most piece_bytes.
Ranges cut(Ranges const& ranges) {
  constexpr auto most = piece_bytes / static_cast<Index>(sizeof(float));
  Ranges result;
  for (Block const& range : ranges) {
    for (Index first = range.first; first < range.last; first += most)
      result.push_back({first, std::min(first + most, range.last)});
  }
  return result;
}

/// Every rank's parts, in the order of the arrays and of their elements, on rank 0.
std::vector<Part> gather(parallel::Communicator const& ranks, std::vector<Part> const& mine) {
  std::string const bytes(reinterpret_cast<char const*>(mine.data()), mine.size() * sizeof(Part));
  std::vector<Part> all;
  for (std::string const& theirs : ranks.gather(bytes)) {
    std::size_t const before = all.size();
    all.resize(before + theirs.size() / sizeof(Part));
    if (!theirs.empty()) std::memcpy(all.data() + before, theirs.data(), theirs.size());
  }
  std::sort(all.begin(), all.end(), [](Part const& a, Part const& b) {
    return std::tie(a.array, a.first) < std::tie(b.array, b.first);
  });
  return all;
}

}  // namespace

struct CheckpointWriter::Impl {
  Impl(std::string const& path, parallel::Communicator const* group)
      : ranks(group != nullptr && group->size() > 1 ? group : nullptr),
        root(ranks == nullptr || ranks->is_root()) {
    on_root([&] {
      target.emplace(path);
      file.emplace(File::create(target->partial()));
      file->set_attribute("/", "format", std::string("strata-checkpoint"));
      file->set_attribute("/", "version", checkpoint_version);
      file->set_attribute("/", "sealed", std::int64_t{1});
    });
  }

  /// The structure of the file is rank 0's alone. What goes wrong with it waits for close().
  template <class F>
  void on_root(F const& f) {
    if (ranks == nullptr) {
      f();
    } else if (root && problem.empty()) {
      problem = parallel::problem_of(f);
    }
  }

  Dataset create(std::string const& group, std::string const& object, ElementType type, Shape const& shape) {
    file->make_group(group_path(group));
    return file->create_dataset(object, type, shape, {.contiguous = true});
  }

  /// piece(first, count) gives a span of these elements, valid until its next call.
  template <class T, class Piece>
  void write(Dataset& dataset, std::string const& object, Piece const& piece) {
    std::uint32_t crc = 0;
    for_pieces(dataset, [&](Index first, Index count) {
      std::span<T const> const part = piece(first, static_cast<std::size_t>(count));
      dataset.write(first, part);
      crc = checksum(part, crc);
    });
    dataset.flush();
    file->set_attribute(object, checksum_name, std::int64_t{crc});
  }

  template <class T>
  void array(std::string const& group, std::string const& name, Shape const& shape, T const* data) {
    on_root([&] {
      std::string const object = object_path(group, name);
      Dataset dataset = create(group, object, element_type<T>(), shape);
      write<T>(dataset, object,
               [&](Index first, std::size_t count) { return std::span(data + first, count); });
    });
  }

  void array(std::string const& group, std::string const& name, Shape const& shape, FillPiece const& fill,
             Ranges const* mine) {
    std::string const object = object_path(group, name);
    if (ranks == nullptr) {
      Dataset dataset = create(group, object, ElementType::float32, shape);
      std::vector<float> buffer(static_cast<std::size_t>(largest_piece(dataset)));
      write<float>(dataset, object, [&](Index first, std::size_t count) {
        std::span<float> const part(buffer.data(), count);
        fill(first, part);
        return std::span<float const>(part);
      });
      return;
    }
    if (shape.empty()) throw std::logic_error(object + ": a single number is no array to share");
    on_root([&] {
      create(group, object, ElementType::float32, shape);
      file->set_attribute(object, checksum_name, std::int64_t{0});  // holds the place
    });
    Ranges const even = {parallel::block_of(element_count(shape), ranks->rank(), ranks->size())};
    shared.push_back({object, shape, fill, mine != nullptr ? *mine : even});
  }

  /// Collective: this rank's elements of all shared arrays, piece by piece.
  std::vector<Part> write_shared(std::string const& path) const {
    // Asked before, because ranks that see no such file would leave the others waiting in MPI-IO.
    parallel::together(*ranks, [&] { require_writable(path); });
    std::optional<File> all;
    parallel::together(*ranks, [&] { all.emplace(File::open_shared(path, *ranks)); });
    std::vector<Part> parts;
    std::vector<float> buffer;
    std::string wrong;
    for (std::size_t a = 0; a < shared.size(); ++a) {
      Dataset dataset = all->dataset(shared[a].object);
      Ranges const pieces = cut(shared[a].mine);
      auto const calls = static_cast<std::size_t>(ranks->max(static_cast<double>(pieces.size())));
      for (std::size_t i = 0; i < calls; ++i) {
        Block const piece = i < pieces.size() ? pieces[i] : Block{};
        if (static_cast<Index>(buffer.size()) < piece.size())
          buffer.resize(static_cast<std::size_t>(piece.size()));
        std::span<float> const part(buffer.data(), static_cast<std::size_t>(piece.size()));
        if (wrong.empty() && !part.empty())
          wrong = parallel::problem_of([&] { shared[a].fill(piece.first, part); });
        agree(*ranks, wrong);
        wrong = dataset.write_shared(piece.first, std::span<float const>(part));
        if (!part.empty())
          parts.push_back({a, piece.first, piece.size(), checksum(std::span<float const>(part))});
      }
    }
    agree(*ranks, wrong);
    parallel::together(*ranks, [&] { all->close(); });
    return parts;
  }

  /// Rank 0: the checksums of whole arrays out of those of their parts.
  void write_checksums(std::string const& path, std::vector<Part> const& parts) const {
    File again = File::reopen(path);
    auto part = parts.begin();
    for (std::size_t a = 0; a < shared.size(); ++a) {
      Index next = 0;
      std::uint32_t crc = 0;
      for (; part != parts.end() && part->array == a; ++part) {
        if (part->first != next) break;
        crc = crc32_joined(crc, part->crc, static_cast<std::uint64_t>(part->count) * sizeof(float));
        next += part->count;
      }
      if (next != element_count(shared[a].shape))
        throw std::logic_error(shared[a].object + ": not every element belongs to exactly one rank");
      again.set_attribute(shared[a].object, checksum_name, std::int64_t{crc});
    }
    again.close();
  }

  void close() {
    on_root([&] { file->close(); });
    if (ranks == nullptr) {
      seal_file(target->partial());
      target->commit();
      return;
    }
    on_root([&] { target->reserve(); });
    agree(*ranks, problem);
    std::string const path = ranks->broadcast(root ? target->partial() : std::string());
    std::vector<Part> const parts = gather(*ranks, write_shared(path));
    parallel::on_root(*ranks, [&] { write_checksums(path, parts); });
    seal_file(path, *ranks);
    parallel::on_root(*ranks, [&] { target->commit(); });
  }

  parallel::Communicator const* ranks;  // null: one process alone
  bool root;
  std::string problem;               // of rank 0
  std::optional<AtomicFile> target;  // of rank 0
  std::optional<File> file;          // of rank 0
  std::vector<SharedArray> shared;
};

CheckpointWriter::CheckpointWriter(std::string const& path) : impl_(std::make_unique<Impl>(path, nullptr)) {}
CheckpointWriter::CheckpointWriter(std::string const& path, parallel::Communicator const& ranks)
    : impl_(std::make_unique<Impl>(path, &ranks)) {}
CheckpointWriter::~CheckpointWriter() = default;

void CheckpointWriter::array(std::string const& group, std::string const& name, Shape const& shape,
                             float const* data) {
  impl_->array(group, name, shape, data);
}
void CheckpointWriter::array(std::string const& group, std::string const& name, Shape const& shape,
                             double const* data) {
  impl_->array(group, name, shape, data);
}
void CheckpointWriter::array(std::string const& group, std::string const& name, Shape const& shape,
                             std::int64_t const* data) {
  impl_->array(group, name, shape, data);
}
void CheckpointWriter::array(std::string const& group, std::string const& name, Shape const& shape,
                             FillPiece const& fill) {
  impl_->array(group, name, shape, fill, nullptr);
}
void CheckpointWriter::array(std::string const& group, std::string const& name, Shape const& shape,
                             FillPiece const& fill, Ranges const& mine) {
  impl_->array(group, name, shape, fill, &mine);
}

void CheckpointWriter::text(std::string const& name, std::string const& value) {
  impl_->on_root([&] { impl_->file->write_text(object_path("/", name), value); });
}
void CheckpointWriter::text(std::string const& group, std::string const& key, std::string const& value) {
  impl_->on_root([&] {
    impl_->file->make_group(group_path(group));
    impl_->file->set_attribute(group_path(group), key, value);
  });
}
void CheckpointWriter::number(std::string const& group, std::string const& key, std::int64_t value) {
  impl_->on_root([&] {
    impl_->file->make_group(group_path(group));
    impl_->file->set_attribute(group_path(group), key, value);
  });
}
void CheckpointWriter::number(std::string const& group, std::string const& key, double value) {
  impl_->on_root([&] {
    impl_->file->make_group(group_path(group));
    impl_->file->set_attribute(group_path(group), key, value);
  });
}

void CheckpointWriter::close() { impl_->close(); }

}  // namespace strata::io
