// SPDX-License-Identifier: Apache-2.0
// Which configurations make a model, and how many parameters it has.
#include "model/config.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "core/error.hpp"
#include "model/cost.hpp"
#include "model/hierarchy.hpp"

namespace strata::model {
namespace {

ModelConfig small(std::size_t stages) {
  ModelConfig c;
  c.hidden_dims.assign(stages, 12);
  c.num_layers.assign(stages, 2);
  c.seq_lens.assign(stages, 4);
  BlockConfig block;
  block.attn_head_dims = 4;
  block.attn_num_heads = 3;
  c.block.assign(stages, block);
  return c;
}

TEST(ModelConfig, AcceptsOneToEightStages) {
  for (std::size_t stages = 1; stages <= 8; ++stages) EXPECT_NO_THROW(small(stages).validate()) << stages;
}

TEST(ModelConfig, RefusesWhatCannotWorkAndSaysWhy) {
  struct Case {
    std::function<void(ModelConfig&)> change;
    char const* says;
  };
  std::vector<Case> const cases{
      {[](ModelConfig& c) { c = small(9); }, "9 stages; a model has 1 to 8"},
      {[](ModelConfig& c) { c = small(0); }, "0 stages"},
      {[](ModelConfig& c) { c.num_layers.pop_back(); },
       "hidden_dims has 2 entries, num_layers 1 and seq_lens 2"},
      {[](ModelConfig& c) { c.block.pop_back(); }, "block has 1 entries for 2 stages"},
      {[](ModelConfig& c) { c.hidden_dims[1] = 0; }, "hidden_dims of stage 2 must be at least 1; it is 0"},
      {[](ModelConfig& c) { c.num_layers[0] = -1; }, "num_layers of stage 1"},
      {[](ModelConfig& c) { c.seq_lens[1] = 0; }, "seq_lens of stage 2"},
      {[](ModelConfig& c) { c.pad_token_id = 257; },
       "pad_token_id must be at least 0 and below num_tokens 257; it is 257"},
      {[](ModelConfig& c) { c.pad_token_id = -1; }, "it is -1"},
      {[](ModelConfig& c) { c.num_tokens = 0; }, "num_tokens"},
      {[](ModelConfig& c) { c.num_tokens = 65537; }, "65537"},
      {[](ModelConfig& c) { c.block[1].attn_head_dims = 5; }, "attn_head_dims of stage 2 is 5"},
      {[](ModelConfig& c) { c.block[0].attn_num_heads = 0; }, "they are 4 and 0"},
      {[](ModelConfig& c) { c.block[0].ff_multiplier = 0; }, "ff_multiplier of stage 1"},
      {[](ModelConfig& c) { c.block[0].ff_dropout = 1; }, "ff_dropout of stage 1"},
      {[](ModelConfig& c) { c.block[0].attn_dropout = -0.5; }, "attn_dropout of stage 1"},
      {[](ModelConfig& c) { c.hidden_dims[0] = 13, c.block[0].pos_emb_type = Position::rope; },
       "stage 1 is 13"},
      {[](ModelConfig& c) { c.block[0].block_type = BlockType::transformer_encoder; },
       "stage 1 is a transformerEncoder"},
      {[](ModelConfig& c) {
         c.seq_lens = {Index(1) << 40, Index(1) << 40};
       },
       "seq_lens: the product"},
      {[](ModelConfig& c) { c.hidden_dims[0] = c.hidden_dims[1] = Index(1) << 40; },
       "parameters, more than 64 bits"},
      {[](ModelConfig& c) { c.num_layers[0] = Index(1) << 60; }, "parameters, more than 64 bits"},
  };
  for (Case const& c : cases) {
    ModelConfig config = small(2);
    c.change(config);
    try {
      config.validate();
      ADD_FAILURE() << "accepted although: " << c.says;
    } catch (core::InputError const& error) {
      EXPECT_NE(std::string(error.what()).find(c.says), std::string::npos) << error.what();
    }
  }
}

TEST(ModelConfig, OddWidthsAreFineWithoutRotation) {
  ModelConfig c = small(2);
  c.hidden_dims = {13, 7};
  for (BlockConfig& b : c.block) b.attn_head_dims = 5, b.attn_use_rot_embs = false;
  EXPECT_NO_THROW(c.validate());
  for (BlockConfig& b : c.block) b.block_type = BlockType::transformer_encoder;
  c.head = Head::reference;
  EXPECT_NO_THROW(c.validate());
}

/// The published count of the package's one-stage sample: 42 layers of width 1024, 8192 fixed positions.
TEST(ParameterCount, MatchesThePackagesSample) {
  ModelConfig c;
  c.num_tokens = 256;
  c.pad_token_id = 0;
  c.hidden_dims = {1024};
  c.num_layers = {42};
  c.seq_lens = {8192};
  BlockConfig block;
  block.attn_head_dims = 64;
  block.attn_num_heads = 16;
  block.pos_emb_type = Position::fixed;
  c.block = {block};
  EXPECT_EQ(count_parameters(c).total(), 361451776);
}

/// Against the breakdown of the package's three-stage sample, without its Mamba stage.
TEST(ParameterCount, MatchesThePackagesThreeStageParts) {
  ModelConfig c;
  c.num_tokens = 256;
  c.pad_token_id = 0;
  c.hidden_dims = {1024, 1024, 1024};
  c.num_layers = {9, 8, 8};
  c.seq_lens = {8192, 16, 8};
  BlockConfig block;
  block.attn_head_dims = 64;
  block.attn_num_heads = 16;
  c.block = {block, block, block};
  c.block[1].pos_emb_type = c.block[2].pos_emb_type = Position::fixed;
  ParameterCount const count = count_parameters(c);
  EXPECT_EQ(count.stages[0].embedder, 134745088);
  EXPECT_EQ(count.stages[1].embedder, 8670208);
  EXPECT_EQ(count.stages[2].embedder, 262144);
  EXPECT_EQ(count.stages[0].projection, 16793600);
  EXPECT_EQ(count.stages[1].projection, 8396800);
  EXPECT_EQ(count.stages[2].projection, 0);
  EXPECT_EQ(count.stages[1].block, 67150848 + 16 * 1024 + 1024);
  EXPECT_EQ(count.stages[2].block, 67150848 + 8 * 1024 + 1024);
  EXPECT_EQ(count.head, 262400);
  EXPECT_DOUBLE_EQ(approximate_parameter_count(c), static_cast<double>(count.total()));
}

/// Against what a model of that configuration really declares.
TEST(ParameterCount, EqualsTheStoresCount) {
  for (std::size_t stages = 1; stages <= 4; ++stages) {
    ModelConfig c = small(stages);
    for (std::size_t s = 0; s < stages; ++s) {
      c.hidden_dims[s] = 10 + 2 * static_cast<Index>(s);
      c.num_layers[s] = 1 + static_cast<Index>(s) % 2;
      c.seq_lens[s] = 5 - static_cast<Index>(s);
      c.block[s].ff_multiplier = 2 + static_cast<Index>(s);
      c.block[s].pos_emb_type = s == 1 ? Position::rope : s == 2 ? Position::none : Position::fixed;
    }
    Hierarchy<double> const model(c, {}, false);
    EXPECT_EQ(count_parameters(c).total(), model.parameters().count()) << stages << " stages";
  }
}

}  // namespace
}  // namespace strata::model
