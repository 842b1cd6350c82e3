// SPDX-License-Identifier: Apache-2.0
// Files in a temporary folder (TMPDIR), of all ranks together: plain reading and writing as the limit, pack,
// reading windows, checkpoints. What is read has just been written and comes from the system's cache; what is
// written is synced, as the program always does. The number of iterations is fixed, so that ranks never
// disagree on it, and the time is that of the slowest rank.

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <system_error>

#include "data/loader.hpp"
#include "data/packer.hpp"
#include "io/checkpoint_file.hpp"
#include "parallel/block.hpp"
#include "parallel/communicator.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

constexpr Index window_length = 8192;

using parallel::Communicator;

/// A folder of its own for one benchmark of all ranks, gone with it.
class Folder {
 public:
  explicit Folder(Communicator const& ranks) : ranks_(ranks) {
    if (ranks.is_root()) {
      // mkdtemp replaces six X.
      path_ = (std::filesystem::temp_directory_path() / "strata-perf-").string() + std::string(6, 'X');
      if (mkdtemp(path_.data()) == nullptr)
        throw std::system_error(errno, std::generic_category(), "cannot create " + path_);
    }
    path_ = ranks.broadcast(path_);
  }
  ~Folder() {
    ranks_.barrier();
    std::error_code ignored;
    if (ranks_.is_root()) std::filesystem::remove_all(path_, ignored);
  }
  Folder(Folder const&) = delete;
  Folder& operator=(Folder const&) = delete;

  std::string file(char const* name) const { return path_ + "/" + name; }

 private:
  Communicator const& ranks_;
  std::string path_;
};

/// Repeats `call`, in which all ranks together move `bytes` bytes between memory and files.
void measure_io(benchmark::State& state, Communicator const& ranks, Index bytes,
                std::function<void()> const& call) {
  using Clock = std::chrono::steady_clock;
  call();
  for ([[maybe_unused]] auto _ : state) {
    ranks.barrier();
    Clock::time_point const start = Clock::now();
    call();
    state.SetIterationTime(ranks.max(std::chrono::duration<double>(Clock::now() - start).count()));
  }
  state.counters["ranks"] = ranks.size();
  state.counters["GB/s"] =
      benchmark::Counter(1e-9 * static_cast<double>(bytes), benchmark::Counter::kIsIterationInvariantRate);
}

/// Each rank's part of one file by read() or write(), 4 MiB at a time; what is written is synced.
void plain(benchmark::State& state, Index bytes, bool writes) {
  Communicator const ranks;
  Folder const folder(ranks);
  std::string const path = folder.file("plain");
  parallel::Block const mine = parallel::block_of(bytes, ranks.rank(), ranks.size());
  std::vector<std::uint8_t> piece(std::size_t{1} << 22);
  auto const move = [&](bool out) {
    int const file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    bool good = file >= 0;
    for (Index at = mine.first; good && at < mine.last;) {
      auto const want = static_cast<std::size_t>(std::min<Index>(mine.last - at, Index(1) << 22));
      ssize_t const done =
          out ? ::pwrite(file, piece.data(), want, at) : ::pread(file, piece.data(), want, at);
      good = done > 0;
      at += done;
    }
    good = good && (!out || ::fsync(file) == 0);
    ::close(file);
    if (!good) throw std::system_error(errno, std::generic_category(), path);
  };
  move(true);
  measure_io(state, ranks, bytes, [&] { move(writes); });
}
void plain_write(benchmark::State& state, Index bytes) { plain(state, bytes, true); }
void plain_read(benchmark::State& state, Index bytes) { plain(state, bytes, false); }

/// Eight documents that add up to `bytes`, packed into one training split.
data::PackOptions pack_options(Folder const& folder, Index bytes) {
  std::vector<std::uint8_t> const content = random_bytes(bytes / 8);
  data::PackOptions options;
  options.output = folder.file("dataset.h5");
  options.overwrite = true;
  options.tool_version = "perf";
  options.warn = [](std::string const&) {};
  for (int document = 0; document < 8; ++document) {
    std::string const path = folder.file(("document" + std::to_string(document)).c_str());
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<char const*>(content.data()), static_cast<std::streamsize>(content.size()));
    options.paths[0].push_back(path);
  }
  return options;
}

/// The dataset of one folder, packed by rank 0.
std::string packed(Folder const& folder, Communicator const& ranks, Index bytes) {
  if (ranks.is_root()) data::pack(pack_options(folder, bytes));
  ranks.barrier();
  return folder.file("dataset.h5");
}

void pack(benchmark::State& state, Index bytes) {
  Communicator const ranks;
  Folder const folder(ranks);
  std::optional<data::PackOptions> options;
  if (ranks.is_root()) options = pack_options(folder, bytes);
  measure_io(state, ranks, bytes, [&] {
    if (options) data::pack(*options);
  });
}

/// Each rank reads its own windows.
void dataset_read(benchmark::State& state, Index bytes) {
  Communicator const ranks;
  Folder const folder(ranks);
  io::DatasetFile const file(packed(folder, ranks, bytes));
  std::vector<std::uint8_t> piece(1 << 18);
  auto const step = static_cast<Index>(piece.size());
  parallel::Block const mine = parallel::block_of(bytes / step, ranks.rank(), ranks.size());
  measure_io(state, ranks, bytes / step * step, [&] {
    for (Index i = mine.first; i < mine.last; ++i) file.read(io::Split::train, i * step, std::span(piece));
  });
}

