// SPDX-License-Identifier: Apache-2.0
#pragma once
// Images as pixels: PNG, JPEG and PPM/PGM files, decoded to 8-bit red, green and blue.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace strata::io {

/// Pixels row by row from the top, each 3 bytes: red, green, blue.
struct Image {
  std::int64_t width = 0, height = 0;
  std::vector<std::uint8_t> rgb;
};

/// Decodes a file by what its first bytes say it is. Grey values are repeated three times, palettes looked
/// up. Throws core::InputError with the file's name where that would lose something: an image that is
/// damaged, cut short or larger than 2^28 pixels, samples of more than 8 bits, pixels that are not opaque, a
/// JPEG that is neither grey nor YCbCr nor RGB, or another kind of file.
Image read_image(std::string const& path);

/// A file's content decoded; `problem` says what is wrong when the result is false. Nothing is known of
/// `image` then.
bool decode_png(std::string const& content, Image& image, std::string& problem);
bool decode_jpeg(std::string const& content, Image& image, std::string& problem);
bool decode_pnm(std::string const& content, Image& image, std::string& problem);

/// Whether an image of this size is one that Strata reads.
inline bool sensible_size(std::int64_t width, std::int64_t height) {
  constexpr std::int64_t most = std::int64_t{1} << 28;
  return width >= 1 && height >= 1 && width <= most && height <= most / width;
}

}  // namespace strata::io
