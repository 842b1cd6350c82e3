// SPDX-License-Identifier: Apache-2.0
// Windows beyond 32-bit addresses, and the memory that reading them takes. Not run under sanitizers, which
// keep freed memory.
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "data/loader.hpp"
#include "io/hdf5.hpp"
#include "unit_tests/io/temp_folder.hpp"

namespace {

using namespace strata;
using namespace strata::data;
using namespace strata::test;
using io::Split;

/// Bytes of this process that are in memory now.
Index resident() {
  std::ifstream in("/proc/self/statm");
  Index pages = 0;
  in >> pages >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

/// Byte `place` of the stored parts below: noise, which cannot be compressed.
std::uint8_t noise(Index place) {
  std::uint64_t x = static_cast<std::uint64_t>(place) * 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 29)) * 0xBF58476D1CE4E5B9U;
  return static_cast<std::uint8_t>(x >> 56);
}

/// A dataset of more than 2^32 bytes of which only a few are stored, all others being zero. Enough
/// of them for the reader to believe the size.
void write_sparse(std::string const& path, Index size, std::vector<Window> const& stored) {
  io::File file = io::File::create(path);
  file.set_attribute("/", "format", std::string("strata-dataset"));
  file.set_attribute("/", "version", io::dataset_version);
  file.set_attribute("/", "num_tokens", std::int64_t{256});
  file.make_group("/train");
  std::vector<std::uint64_t> const borders{0, static_cast<std::uint64_t>(size)};
  file.create_dataset("/train/document_offsets", io::ElementType::uint64, {2}).write(std::span(borders));
  io::Dataset data = file.create_dataset("/train/bytes", io::ElementType::uint8, {size}, {.compression = 1});
  for (Window const& window : stored) {
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(window.length));
    for (Index i = 0; i < window.length; ++i) bytes[static_cast<std::size_t>(i)] = noise(window.start + i);
    data.write(window.start, std::span<std::uint8_t const>(bytes));
  }
  file.close();
}

/// Windows of 24 MiB on both sides of 2^31, 2^32 and 2^33 bytes, and the memory they take: two windows and
/// what HDF5 keeps.
TEST(Loader, LargeWindowsBeyond32Bits) {
  TempFolder const folder;
  constexpr Index length = Index{24} << 20;
  constexpr Index size = (Index{1} << 33) + length / 3;
  constexpr Index border = Index{2} << 20;
  std::vector<Window> stored;
  for (int const power : {31, 32, 33}) stored.push_back({(Index{1} << power) - border, 2 * border});
  write_sparse(folder / "d.h5", size, stored);
  io::DatasetFile const file(folder / "d.h5");
  ASSERT_EQ(file.info(Split::train).size, size);
  auto const wanted = [&](Index place) {
    for (Window const& window : stored)
      if (place >= window.start && place < window.start + window.length) return noise(place);
    return std::uint8_t{0};
  };
  auto const check = [&](MicroBatch const& batch, Index start) {
    ASSERT_EQ(batch.rows, 1);
    ASSERT_EQ(batch.windows[0].start, start);
    ASSERT_EQ(batch.bytes.size(), static_cast<std::size_t>(length));
    Index wrong = 0;
    for (Index i = 0; i < length; ++i)
      wrong +=
          batch.bytes[static_cast<std::size_t>(i)] != (i < batch.lengths[0] ? wanted(start + i) : 0) ? 1 : 0;
    EXPECT_EQ(wrong, 0) << start;
  };
  LoaderOptions options;
  options.window_length = length;
  options.depth = 3;
  for (Window const& window : stored) {
    options.start = {0, (window.start + window.length) / length - 1};
    Index const before = resident();
    Loader loader(file, options);
    for (Index k = 0; k < 3; ++k) {
      if (window.start > size - length && k > 0) break;  // the split ends here
      check(loader.next(), (options.start.index + k) * length);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(300));  // whatever is read ahead is there now
    Index const taken = resident() - before;
    EXPECT_LE(taken, static_cast<Index>(BatchMemory{1, length, false, false}.loader_bytes(3)) + (8 << 20));
  }
  EvaluationLoader evaluation(file, Split::train, {{(Index{1} << 32) - length / 2, length}}, 1);
  check(*evaluation.next(), (Index{1} << 32) - length / 2);
}

}  // namespace
