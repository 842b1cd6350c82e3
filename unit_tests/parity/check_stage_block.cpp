// SPDX-License-Identifier: Apache-2.0
// Stacks of layers on their own: stage_block files, with one group per sequence length. Causal stacks also
// run in spans, through their carries, down to token by token; the states of Mamba stacks are compared too.

#include <algorithm>
#include <limits>
#include <memory>
#include <set>

#include "core/error.hpp"
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
  Kokkos::fence();
  auto const host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), from);
  return {host.data(), host.data() + host.size()};
}

/// What a Mamba stack's carry must hold behind the last token, in the layout of the carry: per layer and
/// sequence the last W - 1 inputs of the convolution, oldest first, C channels each, then the state.
std::vector<double> states_of(io::File const& file, std::string const& group,
                              train::StageBlock const& config) {
  model::BlockConfig const& b = config.block;
  bool const heads = b.block_type == model::BlockType::mamba2;
  Index const channels = b.expand * config.model_dim;
  Index const convolved = heads ? channels + 2 * b.d_state : channels;
  Index const head_width = heads ? b.headdim : 1;  // mamba1: every channel is a head of its own
  std::vector<double> all;
  for (Index l = 0; l < config.num_layers; ++l) {
    std::string const layer = group + "/final_state/layers." + std::to_string(l);
    io::Shape shape;
    std::vector<double> const ssm = file.read<double>(layer + ".ssm", &shape);
    Index const count = shape.at(0);
    if (static_cast<Index>(ssm.size()) != count * channels * b.d_state)
      throw core::InputError(file.path() + ": " + layer + ".ssm has an unexpected shape");
    std::vector<double> inputs;
    Index kept = 0;  // columns in the file: W - 1 or W
    if (b.d_conv > 1) {
      inputs = file.read<double>(layer + ".conv", &shape);
      kept = shape.at(2);
      if (shape.at(0) != count || shape.at(1) != convolved || kept < b.d_conv - 1)
        throw core::InputError(file.path() + ": " + layer + ".conv has an unexpected shape");
    }
    for (Index s = 0; s < count; ++s) {
      for (Index w = kept - (b.d_conv - 1); w < kept; ++w)
        for (Index c = 0; c < convolved; ++c)
          all.push_back(inputs[static_cast<std::size_t>((s * convolved + c) * kept + w)]);
      for (Index h = 0; h < channels / head_width; ++h)
        for (Index n = 0; n < b.d_state; ++n)
          for (Index c = 0; c < head_width; ++c)
            all.push_back(ssm[static_cast<std::size_t>((s * channels + h * head_width + c) * b.d_state + n)]);
    }
  }
  return all;
}

template <class T>
class StageCheck {
 public:
  StageCheck(io::File const& file, train::StageBlock const& config)
      : file_(file),
        config_(config),
        block_(model::make_block<T>(config.block, config.model_dim, config.num_layers, "",
                                    model::Ready::at_end, parameters_)) {
    parameters_.allocate(true);
    load_parameters(file, "stage_block", parameters_);
  }

  /// The sequences of one group, whole and, if causal, in spans.
  void check_length(std::string const& group, Report& report) {
    io::Shape shape;
    x_ = file_.read<double>(group + "/inputs/x", &shape);
    dy_ = file_.read<double>(group + "/inputs/dy");
    shape_ = {shape.at(0), shape.at(1)};
    if (shape.at(2) != config_.model_dim)
      throw core::InputError(file_.path() + ": " + group + "/inputs/x has an unexpected shape");
    Index const length = shape_.length;
    check(group, "", {length}, false, report);
    if (!config_.block.causal()) return;
    check(group, " with a carry", {length}, true, report);
    for (Index const cut : std::set<Index>{1, length / 2, length - 1})
      if (cut > 0 && cut < length)
        check(group, " cut at " + std::to_string(cut), {cut, length}, true, report);
    std::vector<Index> steps;
    for (Index t = 1; t <= length; ++t) steps.push_back(t);
    check(group, " token by token", steps, true, report);
  }

 private:
  /// One span of the sequences and what its backward needs.
  struct Span {
    model::Tape<T> tape;
    model::Carry<T> before;
  };

