// SPDX-License-Identifier: Apache-2.0
#pragma once
// Parameters of a model by formula, from its configuration alone: nothing is allocated.

#include <vector>

#include "model/config.hpp"

namespace strata::model {

/// Numbers of parameters by part. Start vectors and position tables count with their stage.
struct ParameterCount {
  struct Stage {
    Index embedder = 0;    ///< table, and for all but the last stage the layers that make a patch of it
    Index block = 0;       ///< layers, final norm if any, start vector, position table
    Index projection = 0;  ///< to the next stage; 0 for the last
  };
  std::vector<Stage> stages;
  Index head = 0;

  Index total() const;
};

/// The configuration must be valid.
ParameterCount count_parameters(ModelConfig const& config);

/// The same total, rounded and safe from overflow; needs positive sizes and equally long lists only.
double approximate_parameter_count(ModelConfig const& config);

}  // namespace strata::model
