// SPDX-License-Identifier: Apache-2.0
// Stacks of layers on their own: stage_block files, with one group per sequence length.

#include <memory>

#include "model/block.hpp"
#include "train/deck.hpp"
#include "unit_tests/parity/fixture.hpp"

namespace strata::parity {

namespace {

using kernels::Mat;
using kernels::Sequences;

template <class T>
void upload(std::vector<double> const& from, Mat<T> to) {
  Kokkos::View<T**, Kokkos::LayoutRight, Kokkos::HostSpace> const host("host", to.extent(0), to.extent(1));
  std::copy(from.begin(), from.end(), host.data());
  Kokkos::deep_copy(to, host);
}
template <class T>
std::vector<double> download(Mat<T> from) {
  auto const host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), from);
  return {host.data(), host.data() + host.size()};
}

/// Forward and backward of one group's sequences, whole.
template <class T>
void check_length(io::File const& file, std::string const& group, train::StageBlock const& config,
                  Report& report) {
  io::Shape shape;
  std::vector<double> const x = file.read<double>(group + "/inputs/x", &shape);
  Sequences const sequences{shape.at(0), shape.at(1)};
  model::ParameterStore<T> parameters;
  auto const block = model::make_block<T>(config.block, config.model_dim, config.num_layers, "",
                                          model::Ready::at_end, parameters);
  parameters.allocate(true);
  load_parameters(file, "stage_block", parameters);

  core::Arena arena(std::size_t(1) << 26);
  model::Pass<T> const pass{kernels::ExecSpace(), arena, parameters, {}};
  model::Tape<T> const tape = block->take_tape(arena, sequences, true);
  model::Carry<T> carry = block->take_carry(arena, sequences.count, sequences.length, false);
  model::Carry<T> const dcarry = block->take_carry(arena, sequences.count, sequences.length, false);
  Kokkos::deep_copy(dcarry.history, T(0));
  Mat<T> const y = arena.matrix<T>(sequences.rows(), config.model_dim);
  Mat<T> const dy = arena.matrix<T>(sequences.rows(), config.model_dim);
  Mat<T> const dx = arena.matrix<T>(sequences.rows(), config.model_dim);
  upload(x, block->input(tape));
  block->forward(pass, tape, carry, y);
  report.logits.add(group + "/y", download(y), file.read<double>(group + "/outputs/y"),
                    tolerance<T>().output);
  upload(file.read<double>(group + "/inputs/dy"), dy);
  block->backward(pass, tape, 0, carry, dcarry, dy, dx);
  std::vector<double> const wanted = file.read<double>(group + "/outputs/dx");
  report.gradients.add(group + "/dx", download(dx), wanted, tolerance<T>().gradient_allowed(wanted));
  report.gradients.add(compare_gradients(file, group + "/grads", "stage_block", parameters));
}

}  // namespace

template <class T>
Report check_stage_block(io::File const& file) {
  train::StageBlock const config =
      train::parse_stage_block(file.text_attribute("/", "config_yaml"), file.path());
  Report report;
  for (std::string const& child : file.children("/"))
    if (child.starts_with("L") && file.is_group("/" + child))
      check_length<T>(file, "/" + child, config, report);
  return report;
}

template Report check_stage_block<float>(io::File const&);
template Report check_stage_block<double>(io::File const&);

}  // namespace strata::parity
