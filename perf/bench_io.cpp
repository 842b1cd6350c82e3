// SPDX-License-Identifier: Apache-2.0
// Files in a temporary folder (TMPDIR): pack, reading windows, checkpoints. What is read has just been
// written and comes from the system's cache; what is written is synced, as the program always does.

#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "data/loader.hpp"
#include "data/packer.hpp"
#include "io/checkpoint_file.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

constexpr Index window_length = 8192;

/// A folder of its own for one benchmark, gone with it.
class Folder {
 public:
  Folder() {
    // mkdtemp replaces six X.
    std::string name =
        (std::filesystem::temp_directory_path() / "strata-perf-").string() + std::string(6, 'X');
    if (mkdtemp(name.data()) == nullptr)
      throw std::system_error(errno, std::generic_category(), "cannot create " + name);
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(Folder const&) = delete;
  Folder& operator=(Folder const&) = delete;

  std::string file(char const* name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

/// Repeats `call`, which moves `bytes` bytes between memory and files.
void measure_io(benchmark::State& state, Index bytes, std::function<void()> const& call) {
  using Clock = std::chrono::steady_clock;
  call();
  for ([[maybe_unused]] auto _ : state) {
    Clock::time_point const start = Clock::now();
    call();
    state.SetIterationTime(std::chrono::duration<double>(Clock::now() - start).count());
  }
  state.counters["GB/s"] =
      benchmark::Counter(1e-9 * static_cast<double>(bytes), benchmark::Counter::kIsIterationInvariantRate);
}

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

void pack(benchmark::State& state, Index bytes) {
  Folder const folder;
  data::PackOptions const options = pack_options(folder, bytes);
  measure_io(state, bytes, [&] { data::pack(options); });
}

void dataset_read(benchmark::State& state, Index bytes) {
  Folder const folder;
  data::PackOptions const options = pack_options(folder, bytes);
  data::pack(options);
  io::DatasetFile const file(options.output);
  std::vector<std::uint8_t> piece(1 << 18);
  auto const step = static_cast<Index>(piece.size());
  measure_io(state, bytes / step * step, [&] {
    for (Index offset = 0; offset + step <= bytes; offset += step)
      file.read(io::Split::train, offset, std::span(piece));
  });
}

void loader(benchmark::State& state, Index bytes) {
  Folder const folder;
  data::PackOptions const packing = pack_options(folder, bytes);
  data::pack(packing);
  io::DatasetFile const file(packing.output);
  data::LoaderOptions options;
  options.window_length = window_length;
  options.batch_size = 4;
  options.shuffle = true;
  data::Loader batches(file, options);
  Index const count = std::max<Index>(1, bytes / (window_length * options.batch_size));
  measure_io(state, count * window_length * options.batch_size, [&] {
    for (Index i = 0; i < count; ++i) benchmark::DoNotOptimize(batches.next().bytes.data());
  });
}

/// Sixteen float arrays that add up to `bytes`.
struct Arrays {
  explicit Arrays(Index bytes) : values(static_cast<std::size_t>(bytes / 64), 1.0F) {}
  io::Shape shape() const { return {static_cast<Index>(values.size())}; }
  void write(std::string const& path) const {
    io::CheckpointWriter writer(path);
    for (int i = 0; i < 16; ++i) writer.array("parameters", std::to_string(i), shape(), values.data());
    writer.close();
  }
  std::vector<float> values;
};

void checkpoint_write(benchmark::State& state, Index bytes) {
  Folder const folder;
  Arrays const arrays(bytes);
  measure_io(state, bytes, [&] { arrays.write(folder.file("checkpoint.h5")); });
}

void checkpoint_read(benchmark::State& state, Index bytes) {
  Folder const folder;
  Arrays arrays(bytes);
  arrays.write(folder.file("checkpoint.h5"));
  measure_io(state, bytes, [&] {
    io::CheckpointReader const reader(folder.file("checkpoint.h5"));
    for (int i = 0; i < 16; ++i)
      reader.array("parameters", std::to_string(i), arrays.shape(), arrays.values.data());
  });
}

void add_size(char const* group, Index bytes) {
  auto const with = [&](char const* name, void (*body)(benchmark::State&, Index)) {
    add(name, "bytes", group, std::to_string(bytes), [=](auto& state) {
      body(state, bytes);
    })->Unit(benchmark::kMillisecond);
  };
  with("pack", pack);
  with("dataset_read", dataset_read);
  with("loader", loader);
  with("checkpoint_write", checkpoint_write);
  with("checkpoint_read", checkpoint_read);
}

Registration const registration([] {
  add_size("smoke", Index(1) << 20);
  add_size("local", Index(1) << 26);
  add_size("long", Index(1) << 30);
});

}  // namespace
}  // namespace strata::perf
