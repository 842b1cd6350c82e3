// SPDX-License-Identifier: Apache-2.0
#pragma once
// Models that whole steps and generation are measured with.

#include "model/config.hpp"

namespace strata::perf {

/// Two causal stages of equal width with patches of `patch` bytes and heads of width / heads features, fixed
/// positions and rotary attention, head `complete`; contexts up to `context` bytes.
model::ModelConfig two_stages(model::Index width, model::Index heads, model::Index layers, model::Index patch,
                              model::Index context);

/// The 22 million parameters of inputs/pg19_two_stage_22m.yaml: width 512, 8 heads, 4 + 4 layers, patches of
/// 8, windows of 8192 bytes.
model::ModelConfig model_22m();
/// 1 million parameters: width 128, 4 heads, 2 + 2 layers, patches of 8.
model::ModelConfig small_model(model::Index context);
/// The same with a Mamba-2 outer stage, for contexts of any length.
model::ModelConfig small_hybrid();
/// Width 32, one layer per stage.
model::ModelConfig tiny_model(model::Index context);

}  // namespace strata::perf
