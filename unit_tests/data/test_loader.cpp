// SPDX-License-Identifier: Apache-2.0
// Splits of increasing numbers, so that any mistake of a loader is visible arithmetic.

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "core/error.hpp"
#include "data/loader.hpp"
#include "unit_tests/io/temp_folder.hpp"

namespace {

using namespace strata;
using namespace strata::data;
using namespace strata::test;
using io::Split;

/// Tokens 0, 1, 2, ... with weight token / 2.
void write_counting(std::string const& path, int total, bool weights = false) {
  io::DatasetWriter writer(path, {65536, weights, 0, true, "test"});
  std::vector<std::uint16_t> tokens;
  std::vector<float> halves;
  for (int i = 0; i < total; ++i) {
    tokens.push_back(static_cast<std::uint16_t>(i));
    if (weights) halves.push_back(static_cast<float>(i) / 2);
  }
  writer.append(Split::train, std::span(tokens), std::span(halves));
  writer.end_document(Split::train);
  writer.close("");
}

struct Row {
  Index sample = 0;
  std::vector<std::uint16_t> tokens;
  friend bool operator==(Row const&, Row const&) = default;
};

void collect(MicroBatch const& batch, std::vector<Row>& rows) {
  for (Index r = 0; r < batch.rows; ++r) {
    Row row{batch.first_sample + r, {}};
    auto const length = batch.lengths[static_cast<std::size_t>(r)];
    for (Index t = 0; t < batch.stride; ++t) {
      std::uint16_t const token = batch.tokens[static_cast<std::size_t>(r * batch.stride + t)];
      if (t < length) {
        row.tokens.push_back(token);
      } else {
        EXPECT_EQ(token, 0) << "behind the end of a row";
      }
    }
    rows.push_back(std::move(row));
  }
}

/// All rows of `steps` steps of all ranks, in the order of samples.
std::vector<Row> all_rows(io::DatasetFile const& file, LoaderOptions options, Index ranks,
                          Index micro_batches, Index batch_size, Index steps) {
  std::vector<Row> rows;
  options.ranks = ranks;
  options.micro_batches = micro_batches;
  options.batch_size = batch_size;
  for (options.rank = 0; options.rank < ranks; ++options.rank) {
    Loader loader(file, options);
    for (Index k = 0; k < steps; ++k) {
      for (Index m = 0; m < micro_batches; ++m) {
        MicroBatch const& batch = loader.next();
        EXPECT_EQ(batch.step, k);
        EXPECT_EQ(batch.micro_batch, m);
        EXPECT_EQ(loader.order().counter(batch.place),
                  loader.order().counter(options.start) + k * ranks * micro_batches * batch_size);
        EXPECT_EQ(batch.next_place, loader.order().advance(batch.place, ranks * micro_batches * batch_size));
        collect(batch, rows);
      }
    }
  }
  std::sort(rows.begin(), rows.end(), [](Row const& a, Row const& b) { return a.sample < b.sample; });
  return rows;
}

TEST(Loader, EachByteOncePerEpochWhateverTheRanks) {
  TempFolder const folder;
  write_counting(folder / "d.h5", 1003);
  io::DatasetFile const file(folder / "d.h5");
  for (bool const shuffle : {false, true}) {
    LoaderOptions options;
    options.window_length = 10;
    options.shuffle = shuffle;
    options.seed = 3;
    SampleOrder const order(1003, 10, shuffle, 3);
    auto const reference = all_rows(file, options, 1, 1, 12, 30);  // 360 samples: more than three epochs
    ASSERT_EQ(reference.size(), 360U);
    std::vector<int> seen(1003, 0);
    for (std::size_t s = 0; s < reference.size(); ++s) {
      ASSERT_EQ(reference[s].sample, static_cast<Index>(s));
      Window const window = order.window(order.advance({}, static_cast<Index>(s)));
      ASSERT_EQ(reference[s].tokens.size(), static_cast<std::size_t>(window.length));
      for (std::size_t t = 0; t < reference[s].tokens.size(); ++t) {
        ASSERT_EQ(reference[s].tokens[t], static_cast<Index>(t) + window.start);
        if (static_cast<Index>(s) < order.windows(0)) ++seen.at(reference[s].tokens[t]);
      }
    }
    EXPECT_EQ(seen, std::vector<int>(1003, 1)) << "the first epoch";
    EXPECT_EQ(all_rows(file, options, 1, 3, 4, 30), reference);
    EXPECT_EQ(all_rows(file, options, 2, 2, 3, 30), reference);
    EXPECT_EQ(all_rows(file, options, 3, 1, 4, 30), reference);
    EXPECT_EQ(all_rows(file, options, 4, 3, 1, 30), reference);
  }
}

TEST(Loader, ResumesFromAnyPlace) {
  TempFolder const folder;
  write_counting(folder / "d.h5", 203);
  io::DatasetFile const file(folder / "d.h5");
  LoaderOptions options;
  options.window_length = 10;
  options.shuffle = true;
  options.seed = 8;
  auto const reference = all_rows(file, options, 2, 1, 3, 20);
  SampleOrder const order(203, 10, true, 8);
  for (Index k = 0; k < 20; ++k) {
    options.start = order.advance({}, 6 * k);
    auto const resumed = all_rows(file, options, 3, 2, 1, 20 - k);
    ASSERT_TRUE(std::equal(resumed.begin(), resumed.end(), reference.begin() + 6 * k, reference.end())) << k;
  }
}

TEST(Loader, StepBytesCountTheWholeStep) {
  TempFolder const folder;
  write_counting(folder / "d.h5", 23);
  io::DatasetFile const file(folder / "d.h5");
  LoaderOptions options;
  options.window_length = 5;
  options.batch_size = 2;
  options.micro_batches = 2;
  Loader loader(file, options);
  EXPECT_EQ(loader.next().step_bytes, 20);
  EXPECT_EQ(loader.next().step_bytes, 20);
  MicroBatch const& batch = loader.next();  // the tail of epoch 0, then 1 + 5 + 5 of epoch 1
  EXPECT_EQ(batch.step_bytes, 3 + 1 + 5 + 5);
  EXPECT_EQ(batch.place, (Place{0, 4}));
  EXPECT_EQ(batch.next_place, (Place{1, 3}));
  EXPECT_EQ(batch.lengths, (std::vector<Index>{3, 1}));
}

TEST(Loader, BytesAndWeights) {
  TempFolder const folder;
  write_counting(folder / "d.h5", 40, true);
  io::DatasetFile const file(folder / "d.h5");
  LoaderOptions options;
  options.window_length = 7;
  Loader loader(file, options);
  loader.next();
  MicroBatch const& batch = loader.next();
  EXPECT_TRUE(batch.bytes.empty());
  for (int t = 0; t < 7; ++t)
    EXPECT_EQ(batch.weights[static_cast<std::size_t>(t)], static_cast<float>(7 + t) / 2);

  {
    io::DatasetWriter writer(folder / "b.h5", {});
    std::vector<std::uint8_t> const bytes{9, 8, 7, 6, 5};
    writer.append(Split::train, std::span(bytes));
    writer.end_document(Split::train);
    writer.close("");
  }
  io::DatasetFile const byte_file(folder / "b.h5");
  options.window_length = 3;
  Loader byte_loader(byte_file, options);
  EXPECT_EQ(byte_loader.next().bytes, (std::vector<std::uint8_t>{9, 8, 7}));
  EXPECT_EQ(byte_loader.next().bytes, (std::vector<std::uint8_t>{6, 5, 0}));
  EXPECT_TRUE(byte_loader.next().weights.empty());
}

TEST(Loader, RefusesNonsense) {
  TempFolder const folder;
  write_counting(folder / "d.h5", 40);
  io::DatasetFile const file(folder / "d.h5");
  LoaderOptions good;
  good.window_length = 7;
  auto const refused = [&](auto const& change) {
    LoaderOptions options = good;
    change(options);
    EXPECT_THROW(Loader(file, options), core::InputError);
  };
  refused([](LoaderOptions& o) { o.split = Split::test; });
  refused([](LoaderOptions& o) { o.window_length = 0; });
  refused([](LoaderOptions& o) { o.batch_size = 0; });
  refused([](LoaderOptions& o) { o.micro_batches = 0; });
  refused([](LoaderOptions& o) { o.rank = 1; });
  refused([](LoaderOptions& o) { o.start.index = -1; });
}

TEST(EvaluationLoader, AllBytesOnceOnAnyNumberOfRanks) {
  TempFolder const folder;
  write_counting(folder / "d.h5", 107);
  io::DatasetFile const file(folder / "d.h5");
  for (Index const stride : {0, 3, 10}) {
    std::vector<Row> reference;
    for (Index const ranks : {1, 2, 3, 4, 7}) {
      std::vector<Row> rows;
      std::vector<int> scored(107, 0);
      Index next_step = 0;
      for (Index rank = 0; rank < ranks; ++rank) {
        EvaluationOptions options;
        options.split = Split::train;
        options.window = 10;
        options.stride = stride;
        options.batch_size = 4;
        options.rank = rank;
        options.ranks = ranks;
        EvaluationLoader loader(file, options);
        Index batches = 0;
        while (MicroBatch const* const batch = loader.next()) {
          ++batches;
          EXPECT_EQ(batch->step, next_step++);
          collect(*batch, rows);
          for (Index r = 0; r < batch->rows; ++r) {
            auto const row = static_cast<std::size_t>(r);
            for (Index t = batch->first_scored[row]; t < batch->lengths[row]; ++t) {
              ++scored.at(batch->tokens[static_cast<std::size_t>(r * batch->stride + t)]);
            }
          }
        }
        EXPECT_EQ(batches, loader.batches());
        EXPECT_EQ(loader.next(), nullptr);
      }
      EXPECT_EQ(scored, std::vector<int>(107, 1));
      if (ranks == 1) reference = rows;
      EXPECT_EQ(rows, reference);
    }
  }
}

TEST(EvaluationLoader, LimitsAndGivenWindows) {
  TempFolder const folder;
  write_counting(folder / "d.h5", 107);
  io::DatasetFile const file(folder / "d.h5");
  EvaluationOptions options;
  options.split = Split::train;
  options.window = 10;
  options.batch_size = 4;
  options.max_batches = 2;
  EXPECT_EQ(EvaluationLoader(file, options).batches(), 2);

  EvaluationLoader loader(file, Split::train, {{5, 2}, {100, 7}, {0, 1}}, 2);
  EXPECT_EQ(loader.batches(), 2);
  MicroBatch const* batch = loader.next();
  EXPECT_EQ(batch->tokens,
            (std::vector<std::uint16_t>{5, 6, 0, 0, 0, 0, 0, 100, 101, 102, 103, 104, 105, 106}));
  batch = loader.next();
  EXPECT_EQ(batch->rows, 1);
  EXPECT_EQ(loader.next(), nullptr);
  EXPECT_THROW(EvaluationLoader(file, Split::train, {{100, 8}}, 1), core::InputError);
  EXPECT_THROW(EvaluationLoader(file, Split::train, {{-1, 2}}, 1), core::InputError);
}

TEST(BatchMemory, CountsWhatALoaderHolds) {
  EXPECT_EQ((BatchMemory{3, 1000, false, false}.batch_bytes()), 3U * (1000 + 32));
  EXPECT_EQ((BatchMemory{3, 1000, true, false}.batch_bytes()), 3U * (2000 + 32));
  EXPECT_EQ((BatchMemory{1, 1000, false, true}.batch_bytes()), 5000U + 32);
  EXPECT_EQ((BatchMemory{3, 1000, false, false}.loader_bytes()), 9U * (1000 + 32));
  EXPECT_EQ((BatchMemory{1, 9 << 20, false, false}.loader_bytes()), 2U * ((9 << 20) + 32));
  EXPECT_EQ((BatchMemory{1, Index{5} << 32, false, false}.loader_bytes()),
            std::size_t{10} * (std::size_t{1} << 32) + 64);
  EXPECT_EQ((BatchMemory{9, 1 << 20, false, false}.depth(4)), 1);
  EXPECT_EQ((BatchMemory{1, 1 << 20, false, false}.depth(4)), 4);
  EXPECT_EQ((BatchMemory{1, 1 << 20, false, false}.depth(0)), 1);
}

TEST(ReadAhead, HandsOverInOrderAndWaits) {
  std::atomic<int> produced{0};
  auto const fill = [&produced](MicroBatch& batch) {
    if (produced == 50) return false;
    batch.step = produced++;
    return true;
  };
  ReadAhead ring(fill, 2);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(produced, 3) << "a ring of depth 2 has three slots, and none is in use yet";
  for (int i = 0; i < 50; ++i) {
    MicroBatch const* const batch = ring.next();
    ASSERT_NE(batch, nullptr);
    ASSERT_EQ(batch->step, i);
    if (i == 10) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      EXPECT_LE(produced, 13);
      EXPECT_EQ(batch->step, i) << "overwritten while in use";
    }
  }
  EXPECT_EQ(ring.next(), nullptr);
  EXPECT_EQ(ring.next(), nullptr);
}

