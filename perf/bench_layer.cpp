// SPDX-License-Identifier: Apache-2.0
// One layer of each kind of block, forward and backward, as a stage runs it.

#include "model/block.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

struct Case {
  char const* group;
  char const* name;
  model::BlockType type;
  Index width, state, sequences, length;
};

using model::BlockType;
constexpr Case cases[] = {
    {"smoke", "mamba1", BlockType::mamba1, 32, 8, 2, 40},
    {"smoke", "mamba2", BlockType::mamba2, 32, 8, 2, 40},
    {"local", "mamba1", BlockType::mamba1, 512, 16, 1, 1024},
    {"local", "mamba1", BlockType::mamba1, 512, 128, 1, 1024},
    {"local", "mamba2", BlockType::mamba2, 512, 128, 64, 8},
    {"local", "transformer", BlockType::transformer, 512, 0, 64, 8},
    {"long", "mamba2", BlockType::mamba2, 512, 128, 1, 4096},
    {"long", "transformer", BlockType::transformer, 512, 0, 1, 4096},
};

model::BlockConfig block_config(Case const& c) {
  model::BlockConfig block;
  block.block_type = c.type;
  block.attn_head_dims = 64;
  block.attn_num_heads = c.width / 64;
  block.d_state = c.state;
  block.d_conv = 4;
  block.expand = 2;
  block.headdim = c.width < 64 ? 16 : 64;
  return block;
}

/// A layer with all that its calls work with.
class Layer {
 public:
  explicit Layer(Case const& c)
      : shape_{c.sequences, c.length},
        block_(model::make_block<float>(block_config(c), c.width, 1, "", model::Ready::at_end, parameters_)),
        x_(random_matrix<float>(shape_.rows(), c.width)),
        dy_(random_matrix<float>(shape_.rows(), c.width)) {
    parameters_.allocate(true);
    parameters_.initialise(1);
    auto const lay_out = [&](core::Arena& arena) {
      tape_ = block_->take_tape(arena, shape_, true);
      carry_ = block_->take_carry(arena, shape_.count, shape_.length, false);
      dcarry_ = block_->take_carry(arena, shape_.count, shape_.length, false);
      y_ = arena.matrix<float>(shape_.rows(), c.width);
      dx_ = arena.matrix<float>(shape_.rows(), c.width);
    };
    core::Arena measuring = core::Arena::measuring();
    lay_out(measuring);
    arena_ =
        std::make_unique<core::Arena>(measuring.peak() + std::max(block_->forward_scratch(shape_, false),
                                                                  block_->backward_scratch(shape_, false)));
    lay_out(*arena_);
  }
  void run(ExecSpace const& space) {
    model::Pass<float> const pass{space, *arena_, parameters_, {}};
    carry_.position = 0;
    Kokkos::deep_copy(space, block_->input(tape_), x_);
    block_->forward(pass, tape_, carry_, y_);
    carry_.position = 0;
    block_->backward(pass, tape_, carry_, dcarry_, dy_, dx_);
  }
  /// Useful operations of forward and backward, and the bytes of parameters, gradients and tape moved once.
  Cost cost() const {
    double const tape = static_cast<double>(tape_.data.extent(0)), parameters = 2.0 * parameters_.count();
    return {sizeof(float) * (tape + parameters), sizeof(float) * (tape + parameters),
            3 * block_->forward_flops(shape_, 0)};
  }

 private:
  kernels::Sequences shape_;
  model::ParameterStore<float> parameters_;
  std::unique_ptr<model::Block<float>> block_;
  Matrix<float> x_, dy_;
  std::unique_ptr<core::Arena> arena_;
  model::Tape<float> tape_;
  model::Carry<float> carry_, dcarry_;
  Mat<float> y_, dx_;
};

Registration const registration([] {
  for (Case const& c : cases) {
    std::string const shape = std::to_string(c.sequences) + "x" + std::to_string(c.length) + "_width" +
                              std::to_string(c.width) +
                              (c.state > 0 ? "_state" + std::to_string(c.state) : "");
    add(std::string("layer_") + c.name, "float", c.group, shape, [c](benchmark::State& state) {
      Layer layer(c);
      measure(state, layer.cost(), gemm_limit<float>(), [&](ExecSpace const& space) { layer.run(space); });
    })->Unit(benchmark::kMillisecond);
  }
});

}  // namespace
}  // namespace strata::perf
