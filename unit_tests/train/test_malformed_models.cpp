// SPDX-License-Identifier: Apache-2.0
// Models of other programs that are damaged, cut short or absurd, as `strata convert` meets them: refused
// with one sentence that names the file, and nothing is written.

#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "core/error.hpp"
#include "train/convert.hpp"
#include "unit_tests/io/temp_folder.hpp"
#include "unit_tests/support/foreign_files.hpp"

namespace {

using namespace strata;
using namespace strata::test;
using Index = std::int64_t;

/// A Transformer of one stage, width 2, with positions: every tensor a state_dict has.
std::vector<RawTensor> small_model() {
  std::vector<RawTensor> tensors;
  auto const add = [&](std::string const& name, std::vector<Index> const& shape) {
    Index count = 1;
    for (Index const n : shape) count *= n;
    tensors.push_back({name, "F32", shape, raw(std::vector<float>(static_cast<std::size_t>(count), 0.5F))});
  };
  add("start_tokens.0", {2});
  add("pos_embs.0.weight", {4, 2});
  add("token_embs_rev.0.weight", {257, 2});
  std::string const layer = "stage_models.0.layers.0.";
  add(layer + "0.norm.g", {2});
  add(layer + "0.to_q.weight", {2, 2});
  add(layer + "0.to_kv.weight", {4, 2});
  add(layer + "0.to_out.weight", {2, 2});
  add(layer + "1.0.g", {2});
  add(layer + "1.1.weight", {4, 2});
  add(layer + "1.1.bias", {4});
  add(layer + "1.4.weight", {2, 4});
  add(layer + "1.4.bias", {2});
  add("stage_models.0.norm.g", {2});
  add("to_logits.weight", {257, 2});
  add("to_logits.bias", {257});
  return tensors;
}

std::vector<std::string> const open_keys{"params.pad_token_id=256", "params.block.0.attn_head_dims=2",
                                         "params.block.0.attn_num_heads=1",
                                         "params.block.0.attn_use_rot_embs=false"};

/// The same model as torch.save writes it; `hook` stands behind its tensors in the pickle.
std::string small_torch_file(std::string const& hook = "") {
  std::string items;
  std::vector<RawEntry> storages;
  for (RawTensor const& t : small_model()) {
    std::string const key = std::to_string(storages.size());
    std::vector<Index> strides(t.shape.size(), 1);
    for (std::size_t d = t.shape.size() - 1; d > 0; --d) strides[d - 1] = strides[d] * t.shape[d];
    auto const count = static_cast<Index>(t.data.size() / sizeof(float));
    items += pickle::text(t.name) +
             pickle::tensor(pickle::storage("FloatStorage", key, count), 0, t.shape, strides);
    storages.push_back({key, t.data});
  }
  return torch_file(pickle::begin + pickle::dict(items + hook) + pickle::stop, storages);
}

class MalformedModels : public testing::Test {
 protected:
  /// Nothing when the file is converted, else the refusal.
  std::string convert(std::string const& content, std::vector<std::string> const& overrides = open_keys) {
    std::filesystem::remove(from_);
    std::filesystem::remove(to_);
    write_file(from_, content);
    try {
      train::Import(from_, {}, overrides, false).write(to_);
    } catch (core::InputError const& error) {
      std::string const message = error.what();
      EXPECT_NE(message.find(from_), std::string::npos) << message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      EXPECT_FALSE(std::filesystem::exists(to_)) << message;
      return message;
    }
    EXPECT_TRUE(std::filesystem::exists(to_));
    return "";
  }
  void refused(std::string const& content, std::string const& part) {
    std::string const message = convert(content);
    EXPECT_NE(message.find(part), std::string::npos) << message << "\nlacks: " << part;
  }

  TempFolder const folder_;
  std::string const from_ = folder_ / "model", to_ = folder_ / "model.h5";
};

TEST_F(MalformedModels, WholeFilesAreConverted) {
  EXPECT_EQ(convert(safetensors(small_model())), "");
  std::string const checkpoint = read_file(to_);
  EXPECT_EQ(convert(small_torch_file()), "");
  EXPECT_TRUE(read_file(to_) == checkpoint);
}

TEST_F(MalformedModels, TruncatedFilesAreRefused) {
  for (std::string const& whole : {safetensors(small_model()), small_torch_file()})
    for (std::size_t size = 0; size < whole.size(); size += 1 + whole.size() / 150)
      EXPECT_NE(convert(whole.substr(0, size)), "") << size << " of " << whole.size();
}

TEST_F(MalformedModels, SizesThatNoModelHas) {
  auto const with = [](std::string const& name, std::vector<Index> const& shape, std::string const& data) {
    std::vector<RawTensor> tensors = small_model();
    for (RawTensor& t : tensors)
      if (t.name == name) {
        t = {name, "F32", shape, data};
        return safetensors(tensors);
      }
    tensors.push_back({name, "F32", shape, data});
    return safetensors(tensors);
  };
  std::string const none, one = raw(1.0F);
  refused(with("start_tokens.0", {}, one), "start_tokens.0 has the shape [], which no such model has");
  refused(with("start_tokens.0", {0}, none), "start_tokens.0 has the shape [0], which no such model has");
  refused(with("start_tokens.1", {Index{1} << 40, 0}, none), "model");
  refused(with("token_embs_rev.0.weight", {0, Index{1} << 60}, none), "which no such model has");
  refused(with("token_embs_rev.0.weight", {Index{1} << 60, 0}, none), "num_tokens");
  refused(with("pos_embs.0.weight", {Index{1} << 61, 0}, none), "params.seq_lens.0 must be at least 1");
  std::string const layer = "stage_models.0.layers.0.";
  refused(with(layer + "0.to_q.weight", {Index{1} << 50, 0}, none), "to_q.weight has the shape");
  refused(with(layer + "1.1.weight", {3, 2}, raw(std::vector<float>(6))), "no multiple of 2");
  refused(with(layer + "mixer.dt_bias", {0}, none), "model");
  refused(with(layer + "mixer.x_proj.weight", {0}, none), "model");
  refused(with("stage_models.0.layers.99999999999999999999.norm.g", {1}, one), "no place for");
  refused(with("stage_models.7.layers.0.0.to_q.weight", {1, 1}, raw(1.0F)), "no place for");
}

TEST_F(MalformedModels, PicklesThatCallAreRefused) {
  using namespace pickle;
  std::string const touch = "touch " + (folder_ / "touched");
  for (char const* module : {"os", "posix", "subprocess", "builtins"})
    refused(small_torch_file(text("hook") + global(module, "system") + text(touch) + "\x85" + reduce),
            "which no dictionary of tensors needs");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "touched"));
}

/// Bytes changed anywhere: refused, or a model that is written whole.
TEST_F(MalformedModels, DamagedFilesAreRefusedOrRead) {
  std::mt19937_64 random(3);
  for (std::string const& whole : {safetensors(small_model()), small_torch_file()})
    for (int i = 0; i < 150; ++i) {
      std::string broken = whole;
      std::size_t const begin = random() % std::min<std::size_t>(whole.size(), 2500),
                        length = 1 + random() % 12;
      for (std::size_t k = begin; k < begin + length; ++k)
        broken[k] = i % 2 == 0 ? static_cast<char>(random()) : whole[random() % 2500];
      convert(broken);
    }
}

}  // namespace
