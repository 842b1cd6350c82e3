// SPDX-License-Identifier: Apache-2.0
#include "model/block.hpp"

#include <stdexcept>

#include "model/mamba1_block.hpp"
#include "model/mamba2_block.hpp"
#include "model/transformer_block.hpp"

namespace strata::model {

template <class T>
std::unique_ptr<Block<T>> make_block(BlockConfig const& config, Index width, Index layers,
                                     std::string const& prefix, Ready ready, ParameterStore<T>& parameters) {
  switch (config.block_type) {
    case BlockType::transformer:
    case BlockType::transformer_encoder:
      return std::make_unique<TransformerBlock<T>>(config, width, layers, prefix, ready, parameters);
    case BlockType::mamba1:
      return std::make_unique<Mamba1Block<T>>(config, width, layers, prefix, ready, parameters);
    case BlockType::mamba2:
      return std::make_unique<Mamba2Block<T>>(config, width, layers, prefix, ready, parameters);
  }
  throw std::logic_error(prefix + ": unknown block type");
}

template std::unique_ptr<Block<float>> make_block(BlockConfig const&, Index, Index, std::string const&, Ready,
                                                  ParameterStore<float>&);
template std::unique_ptr<Block<double>> make_block(BlockConfig const&, Index, Index, std::string const&,
                                                   Ready, ParameterStore<double>&);

}  // namespace strata::model
