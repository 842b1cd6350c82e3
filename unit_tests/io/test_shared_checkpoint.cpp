// SPDX-License-Identifier: Apache-2.0
// Checkpoints that all ranks write together, against the file of one process.

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "core/error.hpp"
#include "io/checkpoint_file.hpp"
#include "parallel/communicator.hpp"
#include "unit_tests/io/temp_folder.hpp"

namespace {

using namespace strata;
using namespace strata::test;
using io::CheckpointReader;
using io::CheckpointWriter;
using io::Index;
using io::Shape;

struct Array {
  std::string name;
  Shape shape;
};

/// Empty ones, ones with fewer elements than ranks, and ones whose rows are cut among ranks.
std::vector<Array> arrays(Index rows) {
  return {{"empty", {0, 4}}, {"few", {3}}, {"cube", {5, 7, 11}}, {"large", {rows, 9001}}, {"last", {64, 3}}};
}
constexpr Index some = 31;
constexpr Index many = 131;

float value(Index i) { return static_cast<float>(i % 65521) - 0.25F; }

void fill(Index first, std::span<float> out) {
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = value(first + static_cast<Index>(i));
}

class SharedCheckpoint : public testing::Test {
 protected:
  SharedCheckpoint() {
    if (world_.is_root()) own_.emplace();
    folder_ = world_.broadcast(own_ ? own_->path() : std::string());
  }
  ~SharedCheckpoint() override { world_.barrier(); }

  /// The elements of an array that this rank has, if not an even share.
  using Owned = std::function<io::Ranges(Index size)>;

  void write(std::string const& path, parallel::Communicator const& ranks, Index rows = some,
             io::FillPiece const& source = fill, Owned const& owned = nullptr) const {
    CheckpointWriter writer(path, ranks);
    std::vector<double> const numbers = {1, 2, 3};
    writer.array("progress", "numbers", {3}, numbers.data());
    for (Array const& array : arrays(rows)) {
      if (owned) {
        writer.array("parameters", array.name, array.shape, source, owned(io::element_count(array.shape)));
      } else {
        writer.array("parameters", array.name, array.shape, source);
      }
      writer.number("progress", "after_" + array.name, std::int64_t{7});
    }
    writer.text("config", "a: 1\n");
    writer.close();
  }

  std::string file(std::string const& name) const { return folder_ + "/" + name; }

