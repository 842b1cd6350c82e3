// SPDX-License-Identifier: Apache-2.0
#include "model/stage.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/linear.hpp"
#include "kernels/reduce.hpp"
#include "kernels/rotary.hpp"
#include "kernels/stage_input.hpp"

namespace strata::model {

using kernels::StageRows;

namespace {
Ready ready_of(std::size_t stage) { return stage == 0 ? Ready::at_end : Ready::before_outer_backward; }
}  // namespace

template <class T>
struct Stage<T>::InputScratch {
  Mat<T> embedded;  // (embedded rows, D), in backward its gradient
  Mat<T> rotation;  // (sub-patches that a sequence's rows read, D) or empty
  Vec<T> workspace;

  static InputScratch take(core::Arena& arena, Stage const& stage, StageRows const& rows, bool backward) {
    InputScratch s;
    s.embedded = arena.template matrix<T>(rows.embedded_rows(), stage.width_);
    if (stage.position_ == Position::rope)
      s.rotation = arena.template matrix<T>(
          rows.shape.starts == nullptr ? rows.embedded_length() : rows.shape.count, stage.width_);
    if (backward) s.workspace = arena.template vector<T>(kernels::stage_input_workspace(rows, stage.width_));
    return s;
  }
};

template <class T>
Stage<T>::Stage(ModelConfig const& config, std::size_t stage, ParameterStore<T>& parameters)
    : width_(config.hidden_dims[stage]),
      projected_width_(config.is_last(stage) ? 0
                                             : config.seq_lens[stage + 1] * config.hidden_dims[stage + 1]),
      lag_(config.head == Head::reference ? 1 : 0),
      embedder_(config, stage, ready_of(stage), parameters),
      position_(config.block[stage].pos_emb_type),
      positions_(config.seq_lens[stage]) {
  std::string const number = std::to_string(stage);
  Initial const normal{Initial::Kind::normal};
  start_ = parameters.declare("start_tokens." + number, {width_}, normal, ready_of(stage));
  if (position_ == Position::fixed)
    table_ =
        parameters.declare("pos_embs." + number + ".weight", {positions_, width_}, normal, ready_of(stage));
  block_ = make_block<T>(config.block[stage], width_, config.num_layers[stage],
                         "stage_models." + number + ".", ready_of(stage), parameters);
  if (projected_width_ > 0) {
    std::string const prefix = "to_next_stage_proj." + number + ".1.";
    Initial const uniform{Initial::Kind::uniform, 1 / std::sqrt(static_cast<double>(width_))};
    projection_ = parameters.declare(prefix + "weight", {projected_width_, width_}, uniform,
                                     Ready::before_outer_backward);
    projection_bias_ =
        parameters.declare(prefix + "bias", {projected_width_}, uniform, Ready::before_outer_backward);
  }
}

template <class T>
typename Stage<T>::StageTape Stage<T>::take_tape(core::Arena& arena, StageRows const& rows,
                                                 bool keeps) const {
  return {arena.template vector<T>(embedder_.tape_size(rows.embedded_rows())),
          block_->take_tape(arena, rows.shape, keeps)};
}

template <class T>
std::size_t Stage<T>::input_scratch(StageRows const& rows, bool backward) const {
  core::Arena arena = core::Arena::measuring();
  InputScratch::take(arena, *this, rows, backward);
  return arena.peak() + (backward ? embedder_.backward_scratch(rows) : embedder_.forward_scratch(rows));
}

template <class T>
std::size_t Stage<T>::projection_scratch(Index parent_rows) const {
  core::Arena arena = core::Arena::measuring();
  arena.template vector<T>(kernels::column_sums_workspace(parent_rows, projected_width_));
  return arena.peak();
}

template <class T>
void Stage<T>::forward_input(Pass<T> const& pass, kernels::Tokens const& tokens, StageRows const& rows,
                             Mat<T> context, StageTape const& tape, bool start_reads_context) const {
  core::Arena::Frame const frame(pass.arena);
  InputScratch const scratch = InputScratch::take(pass.arena, *this, rows, false);
  ParameterStore<T> const& p = pass.parameters;
  embedder_.forward(pass, tokens, rows, tape.embedder, scratch.embedded);
  // Row t reads sub-patch t - 1.
  if (position_ == Position::rope)
    kernels::rotary_table<T>(pass.space, rows.shape.starts == nullptr ? rows.first_patch() : -1,
                             scratch.rotation, rows.shape.starts);
  kernels::stage_input_forward<T>(pass.space, rows, scratch.embedded, p.vector(start_),
                                  position_ == Position::fixed ? p.value(table_) : Mat<T>(), scratch.rotation,
                                  context, start_reads_context ? 0 : lag_, block_->input(tape.block));
}

template <class T>
void Stage<T>::backward_input(Pass<T> const& pass, kernels::Tokens const& tokens, StageRows const& rows,
                              Mat<T> dx, StageTape const& tape, Mat<T> dcontext) const {
  core::Arena::Frame const frame(pass.arena);
  InputScratch const scratch = InputScratch::take(pass.arena, *this, rows, true);
  ParameterStore<T> const& p = pass.parameters;
  if (position_ == Position::rope) kernels::rotary_table<T>(pass.space, rows.first_patch(), scratch.rotation);
  kernels::stage_input_backward<T>(
      pass.space, rows, dx, scratch.rotation, lag_, scratch.embedded, p.gradient_vector(start_),
      position_ == Position::fixed ? p.gradient(table_) : Mat<T>(), dcontext, scratch.workspace);
  embedder_.backward(pass, tokens, rows, tape.embedder, scratch.embedded);
}

template <class T>
void Stage<T>::project(Pass<T> const& pass, ConstMat<T> rows, Mat<T> context) const {
  kernels::linear_forward<T>(pass.space, rows, pass.parameters.value(projection_),
                             pass.parameters.vector(projection_bias_), context);
}

template <class T>
void Stage<T>::project_backward(Pass<T> const& pass, ConstMat<T> dcontext, ConstMat<T> rows, Mat<T> drows,
                                Index lead) const {
  core::Arena::Frame const frame(pass.arena);
  ParameterStore<T> const& p = pass.parameters;
  Vec<T> const workspace =
      pass.arena.template vector<T>(kernels::column_sums_workspace(dcontext.extent(0), projected_width_));
  kernels::linear_backward_weight<T>(pass.space, dcontext, rows, p.gradient(projection_));
  kernels::column_sums<T>(pass.space, dcontext, p.gradient_vector(projection_bias_), workspace);
  Index const count = rows.extent(0);
  if (lead > 0)
    kernels::linear_backward_input_accumulate<T>(pass.space, kernels::rows(dcontext, 0, lead),
                                                 p.value(projection_), kernels::rows(drows, 0, lead));
  kernels::linear_backward_input<T>(pass.space, kernels::rows(dcontext, lead, count), p.value(projection_),
                                    kernels::rows(drows, lead, count));
}

template <class T>
double Stage<T>::forward_flops(StageRows const& rows, bool square, Index previous_total) const {
  return embedder_.forward_flops(rows) +
         block_->forward_flops(rows.shape, rows.first_position, square, previous_total) +
         2.0 * static_cast<double>(rows.shape.rows()) * static_cast<double>(width_ * projected_width_);
}

template class Stage<float>;
template class Stage<double>;

}  // namespace strata::model
