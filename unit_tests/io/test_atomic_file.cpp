// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <string>

#include "core/error.hpp"
#include "io/atomic_file.hpp"
#include "io/checkpoint_file.hpp"
#include "unit_tests/io/temp_folder.hpp"

namespace {

using namespace strata;
using namespace strata::test;
using Names = std::vector<std::string>;

/// Files may not grow beyond `bytes` while it lives; to a program this looks like a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit now = before_;
    now.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &now);
  }
  ~FileSizeLimit() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST(AtomicFile, AppearsOnlyAtCommit) {
  TempFolder const folder;
  std::string const path = folder / "a.txt";
  {
    io::AtomicFile file(path);
    write_file(file.partial(), "new");
    EXPECT_FALSE(std::filesystem::exists(path));
    file.commit();
    EXPECT_EQ(read_file(path), "new");
  }
  EXPECT_EQ(folder.entries(), Names{"a.txt"});
}

TEST(AtomicFile, WithoutCommitTheOldFileStays) {
  TempFolder const folder;
  io::write_text_file(folder / "a.txt", "old");
  {
    io::AtomicFile const file(folder / "a.txt");
    write_file(file.partial(), "half of the n");
  }
  EXPECT_EQ(read_file(folder / "a.txt"), "old");
  EXPECT_EQ(folder.entries(), Names{"a.txt"});
}

TEST(AtomicFile, RefusesToOverwriteUnlessAllowed) {
  TempFolder const folder;
  io::write_text_file(folder / "a.txt", "old");
  auto const message =
      message_of<core::InputError>([&] { io::AtomicFile const file(folder / "a.txt", false); });
  EXPECT_NE(message.find("--force"), std::string::npos) << message;
  io::AtomicFile file(folder / "b.txt", false);
  io::write_text_file(folder / "b.txt", "somebody else's");
  EXPECT_THROW(file.commit(), core::InputError);
  EXPECT_EQ(read_file(folder / "b.txt"), "somebody else's");
}

TEST(AtomicFile, RemovesWhatKilledProcessesLeft) {
  TempFolder const folder;
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  std::string name = host.data();
  std::replace(name.begin(), name.end(), '.', '-');
  // No process has a number above the kernel's limit of 2^22.
  write_file(folder / ("a.txt." + name + ".99999999.partial"), "stale");
  write_file(folder / ("a.txt." + name + ".1.partial"), "of a living process");
  write_file(folder / "a.txt.elsewhere.99999999.partial", "of another machine");
  io::write_text_file(folder / "a.txt", "new");
  Names const expected{"a.txt", "a.txt." + name + ".1.partial", "a.txt.elsewhere.99999999.partial"};
  Names sorted = expected;
  std::sort(sorted.begin(), sorted.end());
  EXPECT_EQ(folder.entries(), sorted);
}

TEST(AtomicFile, NamesTheFolderThatIsMissing) {
  TempFolder const folder;
  auto const message = message_of<core::InputError>([&] { io::write_text_file(folder / "no/a.txt", "x"); });
  EXPECT_NE(message.find("no/a.txt"), std::string::npos) << message;
  EXPECT_THROW(io::write_text_file(folder.path(), "x"), core::InputError);
}

TEST(AtomicFile, FollowsALinkInsteadOfReplacingIt) {
  TempFolder const folder;
  io::write_text_file(folder / "real", "old");
  std::filesystem::create_symlink(folder / "real", folder / "link");
  io::write_text_file(folder / "link", "new");
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link"));
  EXPECT_EQ(read_file(folder / "real"), "new");
}

TEST(FullDisk, TextFileKeepsThePreviousOne) {
  TempFolder const folder;
  io::write_text_file(folder / "a.txt", "old");
  {
    FileSizeLimit const limit(4096);
    auto const message = message_of<core::InputError>(
        [&] { io::write_text_file(folder / "a.txt", std::string(100000, 'x')); });
    EXPECT_NE(message.find("a.txt"), std::string::npos) << message;
  }
  EXPECT_EQ(read_file(folder / "a.txt"), "old");
  EXPECT_EQ(folder.entries(), Names{"a.txt"});
}

TEST(FullDisk, CheckpointKeepsThePreviousOne) {
  TempFolder const folder;
  auto const write = [&](float value) {
    std::vector<float> const data(300000, value);
    io::CheckpointWriter writer(folder / "c.h5");
    writer.array("parameters", "a", {300000}, data.data());
    writer.array("parameters", "b", {300, 1000}, data.data());
    writer.text("config", "x: 1\n");
    writer.close();
  };
  write(1);
  std::string const before = read_file(folder / "c.h5");
  // Limits that fail at the header, in the first array, in the second one and at the end.
  for (rlim_t const limit : {rlim_t{100}, rlim_t{700000}, rlim_t{2000000}, rlim_t{before.size() - 64}}) {
    {
      FileSizeLimit const limited(limit);
      auto const message = message_of<core::InputError>([&] { write(2); });
      EXPECT_NE(message.find("c.h5"), std::string::npos) << message;
      EXPECT_NE(message.find("File too large"), std::string::npos) << message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    }
    EXPECT_EQ(folder.entries(), Names{"c.h5"}) << limit;
    EXPECT_EQ(read_file(folder / "c.h5"), before) << limit;
  }
  write(1);
  EXPECT_EQ(read_file(folder / "c.h5"), before) << "equal content gives equal files";
}

TEST(ReadTextFile, ReadsAndRefuses) {
  TempFolder const folder;
  std::string const text("a\0b\r\n\xff", 6);
  io::write_text_file(folder / "a", text);
  EXPECT_EQ(io::read_text_file(folder / "a"), text);
  EXPECT_THROW(io::read_text_file(folder / "a", 5), core::InputError);
  EXPECT_THROW(io::read_text_file(folder / "b"), core::InputError);
  EXPECT_THROW(io::read_text_file(folder.path()), core::InputError);
}

}  // namespace
