// SPDX-License-Identifier: Apache-2.0
// Files of torch.save: archives, the pickle machine and what it refuses, views of storages, damage.

#include "io/torch_file.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <random>

#include "core/error.hpp"
#include "io/torch_pickle.hpp"
#include "io/zip_archive.hpp"
#include "unit_tests/io/temp_folder.hpp"
#include "unit_tests/support/foreign_files.hpp"

namespace {

using namespace strata;
using namespace strata::test;
using pickle::text;

std::vector<float> counting(std::size_t count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), 0.0F);
  return values;
}

std::vector<float> values_of(io::TensorFile const& file, std::size_t tensor) {
  std::vector<float> values(static_cast<std::size_t>(file.tensors[tensor].size()));
  io::TensorReader(file.file, file.tensors[tensor]).read(0, values);
  return values;
}

/// A state dict with one tensor "w" of a storage "0" of 12 floats.
std::string one_tensor(std::int64_t first, std::vector<std::int64_t> const& shape,
                       std::vector<std::int64_t> const& strides, std::int64_t elements = 12,
                       std::string const& type = "FloatStorage") {
  return pickle::begin +
         pickle::dict(text("w") +
                      pickle::tensor(pickle::storage(type, "0", elements), first, shape, strides)) +
         pickle::stop;
}

