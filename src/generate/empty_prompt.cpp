// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "generate/generator.hpp"
#include "kernels/linear.hpp"

namespace strata::generate {

using kernels::StageRows;

namespace {

/// The start vector of a stage's only sequence.
StageRows first_row(model::ModelConfig const& config, std::size_t stage) {
  StageRows r;
  r.shape = {1, 1};
  r.patches = config.seq_lens[stage];
  r.patch_bytes = config.bytes_per_position(stage);
  return r;
}

template <class T>
std::size_t row_scratch(model::Stage<T> const& stage, StageRows const& r) {
  return std::max(stage.input_scratch(r, false), stage.block().forward_scratch(r.shape, false));
}

}  // namespace

template <class T>
std::vector<double> empty_prompt_logits(model::Hierarchy<T> const& model) {
  model::ModelConfig const& config = model.config();
  auto const run = [&](core::Arena& memory, bool measuring) {
    Mat<T> row, context;
    kernels::Tokens const none;
    model::Pass<T> const pass{kernels::ExecSpace(), memory, model.parameters(), {}};
    for (std::size_t s = 0; s < config.stages(); ++s) {
      model::Stage<T> const& stage = *model.stages()[s];
      StageRows const r = first_row(config, s);
      auto const tape = stage.take_tape(memory, r, false);
      model::Carry<T> carry = stage.block().take_carry(memory, 1, 1, false);
      row = memory.template matrix<T>(1, stage.width());
      Mat<T> const projected = memory.template matrix<T>(1, stage.projected_width());
      if (measuring) {
        core::Arena::Frame const frame(memory);
        memory.template vector<char>(static_cast<Index>(row_scratch(stage, r)));
        continue;
      }
      Mat<T> const slots = s == 0 ? Mat<T>() : kernels::reshape(context, config.seq_lens[s], stage.width());
      stage.forward_input(pass, none, r, slots, tape, true);
      stage.block().forward(pass, tape.block, carry, row);
      if (!config.is_last(s)) stage.project(pass, row, projected);
      context = projected;
    }
    Mat<T> const logits = memory.template matrix<T>(1, config.num_tokens);
    if (measuring) return std::vector<double>();
    kernels::linear_forward<T>(pass.space, row, model.parameters().value(model.logits_weight()),
                               model.parameters().vector(model.logits_bias()), logits);
    auto const host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), logits);
    return std::vector<double>(host.data(), host.data() + host.size());
  };
  core::Arena measuring = core::Arena::measuring();
  run(measuring, true);
  core::Arena memory(measuring.peak());
  return run(memory, false);
}

template std::vector<double> empty_prompt_logits(model::Hierarchy<float> const&);
template std::vector<double> empty_prompt_logits(model::Hierarchy<double> const&);

}  // namespace strata::generate
