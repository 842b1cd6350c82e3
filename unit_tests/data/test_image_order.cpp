// SPDX-License-Identifier: Apache-2.0
// Pixels in blocks, and back, and images packed.
#include "data/image_order.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"
#include "data/packer.hpp"
#include "unit_tests/io/temp_folder.hpp"

namespace strata::test {
namespace {

using Bytes = std::vector<std::uint8_t>;

io::Image numbered(std::int64_t width, std::int64_t height) {
  io::Image image{width, height, {}};
  for (std::int64_t i = 0; i < 3 * width * height; ++i)
    image.rgb.push_back(static_cast<std::uint8_t>(i % 251));
  return image;
}

TEST(ImageOrder, KnowsItsNames) {
  EXPECT_EQ(data::parse_image_order("raster").block, 0);
  EXPECT_EQ(data::parse_image_order("patch:8").block, 8);
  for (char const* const wrong :
       {"", "patch", "patch:", "patch:0", "patch:-1", "patch:8x", "patch:99999999", "Raster"})
    EXPECT_THROW(data::parse_image_order(wrong), core::InputError) << wrong;
}

TEST(ImageOrder, KeepsRasterAsItIs) {
  io::Image const image = numbered(5, 3);
  EXPECT_EQ(data::in_order(image, {}, "image"), image.rgb);
}

/// By the formula of the header, pixel by pixel, which also leads back.
TEST(ImageOrder, PutsBlocksOneBehindTheOther) {
  std::int64_t const width = 12, height = 6;
  io::Image const image = numbered(width, height);
  for (std::int64_t const p : {1, 2, 3, 6}) {
    Bytes const ordered = data::in_order(image, {p}, "image");
    ASSERT_EQ(ordered.size(), image.rgb.size());
    for (std::int64_t y = 0; y < height; ++y)
      for (std::int64_t x = 0; x < width; ++x)
        for (std::int64_t c = 0; c < 3; ++c) {
          std::int64_t const pixel = (y / p * (width / p) + x / p) * p * p + y % p * p + x % p;
          EXPECT_EQ(ordered[static_cast<std::size_t>(3 * pixel + c)],
                    image.rgb[static_cast<std::size_t>(3 * (y * width + x) + c)])
              << x << ", " << y << " in blocks of " << p;
        }
  }
  // The first block of 2 x 2: two pixels of the first row, two of the second.
  Bytes const two = data::in_order(image, {2}, "image");
  EXPECT_EQ(Bytes(two.begin(), two.begin() + 12), (Bytes{0, 1, 2, 3, 4, 5, 36, 37, 38, 39, 40, 41}));
}

TEST(ImageOrder, RefusesImagesThatBlocksDoNotTile) {
  for (std::int64_t const p : {4, 5, 12}) {
    try {
      data::in_order(numbered(12, 6), {p}, "a.png");
      ADD_FAILURE() << p;
    } catch (core::InputError const& error) {
      EXPECT_NE(std::string(error.what()).find("a.png"), std::string::npos);
    }
  }
}

class ImagePacking : public testing::Test {
 protected:
  void write(std::string const& name, io::Image const& image) {
    write_file(folder_ / name, "P6 " + std::to_string(image.width) + " " + std::to_string(image.height) +
                                   " 255\n" + std::string(image.rgb.begin(), image.rgb.end()));
  }
  data::PackResult pack(data::ImageOrder order, std::vector<std::string> const& names) {
    data::PackOptions options;
    options.output = folder_ / "out.h5";
    for (std::string const& name : names) options.paths[0].push_back(folder_ / name);
    options.images = order;
    options.overwrite = true;
    options.tool_version = "test";
    return data::pack(options);
  }
  TempFolder folder_;
};

TEST_F(ImagePacking, MakesEachImageADocument) {
  io::Image const a = numbered(4, 4), b = numbered(2, 6);
  write("a.ppm", a);
  write("b.ppm", b);
  for (data::ImageOrder const order : {data::ImageOrder{}, data::ImageOrder{2}}) {
    data::PackResult const result = pack(order, {"a.ppm", "b.ppm"});
    EXPECT_EQ(result.splits[0].documents, 2);
    EXPECT_EQ(result.splits[0].bytes, 48 + 36);
    io::DatasetFile const file(folder_ / "out.h5");
    EXPECT_EQ(file.document_offsets(io::Split::train), (std::vector<std::uint64_t>{0, 48, 84}));
    Bytes bytes(84);
    file.read(io::Split::train, 0, std::span(bytes));
    Bytes wanted = data::in_order(a, order, "a");
    Bytes const second = data::in_order(b, order, "b");
    wanted.insert(wanted.end(), second.begin(), second.end());
    EXPECT_EQ(bytes, wanted);
  }
}

TEST_F(ImagePacking, LeavesNothingBehindWhenAnImageIsBad) {
  write("a.ppm", numbered(4, 4));
  write_file(folder_ / "b.ppm", "P6 4 4 255\n too short");
  try {
    pack({}, {"a.ppm", "b.ppm"});
    ADD_FAILURE() << "accepted";
  } catch (core::InputError const& error) {
    EXPECT_NE(std::string(error.what()).find("b.ppm"), std::string::npos) << error.what();
  }
  EXPECT_EQ(folder_.entries(), (std::vector<std::string>{"a.ppm", "b.ppm"}));
  data::PackOptions within;
  within.output = folder_ / "out.h5";
  within.split_paths = {folder_ / "a.ppm"};
  within.fractions = {0.5, 0.5, 0};
  within.split_within = true;
  within.images = data::ImageOrder{};
  EXPECT_THROW(data::pack(within), core::InputError);
}

}  // namespace
}  // namespace strata::test