  /// Forward and backward in spans that end at `ends`.
  void check(std::string const& group, std::string const& how, std::vector<Index> const& ends,
             bool with_border, Report& report) {
    core::Arena arena(arena_bytes(ends, with_border));
    model::Pass<T> const pass{kernels::ExecSpace(), arena, parameters_, {}};
    model::Carry<T> carry = block_->take_carry(arena, shape_.count, shape_.length, with_border);
    if (with_border) Kokkos::deep_copy(carry.border, std::numeric_limits<T>::quiet_NaN());
    std::vector<double> y(x_.size()), dx(x_.size());
    std::vector<Span> spans;
    for (Index const end : ends) {
      Span span{block_->take_tape(arena, {shape_.count, end - carry.position}, true), carry};
      if (with_border) {
        span.before.border = arena.template matrix<T>(carry.border.extent(0), carry.border.extent(1));
        Kokkos::deep_copy(span.before.border, carry.border);
      }
      core::Arena::Frame const inner(arena);
      Mat<T> const out = arena.template matrix<T>(span.tape.shape.rows(), config_.model_dim);
      upload(part(x_, span), block_->input(span.tape));
      block_->forward(pass, span.tape, carry, out);
      place(download(out), span, y);
      spans.push_back(span);
    }
    std::string const stepped = group + "/outputs/y_step";
    bool const steps = how == " token by token" && file_.exists(stepped);
    report.logits.add(group + "/y" + how, y, file_.read<double>(steps ? stepped : group + "/outputs/y"),
                      tolerance<T>().output);
    if (with_border && file_.exists(group + "/final_state"))
      report.logits.add(group + "/final_state" + how, download(carry.border),
                        states_of(file_, group, config_), tolerance<T>().output);

    Kokkos::deep_copy(parameters_.gradients(), T(0));
    model::Carry<T> const dcarry = block_->take_carry(arena, shape_.count, shape_.length, with_border);
    Kokkos::deep_copy(dcarry.history, T(0));
    if (with_border) Kokkos::deep_copy(dcarry.border, T(0));
    for (std::size_t k = spans.size(); k-- > 0;) {
      core::Arena::Frame const inner(arena);
      Mat<T> const dy = arena.template matrix<T>(spans[k].tape.shape.rows(), config_.model_dim);
      Mat<T> const out = arena.template matrix<T>(spans[k].tape.shape.rows(), config_.model_dim);
      upload(part(dy_, spans[k]), dy);
      block_->backward(pass, spans[k].tape, spans[k].before, dcarry, dy, out);
      place(download(out), spans[k], dx);
    }
    std::vector<double> const wanted = file_.read<double>(group + "/outputs/dx");
    report.gradients.add(group + "/dx" + how, dx, wanted, tolerance<T>().gradient_allowed(wanted));
    Worst gradients = compare_gradients(file_, group + "/grads", "stage_block", parameters_);
    gradients.where = group + "/grads/" + gradients.where + how;
    report.gradients.add(gradients);
  }

  /// Memory for one check.
  std::size_t arena_bytes(std::vector<Index> const& ends, bool with_border) const {
    core::Arena arena = core::Arena::measuring();
    for (int i = 0; i < 2; ++i)
      static_cast<void>(block_->take_carry(arena, shape_.count, shape_.length, with_border));
    std::size_t scratch = 0;
    Index start = 0;
    for (Index const end : ends) {
      Sequences const span{shape_.count, end - start};
      static_cast<void>(block_->take_tape(arena, span, true));
      if (with_border)
        static_cast<void>(arena.template matrix<T>(block_->layers() * shape_.count, block_->border_width()));
      scratch = std::max(
          {scratch, block_->forward_scratch(span, with_border), block_->backward_scratch(span, with_border)});
      start = end;
    }
    for (int i = 0; i < 2; ++i) static_cast<void>(arena.template matrix<T>(shape_.rows(), config_.model_dim));
    return arena.used() + scratch;
  }

  /// Calls f(element of the span's rows, element of all rows).
  template <class F>
  void for_each_element(Span const& span, F const& f) const {
    Index const row = config_.model_dim, n = span.tape.shape.length * row;
    for (Index s = 0; s < shape_.count; ++s)
      for (Index i = 0; i < n; ++i)
        f(static_cast<std::size_t>(s * n + i),
          static_cast<std::size_t>((s * shape_.length + span.before.position) * row + i));
  }
  std::vector<double> part(std::vector<double> const& all, Span const& span) const {
    std::vector<double> values(static_cast<std::size_t>(span.tape.shape.rows() * config_.model_dim));
    for_each_element(span, [&](std::size_t i, std::size_t j) { values[i] = all[j]; });
    return values;
  }
  void place(std::vector<double> const& values, Span const& span, std::vector<double>& all) const {
    for_each_element(span, [&](std::size_t i, std::size_t j) { all[j] = values[i]; });
  }

  io::File const& file_;
  train::StageBlock const& config_;
  model::ParameterStore<T> parameters_;
  std::unique_ptr<model::Block<T>> block_;
  Sequences shape_;
  std::vector<double> x_, dy_;
};

}  // namespace

template <class T>
Report check_stage_block(io::File const& file) {
  train::StageBlock const config =
      train::parse_stage_block(file.text_attribute("/", "config_yaml"), file.path());
  StageCheck<T> check(file, config);
  Report report;
  for (std::string const& child : file.children("/"))
    if (child.starts_with("L") && file.is_group("/" + child)) check.check_length("/" + child, report);
  return report;
}

template Report check_stage_block<float>(io::File const&);
template Report check_stage_block<double>(io::File const&);

}  // namespace strata::parity