void loader(benchmark::State& state, Index bytes) {
  Communicator const ranks;
  Folder const folder(ranks);
  io::DatasetFile const file(packed(folder, ranks, bytes));
  data::LoaderOptions options;
  options.window_length = window_length;
  options.batch_size = 4;
  options.rank = ranks.rank();
  options.ranks = ranks.size();
  options.shuffle = true;
  data::Loader batches(file, options);
  Index const global = window_length * options.batch_size * ranks.size();
  Index const count = std::max<Index>(1, bytes / global);
  measure_io(state, ranks, count * global, [&] {
    for (Index i = 0; i < count; ++i) benchmark::DoNotOptimize(batches.next().bytes.data());
  });
}

/// Sixteen float arrays that add up to `bytes`, whole on every rank.
struct Arrays {
  explicit Arrays(Index bytes) : values(static_cast<std::size_t>(bytes / 64), 1.0F) {}
  io::Shape shape() const { return {static_cast<Index>(values.size())}; }
  void write(std::string const& path, Communicator const& ranks) const {
    io::CheckpointWriter writer(path, ranks);
    for (int i = 0; i < 16; ++i)
      writer.array("parameters", std::to_string(i), shape(), [this](Index first, std::span<float> out) {
        std::copy_n(values.begin() + first, out.size(), out.begin());
      });
    writer.close();
  }
  void read(io::CheckpointReader const& reader, std::function<void(std::span<float>)> const& then) {
    for (int i = 0; i < 16; ++i)
      reader.array("parameters", std::to_string(i), shape(), [&](Index first, std::span<float const> in) {
        auto const to = values.begin() + first;
        std::copy(in.begin(), in.end(), to);
        then(std::span(to, in.size()));
      });
  }
  std::vector<float> values;
};

void checkpoint_write(benchmark::State& state, Index bytes) {
  Communicator const ranks;
  Folder const folder(ranks);
  Arrays const arrays(bytes);
  measure_io(state, ranks, bytes, [&] { arrays.write(folder.file("checkpoint.h5"), ranks); });
}

/// All ranks get all of it: by reading it in parts and sending these around, as the program does; by reading
/// all of it each; or by one that reads and sends.
enum class Reading { in_parts, each, by_root };
void checkpoint_reading(benchmark::State& state, Index bytes, Reading way) {
  Communicator const ranks;
  Communicator const alone(MPI_COMM_SELF);
  Folder const folder(ranks);
  Arrays arrays(bytes);
  std::string const path = folder.file("checkpoint.h5");
  arrays.write(path, ranks);
  measure_io(state, ranks, bytes, [&] {
    auto const nothing = [](std::span<float>) {};
    if (way == Reading::in_parts) {
      arrays.read(io::CheckpointReader(path, ranks), nothing);
    } else if (way == Reading::each) {
      arrays.read(io::CheckpointReader(path, alone), nothing);
    } else if (ranks.is_root()) {
      arrays.read(io::CheckpointReader(path, alone),
                  [&](std::span<float> part) { ranks.broadcast(part.data(), part.size_bytes()); });
    } else {
      // Pieces of 16 MiB, as the reader makes them.
      for (int i = 0; i < 16; ++i)
        for (std::size_t begin = 0; begin < arrays.values.size(); begin += std::size_t{1} << 22) {
          std::size_t const count = std::min(arrays.values.size() - begin, std::size_t{1} << 22);
          ranks.broadcast(arrays.values.data() + begin, count * sizeof(float));
        }
    }
  });
}
void checkpoint_read(benchmark::State& state, Index bytes) {
  checkpoint_reading(state, bytes, Reading::in_parts);
}
void checkpoint_read_each(benchmark::State& state, Index bytes) {
  checkpoint_reading(state, bytes, Reading::each);
}
void checkpoint_read_by_root(benchmark::State& state, Index bytes) {
  checkpoint_reading(state, bytes, Reading::by_root);
}

void add_size(char const* group, Index bytes, Index iterations) {
  auto const with = [&](char const* name, void (*body)(benchmark::State&, Index)) {
    add(name, "bytes", group, std::to_string(bytes), [=](auto& state) { body(state, bytes); })
        ->Unit(benchmark::kMillisecond)
        ->Iterations(iterations);
  };
  with("plain_write", plain_write);
  with("plain_read", plain_read);
  with("pack", pack);
  with("dataset_read", dataset_read);
  with("loader", loader);
  with("checkpoint_write", checkpoint_write);
  with("checkpoint_read", checkpoint_read);
  with("checkpoint_read_each", checkpoint_read_each);
  with("checkpoint_read_by_root", checkpoint_read_by_root);
}

Registration const registration([] {
  add_size("smoke", Index(1) << 20, 2);
  add_size("local", Index(1) << 26, 10);
  add_size("long", Index(1) << 30, 3);
});

}  // namespace
}  // namespace strata::perf
