// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <hdf5.h>

#include <limits>
#include <numeric>
#include <thread>

#include "core/error.hpp"
#include "io/hdf5.hpp"
#include "unit_tests/io/temp_folder.hpp"

namespace {

using namespace strata;
using namespace strata::test;
using io::ElementType;
using io::File;

template <class T>
void round_trip(io::Shape const& shape, std::vector<T> const& values) {
  TempFolder const folder;
  {
    File file = File::create(folder / "f.h5");
    file.make_group("/a/b");
    io::Dataset data = file.create_dataset("/a/b/x.y.0", io::element_type<T>(), shape);
    data.write(std::span<T const>(values));
    file.close();
  }
  File const file = File::open(folder / "f.h5");
  io::Shape read_shape;
  EXPECT_EQ(file.read<T>("/a/b/x.y.0", &read_shape), values);
  EXPECT_EQ(read_shape, shape);
}

TEST(Hdf5, ArraysRoundTripExactly) {
  round_trip<std::uint8_t>({5}, {0, 1, 127, 128, 255});
  round_trip<std::uint16_t>({2}, {0, 65535});
  round_trip<std::int64_t>(
      {2, 2}, {0, -1, std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()});
  round_trip<std::uint64_t>({1}, {std::numeric_limits<std::uint64_t>::max()});
  round_trip<float>(
      {3, 1}, {-0.0F, std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::infinity()});
  round_trip<double>({}, {1.0 / 3});
  round_trip<double>({0}, {});
  round_trip<float>({3, 0, 2}, {});
  std::vector<float> large(3 * 700 * 500);
  std::iota(large.begin(), large.end(), 0.0F);
  round_trip<float>({3, 700, 500}, large);
  round_trip<float>({1, 1050000}, large);
  round_trip<float>({1050000, 1}, large);
}

/// Arrays of all forms in pieces: the pieces are small, whole and in order, and the file is the one that the
/// whole array at once makes.
TEST(Hdf5, PiecesMakeTheSameFile) {
  TempFolder const folder;
  for (io::Shape const& shape : std::vector<io::Shape>{{},
                                                       {1},
                                                       {0},
                                                       {3, 0, 2},
                                                       {1500001},
                                                       {3, 700, 500},
                                                       {1, 1050000},
                                                       {1050000, 1},
                                                       {2, 2, 400001},
                                                       {2, 600000, 1},
                                                       {700, 3, 513}}) {
    auto const count = static_cast<std::size_t>(io::element_count(shape));
    std::vector<float> values(count);
    std::uint32_t state = 1;
    for (float& value : values) {
      state = state * 1664525U + 1013904223U;
      value = static_cast<float>(state);
    }
    for (io::Index const bytes : {io::Index{1}, io::Index{1} << 20, io::Index{3} << 20, io::Index{1} << 24}) {
      for (bool const whole : {true, false}) {
        File file = File::create(folder / (whole ? "whole.h5" : "pieces.h5"));
        io::Dataset data = file.create_dataset("/x", ElementType::float32, shape);
        std::vector<io::Index> const borders = data.pieces(bytes);
        ASSERT_EQ(borders.front(), 0);
        ASSERT_EQ(borders.back(), static_cast<io::Index>(count));
        ASSERT_EQ(borders.size() > 1, count > 0);
        if (whole) {
          data.write(std::span<float const>(values));
        } else {
          for (std::size_t i = 0; i + 1 < borders.size(); ++i) {
            ASSERT_LT(borders[i], borders[i + 1]);
            ASSERT_LE((borders[i + 1] - borders[i]) * 4, std::max<io::Index>(bytes, 1 << 20));
            data.write(borders[i],
                       std::span<float const>(values.data() + borders[i], values.data() + borders[i + 1]));
          }
          data.flush();
        }
        file.close();
      }
      EXPECT_EQ(read_file(folder / "whole.h5"), read_file(folder / "pieces.h5"))
          << shape.size() << ", " << bytes;
      File const file = File::open(folder / "whole.h5");
      io::Dataset const data = file.dataset("/x");
      std::vector<float> back(count);
      std::vector<io::Index> const borders = data.pieces(bytes);
      for (std::size_t i = 0; i + 1 < borders.size(); ++i)
        data.read(borders[i], std::span(back.data() + borders[i], back.data() + borders[i + 1]));
      EXPECT_EQ(back, values);
    }
  }
}

TEST(Hdf5, AnyElementsInARowCanBeRead) {
  TempFolder const folder;
  File file = File::create(folder / "f.h5");
  io::Dataset data = file.create_dataset("/x", ElementType::float32, {3, 4, 5});
  std::vector<float> values(60);
  std::iota(values.begin(), values.end(), 0.0F);
  data.write(std::span<float const>(values));
  auto const read = [&](io::Index first, std::size_t count) {
    std::vector<float> out(count);
    data.read(first, std::span(out));
    EXPECT_TRUE(std::equal(out.begin(), out.end(), values.begin() + first)) << first << " " << count;
  };
  read(0, 60);
  read(20, 40);  // matrices
  read(25, 10);  // rows of one matrix
  read(59, 1);   // part of a row
  read(31, 3);
  read(15, 10);  // rows of two matrices
  read(3, 4);    // across two rows
  read(7, 46);
  EXPECT_THROW(read(40, 21), core::InputError);
  EXPECT_THROW(read(-1, 1), core::InputError);
  EXPECT_THROW(data.write(59, std::span<float const>(values.data(), 2)), std::logic_error);
}

/// A list of more than 2^33 elements of which a few chunks are stored, all others being zero.
TEST(Hdf5, ListsBeyond32Bits) {
  TempFolder const folder;
  constexpr io::Index size = (io::Index{1} << 33) + 12345;
  constexpr std::size_t length = 3 << 20;
  std::vector<std::uint8_t> noise(length);
  std::uint32_t state = 7;
  for (std::uint8_t& byte : noise) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<std::uint8_t>(state >> 24);
  }
  std::vector<io::Index> const places{0, (io::Index{1} << 31) - 70001, (io::Index{1} << 32) - 70001,
                                      size - static_cast<io::Index>(length)};
  {
    File file = File::create(folder / "f.h5");
    io::Dataset data = file.create_dataset("/x", ElementType::uint8, {size}, {.compression = 1});
    for (io::Index const place : places) data.write(place, std::span<std::uint8_t const>(noise));
    EXPECT_EQ(data.pieces(io::Index{1} << 24).back(), size);
    file.close();
  }
  EXPECT_LT(std::filesystem::file_size(folder / "f.h5"), 32U << 20);
  File const file = File::open(folder / "f.h5");
  io::Dataset const data = file.dataset("/x");
  EXPECT_EQ(data.size(), size);
  std::vector<std::uint8_t> out(length + 2);
  for (io::Index const place : places) {
    bool const inside = place > 0 && place + static_cast<io::Index>(length) < size;
    io::Index const from = inside ? place - 1 : place;  // with a zero before and after
    std::span<std::uint8_t> const part(out.data(), length + (inside ? 2 : 0));
    data.read(from, part);
    EXPECT_TRUE(std::equal(noise.begin(), noise.end(), part.begin() + (inside ? 1 : 0))) << place;
    if (inside) {
      EXPECT_EQ(part.front(), 0);
      EXPECT_EQ(part.back(), 0);
    }
  }
  EXPECT_THROW(data.read(size - 1, std::span(out.data(), 2)), core::InputError);
}

