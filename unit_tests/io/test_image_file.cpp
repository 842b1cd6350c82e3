// SPDX-License-Identifier: Apache-2.0
// Images written by libpng, by libjpeg and by hand, and damaged ones.
#include "io/image_file.hpp"

#include <gtest/gtest.h>
#include <png.h>

#include <cstdio>  // jpeglib.h needs FILE

#include <jpeglib.h>

#include <cstdlib>

#include "core/error.hpp"
#include "unit_tests/io/temp_folder.hpp"

namespace strata::test {
namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::int64_t width = 7, height = 5;

/// Every sample another value.
Bytes samples(std::int64_t channels) {
  Bytes bytes;
  for (std::int64_t i = 0; i < width * height * channels; ++i)
    bytes.push_back(static_cast<std::uint8_t>(2 * i + 1));
  return bytes;
}

std::string text(Bytes const& bytes) { return {bytes.begin(), bytes.end()}; }

std::string png(png_uint_32 format, Bytes const& bytes, Bytes const& palette = {}) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = width;
  image.height = height;
  image.format = format;
  image.colormap_entries = static_cast<png_uint_32>(palette.size() / 3);
  png_alloc_size_t size = 0;
  void const* const colours = palette.empty() ? nullptr : palette.data();
  EXPECT_NE(png_image_write_to_memory(&image, nullptr, &size, 0, bytes.data(), 0, colours), 0);
  std::string out(size, '\0');
  EXPECT_NE(png_image_write_to_memory(&image, out.data(), &size, 0, bytes.data(), 0, colours), 0);
  out.resize(size);
  return out;
}

std::string jpeg(J_COLOR_SPACE space, int channels, Bytes const& bytes) {
  jpeg_compress_struct state{};
  jpeg_error_mgr errors{};
  state.err = jpeg_std_error(&errors);
  jpeg_create_compress(&state);
  unsigned char* memory = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&state, &memory, &size);
  state.image_width = width;
  state.image_height = height;
  state.input_components = channels;
  state.in_color_space = space;
  jpeg_set_defaults(&state);
  jpeg_set_quality(&state, 100, TRUE);
  jpeg_start_compress(&state, TRUE);
  Bytes copy = bytes;
  while (state.next_scanline < state.image_height) {
    JSAMPROW row = copy.data() +
                   static_cast<std::size_t>(state.next_scanline) * width * static_cast<std::size_t>(channels);
    jpeg_write_scanlines(&state, &row, 1);
  }
  jpeg_finish_compress(&state);
  std::string out(reinterpret_cast<char const*>(memory), size);
  jpeg_destroy_compress(&state);
  std::free(memory);
  return out;
}

class ImageFiles : public testing::Test {
 protected:
  io::Image read(std::string const& content) {
    write_file(folder_ / "image", content);
    return io::read_image(folder_ / "image");
  }
  void expect_refused(std::string const& content, std::string const& reason) {
    try {
      read(content);
      ADD_FAILURE() << "accepted: " << reason;
    } catch (core::InputError const& error) {
      EXPECT_NE(std::string(error.what()).find(folder_ / "image"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find(reason), std::string::npos) << error.what();
    }
  }
  static void expect_pixels(io::Image const& image, Bytes const& rgb) {
    EXPECT_EQ(image.width, width);
    EXPECT_EQ(image.height, height);
    EXPECT_EQ(image.rgb, rgb);
  }
  TempFolder folder_;
};

Bytes three_times(Bytes const& grey) {
  Bytes rgb;
  for (std::uint8_t const g : grey) rgb.insert(rgb.end(), 3, g);
  return rgb;
}

TEST_F(ImageFiles, GiveEverySampleOfLosslessFormats) {
  Bytes const colour = samples(3), grey = samples(1);
  expect_pixels(read(png(PNG_FORMAT_RGB, colour)), colour);
  expect_pixels(read(png(PNG_FORMAT_GRAY, grey)), three_times(grey));
  expect_pixels(read("P6\n# a comment\n7 5\n255\n" + text(colour)), colour);
  expect_pixels(read("P5 7 5 255\n" + text(grey)), three_times(grey));

  Bytes opaque, places, looked_up, palette;
  for (std::size_t i = 0; i < colour.size(); i += 3) {
    opaque.insert(opaque.end(), {colour[i], colour[i + 1], colour[i + 2], 255});
    places.push_back(static_cast<std::uint8_t>(i / 3 % 4));
  }
  for (std::uint8_t i = 0; i < 4; ++i)
    palette.insert(palette.end(), {static_cast<std::uint8_t>(10 + i), static_cast<std::uint8_t>(200 - i), i});
  for (std::uint8_t const p : places)
    looked_up.insert(looked_up.end(), palette.begin() + 3 * p, palette.begin() + 3 * p + 3);
  expect_pixels(read(png(PNG_FORMAT_RGBA, opaque)), colour);
  expect_pixels(read(png(PNG_FORMAT_RGB_COLORMAP, places, palette)), looked_up);
}

TEST_F(ImageFiles, GiveTheSamplesOfAFlatJpeg) {
  Bytes flat;
  for (std::int64_t i = 0; i < width * height; ++i) flat.insert(flat.end(), {200, 100, 50});
  io::Image const colour = read(jpeg(JCS_RGB, 3, flat));
  ASSERT_EQ(colour.rgb.size(), flat.size());
  for (std::size_t i = 0; i < flat.size(); ++i) EXPECT_NEAR(colour.rgb[i], flat[i], 2) << i;
  io::Image const grey = read(jpeg(JCS_GRAYSCALE, 1, Bytes(width * height, 77)));
  EXPECT_EQ(grey.rgb, Bytes(3 * width * height, 77));
}

TEST_F(ImageFiles, AreRefusedByNameRatherThanLosingSomething) {
  Bytes transparent = samples(4);
  expect_refused(png(PNG_FORMAT_RGBA, transparent), "not opaque");
  std::string const good_png = png(PNG_FORMAT_RGB, samples(3)), good_jpeg = jpeg(JCS_RGB, 3, samples(3));
  // 16-bit samples of linear light.
  Bytes const wide(static_cast<std::size_t>(2 * 3 * width * height), 1);
  expect_refused(png(PNG_FORMAT_LINEAR_RGB, wide), "16 bits");
  expect_refused(jpeg(JCS_CMYK, 4, samples(4)), "neither grey nor YCbCr nor RGB");
  expect_refused("P6 7 5 255\n" + text(samples(3)).substr(1), "does not hold");
  expect_refused("P6 7 5 255\n" + text(samples(3)) + "x", "does not hold");
  expect_refused("P6 7 5 65535\n" + text(samples(3)), "65535");
  expect_refused("P6 0 5 255\n", "size");
  expect_refused("P6 99999999999 99999999999 255\n", "size");
  expect_refused("P6", "size");
  expect_refused("GIF89a", "neither a PNG");
  expect_refused("", "neither a PNG");
  // Cut anywhere, and with any byte of the data damaged, a PNG is refused: every chunk has a checksum.
  for (std::size_t size = 4; size < good_png.size(); ++size) expect_refused(good_png.substr(0, size), "PNG");
  std::string damaged = good_png;
  damaged[good_png.find("IDAT") + 6] ^= 1;
  expect_refused(damaged, "PNG");
  for (std::size_t size = 2; size + 1 < good_jpeg.size(); ++size)
    expect_refused(good_jpeg.substr(0, size), "JPEG");
}

}  // namespace
}  // namespace strata::test
