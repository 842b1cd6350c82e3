// SPDX-License-Identifier: Apache-2.0
#include "data/image_order.hpp"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "core/error.hpp"

namespace strata::data {

ImageOrder parse_image_order(std::string const& text) {
  if (text == "raster") return {};
  constexpr std::string_view prefix = "patch:";
  if (text.starts_with(prefix)) {
    ImageOrder order;
    char const* const end = text.data() + text.size();
    auto const [stop, error] = std::from_chars(text.data() + prefix.size(), end, order.block);
    if (error == std::errc() && stop == end && order.block >= 1 && order.block <= 65536) return order;
  }
  throw core::InputError(
      "--images is raster, or patch:P with P from 1 to 65536, such as patch:8; it is not " + text);
}

std::vector<std::uint8_t> in_order(io::Image image, ImageOrder order, std::string const& path) {
  std::int64_t const block = order.block;
  if (block == 0) return std::move(image.rgb);
  if (image.width % block != 0 || image.height % block != 0)
    throw core::InputError(path + ": blocks of " + std::to_string(block) + " x " + std::to_string(block) +
                           " pixels do not tile its " + std::to_string(image.width) + " x " +
                           std::to_string(image.height) + "; scale or crop it, or use --images raster");
  std::vector<std::uint8_t> bytes(image.rgb.size());
  auto out = bytes.begin();
  for (std::int64_t top = 0; top < image.height; top += block)
    for (std::int64_t left = 0; left < image.width; left += block)
      for (std::int64_t y = top; y < top + block; ++y)
        out = std::copy_n(image.rgb.begin() + 3 * (y * image.width + left), 3 * block, out);
  return bytes;
}

}  // namespace strata::data