TEST(Hdf5, AppendAndHyperslabs) {
  TempFolder const folder;
  std::vector<std::uint8_t> values(200000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::uint8_t>(i * i >> 5);
  for (int const level : {0, 6}) {
    {
      File file = File::create(folder / "f.h5");
      io::Dataset data = file.create_dataset("/x", ElementType::uint8, {}, {true, level});
      std::size_t done = 0;
      for (std::size_t part = 1; done < values.size(); part = part * 3 + 1) {
        std::size_t const now = std::min(part, values.size() - done);
        data.append(std::span<std::uint8_t const>(values.data() + done, now));
        done += now;
      }
      EXPECT_EQ(data.size(), 200000);
      file.close();
    }
    File const file = File::open(folder / "f.h5");
    io::Dataset const data = file.dataset("/x");
    for (std::size_t const first : {0U, 1U, 65535U, 65536U, 199999U, 200000U}) {
      for (std::size_t const count : {0U, 1U, 70000U}) {
        if (first + count > values.size()) {
          std::vector<std::uint8_t> out(count);
          EXPECT_THROW(data.read(static_cast<io::Index>(first), std::span(out)), core::InputError);
          continue;
        }
        std::vector<std::uint8_t> out(count);
        data.read(static_cast<io::Index>(first), std::span(out));
        EXPECT_TRUE(std::equal(out.begin(), out.end(), values.begin() + static_cast<std::ptrdiff_t>(first)));
      }
    }
  }
}

TEST(Hdf5, TextsAndAttributes) {
  TempFolder const folder;
  std::string const text = "ümläut: \"x\"\n# " + std::string(100000, 'y');
  {
    File file = File::create(folder / "f.h5");
    file.write_text("/config", text);
    file.write_text("/nothing", "");
    file.make_group("/g");
    file.set_attribute("/g", "text", std::string("täxt"));
    file.set_attribute("/g", "empty", std::string());
    file.set_attribute("/g", "integer", std::int64_t{-5});
    file.set_attribute("/g", "real", 1.0 / 3);
    for (int i = 0; i < 40; ++i) file.set_attribute("/config", "a" + std::to_string(i), std::int64_t{i});
    file.close();
  }
  File const file = File::open(folder / "f.h5");
  EXPECT_EQ(file.read_text("/config"), text);
  EXPECT_EQ(file.read_text("/nothing"), "");
  EXPECT_EQ(file.text_attribute("/g", "text"), "täxt");
  EXPECT_EQ(file.text_attribute("/g", "empty"), "");
  EXPECT_EQ(file.integer_attribute("/g", "integer"), -5);
  EXPECT_EQ(file.real_attribute("/g", "integer"), -5.0);
  EXPECT_EQ(file.real_attribute("/g", "real"), 1.0 / 3);
  EXPECT_EQ(file.integer_attribute("/config", "a39"), 39);
  EXPECT_EQ(file.attributes("/g"), (std::vector<std::string>{"empty", "integer", "real", "text"}));
  EXPECT_EQ(file.children("/"), (std::vector<std::string>{"config", "g", "nothing"}));
  EXPECT_THROW(file.integer_attribute("/g", "text"), core::InputError);
  EXPECT_THROW(file.integer_attribute("/g", "real"), core::InputError);
  EXPECT_THROW(file.text_attribute("/g", "integer"), core::InputError);
  EXPECT_THROW(file.real_attribute("/g", "missing"), core::InputError);
  EXPECT_THROW(file.read_text("/g"), core::InputError);
  EXPECT_THROW(file.dataset("/g"), core::InputError);
  EXPECT_THROW(file.children("/config"), core::InputError);
  EXPECT_FALSE(file.exists("/config/below"));
  EXPECT_FALSE(file.exists("/g/none"));
}

TEST(Hdf5, ReadsVariableLengthTextsOfOtherPrograms) {
  TempFolder const folder;
  {
    hid_t const id = H5Fcreate((folder / "f.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t const type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, H5T_CSET_UTF8);
    hid_t const space = H5Screate(H5S_SCALAR);
    char const* const text = "zwölf";
    hid_t const attribute = H5Acreate2(id, "a", type, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(attribute, type, static_cast<void const*>(&text));
    hid_t const data = H5Dcreate2(id, "d", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dwrite(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, static_cast<void const*>(&text));
    H5Lcreate_external("/etc/hostname", "/", id, "outside", H5P_DEFAULT, H5P_DEFAULT);
    H5Dclose(data);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
    H5Fclose(id);
  }
  File const file = File::open(folder / "f.h5");
  EXPECT_EQ(file.text_attribute("/", "a"), "zwölf");
  EXPECT_EQ(file.read_text("/d"), "zwölf");
  EXPECT_FALSE(file.exists("/outside")) << "links to other files are not followed";
}

TEST(Hdf5, LargeGroups) {
  TempFolder const folder;
  {
    File file = File::create(folder / "f.h5");
    file.make_group("/g");
    std::vector<float> const value{1};
    for (int i = 0; i < 1000; ++i) {
      file.create_dataset("/g/p" + std::to_string(i), ElementType::float32, {1}).write(std::span(value));
      file.set_attribute("/g", "a" + std::to_string(i), std::int64_t{i});
    }
    file.close();
  }
  File const file = File::open(folder / "f.h5");
  EXPECT_EQ(file.children("/g").size(), 1000U);
  EXPECT_EQ(file.children("/g")[1], "p1");
  EXPECT_EQ(file.attributes("/g").size(), 1000U);
  EXPECT_EQ(file.integer_attribute("/g", "a999"), 999);
  EXPECT_EQ(file.read<float>("/g/p999"), std::vector<float>{1});
}

TEST(Hdf5, ConversionsKeepValues) {
  TempFolder const folder;
  {
    File file = File::create(folder / "f.h5");
    std::vector<float> const f{0.1F};
    std::vector<std::uint8_t> const u{200};
    std::vector<double> const d{0.1};
    file.create_dataset("/f", ElementType::float32, {1}).write(std::span(f));
    file.create_dataset("/u", ElementType::uint8, {1}).write(std::span(u));
    file.create_dataset("/d", ElementType::float64, {1}).write(std::span(d));
    file.close();
  }
  File const file = File::open(folder / "f.h5");
  EXPECT_EQ(file.read<double>("/f"), std::vector<double>{static_cast<double>(0.1F)});
  EXPECT_EQ(file.read<std::int64_t>("/u"), std::vector<std::int64_t>{200});
  EXPECT_THROW(file.read<float>("/d"), core::InputError);
  EXPECT_THROW(file.read<std::int8_t>("/u"), core::InputError);
  EXPECT_THROW(file.read<float>("/u"), core::InputError);
  EXPECT_THROW(file.read<std::uint8_t>("/f"), core::InputError);
}

TEST(Hdf5, ErrorsNameTheFileAndTheReason) {
  TempFolder const folder;
  write_file(folder / "text.h5", "this is not HDF5");
  write_file(folder / "empty.h5", "");
  for (char const* const name : {"text.h5", "empty.h5", "missing.h5", "."}) {
    auto const message = message_of<core::InputError>([&] { File::open(folder / name); });
    EXPECT_NE(message.find(name), std::string::npos) << message;
  }
  EXPECT_THROW(File::open("/dev/null"), core::InputError);
}

TEST(Hdf5, ThreadsMayReadAtTheSameTime) {
  TempFolder const folder;
  std::vector<std::int64_t> values(50000);
  std::iota(values.begin(), values.end(), 0);
  {
    File file = File::create(folder / "f.h5");
    io::Dataset data = file.create_dataset("/x", ElementType::int64, {}, {true, 0});
    data.append(std::span<std::int64_t const>(values));
    file.close();
  }
  File const file = File::open(folder / "f.h5");
  io::Dataset const data = file.dataset("/x");
  std::vector<std::thread> threads;
  std::array<int, 4> wrong{};
  for (std::size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 300; ++i) {
        std::vector<std::int64_t> part(100);
        io::Index const first = (i * 7919 + static_cast<int>(t) * 104729) % 49900;
        data.read(first, std::span(part));
        if (part.front() != first || part.back() != first + 99) ++wrong[t];
        if (file.exists("/y")) ++wrong[t];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, (std::array<int, 4>{}));
}

}  // namespace
