// SPDX-License-Identifier: Apache-2.0
// Truncated, flipped, overwritten and wrongly built files: each ends in core::InputError or gives the right
// data.

#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "core/error.hpp"
#include "io/checkpoint_file.hpp"
#include "io/dataset_file.hpp"
#include "io/digest.hpp"
#include "unit_tests/io/temp_folder.hpp"

namespace {

using namespace strata;
using namespace strata::test;
using io::ElementType;
using io::File;
using io::Split;

std::vector<std::uint8_t> sample_bytes() {
  std::vector<std::uint8_t> bytes(3000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * i >> 3);
  return bytes;
}

void write_dataset(std::string const& path, int compression) {
  std::vector<std::uint8_t> const bytes = sample_bytes();
  std::vector<float> const weights(bytes.size(), 0.5F);
  io::DatasetWriter writer(path, {256, true, compression, true, "test"});
  for (Split const split : io::all_splits) {
    writer.append(split, std::span(bytes), std::span(weights));
    writer.end_document(split);
    writer.end_document(split);
  }
  writer.close("digest");
}

void read_dataset(std::string const& path) {
  io::DatasetFile const file(path);
  for (Split const split : io::all_splits) {
    auto const info = file.info(split);
    ASSERT_EQ(info.size, 3000);
    std::vector<std::uint8_t> bytes(3000);
    file.read(split, 0, std::span(bytes));
    ASSERT_EQ(bytes, sample_bytes());
    std::vector<float> weights(3000);
    file.read_weights(split, 0, std::span(weights));
    ASSERT_EQ(weights, std::vector<float>(3000, 0.5F));
    ASSERT_EQ(file.document_offsets(split), (std::vector<std::uint64_t>{0, 3000, 3000}));
  }
  ASSERT_EQ(file.source_digest(), "digest");
}

std::vector<float> sample_values() {
  std::vector<float> values(700);
  for (std::size_t i = 0; i < 350; ++i) values[i] = static_cast<float>(i) * 0.37F;  // the rest stays zero
  return values;
}

void write_checkpoint(std::string const& path) {
  std::vector<float> const values = sample_values();
  std::vector<std::int64_t> const place{1, 2};
  io::CheckpointWriter writer(path);
  for (int i = 0; i < 12; ++i) writer.array("parameters", "w." + std::to_string(i), {7, 100}, values.data());
  writer.array("optimizer/first_moment", "w.0", {700}, values.data());
  writer.array("progress", "place", {2}, place.data());
  writer.text("config", "params: {}\n");
  writer.number("progress", "step", std::int64_t{77});
  writer.text("provenance", "commit", "abc");
  writer.close();
}

void read_checkpoint(std::string const& path) {
  io::CheckpointReader const reader(path);
  reader.verify();
  ASSERT_EQ(reader.names("parameters").size(), 12U);
  std::vector<float> values(700);
  for (std::string const& name : reader.names("parameters")) {
    reader.array("parameters", name, {7, 100}, values.data());
    ASSERT_EQ(values, sample_values());
  }
  reader.array("optimizer/first_moment", "w.0", {700}, values.data());
  ASSERT_EQ(values, sample_values());
  ASSERT_EQ(reader.text("config"), "params: {}\n");
  ASSERT_EQ(reader.integer("progress", "step"), 77);
  ASSERT_EQ(reader.text("provenance", "commit"), "abc");
}

struct Outcome {
  int refused = 0, good = 0;
};

/// Writes `content` and reads it: InputError naming the file, or the right data (the ASSERTs of `read`).
void attempt(std::string const& path, std::string const& content,
             std::function<void(std::string const&)> const& read, Outcome& outcome) {
  std::filesystem::remove(path);
  write_file(path, content);
  try {
    read(path);
    ++outcome.good;
  } catch (core::InputError const& error) {
    EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
    ++outcome.refused;
  }
}

void torture(std::string const& content, std::function<void(std::string const&)> const& read,
             std::size_t stride = 419, int rounds = 400) {
  TempFolder const folder;
  std::string const path = folder / "broken.h5";
  Outcome whole;
  attempt(path, content, read, whole);
  ASSERT_EQ(whole.good, 1);

  Outcome cut;
  for (std::size_t size = 0; size < content.size(); size += size < 200 ? 1 : stride) {
    attempt(path, content.substr(0, size), read, cut);
    if (testing::Test::HasFatalFailure()) return;
  }
  EXPECT_EQ(cut.good, 0) << "a truncated file was taken for a whole one";

  std::mt19937_64 random(1);
  Outcome flipped;
  for (int i = 0; i < 2 * rounds; ++i) {
    std::string broken = content;
    // The superblock: every bit of it is tried.
    std::size_t const bit = i < rounds ? static_cast<std::size_t>(i) : random() % (8 * content.size());
    broken[bit / 8] = static_cast<char>(broken[bit / 8] ^ (1 << (bit % 8)));
    attempt(path, broken, read, flipped);
    if (testing::Test::HasFatalFailure()) {
      FAIL() << "after flipping bit " << bit;
    }
  }
  EXPECT_GT(flipped.refused, rounds / 2);

  Outcome overwritten;
  for (int i = 0; i < rounds; ++i) {
    std::string broken = content;
    std::size_t const begin = random() % content.size();
    std::size_t const length = std::min<std::size_t>(content.size() - begin, 1 + random() % 64);
    char const fill = i % 3 == 0 ? '\0' : '\xff';
    for (std::size_t k = begin; k < begin + length; ++k)
      broken[k] = i % 3 == 2 ? static_cast<char>(random()) : fill;
    attempt(path, broken, read, overwritten);
    if (testing::Test::HasFatalFailure()) {
      FAIL() << "after overwriting " << length << " bytes at " << begin << ", variant " << i % 3;
    }
  }
  EXPECT_GT(overwritten.refused, rounds / 8);
}

TEST(MalformedFiles, Dataset) {
  TempFolder const folder;
  write_dataset(folder / "d.h5", 0);
  torture(read_file(folder / "d.h5"), read_dataset);
}

TEST(MalformedFiles, CompressedDataset) {
  TempFolder const folder;
  write_dataset(folder / "d.h5", 6);
  torture(read_file(folder / "d.h5"), read_dataset);
}

TEST(MalformedFiles, Checkpoint) {
  TempFolder const folder;
  write_checkpoint(folder / "c.h5");
  torture(read_file(folder / "c.h5"), read_checkpoint);
}

// Without the checksum at its end, as from another program, so that HDF5 itself meets the damage; and so many
// arrays that their names no longer lie in the group's header.
TEST(MalformedFiles, UnsealedCheckpointOfManyArrays) {
  TempFolder const folder;
  std::vector<float> const values{1, 2, 3, 4};
  std::int64_t const checksum = io::crc32({reinterpret_cast<std::uint8_t const*>(values.data()), 16});
  {
    File file = File::create(folder / "c.h5");
    file.set_attribute("/", "format", std::string("strata-checkpoint"));
    file.set_attribute("/", "version", io::checkpoint_version);
    file.make_group("/parameters");
    for (int i = 0; i < 140; ++i) {
      std::string const name = "/parameters/w." + std::to_string(i);
      file.create_dataset(name, ElementType::float32, {2, 2}).write(std::span(values));
      file.set_attribute(name, "crc32", checksum);
      file.set_attribute("/parameters", "a" + std::to_string(i), std::int64_t{i});
    }
    file.close();
  }
  auto const read = [&values](std::string const& path) {
    io::CheckpointReader const reader(path);
    auto const names = reader.names("parameters");
    ASSERT_EQ(names.size(), 140U);
    std::vector<float> stored(4);
    for (std::string const& name : names) {
      reader.array("parameters", name, {2, 2}, stored.data());
      ASSERT_EQ(stored, values);
    }
    auto const keys = reader.keys("parameters");
    ASSERT_EQ(keys.size(), 140U);
    for (std::string const& key : keys) {
      ASSERT_EQ("a" + std::to_string(reader.integer("parameters", key)), key);
    }
  };
  torture(read_file(folder / "c.h5"), read, 4001, 100);
}

/// A dataset built by hand, right unless `change` makes it wrong.
struct Parts {
  std::string format = "strata-dataset";
  std::int64_t version = 1, num_tokens = 256;
  ElementType type = ElementType::uint8;
  io::Shape shape{10};
  std::string name = "bytes";
  std::vector<std::uint64_t> offsets{0, 4, 10};
  std::int64_t weights = -1;
  float weight = 1;
  bool write = true;
};

void build(std::string const& path, Parts const& parts) {
  File file = File::create(path);
  file.set_attribute("/", "format", parts.format);
  file.set_attribute("/", "version", parts.version);
  file.set_attribute("/", "num_tokens", parts.num_tokens);
  file.make_group("/train");
  io::Dataset data = file.create_dataset("/train/" + parts.name, parts.type, parts.shape);
  if (parts.write && parts.type == ElementType::uint8) {
    std::vector<std::uint8_t> const values(static_cast<std::size_t>(data.size()), 200);
    data.write(std::span(values));
  }
  if (parts.write && parts.type == ElementType::uint16) {
    std::vector<std::uint16_t> const values(static_cast<std::size_t>(data.size()), 300);
    data.write(std::span(values));
  }
  if (parts.write && parts.type == ElementType::int8) {
    std::vector<std::int8_t> const values(static_cast<std::size_t>(data.size()), 20);
    data.write(std::span(values));
  }
  file.create_dataset("/train/document_offsets", ElementType::uint64,
                      {static_cast<io::Index>(parts.offsets.size())})
      .write(std::span(parts.offsets));
  if (parts.weights >= 0) {
    std::vector<float> const values(static_cast<std::size_t>(parts.weights), parts.weight);
    file.create_dataset("/train/loss_weight", ElementType::float32, {parts.weights}).write(std::span(values));
  }
  file.close();
}

void read_all(std::string const& path) {
  io::DatasetFile const file(path);
  auto const size = static_cast<std::size_t>(file.info(Split::train).size);
  std::vector<float> weights(size);
  file.read_weights(Split::train, 0, std::span(weights));
  std::vector<std::uint16_t> tokens(size);
  file.read(Split::train, 0, std::span(tokens));
}

TEST(MalformedFiles, WronglyBuiltDatasets) {
  TempFolder const folder;
  std::string const path = folder / "d.h5";
  build(path, {});
  EXPECT_NO_THROW(read_all(path));
  using Change = std::function<void(Parts&)>;
  std::vector<std::pair<char const*, Change>> const changes{
      {"format", [](Parts& p) { p.format = "strata-checkpoint"; }},
      {"newer version", [](Parts& p) { p.version = 2; }},
      {"version 0", [](Parts& p) { p.version = 0; }},
      {"no tokens", [](Parts& p) { p.num_tokens = 0; }},
      {"too many tokens", [](Parts& p) { p.num_tokens = 65537; }},
      {"tokens declared, bytes stored", [](Parts& p) { p.num_tokens = 300; }},
      {"byte above num_tokens", [](Parts& p) { p.num_tokens = 200; }},
      {"token above num_tokens",
       [](Parts& p) {
         p.num_tokens = 300;
         p.name = "tokens";
         p.type = ElementType::uint16;
       }},
      {"wrong name", [](Parts& p) { p.name = "byte"; }},
      {"signed bytes", [](Parts& p) { p.type = ElementType::int8; }},
      {"two dimensions",
       [](Parts& p) {
         p.shape = {2, 5};
       }},
      {"a scalar", [](Parts& p) { p.shape = {}; }},
      {"size differs from offsets", [](Parts& p) { p.shape = {11}; }},
      {"nothing behind the offsets", [](Parts& p) { p.shape = {0}; }},
      {"offsets fall",
       [](Parts& p) {
         p.offsets = {0, 7, 4, 10};
       }},
      {"offsets start late",
       [](Parts& p) {
         p.offsets = {1, 10};
       }},
      {"offsets end early",
       [](Parts& p) {
         p.offsets = {0, 9};
       }},
      {"offset beyond the end",
       [](Parts& p) {
         p.offsets = {0, 11, 10};
       }},
      {"offset near 2^64",
       [](Parts& p) {
         p.offsets = {0, ~std::uint64_t{0}, 10};
       }},
      {"no offsets", [](Parts& p) { p.offsets = {}; }},
      {"one offset", [](Parts& p) { p.offsets = {0}; }},
      {"too few weights", [](Parts& p) { p.weights = 9; }},
      {"negative weight",
       [](Parts& p) {
         p.weights = 10;
         p.weight = -1;
       }},
      {"weight not a number",
       [](Parts& p) {
         p.weights = 10;
         p.weight = std::numeric_limits<float>::quiet_NaN();
       }},
      {"giant claim, nothing stored",
       [](Parts& p) {
         p.shape = {io::Index{1} << 50};
         p.offsets = {0, std::uint64_t{1} << 50};
         p.write = false;
       }},
      {"never written", [](Parts& p) { p.write = false; }},
  };
  for (auto const& [name, change] : changes) {
    Parts parts;
    change(parts);
    build(path, parts);
    auto const message = message_of<core::InputError>([&] { read_all(path); });
    EXPECT_NE(message.find(path), std::string::npos) << name << ": " << message;
  }
}

TEST(MalformedFiles, GiantCheckpointArrays) {
  TempFolder const folder;
  std::string const path = folder / "c.h5";
  {
    File file = File::create(path);
    file.set_attribute("/", "format", std::string("strata-checkpoint"));
    file.set_attribute("/", "version", io::checkpoint_version);
    file.make_group("/parameters");
    file.create_dataset("/parameters/a", ElementType::float32, {io::Index{1} << 31, io::Index{1} << 20});
    file.close();
  }
  io::CheckpointReader const reader(path);
  EXPECT_THROW(reader.verify(), core::InputError);
  EXPECT_THROW(reader.shape("parameters", "a"), core::InputError);
}

}  // namespace