class TorchFile : public testing::Test {
 protected:
  /// The first tensor of a file with this pickle and 12 floats.
  std::vector<float> first_of(std::string const& data) {
    write(torch_file(data, {{"0", raw(counting(12))}}));
    return values_of(io::open_tensor_file(path()), 0);
  }
  void write(std::string const& content) {
    std::filesystem::remove(path());
    write_file(path(), content);
  }
  std::string path() const { return folder_ / "m.pth"; }
  /// Everything opens and reads as a whole, or is refused with these words.
  void refused(std::string const& content, std::string const& says) {
    write(content);
    std::string const message = message_of<core::InputError>([&] { io::open_tensor_file(path()); });
    EXPECT_NE(message.find(says), std::string::npos) << message << "\nwanted: " << says;
    EXPECT_EQ(message.find(path()), 0U) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
  void refused_pickle(std::string const& data, std::string const& says) {
    refused(torch_file(data, {{"0", raw(counting(12))}}), says);
  }

 private:
  TempFolder folder_;
};

TEST_F(TorchFile, ReadsWhatTheTrainerSaves) {
  // {"MODEL": OrderedDict with attributes, "LOSS": 1.5}; two tensors share a storage, one is half precision.
  std::string const storage = pickle::storage("FloatStorage", "0", 12);
  std::string const half = pickle::storage("HalfStorage", "1", 2);
  std::string const model = pickle::ordered_dict() + "q\x01" + pickle::mark + text("start_tokens.0") +
                            pickle::tensor(storage, 2, {4}, {1}) + text("to_logits.weight") +
                            pickle::tensor(storage, 6, {2, 3}, {3, 1}) + text("half") +
                            pickle::tensor(half, 0, {2}, {1}) + "u" + "}" + text("_metadata") +
                            pickle::ordered_dict() + "s" + "b";
  std::string const data = pickle::begin + "}" + pickle::mark + text("MODEL") + model + text("LOSS") +
                           "G?\xf8" + std::string(6, '\0') + "u" + pickle::stop;
  write(torch_file(data, {{"0", raw(counting(12))}, {"1", raw(std::vector<std::uint16_t>{0x3c00, 0xc000})}}));
  io::TensorFile const file = io::open_tensor_file(path());
  ASSERT_EQ(file.tensors.size(), 3U);
  EXPECT_EQ(file.tensors[0].name, "start_tokens.0");
  EXPECT_EQ(values_of(file, 0), (std::vector<float>{2, 3, 4, 5}));
  EXPECT_EQ(file.tensors[1].shape, (io::Shape{2, 3}));
  EXPECT_EQ(values_of(file, 1), (std::vector<float>{6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(values_of(file, 2), (std::vector<float>{1, -2}));
}

TEST_F(TorchFile, ReadsPlainStateDictsAndNamesOtherEntries) {
  write(torch_file(
      pickle::begin +
          pickle::dict(text("step") + pickle::integer(-70000) + text("w") +
                       pickle::global("torch._utils", "_rebuild_parameter") + pickle::mark +
                       pickle::tensor(pickle::storage("FloatStorage", "0", 12), 0, {12}, {1}) + "\x88" +
                       pickle::ordered_dict() + pickle::tuple + pickle::reduce + text("extra") + "N") +
          pickle::stop,
      {{"0", raw(counting(12))}}));
  io::TensorFile const file = io::open_tensor_file(path());
  ASSERT_EQ(file.tensors.size(), 1U);
  EXPECT_EQ(values_of(file, 0), counting(12));
  EXPECT_EQ(file.others, (std::vector<std::string>{"step", "extra"}));
}

TEST_F(TorchFile, ReadsAnyStrides) {
  EXPECT_EQ(first_of(one_tensor(0, {3, 4}, {1, 3})),
            (std::vector<float>{0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11}));
  EXPECT_EQ(first_of(one_tensor(1, {2, 2}, {5, 2})), (std::vector<float>{1, 3, 6, 8}));
  EXPECT_EQ(first_of(one_tensor(4, {3}, {0})), (std::vector<float>{4, 4, 4}));
  EXPECT_EQ(first_of(one_tensor(11, {}, {})), (std::vector<float>{11}));
  EXPECT_EQ(first_of(one_tensor(12, {0, 5}, {5, 1})), std::vector<float>());
  EXPECT_EQ(first_of(one_tensor(3, {1, 3, 1}, {99, 1, 77})), (std::vector<float>{3, 4, 5}));
}

TEST_F(TorchFile, RefusesTensorsOutsideTheirStorage) {
  refused_pickle(one_tensor(0, {13}, {1}), "reaches beyond its 12 numbers");
  refused_pickle(one_tensor(1, {12}, {1}), "reaches beyond");
  refused_pickle(one_tensor(13, {}, {}), "reaches beyond");
  refused_pickle(one_tensor(13, {0}, {1}), "reaches beyond");
  refused_pickle(one_tensor(0, {2, 2}, {11, 1}), "reaches beyond");
  refused_pickle(one_tensor(-1, {2}, {1}), "which no storage holds");
  refused_pickle(one_tensor(0, {-2}, {1}), "which no storage holds");
  refused_pickle(one_tensor(0, {2}, {-1}), "which no storage holds");
  refused_pickle(one_tensor(0, {INT64_MAX, INT64_MAX}, {0, 0}), "which no storage holds");
  refused_pickle(one_tensor(0, {3}, {INT64_MAX}), "which no storage holds");
  refused_pickle(one_tensor(INT64_MAX, {2}, {1}), "reaches beyond");
  refused_pickle(one_tensor(0, {2}, {1, 1}), "with 2 strides");
  refused_pickle(one_tensor(0, {2}, {1}, 13), "but it has 48 bytes");
  refused_pickle(one_tensor(0, {2}, {1}, 12, "DoubleStorage"), "12 numbers of float64, but it has 48 bytes");
  refused_pickle(one_tensor(0, {2}, {1}, -1), "negative size");
  refused(torch_file(one_tensor(0, {2}, {1}), {}), "lacks the entry 'data/0'");
}

TEST_F(TorchFile, RunsNothing) {
  using namespace pickle;
  auto const call = [](std::string const& module, std::string const& name) {
    return pickle::begin + global(module, name) + text("touch /tmp/x") + "\x85" + reduce + stop;
  };
  refused_pickle(call("os", "system"), "'os.system', which no dictionary of tensors needs");
  refused_pickle(call("posix", "system"), "'posix.system'");
  refused_pickle(call("builtins", "eval"), "'builtins.eval'");
  refused_pickle(call("__builtin__", "getattr"), "'__builtin__.getattr'");
  refused_pickle(call("torch", "load"), "'torch.load'");
  refused_pickle(call("torch._utils", "_rebuild_tensor_v3"), "'torch._utils._rebuild_tensor_v3'");
  refused_pickle(call("numpy.core.multiarray", "_reconstruct"), "'numpy.core.multiarray._reconstruct'");
  refused_pickle(call("torch", "ComplexFloatStorage"),
                 "type 'torch.ComplexFloatStorage', which is not known");
  // Named only, not called, and behind a state dict that is right.
  refused_pickle(pickle::begin + global("os", "system") + "0" + one_tensor(0, {2}, {1}).substr(2),
                 "'os.system'");
  // Built from texts, as later protocols do.
  refused_pickle(pickle::begin + text("os") + text("system") + "\x93" + stop, "'os.system'");
  // Other ways of making objects.
  for (std::string const opcode :
       {"i", "o", "P", "\x81", "\x92", "\x82", "\x83", "\x84", "I", "S", "V", "F", "L"})
    refused_pickle(pickle::begin + ")" + opcode + "os\nsystem\n" + stop, "uses the opcode");
  // What is allowed, in other places than it is meant for.
  refused_pickle(pickle::begin + global("torch", "FloatStorage") + ")" + reduce + stop, "which is a type");
  refused_pickle(pickle::begin + global("collections", "OrderedDict") + text("x") + "\x85" + reduce + stop,
                 "as the arguments of an OrderedDict");
  refused_pickle(pickle::begin + text("f") + ")" + reduce + stop, "what is called");
  refused_pickle(pickle::begin + "})b" + stop, "the attributes of an object");
  refused_pickle(pickle::begin + "}}b" + stop, "sets attributes of a dictionary");
  refused_pickle(pickle::begin + text("x") + "}b" + stop, "what gets attributes");
  refused_pickle(pickle::begin + global("torch._utils", "_rebuild_tensor_v2") + ")" + reduce + stop,
                 "as the arguments of a tensor");
  refused_pickle(pickle::begin + integer(1) + "\x85" + persistent + stop, "as a persistent id");
}

TEST_F(TorchFile, RefusesWrongPickles) {
  using namespace pickle;
  refused_pickle("", "is no pickle");
  refused_pickle("abc", "is no pickle");
  refused_pickle("\x80", "cut short");
  refused_pickle("\x80\x09.", "protocol 9");
  refused_pickle(pickle::begin, "cut short");
  refused_pickle(pickle::begin + stop, "values left over");
  refused_pickle(pickle::begin + "}}" + stop, "values left over");
  refused_pickle(pickle::begin + "}" + mark + stop, "values left over");
  refused_pickle(pickle::begin + "}" + stop, "holds no tensors");
  refused_pickle(pickle::begin + "]" + stop, "is a list, not a dictionary");
  refused_pickle(pickle::begin + tensor(storage("FloatStorage", "0", 12), 0, {2}, {1}) + stop,
                 "a single tensor");
  refused_pickle(pickle::begin + "0" + stop, "a value that is not there");
  refused_pickle(pickle::begin + "u" + stop, "lacks a mark");
  refused_pickle(pickle::begin + "}" + mark + text("a") + "u" + stop, "a key without a value");
  refused_pickle(pickle::begin + "]" + mark + text("a") + text("b") + "u" + stop, "the target of items");
  refused_pickle(pickle::begin + "h\x05" + stop, "never stored");
  refused_pickle(pickle::begin + "X\xff\xff\xff\xff" + "abc", "cut short");
  refused_pickle(pickle::begin + "\x8d" + std::string(8, '\xff') + "abc", "cut short");
  refused_pickle(pickle::begin + "cos\nsystem", "cut short");
  refused_pickle(pickle::begin + "\x8a\x09" + std::string(9, '\1') + stop, "integer of 9 bytes");
  refused_pickle(
      pickle::begin + dict(integer(1) + tensor(storage("FloatStorage", "0", 12), 0, {2}, {1})) + stop,
      "an integer as the name");
  std::string const w = text("w") + tensor(storage("FloatStorage", "0", 12), 0, {2}, {1});
  refused_pickle(pickle::begin + dict(w + w) + stop, "'w' twice");
  refused_pickle(pickle::begin + std::string(5'000'000, 'N') + stop, "more than a dictionary of tensors");
  refused_pickle(pickle::begin + std::string(5'000'000, '(') + stop, "more than a dictionary of tensors");
  // A dictionary that holds itself is no trouble.
  refused_pickle(pickle::begin + "}q\x01" + text("model") + "h\x01" + "s" + stop, "holds no tensors");
}

TEST_F(TorchFile, ReadsLargeArchives) {
  for (bool const wide_end : {false, true}) {
    write(zip({{"m/data.pkl", one_tensor(0, {12}, {1}), 0, 0, 0, true},
               {"m/data/0", raw(counting(12)), 0, 0, 0, true},
               {"m/version", "3\n"}},
              wide_end, "a comment"));
    EXPECT_EQ(values_of(io::open_tensor_file(path()), 0), counting(12));
  }
}

TEST_F(TorchFile, RefusesOtherArchives) {
  std::string const data = one_tensor(0, {12}, {1}), storage = raw(counting(12));
  refused(zip({{"m/data.pkl", data, 8}, {"m/data/0", storage}}), "compressed entry 'm/data.pkl' (method 8)");
  refused(zip({{"m/data.pkl", data}, {"m/data/0", storage, 0, 1}}), "encrypted entry 'm/data/0'");
  refused(zip({{"m/data.pkl", data, 0, 0, 1}, {"m/data/0", storage}}), "checksum of its entry m/data.pkl");
  refused(zip({{"m/data.pkl", data}, {"m/data/0", storage, 0, 0, 1}}), "checksum of its entry m/data/0");
  refused(zip({{"m/data.pkl", data}, {"m/data.pkl", data}}), "two entries called");
  refused(zip({{"m/data.pkl", data}, {"n/data.pkl", data}}), "holds two data.pkl");
  refused(zip({{"data.pkl", data}}), "without data.pkl");
  refused(zip({{"m/readme", "x"}}), "without data.pkl");
  refused(zip({{"m/data.pkl", data}, {"m/byteorder", "big"}, {"m/data/0", storage}}), "other byte order");
  refused("PK\3\4 and no more", "directory at its end is missing");
  refused(zip({}), "without data.pkl");
}

/// Single fields of the directory changed to extremes.
TEST_F(TorchFile, RefusesWrongDirectories) {
  std::string const whole = torch_file(one_tensor(0, {12}, {1}), {{"0", raw(counting(12))}});
  std::size_t const end = whole.size() - 22;
  auto const with = [&](std::size_t at, std::string const& bytes) {
    std::string broken = whole;
    broken.replace(at, bytes.size(), bytes);
    return broken;
  };
  std::string const ff(8, '\xff');
  refused(with(end + 4, "\1"), "of several files");
  refused(with(end + 8, "\1"), "of several files");
  refused(with(end + 8, ff.substr(0, 4)), "ZIP64 record is missing");
  refused(with(end + 12, std::string("\xff\xff\xff\x7f")), "does not lie inside");
  refused(with(end + 16, std::string("\xff\xff\xff\x7f")), "does not lie inside");
  refused(with(end + 16, ff.substr(0, 4)), "ZIP64 record is missing");
  refused(with(end + 16, std::string(4, '\0')), "directory is cut short");
  std::uint32_t directory = 0;
  std::memcpy(&directory, whole.data() + end + 16, 4);
  refused(with(directory, "XX"), "directory is cut short");
  refused(with(directory + 20, std::string("\1\1\1\1")), "has two sizes");
  refused(with(directory + 20, std::string("\1\1\1\1\1\1\1\1")), "reaches beyond its end");
  refused(with(directory + 24, ff.substr(0, 4)), "ZIP64 sizes of 'archive/data.pkl' are missing");
  refused(with(directory + 28, ff.substr(0, 2)), "directory is cut short");
  refused(with(directory + 42, std::string("\1")), "is not in its place");
  refused(with(directory + 42, std::string("\xff\xff\xff\x7f")), "is not in its place");
  refused(with(0, "XX"), "is not in its place");  // of a name that ends with .pth
  refused(with(8, "\x08"), "compressed after all");
  refused(with(26, ff.substr(0, 2)), "is not in its place");
  // Two entries of the directory that name one content.
  std::string const twice = zip({{"m/data.pkl", one_tensor(0, {12}, {1})}, {"m/data/0", raw(counting(12))}});
  std::uint32_t second = 0;
  std::memcpy(&second, twice.data() + twice.size() - 6, 4);
  second += 46 + 10;
  std::string broken = twice;
  broken.replace(second + 20, 8, raw(std::uint32_t{200}) + raw(std::uint32_t{200}));
  std::filesystem::remove(path());
  write(broken);
  EXPECT_THROW(io::open_tensor_file(path()), core::InputError);
}

/// Cut at every byte, a bit of every byte flipped, stretches overwritten: refused, or the tensors are the
/// right ones.
TEST_F(TorchFile, DamagedFilesAreRefusedOrReadRight) {
  std::string const storage = pickle::storage("FloatStorage", "0", 12);
  std::string const data = pickle::begin +
                           pickle::dict(text("a") + pickle::tensor(storage, 0, {2, 3}, {3, 1}) + text("b") +
                                        pickle::tensor(storage, 6, {3, 2}, {1, 3})) +
                           pickle::stop;
  std::string const whole = torch_file(data, {{"0", raw(counting(12))}});
  int refused_count = 0, read = 0;
  auto const attempt = [&](std::string const& content) {
    write(content);
    try {
      io::TensorFile const file = io::open_tensor_file(path());
      ASSERT_EQ(file.tensors.size(), 2U);
      ASSERT_EQ(values_of(file, 0), (std::vector<float>{0, 1, 2, 3, 4, 5}));
      ASSERT_EQ(values_of(file, 1), (std::vector<float>{6, 9, 7, 10, 8, 11}));
      ++read;
    } catch (core::InputError const& error) {
      ASSERT_NE(std::string(error.what()).find(path()), std::string::npos) << error.what();
      ++refused_count;
    }
  };
  attempt(whole);
  ASSERT_EQ(read, 1);
  for (std::size_t size = 0; size < whole.size(); ++size) attempt(whole.substr(0, size));
  EXPECT_EQ(read, 1) << "a truncated file was taken for a whole one";
  std::mt19937_64 random(1);
  for (std::size_t at = 0; at < whole.size() && !HasFatalFailure(); ++at) {
    std::string broken = whole;
    broken[at] = static_cast<char>(broken[at] ^ (1 << (random() % 8)));
    attempt(broken);
  }
  for (int i = 0; i < 800 && !HasFatalFailure(); ++i) {
    std::string broken = whole;
    std::size_t const begin = random() % whole.size(), length = 1 + random() % 32;
    for (std::size_t k = begin; k < std::min(begin + length, broken.size()); ++k)
      broken[k] = i % 2 == 0 ? static_cast<char>(random()) : whole[random() % whole.size()];
    attempt(broken);
  }
  EXPECT_GT(refused_count, static_cast<int>(3 * whole.size() / 2));
}

/// The machine alone, so that no checksum protects it: damaged pickles are refused or describe tensors.
TEST(TorchPickle, DamagedPicklesAreRefusedOrRead) {
  std::string const whole = one_tensor(0, {3, 4}, {4, 1});
  std::string const where = "m.pth: data.pkl";
  std::mt19937_64 random(1);
  auto const attempt = [&](std::string const& bytes) {
    try {
      io::PickledState const state = io::read_torch_pickle(bytes, where);
      EXPECT_FALSE(state.tensors.empty());
    } catch (core::InputError const& error) {
      EXPECT_EQ(std::string(error.what()).find(where), 0U) << error.what();
    }
  };
  for (std::size_t size = 0; size < whole.size(); ++size) attempt(whole.substr(0, size));
  for (std::size_t bit = 0; bit < 8 * whole.size(); ++bit) {
    std::string broken = whole;
    broken[bit / 8] = static_cast<char>(broken[bit / 8] ^ (1 << (bit % 8)));
    attempt(broken);
  }
  // Opcodes at every place, and random programs.
  for (std::size_t at = 2; at < whole.size(); ++at)
    for (int code = static_cast<int>(at % 5); code < 256; code += 5) {
      std::string broken = whole;
      broken[at] = static_cast<char>(code);
      attempt(broken);
    }
  std::string const codes = "(.012NKMJ]})tsuaeqhbRQc\x85\x86\x87\x88\x89\x8c\x93\x94";
  for (int i = 0; i < 5000; ++i) {
    std::string program = pickle::begin;
    for (std::size_t k = 0, length = random() % 60; k < length; ++k)
      program += random() % 4 == 0 ? static_cast<char>(random()) : codes[random() % codes.size()];
    attempt(program);
  }
}

}  // namespace
