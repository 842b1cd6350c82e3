// SPDX-License-Identifier: Apache-2.0
#include "data/packer.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "core/error.hpp"
#include "unit_tests/io/temp_folder.hpp"

namespace {

using namespace strata;
using namespace strata::data;
using namespace strata::test;
using io::Split;

struct Warnings {
  std::vector<std::string> texts;
  Warn sink() {
    return [this](std::string const& text) { texts.push_back(text); };
  }
  bool mention(std::string const& name) const {
    return std::any_of(texts.begin(), texts.end(),
                       [&](std::string const& text) { return text.find(name) != std::string::npos; });
  }
};

std::string content(io::DatasetFile const& file, Split split) {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(file.info(split).size));
  file.read(split, 0, std::span(bytes));
  return {bytes.begin(), bytes.end()};
}

std::vector<std::string> documents(io::DatasetFile const& file, Split split) {
  std::string const all = content(file, split);
  auto const offsets = file.document_offsets(split);
  std::vector<std::string> result;
  for (std::size_t d = 0; d + 1 < offsets.size(); ++d)
    result.push_back(all.substr(offsets[d], offsets[d + 1] - offsets[d]));
  return result;
}

/// Kinds of files that real folders hold, by name.
std::vector<std::pair<std::string, std::string>> dirty_files() {
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  return {{"all bytes.bin", all},
          {"crlf.txt", "a\r\nb\nc\r"},
          {"empty.txt", ""},
          {"ff.bin", std::string(2048, '\xff')},
          {"invalid-utf8.txt", "ok \xc3( \xf0\x9f\x98 end"},
          {"no-newline.txt", "last line without an end"},
          {"nuls.bin", std::string(4096, '\0')},
          {"one.bin", std::string(1, '\0')},
          {"sub/deep/name with space & ümläut.txt", "Grüße\n"},
          {"sub.txt", "sorts before sub/\n"},
          {"\xff\xfe.bin", "a name that is no UTF-8"}};
}

TEST(Packer, KeepsEveryByteOfDirtyFilesInTheOrderOfPaths) {
  TempFolder const folder;
  std::string const in = folder / "in";
  auto files = dirty_files();
  for (auto const& [name, text] : files) write_file(in + "/" + name, text);
  std::sort(files.begin(), files.end());
  Warnings warnings;
  PackOptions options;
  options.output = folder / "d.h5";
  options.paths[0] = {in + "/"};
  options.warn = warnings.sink();
  options.tool_version = "test";
  std::int64_t last = 0;
  options.progress = [&last](std::int64_t done, std::int64_t total) {
    EXPECT_GT(done, last);
    EXPECT_LE(done, total);
    last = done;
  };
  PackResult const result = pack(options);
  io::DatasetFile const file(folder / "d.h5");
  auto const packed = documents(file, Split::train);
  ASSERT_EQ(packed.size(), files.size());
  std::int64_t total = 0;
  for (std::size_t f = 0; f < files.size(); ++f) {
    EXPECT_EQ(packed[f], files[f].second) << files[f].first;
    total += static_cast<std::int64_t>(files[f].second.size());
  }
  EXPECT_EQ(last, total);
  EXPECT_EQ(result.splits[0].documents, 11);
  EXPECT_EQ(result.splits[0].empty_documents, 1);
  EXPECT_EQ(result.splits[0].bytes, total);
  EXPECT_EQ(result.splits[1].documents, 0);
  EXPECT_EQ(result.source_digest, file.source_digest());
  EXPECT_EQ(result.source_digest.size(), 64U);
  EXPECT_EQ(file.tool_version(), "test");
  EXPECT_TRUE(warnings.texts.empty());

  // The same folder elsewhere has the same digest and the same file; a changed byte or name has not.
  std::filesystem::create_directory(folder / "moved");
  std::filesystem::rename(in, folder / "moved/in");
  options.output = folder / "e.h5";
  options.paths[0] = {folder / "moved/in"};
  options.progress = {};
  EXPECT_EQ(pack(options).source_digest, result.source_digest);
  EXPECT_EQ(read_file(folder / "d.h5"), read_file(folder / "e.h5"));
  write_file(folder / "moved/in/one.bin", "x");
  options.overwrite = true;
  EXPECT_NE(pack(options).source_digest, result.source_digest);
}

