// SPDX-License-Identifier: Apache-2.0
#include "io/image_file.hpp"

#include <cctype>

#include "core/error.hpp"
#include "io/input_file.hpp"

namespace strata::io {

namespace {

/// The numbers of a PNM header, between white space and comments; 0 where there is none.
std::int64_t header_number(std::string const& content, std::size_t& place) {
  auto const at_end = [&] { return place >= content.size(); };
  while (!at_end() &&
         (std::isspace(static_cast<unsigned char>(content[place])) != 0 || content[place] == '#')) {
    if (content[place] == '#')
      while (!at_end() && content[place] != '\n') ++place;
    if (!at_end()) ++place;
  }
  std::int64_t value = 0;
  for (; !at_end() && content[place] >= '0' && content[place] <= '9'; ++place) {
    if (value > (std::int64_t{1} << 40)) return 0;
    value = 10 * value + (content[place] - '0');
  }
  return value;
}

}  // namespace

bool decode_pnm(std::string const& content, Image& image, std::string& problem) {
  std::size_t place = 2;
  std::size_t const channels = content[1] == '6' ? 3 : 1;
  image.width = header_number(content, place);
  image.height = header_number(content, place);
  std::int64_t const most = header_number(content, place);
  if (!sensible_size(image.width, image.height)) {
    problem = "its header tells no size that an image can have";
    return false;
  }
  if (most != 255) {
    problem = "its samples go up to " + std::to_string(most) + ", where bytes go up to 255";
    return false;
  }
  ++place;  // one white space
  auto const pixels = static_cast<std::size_t>(image.width * image.height);
  if (place > content.size() || content.size() - place != pixels * channels) {
    problem = "it does not hold the " + std::to_string(pixels) + " pixels that its header tells";
    return false;
  }
  image.rgb.resize(3 * pixels);
  for (std::size_t i = 0; i < pixels; ++i)
    for (std::size_t c = 0; c < 3; ++c)
      image.rgb[3 * i + c] = static_cast<std::uint8_t>(content[place + (channels == 3 ? 3 * i + c : i)]);
  return true;
}

Image read_image(std::string const& path) {
  InputFile const file(path);
  std::string const content = file.bytes(0, file.size());
  Image image;
  std::string problem = "it is neither a PNG, a JPEG, a PPM (P6) nor a PGM (P5) image";
  bool good = false;
  if (content.starts_with("\x89PNG")) {
    good = decode_png(content, image, problem);
  } else if (content.starts_with("\xff\xd8")) {
    good = decode_jpeg(content, image, problem);
  } else if (content.starts_with("P6") || content.starts_with("P5")) {
    good = decode_pnm(content, image, problem);
  }
  if (!good) throw core::InputError(path + ": " + problem);
  return image;
}

}  // namespace strata::io
