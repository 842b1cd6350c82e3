// SPDX-License-Identifier: Apache-2.0
// Safetensors: what is read and written, types and their rounding, and files that lie.

#include "io/safetensors.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "core/error.hpp"
#include "unit_tests/io/temp_folder.hpp"
#include "unit_tests/support/foreign_files.hpp"

namespace {

using namespace strata;
using namespace strata::test;

std::vector<float> values_of(io::TensorFile const& file, std::size_t tensor) {
  std::vector<float> values(static_cast<std::size_t>(file.tensors[tensor].size()));
  io::TensorReader(file.file, file.tensors[tensor]).read(0, values);
  return values;
}

std::size_t find(io::TensorFile const& file, std::string const& name) {
  for (std::size_t t = 0; t < file.tensors.size(); ++t)
    if (file.tensors[t].name == name) return t;
  throw std::runtime_error("no tensor " + name);
}

TEST(Safetensors, WritesWhatItReads) {
  TempFolder const folder;
  std::string const path = folder / "m.safetensors";
  std::vector<float> const a{1, -2.5F, std::numeric_limits<float>::infinity(), -0.0F, 1e-42F, 7};
  std::vector<float> const b{3};
  io::SafetensorsWriter writer(path, false, {{"a.weight", {2, 3}}, {"none", {0, 4}}, {"b", {}}},
                               {{"format", "pt"}, {"strata_deck", "params:\n  \"x\": 1\n"}});
  writer.append(std::span(a).first(4));
  writer.append(std::span(a).subspan(4));
  writer.append(b);
  writer.close();

  std::string const content = read_file(path);
  std::uint64_t length = 0;
  std::memcpy(&length, content.data(), 8);
  EXPECT_EQ(length % 8, 0U) << "the elements must be aligned";
  EXPECT_EQ(content.size(), 8 + length + 7 * sizeof(float));

  io::TensorFile const file = io::open_tensor_file(path);
  ASSERT_EQ(file.tensors.size(), 3U);
  EXPECT_EQ(file.metadata.at("format"), "pt");
  EXPECT_EQ(file.metadata.at("strata_deck"), "params:\n  \"x\": 1\n");
  EXPECT_EQ(file.tensors[find(file, "a.weight")].shape, (io::Shape{2, 3}));
  EXPECT_EQ(raw(values_of(file, find(file, "a.weight"))), raw(a));  // bits, with the sign of zero
  EXPECT_EQ(values_of(file, find(file, "b")), b);
  EXPECT_EQ(file.tensors[find(file, "none")].shape, (io::Shape{0, 4}));
  EXPECT_NE(message_of<core::InputError>([&] { io::SafetensorsWriter(path, false, {}, {}); }).find("--force"),
            std::string::npos);
}

TEST(Safetensors, LeavesNothingBehindWhenNotClosed) {
  TempFolder const folder;
  { io::SafetensorsWriter const writer(folder / "m.safetensors", false, {{"a", {1}}}, {}); }
  EXPECT_TRUE(folder.entries().empty());
}

/// All 65536 values of float16 against a conversion by arithmetic.
TEST(Safetensors, HalfIsExact) {
  TempFolder const folder;
  std::vector<std::uint16_t> bits(65536);
  for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<std::uint16_t>(i);
  write_file(folder / "m.safetensors",
             safetensors({{"h", "F16", {65536}, raw(bits)}, {"b", "BF16", {65536}, raw(bits)}}));
  io::TensorFile const file = io::open_tensor_file(folder / "m.safetensors");
  std::vector<float> const half = values_of(file, find(file, "h")), brain = values_of(file, find(file, "b"));
  for (std::size_t i = 0; i < bits.size(); ++i) {
    int const exponent = static_cast<int>(i >> 10 & 31), fraction = static_cast<int>(i & 1023);
    double const sign = i >> 15 != 0 ? -1 : 1;
    double wanted = sign * std::ldexp(1024 + fraction, exponent - 25);
    if (exponent == 0) wanted = sign * std::ldexp(fraction, -24);
    if (exponent == 31) wanted = sign * std::numeric_limits<double>::infinity();
    if (exponent == 31 && fraction != 0) {
      ASSERT_TRUE(std::isnan(half[i])) << i;
    } else {
      ASSERT_EQ(static_cast<double>(half[i]), wanted) << i;
      ASSERT_EQ(std::signbit(half[i]), sign < 0) << i;
    }
    // bfloat16 is the upper half of a float32.
    ASSERT_EQ(std::bit_cast<std::uint32_t>(brain[i]), static_cast<std::uint32_t>(i) << 16);
  }
}

TEST(Safetensors, DoublesAreRounded) {
  TempFolder const folder;
  std::vector<double> const values{0.1, -1.0, 1 + 0x1p-24, 1 + 0x1.8p-23,
                                   std::numeric_limits<double>::infinity()};
  write_file(folder / "m.safetensors", safetensors({{"d", "F64", {5}, raw(values)}}));
  io::TensorFile const file = io::open_tensor_file(folder / "m.safetensors");
  EXPECT_EQ(values_of(file, 0),
            (std::vector<float>{0.1F, -1.0F, 1.0F, 1 + 0x1p-22F, std::numeric_limits<float>::infinity()}));
  write_file(folder / "large.safetensors", safetensors({{"d", "F64", {1}, raw(1e39)}}));
  io::TensorFile const large = io::open_tensor_file(folder / "large.safetensors");
  EXPECT_NE(message_of<core::InputError>([&] { values_of(large, 0); }).find("range of float32"),
            std::string::npos);
}

TEST(Safetensors, PiecesAreThoseOfTheWhole) {
  TempFolder const folder;
  std::vector<float> values(600'000);  // more than one block of the reader
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  write_file(folder / "m.safetensors", safetensors({{"x", "F32", {600, 1000}, raw(values)}}));
  io::TensorFile const file = io::open_tensor_file(folder / "m.safetensors");
  EXPECT_EQ(values_of(file, 0), values);
  std::vector<float> part(4321);
  io::TensorReader reader(file.file, file.tensors[0]);
  reader.read(123'456, part);
  EXPECT_EQ(part.front(), 123'456.0F);
  EXPECT_EQ(part.back(), 127'776.0F);
}

/// Files that are refused, each with words of the reason.
TEST(Safetensors, RefusesByName) {
  std::string const eight(8, '\1');
  std::string const f32 = R"("dtype":"F32",)";
  auto const one = [&](std::string const& entry, std::string const& data) {
    return safetensors(R"({"w":{)" + entry + "}}", data);
  };
  struct Case {
    std::string content, says;
  };
  std::vector<Case> const cases{
      {"", "8 bytes of length"},
      {"1234567", "8 bytes of length"},
      {raw(std::uint64_t{1} << 60) + "{}", "claims a header of 1152921504606846976 bytes"},
      {raw(~std::uint64_t{0}) + "{}", "claims a header"},
      {raw(std::uint64_t{99'000'000}) + "{}", "cut short"},
      {raw(std::uint64_t{3}) + "{}", "cut short"},
      {safetensors("", ""), "not valid JSON"},
      {safetensors("[]", ""), "no JSON object"},
      {safetensors("{\"a\":", ""), "not valid JSON"},
      {safetensors("{\"a\xff\":{}}", ""), "not valid JSON"},
      {safetensors("{} x", ""), "not valid JSON"},
      {safetensors(std::string(100000, '['), ""), "nested too deeply"},
      {safetensors(R"({"w":{"dtype":{"a":{"b":{"c":1}}}}})", ""), "nested too deeply"},
      {safetensors(R"({"w":1})", ""), "too little"},
      {one(f32 + R"("shape":[2])", eight), "too little"},
      {one(R"("dtype":"F31","shape":[2],"data_offsets":[0,8])", eight), "'F31', which is not known"},
      {one(R"("dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8])", eight), "'F8_E4M3', which is not known"},
      {one(R"("dtype":7,"shape":[2],"data_offsets":[0,8])", eight), "something else"},
      {one(f32 + R"("shape":2,"data_offsets":[0,8])", eight), "something else"},
      {one(f32 + R"("shape":[2],"data_offsets":[0])", eight), "something else"},
      {one(f32 + R"("shape":[-2],"data_offsets":[0,8])", eight), "wrong shape"},
      {one(f32 + R"("shape":[2.0],"data_offsets":[0,8])", eight), "wrong shape"},
      {one(f32 + R"("shape":["2"],"data_offsets":[0,8])", eight), "wrong shape"},
      {one(f32 + R"("shape":[2],"data_offsets":[-1,8])", eight), "wrong offset"},
      {one(f32 + R"("shape":[2],"data_offsets":[8,0])", eight), "before it begins"},
      {one(f32 + R"("shape":[3],"data_offsets":[0,12])", eight), "only 8"},
      {one(f32 + R"("shape":[3],"data_offsets":[0,8])", eight), "needs 3 times 4"},
      {one(f32 + R"("shape":[2],"data_offsets":[0,7])", eight), "needs 2 times 4"},
      {one(f32 + R"("shape":[4611686018427387904],"data_offsets":[0,8])", eight), "which no file holds"},
      {one(f32 + R"("shape":[4294967296,4294967296],"data_offsets":[0,0])", ""), "too large"},
      {one(f32 + R"("shape":[4294967296,4294967296,0],"data_offsets":[0,0])", ""), "too large"},
      {one(f32 + R"("shape":[2147483648,1073741824,2],"data_offsets":[0,8])", eight),
       "needs 4611686018427387904 times 4"},
      {one(f32 + R"("shape":[1],"data_offsets":[0,4])", eight), "4 bytes at its end"},
      {one(f32 + R"("shape":[1],"data_offsets":[4,8])", eight), "4 bytes before 'w'"},
      {safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                       "b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                   eight),
       "'a' and 'b' in the same place"},
      {safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                       "a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
                   eight),
       "'a' twice"},
      {safetensors(R"({"a":{"dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8]}})", eight),
       "'dtype' twice"},
      {safetensors(R"({"__metadata__":{"k":1}})", ""), "metadata 'k' that is no text"},
      {safetensors(R"({"__metadata__":[]})", ""), "metadata that is no JSON object"},
      {safetensors("{\"line\\nbreak\":1}", ""), "'line?break'"},
  };
  TempFolder const folder;
  std::string const path = folder / "m.safetensors";
  for (std::size_t c = 0; c < cases.size(); ++c) {
    std::filesystem::remove(path);
    write_file(path, cases[c].content);
    std::string const message = message_of<core::InputError>([&] { io::open_tensor_file(path); });
    EXPECT_NE(message.find(cases[c].says), std::string::npos) << "case " << c << ": " << message;
    EXPECT_EQ(message.find(path), 0U) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST(Safetensors, RefusesOtherKinds) {
  TempFolder const folder;
  auto const says = [&](std::string const& content, std::string const& words) {
    write_file(folder / "file", content);
    std::string const message = message_of<core::InputError>([&] { io::open_tensor_file(folder / "file"); });
    EXPECT_NE(message.find(words), std::string::npos) << message;
  };
  says("some text that is no model", "neither a safetensors file");
  says(std::string("\x80\x02\x8a\x0a") + "l\xfc\x9c\x46\xf9", "torch before 1.6");
  EXPECT_NE(message_of<core::InputError>([&] { io::open_tensor_file(folder / "none"); }).find("cannot read"),
            std::string::npos);
  EXPECT_NE(
      message_of<core::InputError>([&] { io::open_tensor_file(folder.path()); }).find("no ordinary file"),
      std::string::npos);
}

/// Cut at every byte, every bit of the header flipped, stretches overwritten: refused, or every tensor can be
/// read. (The format has no checksum, so a changed element is an element.)
TEST(Safetensors, DamagedFilesAreRefusedOrRead) {
  std::vector<float> const a(40, 0.25F), b(12, -1.5F);
  std::string const whole = safetensors({{"stage.a", "F32", {8, 5}, raw(a)},
                                         {"b", "F32", {3, 4}, raw(b)},
                                         {"h", "F16", {6}, std::string(12, '\2')}},
                                        R"({"format":"pt"})");
  TempFolder const folder;
  std::string const path = folder / "m.safetensors";
  int refused = 0, read = 0;
  auto const attempt = [&](std::string const& content) {
    std::filesystem::remove(path);
    write_file(path, content);
    try {
      io::TensorFile const file = io::open_tensor_file(path);
      for (std::size_t t = 0; t < file.tensors.size(); ++t)
        if (io::is_real(file.tensors[t].type)) values_of(file, t);
      ++read;
    } catch (core::InputError const& error) {
      EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
      ++refused;
    }
  };
  attempt(whole);
  ASSERT_EQ(read, 1);
  for (std::size_t size = 0; size < whole.size(); ++size) attempt(whole.substr(0, size));
  EXPECT_EQ(read, 1) << "a truncated file was taken for a whole one";
  attempt(whole + '\0');
  EXPECT_EQ(read, 1) << "a file with too much was taken for a whole one";
  std::size_t const header = whole.size() - 4 * 52 - 12;
  for (std::size_t bit = 0; bit < 8 * header; ++bit) {
    std::string broken = whole;
    broken[bit / 8] = static_cast<char>(broken[bit / 8] ^ (1 << (bit % 8)));
    attempt(broken);
  }
  EXPECT_GT(refused, static_cast<int>(whole.size() + header));
  std::mt19937_64 random(1);
  for (int i = 0; i < 1000; ++i) {
    std::string broken = whole;
    std::size_t const begin = random() % header, length = 1 + random() % 24;
    for (std::size_t k = begin; k < std::min(begin + length, broken.size()); ++k)
      broken[k] = i % 2 == 0 ? static_cast<char>(random()) : whole[random() % header];
    attempt(broken);
  }
}

}  // namespace
