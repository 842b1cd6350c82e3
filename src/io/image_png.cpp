// SPDX-License-Identifier: Apache-2.0
// PNG by libpng. Its errors come as long jumps, so nothing with a destructor lives where they pass.
#include <png.h>

#include <algorithm>
#include <cstring>

#include "io/image_file.hpp"

namespace strata::io {

namespace {

struct Source {
  unsigned char const* bytes;
  std::size_t left;
  char problem[200];
};

void read_bytes(png_structp png, png_bytep out, std::size_t count) {
  auto* const source = static_cast<Source*>(png_get_io_ptr(png));
  if (count > source->left) png_error(png, "it ends in the middle");
  std::memcpy(out, source->bytes, count);
  source->bytes += count;
  source->left -= count;
}

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
  auto* const source = static_cast<Source*>(png_get_error_ptr(png));
  std::strncpy(source->problem, message, sizeof source->problem - 1);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

struct Header {
  png_uint_32 width, height;
  bool wide;
};

/// Reads the header and asks for 8-bit RGBA. False after an error.
bool begin(png_structp png, png_infop info, Header& header) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  png_read_info(png, info);
  header = {png_get_image_width(png, info), png_get_image_height(png, info),
            png_get_bit_depth(png, info) > 8};
  png_set_expand(png);
  png_set_gray_to_rgb(png);
  png_set_add_alpha(png, 255, PNG_FILLER_AFTER);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  return true;
}

bool finish(png_structp png, png_bytepp rows) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  png_read_image(png, rows);
  png_read_end(png, nullptr);
  return true;
}

}  // namespace

bool decode_png(std::string const& content, Image& image, std::string& problem) {
  Source source{reinterpret_cast<unsigned char const*>(content.data()), content.size(), {}};
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &source, on_error, on_warning);
  png_infop info = png == nullptr ? nullptr : png_create_info_struct(png);
  if (info == nullptr) {
    png_destroy_read_struct(&png, nullptr, nullptr);
    problem = "libpng cannot start";
    return false;
  }
  png_set_read_fn(png, &source, read_bytes);
  Header header{};
  bool good = begin(png, info, header);
  if (!good) {
    problem = std::string("the PNG is damaged: ") + source.problem;
  } else if (header.wide) {
    problem = "its samples have 16 bits, which bytes cannot hold";
    good = false;
  } else if (!sensible_size(header.width, header.height)) {
    problem = "it is larger than 2^28 pixels";
    good = false;
  }
  if (good) {
    auto const width = static_cast<std::size_t>(header.width),
               height = static_cast<std::size_t>(header.height);
    std::vector<std::uint8_t> rgba(4 * width * height);
    std::vector<png_bytep> rows(height);
    for (std::size_t y = 0; y < height; ++y) rows[y] = rgba.data() + 4 * width * y;
    good = finish(png, rows.data());
    if (!good) problem = std::string("the PNG is damaged: ") + source.problem;
    image.width = header.width;
    image.height = header.height;
    image.rgb.resize(3 * width * height);
    for (std::size_t i = 0; good && i < width * height; ++i) {
      std::copy_n(&rgba[4 * i], 3, &image.rgb[3 * i]);
      if (rgba[4 * i + 3] == 255) continue;
      problem = "it has pixels that are not opaque";
      good = false;
    }
  }
  png_destroy_read_struct(&png, &info, nullptr);
  return good;
}

}  // namespace strata::io
