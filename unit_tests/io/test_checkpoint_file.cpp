// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "core/error.hpp"
#include "io/checkpoint_file.hpp"
#include "unit_tests/io/temp_folder.hpp"

namespace {

using namespace strata;
using namespace strata::test;
using io::CheckpointReader;
using io::CheckpointWriter;

TEST(CheckpointFile, RoundTripsExactly) {
  TempFolder const folder;
  std::vector<float> const weight{1, -0.0F, std::numeric_limits<float>::denorm_min(), 3, 4, 5};
  std::vector<double> const moment{1.0 / 3, 2};
  std::vector<std::int64_t> const place{3, std::numeric_limits<std::int64_t>::max()};
  {
    CheckpointWriter writer(folder / "c.h5");
    writer.array("parameters", "stage_models.0.layers.1.weight", {2, 3}, weight.data());
    writer.array("parameters", "empty", {0, 4}, weight.data());
    writer.array("optimizer/first_moment", "a", {2}, moment.data());
    writer.array("progress", "place", {2}, place.data());
    writer.text("config", "params:\n  num_tokens: 257\n");
    writer.text("provenance", "commit", "0123abc");
    writer.number("progress", "step", std::int64_t{1} << 40);
    writer.number("progress", "best_loss", 0.1);
    EXPECT_THROW(writer.array("parameters", "a/b", {1}, weight.data()), core::InputError);
    writer.close();
  }
  EXPECT_EQ(folder.entries(), std::vector<std::string>{"c.h5"});
  CheckpointReader const reader(folder / "c.h5");
  reader.verify();
  EXPECT_EQ(reader.names("parameters"),
            (std::vector<std::string>{"empty", "stage_models.0.layers.1.weight"}));
  EXPECT_EQ(reader.names("optimizer"), std::vector<std::string>{}) << "groups are not arrays";
  EXPECT_EQ(reader.names("optimizer/first_moment"), std::vector<std::string>{"a"});
  EXPECT_EQ(reader.names("nothing"), std::vector<std::string>{});
  EXPECT_TRUE(reader.has_group("progress"));
  EXPECT_FALSE(reader.has_group("nothing"));
  EXPECT_EQ(reader.shape("parameters", "empty"), (io::Shape{0, 4}));
  std::vector<float> read(6);
  reader.array("parameters", "stage_models.0.layers.1.weight", {2, 3}, read.data());
  EXPECT_EQ(std::memcmp(read.data(), weight.data(), sizeof(float) * 6), 0);
  std::vector<double> widened(6);
  reader.array("parameters", "stage_models.0.layers.1.weight", {2, 3}, widened.data());
  EXPECT_EQ(widened[3], 3.0);
  std::vector<double> read_moment(2);
  reader.array("optimizer/first_moment", "a", {2}, read_moment.data());
  EXPECT_EQ(read_moment, moment);
  std::vector<std::int64_t> read_place(2);
  reader.array("progress", "place", {2}, read_place.data());
  EXPECT_EQ(read_place, place);
  EXPECT_EQ(reader.text("config"), "params:\n  num_tokens: 257\n");
  EXPECT_TRUE(reader.has_text("config"));
  EXPECT_EQ(reader.text("provenance", "commit"), "0123abc");
  EXPECT_EQ(reader.integer("progress", "step"), std::int64_t{1} << 40);
  EXPECT_EQ(reader.real("progress", "best_loss"), 0.1);
  EXPECT_TRUE(reader.has("progress", "step"));
  EXPECT_FALSE(reader.has("progress", "steps"));
  EXPECT_EQ(reader.keys("progress"), (std::vector<std::string>{"best_loss", "step"}));

  auto const message = message_of<core::InputError>([&] {
    reader.array("parameters", "stage_models.0.layers.1.weight", {3, 2}, read.data());
  });
  EXPECT_NE(message.find("[2, 3] where [3, 2]"), std::string::npos) << message;
  EXPECT_THROW(reader.array("optimizer/first_moment", "a", {2}, read.data()), core::InputError);
  EXPECT_THROW(reader.array("parameters", "missing", {2}, read.data()), core::InputError);
  EXPECT_THROW(reader.integer("progress", "missing"), core::InputError);
}

/// Arrays that lie elsewhere pass through in pieces; the file is the same.
TEST(CheckpointFile, PiecesFromElsewhereMakeTheSameFile) {
  TempFolder const folder;
  io::Shape const shape{3, 4100001};  // rows of more than a piece
  auto const count = static_cast<std::size_t>(io::element_count(shape));
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i % 65521);
  for (bool const direct : {true, false}) {
    CheckpointWriter writer(folder / (direct ? "direct.h5" : "pieces.h5"));
    if (direct) {
      writer.array("parameters", "a", shape, values.data());
    } else {
      io::Index next = 0;
      writer.array("parameters", "a", shape, [&](io::Index first, std::span<float> out) {
        EXPECT_EQ(first, next);
        EXPECT_LE(out.size(), std::size_t{1} << 22);
        next += static_cast<io::Index>(out.size());
        std::copy_n(values.begin() + first, out.size(), out.begin());
      });
      EXPECT_EQ(next, static_cast<io::Index>(count));
    }
    writer.close();
  }
  EXPECT_TRUE(read_file(folder / "direct.h5") == read_file(folder / "pieces.h5"));
  CheckpointReader const reader(folder / "pieces.h5");
  reader.verify();
  std::vector<float> back(count);
  reader.array("parameters", "a", shape, back.data());
  EXPECT_TRUE(back == values);
  std::fill(back.begin(), back.end(), -1.0F);
  reader.array("parameters", "a", shape, [&](io::Index first, std::span<float const> in) {
    std::copy(in.begin(), in.end(), back.begin() + first);
  });
  EXPECT_TRUE(back == values);
  std::vector<double> wide(count);
  reader.array("parameters", "a", shape, wide.data());
  EXPECT_TRUE(std::equal(wide.begin(), wide.end(), values.begin()));
  EXPECT_THROW(reader.array("parameters", "a", {4100001, 3}, [](io::Index, std::span<float const>) {}),
               core::InputError);
}