TEST(Packer, CompressionChangesNothingButTheSize) {
  TempFolder const folder;
  write_file(folder / "in/a", std::string(500000, 'a'));
  PackOptions options;
  options.output = folder / "d.h5";
  options.paths[0] = {folder / "in"};
  options.compression = 9;
  pack(options);
  io::DatasetFile const file(folder / "d.h5");
  EXPECT_EQ(content(file, Split::train), std::string(500000, 'a'));
  EXPECT_LT(std::filesystem::file_size(folder / "d.h5"), 50000U);
}

TEST(Packer, EntropyIsExact) {
  std::array<std::int64_t, 256> histogram{};
  EXPECT_EQ(byte_entropy(histogram), 0);
  histogram[7] = 1000;
  EXPECT_EQ(byte_entropy(histogram), 0);
  histogram.fill(3);
  EXPECT_DOUBLE_EQ(byte_entropy(histogram), 8);
  histogram.fill(0);
  histogram[0] = 2;
  histogram[1] = 1;
  histogram[2] = 1;
  EXPECT_DOUBLE_EQ(byte_entropy(histogram), 1.5);
}

TEST(Packer, ExplicitSplits) {
  TempFolder const folder;
  write_file(folder / "b", "bb");
  write_file(folder / "a", "a");
  write_file(folder / "v", "vvvv");
  PackOptions options;
  options.output = folder / "d.h5";
  options.paths = {{{folder / "b", folder / "a"}, {folder / "v"}, {}}};
  pack(options);
  io::DatasetFile const file(folder / "d.h5");
  EXPECT_EQ(documents(file, Split::train), (std::vector<std::string>{"a", "bb"}));
  EXPECT_EQ(documents(file, Split::validation), std::vector<std::string>{"vvvv"});
  EXPECT_EQ(file.info(Split::test).size, 0);
}

std::vector<SourceFile> of_sizes(std::vector<std::int64_t> const& sizes) {
  std::vector<SourceFile> files;
  for (std::size_t i = 0; i < sizes.size(); ++i)
    files.push_back({std::to_string(i), std::to_string(i), sizes[i]});
  return files;
}

TEST(DealDocuments, ApproximatesTheFractionsByBytes) {
  std::vector<std::int64_t> sizes;
  std::int64_t total = 0;
  for (std::int64_t i = 0; i < 1000; ++i) {
    sizes.push_back(1 + (i * 7919) % 5000);
    total += sizes.back();
  }
  std::array<double, 3> const fractions{0.8, 0.15, 0.05};
  auto const splits = deal_documents(of_sizes(sizes), fractions);
  std::array<double, 3> bytes{};
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    bytes[static_cast<std::size_t>(splits[i])] += static_cast<double>(sizes[i]);
  }
  // No split can be further off than the largest document.
  for (std::size_t s = 0; s < 3; ++s) EXPECT_NEAR(bytes[s], fractions[s] * static_cast<double>(total), 5000);
}

TEST(DealDocuments, EverySplitGetsADocument) {
  for (std::int64_t n = 3; n < 40; ++n) {
    auto const splits = deal_documents(of_sizes(std::vector<std::int64_t>(static_cast<std::size_t>(n), 100)),
                                       {0.98, 0.01, 0.01});
    for (Split const split : io::all_splits) {
      EXPECT_GE(std::count(splits.begin(), splits.end(), split), 1) << n;
    }
  }
  auto const splits = deal_documents(of_sizes({0, 5, 0, 5}), {0.5, 0.5, 0});
  EXPECT_NE(splits[1], splits[3]) << "an empty document is not enough for a split";
  auto const one_giant = deal_documents(of_sizes({1, 1, 1, 1000000}), {0.9, 0.1, 0});
  EXPECT_EQ(one_giant[3], Split::train);
  EXPECT_EQ(std::count(one_giant.begin(), one_giant.end(), Split::validation), 1);
  EXPECT_THROW(deal_documents(of_sizes({100}), {0.9, 0.1, 0}), core::InputError);
  EXPECT_THROW(deal_documents(of_sizes({100, 0, 0}), {0.9, 0.1, 0}), core::InputError);
  EXPECT_NO_THROW(deal_documents(of_sizes({100}), {1, 0, 0}));
}

