// SPDX-License-Identifier: Apache-2.0
#pragma once
// The order in which an image's pixels become bytes (Yu et al. 2023, arXiv 2305.07185, appendix D.1). Each
// pixel is 3 bytes: red, green, blue.
//   raster      row by row from the top, each from the left
//   patch       blocks of P x P pixels in raster order, and the pixels of a block in raster order, so that a
//               model's patch of 3 P P bytes is a square of the image

#include <cstdint>
#include <string>
#include <vector>

#include "io/image_file.hpp"

namespace strata::data {

struct ImageOrder {
  std::int64_t block = 0;  ///< P; 0: raster
};

/// "raster" or "patch:P". Throws core::InputError.
ImageOrder parse_image_order(std::string const& text);

/// The bytes of an image in this order. Pixel (x, y) of a W x H image in blocks of P is pixel
///   (y / P * (W / P) + x / P) * P * P + y % P * P + x % P
/// of the result. Throws core::InputError, naming `path`, when blocks do not tile the image.
std::vector<std::uint8_t> in_order(io::Image image, ImageOrder order, std::string const& path);

}  // namespace strata::data
