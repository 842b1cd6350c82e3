// SPDX-License-Identifier: Apache-2.0
// JPEG by libjpeg-turbo. Its errors come as long jumps, so nothing with a destructor lives where they pass.
#include <csetjmp>
#include <cstdio>  // jpeglib.h needs FILE

#include <jpeglib.h>

#include "io/image_file.hpp"

namespace strata::io {

namespace {

struct Errors {
  jpeg_error_mgr manager;  // first: libjpeg knows only this part
  std::jmp_buf back;
  char problem[JMSG_LENGTH_MAX];
};

/// Also of what libjpeg would only warn of, such as a file that is cut short: the pixels it makes up are lost
/// ones.
void on_error(j_common_ptr common) {
  auto* const errors = reinterpret_cast<Errors*>(common->err);
  errors->manager.format_message(common, errors->problem);
  std::longjmp(errors->back, 1);
}

void on_message(j_common_ptr common, int level) {
  if (level < 0) on_error(common);
}

bool begin(jpeg_decompress_struct& jpeg, Errors& errors, std::string const& content) {
  if (setjmp(errors.back) != 0) return false;
  jpeg_create_decompress(&jpeg);
  jpeg_mem_src(&jpeg, reinterpret_cast<unsigned char const*>(content.data()),
               static_cast<unsigned long>(content.size()));
  jpeg_read_header(&jpeg, TRUE);
  return true;
}

bool decode(jpeg_decompress_struct& jpeg, Errors& errors, JSAMPLE* rgb) {
  if (setjmp(errors.back) != 0) return false;
  jpeg.out_color_space = JCS_RGB;
  jpeg_start_decompress(&jpeg);
  while (jpeg.output_scanline < jpeg.output_height) {
    JSAMPROW row = rgb + std::size_t{3} * jpeg.output_width * jpeg.output_scanline;
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_decompress(&jpeg);
  return true;
}

}  // namespace

bool decode_jpeg(std::string const& content, Image& image, std::string& problem) {
  jpeg_decompress_struct jpeg{};
  Errors errors{};
  jpeg.err = jpeg_std_error(&errors.manager);
  errors.manager.error_exit = on_error;
  errors.manager.emit_message = on_message;
  bool good = begin(jpeg, errors, content);
  bool const known = jpeg.jpeg_color_space == JCS_GRAYSCALE || jpeg.jpeg_color_space == JCS_YCbCr ||
                     jpeg.jpeg_color_space == JCS_RGB;
  if (!good) {
    problem = std::string("the JPEG is damaged: ") + errors.problem;
  } else if (!known) {
    problem = "its colours are neither grey nor YCbCr nor RGB";
    good = false;
  } else if (!sensible_size(jpeg.image_width, jpeg.image_height)) {
    problem = "it is larger than 2^28 pixels";
    good = false;
  }
  if (good) {
    image.width = jpeg.image_width;
    image.height = jpeg.image_height;
    image.rgb.resize(static_cast<std::size_t>(3 * image.width * image.height));
    good = decode(jpeg, errors, image.rgb.data());
    if (!good) problem = std::string("the JPEG is damaged: ") + errors.problem;
  }
  jpeg_destroy_decompress(&jpeg);
  return good;
}

}  // namespace strata::io