TEST(DealDocuments, FractionsAreChecked) {
  EXPECT_EQ(parse_fractions("0.9,0.05,0.05"), (std::array<double, 3>{0.9, 0.05, 0.05}));
  EXPECT_EQ(parse_fractions("0.9,0.1"), (std::array<double, 3>{0.9, 0.1, 0}));
  EXPECT_EQ(parse_fractions("0,0,1"), (std::array<double, 3>{0, 0, 1}));
  for (char const* const text : {"", "0.9", "0.9,0.2", "1,0,0,0", "0.5,0.5,", ",1", "a", "nan,1", "-0.1,1.1",
                                 "0.5;0.5", "inf", "0.5, 0.5"}) {
    EXPECT_THROW(parse_fractions(text), core::InputError) << text;
  }
}

TEST(Packer, SplitsByWholeFilesAndWithin) {
  TempFolder const folder;
  std::string text;
  for (int i = 0; i < 1000; ++i) text += static_cast<char>('a' + i % 26);
  write_file(folder / "in/one", text);
  PackOptions options;
  options.output = folder / "d.h5";
  options.split_paths = {folder / "in"};
  options.fractions = {0.9, 0.1, 0};
  auto const message = message_of<core::InputError>([&] { pack(options); });
  EXPECT_NE(message.find("--split-within"), std::string::npos) << message;
  options.split_within = true;
  pack(options);
  {
    io::DatasetFile const file(folder / "d.h5");
    EXPECT_EQ(documents(file, Split::train), std::vector<std::string>{text.substr(0, 900)});
    EXPECT_EQ(documents(file, Split::validation), std::vector<std::string>{text.substr(900)});
    EXPECT_EQ(file.info(Split::test).documents, 0);
  }
  write_file(folder / "in/empty", "");
  write_file(folder / "in/tiny", "xyz");
  options.fractions = {0.5, 0.25, 0.25};
  options.overwrite = true;
  pack(options);
  io::DatasetFile const file(folder / "d.h5");
  EXPECT_EQ(documents(file, Split::train), (std::vector<std::string>{"", text.substr(0, 500), "x"}));
  EXPECT_EQ(documents(file, Split::validation), (std::vector<std::string>{text.substr(500, 250), "y"}));
  EXPECT_EQ(documents(file, Split::test), (std::vector<std::string>{text.substr(750), "z"}));
}

TEST(Packer, RefusesToOverwrite) {
  TempFolder const folder;
  write_file(folder / "a", "a");
  write_file(folder / "d.h5", "precious");
  PackOptions options;
  options.output = folder / "d.h5";
  options.paths[0] = {folder.path()};
  auto const message = message_of<core::InputError>([&] { pack(options); });
  EXPECT_NE(message.find("--force"), std::string::npos) << message;
  EXPECT_EQ(read_file(folder / "d.h5"), "precious");
  Warnings warnings;
  options.overwrite = true;
  options.warn = warnings.sink();
  PackResult const result = pack(options);
  EXPECT_EQ(result.splits[0].documents, 1) << "the old output is not packed into the new one";
  EXPECT_TRUE(warnings.mention("d.h5"));
}

