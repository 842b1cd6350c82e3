// SPDX-License-Identifier: Apache-2.0
// Which configurations make a model, and how many parameters it has.
#include "model/config.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

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

BlockConfig mamba(BlockType type, Index d_state, Index d_conv, Index expand, Index headdim) {
  BlockConfig block;
  block.block_type = type;
  block.d_state = d_state;
  block.d_conv = d_conv;
  block.expand = expand;
  block.headdim = headdim;
  return block;
}

/// One sequence for each layer, and those that the stages below need.
TEST(ModelConfig, KnowsWhatCrossPatchAttentionDependsOn) {
  ModelConfig c = small(3);
  EXPECT_EQ(c.lead(1), 0);
  c.block[2].cross_patch_attention = 4;
  c.num_layers[2] = 5;
  EXPECT_NO_THROW(c.validate());
  EXPECT_EQ(c.lead(2), 5);
  EXPECT_EQ(c.lead(1), 2);
  c.block[1].cross_patch_attention = 1;
  EXPECT_EQ(c.lead(1), 4);
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
      {[](ModelConfig& c) { c.block[1].cross_patch_attention = -1; }, "must be at least 0"},
      {[](ModelConfig& c) { c.block[1].cross_patch_attention = 5; }, "a patch has seq_lens 4 positions only"},
      {[](ModelConfig& c) { c.block[0].cross_patch_attention = 2; },
       "cross_patch_attention of stage 1 is 2, but the outermost stage has no patch before its own"},
      {[](ModelConfig& c) { c.block[1].cross_patch_attention = 2, c.head = Head::reference; },
       "head reference repeats the packages"},
      {[](ModelConfig& c) {
         c.block[1] = mamba(BlockType::mamba2, 4, 4, 2, 4), c.block[1].cross_patch_attention = 2;
       },
       "a Mamba stage has no attention"},
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

TEST(ModelConfig, RefusesImpossibleMambaBlocksAndSaysWhy) {
  Index const huge = Index(1) << 62;
  struct Case {
    std::function<void(BlockConfig&)> change;
    char const* says;
    bool mamba1_too;
  };
  std::vector<Case> const cases{
      {[](BlockConfig& b) { b.d_state = 0; }, "block: d_state of stage 2 must be at least 1; it is 0", true},
      {[](BlockConfig& b) { b.d_conv = 0; }, "block: d_conv of stage 2 must be at least 1; it is 0", true},
      {[](BlockConfig& b) { b.expand = -2; }, "block: expand of stage 2 must be at least 1; it is -2", true},
      {[](BlockConfig& b) { b.dropout = 1; }, "block: dropout of stage 2 must be at least 0 and below 1",
       true},
      {[](BlockConfig& b) { b.dropout = -0.1; }, "it is -0.1", true},
      {[](BlockConfig& b) { b.headdim = 0; }, "block: headdim of stage 2 must be at least 1; it is 0", false},
      {[](BlockConfig& b) { b.headdim = 7; },
       "block: headdim 7 of stage 2 does not divide its 24 channels (expand 2 times hidden_dims 12)", false},
      {[](BlockConfig& b) { b.headdim = 48; }, "headdim 48 of stage 2 does not divide its 24 channels",
       false},
      {[&](BlockConfig& b) { b.expand = huge; }, "block: expand 4611686018427387904 times hidden_dims 12",
       true},
      {[&](BlockConfig& b) { b.d_state = huge; }, "24 channels (expand 2 times hidden_dims 12) with d_state",
       true},
      {[&](BlockConfig& b) { b.d_conv = huge; }, "parameters, more than 64 bits", true},
  };
  for (BlockType const type : {BlockType::mamba1, BlockType::mamba2}) {
    for (Case const& c : cases) {
      ModelConfig config = small(2);
      config.block[1] = mamba(type, 5, 4, 2, 8);
      EXPECT_NO_THROW(config.validate());
      c.change(config.block[1]);
      if (type == BlockType::mamba1 && !c.mamba1_too) {
        EXPECT_NO_THROW(config.validate()) << "headdim means nothing to mamba1";
        continue;
      }
      try {
        config.validate();
        ADD_FAILURE() << "accepted although: " << c.says;
      } catch (core::InputError const& error) {
        EXPECT_NE(std::string(error.what()).find(c.says), std::string::npos) << error.what();
      }
    }
  }
}

TEST(ModelConfig, MambaSizesNeedBeMultiplesOfNothing) {
  ModelConfig c = small(2);
  c.hidden_dims = {13, 7};
  c.block = {mamba(BlockType::mamba1, 5, 1, 3, 0), mamba(BlockType::mamba2, 3, 3, 5, 35)};
  EXPECT_NO_THROW(c.validate());
  c.block[1].headdim = 1;
  EXPECT_NO_THROW(c.validate());
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

/// A sample of the package: width 1024, byte 0 as pad, Transformers of 16 heads of width 64 with fixed
/// positions (`t`) and Mamba-2 blocks with 128 states, 4 inputs and heads of width 64 (`s`).
ModelConfig sample(std::string const& blocks, std::vector<Index> layers, std::vector<Index> lengths) {
  ModelConfig c;
  c.num_tokens = 256;
  c.pad_token_id = 0;
  c.hidden_dims.assign(blocks.size(), 1024);
  c.num_layers = std::move(layers);
  c.seq_lens = std::move(lengths);
  BlockConfig transformer;
  transformer.attn_head_dims = 64;
  transformer.attn_num_heads = 16;
  transformer.pos_emb_type = Position::fixed;
  for (char const kind : blocks)
    c.block.push_back(kind == 't' ? transformer : mamba(BlockType::mamba2, 128, 4, 2, 64));
  return c;
}

/// The counts that the package's own five samples have.
TEST(ParameterCount, MatchesThePackagesSamples) {
  struct Sample {
    char const* name;
    ModelConfig config;
    Index count;
  };
  std::vector<Sample> const samples{
      {"pg19_30bb_360m_1d_t", sample("t", {42}, {8192}), 361451776},
      {"pg19_30bb_360m_2d_ss", sample("ss", {28, 24}, {1024, 8}), 360850560},
      {"pg19_30bb_360m_2d_st", sample("st", {25, 21}, {1024, 8}), 358898528},
      {"pg19_200bb_360m_3d_stt", sample("stt", {9, 8, 8}, {8192, 16, 8}), 362870112},
      {"clevr_7mi_360m_1d_s_ft", sample("s", {54}, {8192}), 356983616}};
  for (Sample const& s : samples) {
    EXPECT_NO_THROW(s.config.validate()) << s.name;
    EXPECT_EQ(count_parameters(s.config).total(), s.count) << s.name;
    EXPECT_DOUBLE_EQ(approximate_parameter_count(s.config), static_cast<double>(s.count)) << s.name;
  }
}

/// Against the breakdown of the package's three-stage sample.
TEST(ParameterCount, MatchesThePackagesThreeStageParts) {
  ParameterCount const count = count_parameters(sample("stt", {9, 8, 8}, {8192, 16, 8}));
  EXPECT_EQ(count.stages[0].embedder, 134745088);
  EXPECT_EQ(count.stages[1].embedder, 8670208);
  EXPECT_EQ(count.stages[2].embedder, 262144);
  EXPECT_EQ(count.stages[0].projection, 16793600);
  EXPECT_EQ(count.stages[1].projection, 8396800);
  EXPECT_EQ(count.stages[2].projection, 0);
  EXPECT_EQ(count.stages[0].block, 59410528 + 1024) << "with the start vector";
  EXPECT_EQ(count.stages[1].block, 67150848 + 16 * 1024 + 1024);
  EXPECT_EQ(count.stages[2].block, 67150848 + 8 * 1024 + 1024);
  EXPECT_EQ(count.head, 262400);
}

/// The arrays of one layer added up, sizes all different: R = 2, E = 51, N = 5, W = 3.
TEST(ParameterCount, AddsUpTheArraysOfAMamba1Layer) {
  ModelConfig c = small(1);
  c.hidden_dims = {17};
  c.num_layers = {2};
  c.block = {mamba(BlockType::mamba1, 5, 3, 3, 0)};
  Index const layer = 17               // norm
                      + 102 * 17       // in_proj
                      + 51 * 3 + 51    // conv1d
                      + (2 + 10) * 51  // x_proj
                      + 51 * 2 + 51    // dt_proj
                      + 51 * 5 + 51    // A_log, D
                      + 17 * 51;       // out_proj
  EXPECT_EQ(count_parameters(c).stages[0].block, 2 * layer + 17) << "no final norm; the start vector";
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
    for (PatchEncoder const encoder : {PatchEncoder::linear, PatchEncoder::convolution}) {
      if (stages == 1 && encoder == PatchEncoder::convolution) continue;
      c.patch_encoder = encoder;
      Hierarchy<double> const model(c, {}, false);
      EXPECT_EQ(count_parameters(c).total(), model.parameters().count()) << stages << " stages";
    }
  }
  for (auto const& [first, second] :
       {std::pair(BlockType::mamba1, BlockType::mamba2), std::pair(BlockType::mamba2, BlockType::mamba1)}) {
    ModelConfig c = small(2);
    c.hidden_dims = {34, 12};
    c.block = {mamba(first, 5, 3, 2, 4), mamba(second, 7, 4, 3, 6)};
    c.block[1].pos_emb_type = Position::fixed;
    Hierarchy<double> const model(c, {}, false);
    EXPECT_EQ(count_parameters(c).total(), model.parameters().count());
  }
}

}  // namespace
}  // namespace strata::model
