// SPDX-License-Identifier: Apache-2.0
// What training keeps per position of a state-space layer: linear in the length, and free of the factor N
// (the states of all channels, E * N numbers per position, are never stored).
#include <gtest/gtest.h>

#include "model/block.hpp"
#include "model/tape_parts.hpp"

namespace strata::model {
namespace {

constexpr Index width = 24;

BlockConfig mamba(BlockType type, Index d_state) {
  BlockConfig block;
  block.block_type = type;
  block.d_state = d_state;
  block.d_conv = 4;
  block.expand = 2;
  block.headdim = 6;
  return block;
}

/// Blocks of `layers` layers.
class Stack {
 public:
  Stack(BlockConfig const& config, Index layers)
      : block_(make_block<float>(config, width, layers, "", Ready::at_end, parameters_)) {}

  Index tape(Index sequences, Index length) const { return block_->tape_size({sequences, length}, true); }
  Block<float> const& block() const { return *block_; }

 private:
  ParameterStore<float> parameters_;
  std::unique_ptr<Block<float>> block_;
};

TEST(Tape, IsLinearInTheLength) {
  for (BlockType const type : {BlockType::mamba1, BlockType::mamba2}) {
    Stack const stack(mamba(type, 16), 3);
    Index const line = 16;  // elements; arrays of a tape start at multiples of it
    Index const slope = (stack.tape(1, 2 * line) - stack.tape(1, line)) / line;
    for (Index const sequences : {1, 2, 7})
      for (Index const length : {line, 2 * line, 16 * line, 63 * line, 4096 * line})
        EXPECT_EQ(stack.tape(sequences, length) - stack.tape(1, line), slope * (sequences * length - line))
            << sequences << " sequences of " << length;
    for (Index const length : {1, 5, 17, 1001}) {
      Index const above = (length + line - 1) / line * line;
      EXPECT_LE(stack.tape(1, length), stack.tape(1, above)) << length;
      EXPECT_GE(stack.tape(1, length), slope * length) << length;
    }
  }
}

TEST(Tape, IsFreeOfTheFactorN) {
  for (BlockType const type : {BlockType::mamba1, BlockType::mamba2}) {
    for (Index const n : {1, 5, 16, 64, 1024}) {
      Index const more =
          layer_tape_elements(mamba(type, 2 * n), width) - layer_tape_elements(mamba(type, n), width);
      EXPECT_GE(more, 0);
      EXPECT_LE(more, 2 * n) << "B and C of a position may be kept, its states may not";
      // Nor is there a state in what does not grow with the length.
      Index const fixed = Stack(mamba(type, 2 * n), 3).tape(1, 16) - Stack(mamba(type, n), 3).tape(1, 16);
      EXPECT_LE(fixed, 3 * 2 * n * 16);
    }
  }
}

TEST(Tape, ConsistsOfTheNamedParts) {
  BlockConfig transformer;
  transformer.attn_head_dims = 6;
  transformer.attn_num_heads = 3;
  for (BlockConfig const& config : {transformer, mamba(BlockType::mamba1, 7), mamba(BlockType::mamba2, 7),
                                    mamba(BlockType::mamba2, 128)}) {
    Index sum = 0;
    for (TapePart const& part : layer_tape_parts(config, width)) {
      EXPECT_GT(part.elements, 0) << part.what;
      sum += part.elements;
    }
    EXPECT_EQ(sum, layer_tape_elements(config, width)) << static_cast<int>(config.block_type);
  }
}

TEST(Carry, OfMambaHasAFixedSize) {
  for (BlockType const type : {BlockType::mamba1, BlockType::mamba2}) {
    Stack const stack(mamba(type, 16), 3);
    Index const channels = 2 * width, convolved = type == BlockType::mamba1 ? channels : channels + 2 * 16;
    EXPECT_EQ(stack.block().history_width(), 0);
    EXPECT_EQ(stack.block().border_width(), 3 * convolved + channels * 16);
  }
}

}  // namespace
}  // namespace strata::model