TEST(CheckpointFile, RefusesOtherFilesAndNewerVersions) {
  TempFolder const folder;
  {
    io::File file = io::File::create(folder / "other.h5");
    file.close();
    io::File newer = io::File::create(folder / "newer.h5");
    newer.set_attribute("/", "format", std::string("strata-checkpoint"));
    newer.set_attribute("/", "version", io::checkpoint_version + 1);
    newer.close();
  }
  EXPECT_THROW(CheckpointReader(folder / "other.h5"), core::InputError);
  auto const message =
      message_of<core::InputError>([&] { CheckpointReader const reader(folder / "newer.h5"); });
  EXPECT_NE(message.find("newer program"), std::string::npos) << message;
}

TEST(CheckpointFile, DifferentChecksumIsFound) {
  TempFolder const folder;
  {
    io::File file = io::File::create(folder / "c.h5");
    file.set_attribute("/", "format", std::string("strata-checkpoint"));
    file.set_attribute("/", "version", io::checkpoint_version);
    file.make_group("/parameters");
    std::vector<float> const data{1, 2};
    file.create_dataset("/parameters/a", io::ElementType::float32, {2}).write(std::span(data));
    file.set_attribute("/parameters/a", "crc32", std::int64_t{12345});
    file.close();
  }
  CheckpointReader const reader(folder / "c.h5");
  std::vector<float> data(2);
  EXPECT_THROW(reader.array("parameters", "a", {2}, data.data()), core::InputError);
  std::vector<double> wide(2);
  EXPECT_THROW(reader.array("parameters", "a", {2}, wide.data()), core::InputError);
  EXPECT_THROW(reader.verify(), core::InputError);
}

TEST(CheckpointFile, AnAbandonedWriterLeavesNothing) {
  TempFolder const folder;
  {
    CheckpointWriter writer(folder / "c.h5");
    std::vector<float> const data(100000, 1);
    writer.array("parameters", "a", {100000}, data.data());
  }
  EXPECT_TRUE(folder.entries().empty());
}

}  // namespace