TEST(Packer, LeavesNothingBehind) {
  TempFolder const folder;
  write_file(folder / "in/a", std::string(5000000, 'a'));
  write_file(folder / "in/empty/none", "");
  std::filesystem::create_directory(folder / "in/hollow");
  PackOptions options;
  options.output = folder / "out/d.h5";
  options.paths[0] = {folder / "in/a"};
  EXPECT_THROW(pack(options), core::InputError) << "the folder is missing";
  std::filesystem::create_directory(folder / "out");
  std::string const out = folder / "out";
  auto const nothing_left = [&out] { return std::filesystem::is_empty(out); };

  options.paths[0] = {folder / "in/empty"};
  EXPECT_THROW(pack(options), core::InputError) << "zero bytes in all";
  options.paths[0] = {folder / "in/hollow"};
  EXPECT_THROW(pack(options), core::InputError) << "no file at all";
  options.paths[0] = {folder / "in/missing"};
  EXPECT_THROW(pack(options), core::InputError);
  options.paths[0] = {"/dev/null"};
  EXPECT_THROW(pack(options), core::InputError);
  options.paths[0] = {};
  EXPECT_THROW(pack(options), core::InputError);
  options.split_paths = {folder / "in/a"};
  EXPECT_THROW(pack(options), core::InputError) << "a path without a split";
  options.split_paths = {};
  EXPECT_TRUE(nothing_left());

  options.paths[0] = {folder / "in/a"};
  int pieces = 0;
  options.stop = [&pieces] { return ++pieces > 3; };
  EXPECT_THROW(pack(options), PackStopped);
  EXPECT_TRUE(nothing_left());

  options.stop = {};
  bool first = true;
  options.progress = [&](std::int64_t, std::int64_t) {
    if (first) std::filesystem::resize_file(folder / "in/a", 2000000);
    first = false;
  };
  auto const message = message_of<core::InputError>([&] { pack(options); });
  EXPECT_NE(message.find("shorter"), std::string::npos) << message;
  EXPECT_TRUE(nothing_left());

  first = true;
  options.progress = [&](std::int64_t, std::int64_t) {
    if (first) std::filesystem::resize_file(folder / "in/a", 9000000);
    first = false;
  };
  EXPECT_EQ(pack(options).splits[0].bytes, 2000000) << "what is appended meanwhile is not taken";
}

TEST(FindFiles, LinksCyclesAndOddThings) {
  TempFolder const folder;
  write_file(folder / "in/a", "a");
  write_file(folder / "in/sub/b", "b");
  write_file(folder / "elsewhere", "c");
  std::filesystem::create_symlink(folder / "in", folder / "in/sub/cycle");
  std::filesystem::create_symlink(folder / "in/self", folder / "in/self");
  std::filesystem::create_symlink(folder / "nowhere", folder / "in/dangling");
  std::filesystem::create_symlink(folder / "elsewhere", folder / "in/link");
  ASSERT_EQ(mkfifo((folder / "in/pipe").c_str(), 0600), 0);
  Warnings warnings;
  auto const files = find_files({folder / "in", folder / "in/a"}, "", warnings.sink());
  std::vector<std::string> names;
  for (SourceFile const& file : files) names.push_back(file.relative);
  EXPECT_EQ(names, (std::vector<std::string>{"a", "link", "sub/b"}));
  for (char const* const name : {"cycle", "self", "dangling", "pipe", "in/a is named twice"}) {
    EXPECT_TRUE(warnings.mention(name)) << name;
  }
}

TEST(FindFiles, UnreadableFilesAreNamed) {
  TempFolder const folder;
  write_file(folder / "in/secret", "x");
  std::filesystem::permissions(folder / "in/secret", std::filesystem::perms::none);
  std::filesystem::permissions(folder.path(), std::filesystem::perms::all);
  // Permissions bind everybody but root, so root becomes nobody for a moment: access() asks for the real
  // user.
  bool const root = getuid() == 0;
  if (root) {
    ASSERT_EQ(setresuid(65534, 65534, 0), 0);
  }
  Warnings warnings;
  std::string message;
  try {
    find_files({folder / "in"}, "", warnings.sink());
  } catch (core::InputError const& error) {
    message = error.what();
  }
  if (root) {
    ASSERT_EQ(setresuid(0, 0, 0), 0);
  }
  EXPECT_NE(message.find("secret"), std::string::npos) << message;
}

TEST(Packer, AFileInTwoSplitsIsReported) {
  TempFolder const folder;
  write_file(folder / "a", "a");
  Warnings warnings;
  PackOptions options;
  options.output = folder / "d.h5";
  options.paths = {{{folder / "a"}, {folder / "a"}, {}}};
  options.warn = warnings.sink();
  pack(options);
  EXPECT_TRUE(warnings.mention("more than one split"));
}

}  // namespace
