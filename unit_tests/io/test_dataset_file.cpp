// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.hpp"
#include "io/dataset_file.hpp"
#include "unit_tests/io/temp_folder.hpp"

namespace {

using namespace strata;
using namespace strata::test;
using io::DatasetFile;
using io::DatasetWriter;
using io::Split;

TEST(DatasetFile, RoundTripsBytesAndDocuments) {
  TempFolder const folder;
  std::vector<std::uint8_t> bytes(150000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * 2654435761U >> 13);
  for (int const level : {0, 4}) {
    {
      DatasetWriter writer(folder / "d.h5", {256, false, level, true, "test 1"});
      std::span<std::uint8_t const> const all(bytes);
      writer.append(Split::train, all.first(1000));
      writer.end_document(Split::train);
      writer.append(Split::test, all.first(3));
      writer.end_document(Split::test);
      writer.end_document(Split::train);  // an empty document
      writer.append(Split::train, all.subspan(1000, 70000));
      writer.append(Split::train, all.subspan(71000));
      writer.end_document(Split::train);
      writer.close("abc");
    }
    DatasetFile const file(folder / "d.h5");
    EXPECT_EQ(file.version(), io::dataset_version);
    EXPECT_EQ(file.num_tokens(), 256);
    EXPECT_EQ(file.source_digest(), "abc");
    EXPECT_EQ(file.tool_version(), "test 1");
    EXPECT_EQ(file.info(Split::train).size, 150000);
    EXPECT_EQ(file.info(Split::train).documents, 3);
    EXPECT_FALSE(file.info(Split::train).weights);
    EXPECT_EQ(file.info(Split::validation).size, 0);
    EXPECT_EQ(file.info(Split::validation).documents, 0);
    EXPECT_EQ(file.document_offsets(Split::train), (std::vector<std::uint64_t>{0, 1000, 1000, 150000}));
    EXPECT_EQ(file.document_offsets(Split::validation), (std::vector<std::uint64_t>{0}));
    std::vector<std::uint8_t> all(150000);
    file.read(Split::train, 0, std::span(all));
    EXPECT_EQ(all, bytes);
    std::vector<std::uint8_t> part(5);
    file.read(Split::train, 65533, std::span(part));
    EXPECT_TRUE(std::equal(part.begin(), part.end(), bytes.begin() + 65533));
    std::vector<std::uint16_t> wide(5);
    file.read(Split::train, 65533, std::span(wide));
    EXPECT_TRUE(std::equal(wide.begin(), wide.end(), part.begin()));
    std::vector<float> weights(2);
    file.read_weights(Split::train, 10, std::span(weights));
    EXPECT_EQ(weights, (std::vector<float>{1, 1}));
    EXPECT_THROW(file.read(Split::train, 149996, std::span(part)), core::InputError);
    EXPECT_THROW(file.read(Split::train, -1, std::span(part)), core::InputError);
    EXPECT_THROW(file.read(Split::validation, 0, std::span(part)), core::InputError);
  }
  EXPECT_EQ(folder.entries(), std::vector<std::string>{"d.h5"});
}

TEST(DatasetFile, RoundTripsTokensAndWeights) {
  TempFolder const folder;
  std::vector<std::uint16_t> const tokens{0, 255, 256, 299};
  std::vector<float> const weights{0, 0.5F, 1, 2};
  {
    DatasetWriter writer(folder / "d.h5", {300, true, 0, false, ""});
    writer.append(Split::validation, std::span(tokens), std::span(weights));
    writer.end_document(Split::validation);
    std::vector<std::uint16_t> const outside{300};
    EXPECT_THROW(writer.append(Split::train, std::span(outside), std::span(weights).first(1)),
                 core::InputError);
    EXPECT_THROW(writer.append(Split::train, std::span(tokens)), std::logic_error);
    writer.close("");
  }
  DatasetFile const file(folder / "d.h5");
  EXPECT_TRUE(file.wide());
  EXPECT_TRUE(file.info(Split::validation).weights);
  std::vector<std::uint16_t> read(4);
  file.read(Split::validation, 0, std::span(read));
  EXPECT_EQ(read, tokens);
  std::vector<float> read_weights(4);
  file.read_weights(Split::validation, 0, std::span(read_weights));
  EXPECT_EQ(read_weights, weights);
  std::vector<std::uint8_t> bytes(4);
  EXPECT_THROW(file.read(Split::validation, 0, std::span(bytes)), core::InputError);
}

TEST(DatasetFile, NothingStaysWithoutClose) {
  TempFolder const folder;
  {
    DatasetWriter writer(folder / "d.h5", {});
    std::vector<std::uint8_t> const bytes(300000, 7);
    writer.append(Split::train, std::span(bytes));
  }
  EXPECT_TRUE(folder.entries().empty());
  EXPECT_THROW(DatasetWriter(folder / "d.h5", {0, false, 0, false, ""}), core::InputError);
  EXPECT_THROW(DatasetWriter(folder / "d.h5", {65537, false, 0, false, ""}), core::InputError);
  EXPECT_THROW(DatasetWriter(folder / "d.h5", {256, false, 10, false, ""}), core::InputError);
}

TEST(DatasetFile, UnknownSplitIsNamed) {
  EXPECT_EQ(io::split_from_name("test"), Split::test);
  EXPECT_THROW(io::split_from_name("valid"), core::InputError);
}

}  // namespace