  parallel::Communicator world_;
  parallel::Communicator self_{MPI_COMM_SELF};
  std::optional<TempFolder> own_;
  std::string folder_;
};

TEST_F(SharedCheckpoint, IsTheFileOfOneProcess) {
  write(file("shared.h5"), world_, many);
  // Ranges that change hands often and leave ranks without any.
  write(file("ranges.h5"), world_, many, fill, [&](Index size) {
    io::Ranges mine;
    Index const step = size / 7 + 1;
    for (Index first = 0, turn = 0; first < size; first += step, ++turn)
      if (turn * turn % world_.size() == world_.rank()) mine.push_back({first, std::min(first + step, size)});
    return mine;
  });
  if (!world_.is_root()) return;
  write(file("alone.h5"), self_, many);
  std::string const alone = read_file(file("alone.h5"));
  EXPECT_TRUE(read_file(file("shared.h5")) == alone);
  EXPECT_TRUE(read_file(file("ranges.h5")) == alone);
  CheckpointReader const reader(file("shared.h5"));
  reader.verify();
  std::vector<float> large(many * 9001);
  reader.array("parameters", "large", {many, 9001}, large.data());
  for (std::size_t i = 0; i < large.size(); ++i) ASSERT_EQ(large[i], value(static_cast<Index>(i))) << i;
}

/// Also of a file as earlier versions wrote it: chunked, with another checksum.
TEST_F(SharedCheckpoint, IsReadInPartsByAll) {
  std::vector<float> values(many * 9001);
  fill(0, values);
  Shape const shape = {many, 9001};
  write(file("now.h5"), world_, many);
  if (world_.is_root()) {
    io::File before = io::File::create(file("before.h5"));
    before.set_attribute("/", "format", std::string("strata-checkpoint"));
    before.set_attribute("/", "version", std::int64_t{1});
    before.make_group("/parameters");
    before.create_dataset("/parameters/large", io::ElementType::float32, shape)
        .write(std::span<float const>(values));
    before.close();
  }
  world_.barrier();
  for (char const* name : {"now.h5", "before.h5"}) {
    CheckpointReader const reader(file(name), world_);
    std::vector<float> back(values.size());
    Index next = 0;
    reader.array("parameters", "large", shape, [&](Index first, std::span<float const> in) {
      EXPECT_EQ(first, next);
      next += static_cast<Index>(in.size());
      std::copy(in.begin(), in.end(), back.begin() + first);
    });
    EXPECT_TRUE(back == values) << name;
    auto const message = message_of<core::InputError>([&] {
      reader.array("parameters", "large", shape, [&](Index, std::span<float const>) {
        if (world_.rank() == world_.size() - 1) throw core::InputError("no room");
      });
    });
    EXPECT_EQ(message, "no room");
  }
  // A bit that flips in the last rank's part of the file.
  world_.barrier();
  if (world_.is_root()) {
    std::string content = read_file(file("now.h5"));
    content[content.size() - 3000] = static_cast<char>(content[content.size() - 3000] ^ 4);
    write_file(file("now.h5"), content);
  }
  world_.barrier();
  auto const message = message_of<core::InputError>([&] { CheckpointReader(file("now.h5"), world_); });
  EXPECT_NE(message.find("now.h5 is damaged"), std::string::npos) << message;
}

TEST_F(SharedCheckpoint, ARankThatFailsEndsItForAll) {
  write(file("c.h5"), world_);
  world_.barrier();
  std::string const before = read_file(file("c.h5"));
  for (int const failing : {0, world_.size() - 1}) {
    auto const message = message_of<core::InputError>([&] {
      write(file("c.h5"), world_, some, [&](Index first, std::span<float> out) {
        if (world_.rank() == failing && out.size() > 1000) throw core::InputError("the device is gone");
        fill(first, out);
      });
    });
    EXPECT_EQ(message, "the device is gone");
    EXPECT_TRUE(read_file(file("c.h5")) == before);
    world_.barrier();
    if (own_) {
      EXPECT_EQ(own_->entries(), std::vector<std::string>{"c.h5"});
    }
    world_.barrier();
  }
  write(file("c.h5"), world_);
  EXPECT_TRUE(read_file(file("c.h5")) == before) << "and nothing is left behind that disturbs the next";
}

TEST_F(SharedCheckpoint, AFullDiskIsToldToAll) {
  write(file("c.h5"), world_);
  world_.barrier();
  std::string const before = read_file(file("c.h5"));
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, SIG_IGN);
  // Limits that fail at the header, in the first large array, and at the end.
  for (rlim_t const limit : {rlim_t{100}, rlim_t{1000000}, rlim_t{before.size() - 40}}) {
    rlimit tight = old;
    tight.rlim_cur = limit;
    if (world_.is_root()) setrlimit(RLIMIT_FSIZE, &tight);
    auto const message = message_of<core::InputError>([&] { write(file("c.h5"), world_); });
    setrlimit(RLIMIT_FSIZE, &old);
    EXPECT_NE(message.find("c.h5"), std::string::npos) << message;
    EXPECT_NE(message.find("File too large"), std::string::npos) << message;
    EXPECT_TRUE(read_file(file("c.h5")) == before) << limit;
    world_.barrier();
  }
}

TEST_F(SharedCheckpoint, AFolderThatIsMissingIsToldToAll) {
  auto const message = message_of<core::InputError>([&] { write(file("missing/c.h5"), world_); });
  EXPECT_NE(message.find("missing/c.h5"), std::string::npos) << message;
}

TEST_F(SharedCheckpoint, ElementsOfNobodyAreAMistake) {
  if (world_.size() == 1) return write(file("c.h5"), world_);
  auto const message = message_of<core::InputError>([&] {
    write(file("c.h5"), world_, some, fill, [&](Index size) {
      return world_.is_root() ? io::Ranges{{0, size / 2}} : io::Ranges{};
    });
  });
  EXPECT_NE(message.find("/parameters/few"), std::string::npos) << message;
}

}  // namespace