TEST(ReadAhead, RethrowsAfterTheGoodBatches) {
  int produced = 0;
  auto const fill = [&produced](MicroBatch& batch) {
    if (produced == 3) throw core::InputError("d.h5: damaged");
    batch.step = produced++;
    return true;
  };
  ReadAhead ring(fill, 2);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(ring.next()->step, i);
  EXPECT_THROW(ring.next(), core::InputError);
  EXPECT_THROW(ring.next(), core::InputError);
}

TEST(ReadAhead, EndsWhileNobodyReads) {
  for (int i = 0; i < 20; ++i) {
    ReadAhead const ring([](MicroBatch&) { return true; }, 1 + i % 3);
  }
}

TEST(Loader, DamagedDataReachesTheCaller) {
  TempFolder const folder;
  write_counting(folder / "d.h5", 40000);
  std::string content = read_file(folder / "d.h5");
  // The run 39000, 39001 lies in the last chunk.
  std::uint16_t const mark[4] = {39000, 39001, 39002, 39003};
  auto const at = content.find(std::string(reinterpret_cast<char const*>(mark), sizeof(mark)));
  ASSERT_NE(at, std::string::npos);
  content[at] = static_cast<char>(content[at] ^ 4);
  write_file(folder / "d.h5", content);
  io::DatasetFile const file(folder / "d.h5");
  LoaderOptions options;
  options.window_length = 1000;
  Loader loader(file, options);
  EXPECT_NO_THROW(loader.next());
  auto const message = message_of<core::InputError>([&] {
    for (int i = 0; i < 40; ++i) loader.next();
  });
  EXPECT_NE(message.find("d.h5"), std::string::npos) << message;
}

}  // namespace
