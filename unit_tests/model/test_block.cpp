// SPDX-License-Identifier: Apache-2.0
// The contract of a block: splitting its positions, forward and backward, changes rounding only.
#include "model/block.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "unit_tests/model/small_model.hpp"
#include "unit_tests/support/owned.hpp"

namespace strata::test {
namespace {

using kernels::Mat;
using kernels::Sequences;
using model::Carry;
using model::Tape;

constexpr Index sequences = 3, positions = 13;

struct Case {
  char const* what;
  Index width;
  model::BlockConfig block;
  /// What differences of gradients are measured against at least: 1, as dy, where they vanish but for
  /// rounding.
  double least_gradient = 1e-30;
};

model::BlockConfig attention(Index heads, Index head_width, bool rotary, double dropout) {
  model::BlockConfig block;
  block.attn_head_dims = head_width;
  block.attn_num_heads = heads;
  block.attn_use_rot_embs = rotary;
  block.attn_dropout = block.ff_dropout = dropout;
  return block;
}
model::BlockConfig mamba(model::BlockType type, Index states, Index inputs, Index expand, Index head_width,
                         double dropout) {
  model::BlockConfig block;
  block.block_type = type;
  block.d_state = states;
  block.d_conv = inputs;
  block.expand = expand;
  block.headdim = head_width;
  block.dropout = dropout;
  return block;
}

std::vector<Case> const& cases() {
  using model::BlockType;
  static std::vector<Case> const all{
      {"even, rotary", 14, attention(3, 6, true, 0)},
      {"odd, no rotary", 13, attention(2, 5, false, 0)},
      {"odd, rotary, dropout", 13, attention(2, 4, true, 0.3)},
      {"even, no rotary, dropout", 10, attention(1, 7, false, 0.3)},
      {"width 1, whose shift moves nothing and whose norms are constant", 1, attention(1, 2, true, 0), 1},
      {"Mamba-1", 13, mamba(BlockType::mamba1, 5, 4, 2, 1, 0)},
      {"Mamba-1, smallest", 2, mamba(BlockType::mamba1, 1, 1, 1, 1, 0)},
      {"Mamba-2", 12, mamba(BlockType::mamba2, 7, 4, 2, 8, 0)},
      {"Mamba-2, dropout", 9, mamba(BlockType::mamba2, 3, 2, 3, 9, 0.3)},
      {"Mamba-2, smallest", 2, mamba(BlockType::mamba2, 1, 1, 1, 1, 0)}};
  return all;
}

/// Results of a forward and backward pass over all positions.
struct Results {
  std::vector<double> y, dx;
  std::vector<std::vector<double>> gradients;
};

/// Everything of one span, to be looked at and run again.
template <class T>
struct SpanState {
  Index start;
  Tape<T> tape;
  std::vector<double> border;  // before the span
};

template <class T>
class Bench {
 public:
  explicit Bench(Case const& c, bool causal = true, Index layers = 2)
      : dropout_(c.block.attn_dropout > 0 || c.block.dropout > 0),
        least_gradient_(c.least_gradient),
        arena_(1 << 22) {
    model::BlockConfig config = c.block;
    if (!causal) config.block_type = model::BlockType::transformer_encoder;
    block_ = model::make_block<T>(config, c.width, layers, "", model::Ready::at_end, parameters_);
    parameters_.allocate(true);
    randomise(parameters_, 51);
    std::size_t const n = static_cast<std::size_t>(sequences * positions * c.width);
    x_ = random_values(n, 52);
    dy_ = random_values(n, 53);
    // Whatever is read before it is written shows.
    core::Arena::Frame const frame(arena_);
    poison(arena_.template vector<T>((1 << 22) / static_cast<Index>(sizeof(T))));
  }

  double least_gradient() const { return least_gradient_; }
  /// Spans end at `ends`, the last of which is `positions`.
  Results run(std::vector<Index> const& ends, int backward_passes = 1, bool rebuild_tapes = false) {
    core::Arena::Frame const frame(arena_);
    Carry<T> carry = block_->take_carry(arena_, sequences, positions, ends.size() > 1);
    Carry<T> const dcarry = block_->take_carry(arena_, sequences, positions, ends.size() > 1);
    poison(carry.history);
    if (carry.border.data() != nullptr) poison(carry.border);
    std::vector<SpanState<T>> spans;
    Results results;
    results.y = results.dx = std::vector<double>(x_.size());
    Index start = 0;
    for (Index const end : ends) {
      Tape<T> const tape = block_->take_tape(arena_, {sequences, end - start}, true);
      poison(tape.data);
      spans.push_back({start, tape, values(carry.border)});
      forward(spans.back(), carry, results.y);
      start = end;
    }
    EXPECT_EQ(carry.position, positions);
    Kokkos::deep_copy(parameters_.gradients(), T(0));
    for (int pass = 0; pass < backward_passes; ++pass) {
      Kokkos::deep_copy(dcarry.history, T(0));
      if (dcarry.border.data() != nullptr) Kokkos::deep_copy(dcarry.border, T(0));
      for (std::size_t k = spans.size(); k-- > 0;) {
        SpanState<T> const& span = spans[k];
        if (rebuild_tapes) {
          poison(span.tape.data);
          put(carry.border, span.border);
          carry.position = span.start;
          std::vector<double> y(x_.size());
          forward(span, carry, y);
          expect_same_rows(span, y, results.y);
        }
        core::Arena::Frame const inner(arena_);
        Index const n = span.tape.shape.rows();
        Mat<T> const dy = arena_.template matrix<T>(n, block_->width());
        Mat<T> const dx = arena_.template matrix<T>(n, block_->width());
        poison(dx);
        put(dy, rows_of(dy_, span));
        Carry<T> before = carry;
        before.position = span.start;
        if (carry.border.data() != nullptr) {
          before.border = arena_.template matrix<T>(carry.border.extent(0), carry.border.extent(1));
          put(before.border, span.border);
        }
        std::size_t const used = arena_.used();
        block_->backward(pass_of(span), span.tape, before, dcarry, dy, dx);
        EXPECT_EQ(arena_.used(), used);
        take_rows(values(dx), span, results.dx);
      }
    }
    for (std::size_t p = 0; p < parameters_.all().size(); ++p) {
      std::vector<T> g(static_cast<std::size_t>(parameters_.place(p).size()));
      parameters_.get_gradient(p, g.data());
      results.gradients.emplace_back(g.begin(), g.end());
    }
    return results;
  }

  /// Forward only, on tapes with room for one layer.
  std::vector<double> run_without_keeping(std::vector<Index> const& ends) {
    core::Arena::Frame const frame(arena_);
    Carry<T> carry = block_->take_carry(arena_, sequences, positions, true);
    std::vector<double> y(x_.size());
    Index start = 0;
    for (Index const end : ends) {
      core::Arena::Frame const inner(arena_);
      Tape<T> const tape = block_->take_tape(arena_, {sequences, end - start}, false);
      poison(tape.data);
      forward({start, tape, {}}, carry, y);
      start = end;
    }
    return y;
  }

  model::Block<T> const& block() const { return *block_; }
  core::Arena& arena() { return arena_; }
  model::ParameterStore<T> const& parameters() const { return parameters_; }

  model::Pass<T> pass_of(SpanState<T> const& span) {
    model::Pass<T> pass{kernels::ExecSpace(), arena_, parameters_, {}};
    if (dropout_) pass.dropout = {true, 99, 7, 1000 + span.start, span.tape.shape.length, positions};
    return pass;
  }

 private:
  template <class V>
  static void poison(V const& v) {
    Kokkos::deep_copy(v, std::numeric_limits<T>::quiet_NaN());
  }
  static std::vector<double> values(Mat<T> const& m) {
    if (m.data() == nullptr) return {};
    Kokkos::fence();
    auto const host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), m);
    return {host.data(), host.data() + host.size()};
  }
  static void put(Mat<T> const& to, std::vector<double> const& from) {
    if (to.data() == nullptr) return;
    auto const host = Kokkos::create_mirror_view(to);
    std::copy(from.begin(), from.end(), host.data());
    Kokkos::deep_copy(to, host);
  }
  /// Calls f(place in the span's rows, place in all rows) for every element of a span.
  template <class F>
  void for_each_element(SpanState<T> const& span, F const& f) const {
    Index const width = block_->width(), length = span.tape.shape.length;
    for (Index s = 0; s < sequences; ++s)
      for (Index i = 0; i < length * width; ++i)
        f(static_cast<std::size_t>(s * length * width + i),
          static_cast<std::size_t>((s * positions + span.start) * width + i));
  }
  std::vector<double> rows_of(std::vector<double> const& all, SpanState<T> const& span) const {
    std::vector<double> part(static_cast<std::size_t>(span.tape.shape.rows() * block_->width()));
    for_each_element(span, [&](std::size_t i, std::size_t j) { part[i] = all[j]; });
    return part;
  }
  void take_rows(std::vector<double> const& part, SpanState<T> const& span, std::vector<double>& all) const {
    for_each_element(span, [&](std::size_t i, std::size_t j) { all[j] = part[i]; });
  }
  void expect_same_rows(SpanState<T> const& span, std::vector<double> const& a,
                        std::vector<double> const& b) const {
    EXPECT_EQ(rows_of(a, span), rows_of(b, span)) << "a rebuilt span differs";
  }
  void forward(SpanState<T> const& span, Carry<T>& carry, std::vector<double>& y_all) {
    core::Arena::Frame const frame(arena_);
    Mat<T> const y = arena_.template matrix<T>(span.tape.shape.rows(), block_->width());
    poison(y);
    put(block_->input(span.tape), rows_of(x_, span));
    std::size_t const before = arena_.used();
    block_->forward(pass_of(span), span.tape, carry, y);
    EXPECT_EQ(arena_.used(), before);
    take_rows(values(y), span, y_all);
  }

  bool dropout_;
  double least_gradient_;
  model::ParameterStore<T> parameters_;
  std::unique_ptr<model::Block<T>> block_;
  core::Arena arena_;
  std::vector<double> x_, dy_;
};

template <class T>
void expect_near(Bench<T> const& bench, Results const& wanted, Results const& got, double tolerance) {
  double const least = bench.least_gradient();
  EXPECT_LE(relative_difference(wanted.y, got.y), tolerance) << "y";
  EXPECT_LE(relative_difference(wanted.dx, got.dx, least), tolerance) << "dx";
  for (std::size_t p = 0; p < wanted.gradients.size(); ++p)
    EXPECT_LE(relative_difference(wanted.gradients[p], got.gradients[p], least), tolerance)
        << bench.parameters().all()[p].name;
}

template <class T>
class BlockContract : public testing::Test {
 protected:
  static constexpr double tolerance = std::is_same_v<T, double> ? 1e-12 : 1e-5;
};
using Precisions = testing::Types<float, double>;
TYPED_TEST_SUITE(BlockContract, Precisions);

TYPED_TEST(BlockContract, AnySplitAgreesWithTheWhole) {
  for (Case const& c : cases()) {
    Bench<TypeParam> bench(c);
    Results const whole = bench.run({positions});
    for (Index a = 1; a < positions; ++a) {
      SCOPED_TRACE(std::string(c.what) + ", split at " + std::to_string(a));
      expect_near(bench, whole, bench.run({a, positions}), this->tolerance);
      for (Index b = a + 1; b < positions; ++b) {
        SCOPED_TRACE("and at " + std::to_string(b));
        expect_near(bench, whole, bench.run({a, b, positions}), this->tolerance);
      }
    }
    SCOPED_TRACE(std::string(c.what) + ", position by position");
    std::vector<Index> steps;
    for (Index t = 1; t <= positions; ++t) steps.push_back(t);
    expect_near(bench, whole, bench.run(steps), this->tolerance);
  }
}

/// A tape is a function of the carry before its span: rebuilding it changes no bit of anything.
TYPED_TEST(BlockContract, TapesCanBeRebuiltAndDropped) {
  for (Case const& c : cases()) {
    for (std::vector<Index> const& ends : {std::vector<Index>{13}, {5, 13}, {1, 7, 13}, {4, 5, 6, 13}}) {
      SCOPED_TRACE(std::string(c.what) + ", ends " + testing::PrintToString(ends));
      Bench<TypeParam> bench(c);
      Results const kept = bench.run(ends), rebuilt = bench.run(ends, 1, true);
      EXPECT_EQ(kept.y, rebuilt.y);
      EXPECT_EQ(kept.dx, rebuilt.dx);
      EXPECT_EQ(kept.gradients, rebuilt.gradients);
      EXPECT_EQ(kept.y, bench.run_without_keeping(ends));
    }
  }
}

TYPED_TEST(BlockContract, BackwardTwiceDoublesGradients) {
  for (Case const& c : cases()) {
    SCOPED_TRACE(c.what);
    Bench<TypeParam> bench(c);
    Results const once = bench.run({5, positions}), twice = bench.run({5, positions}, 2);
    EXPECT_EQ(once.dx, twice.dx);
    for (std::size_t p = 0; p < once.gradients.size(); ++p) {
      std::vector<double> doubled = once.gradients[p];
      for (double& g : doubled) g *= 2;
      // Two spans add to the gradient one after the other, so only the order of additions is another.
      EXPECT_LE(relative_difference(doubled, twice.gradients[p]), 0.1 * this->tolerance)
          << bench.parameters().all()[p].name;
    }
    Results const one = bench.run({positions}), two = bench.run({positions}, 2);
    for (std::size_t p = 0; p < one.gradients.size(); ++p) {
      std::vector<double> doubled = one.gradients[p];
      for (double& g : doubled) g *= 2;
      EXPECT_EQ(doubled, two.gradients[p]) << bench.parameters().all()[p].name;
    }
  }
}

TYPED_TEST(BlockContract, DropoutDropsInTrainingOnly) {
  for (Case const& c : cases()) {
    if (c.block.attn_dropout == 0 && c.block.dropout == 0) continue;
    SCOPED_TRACE(c.what);
    Case without = c;
    without.block.attn_dropout = without.block.ff_dropout = without.block.dropout = 0;
    Bench<TypeParam> dropping(c), keeping(without);
    EXPECT_GT(relative_difference(keeping.run({positions}).y, dropping.run({positions}).y), 1e-2);
  }
}

TYPED_TEST(BlockContract, RefusesWhatItCannotDo) {
  Bench<TypeParam> encoder(cases()[0], false);
  EXPECT_NO_THROW(encoder.run({positions}));
  try {
    encoder.run({5, positions});
    ADD_FAILURE() << "an encoder continued from a carry";
  } catch (std::logic_error const& error) {
    EXPECT_NE(std::string(error.what()).find("bidirectional encoder"), std::string::npos) << error.what();
  }
  Bench<TypeParam> bench(cases()[0]);
  core::Arena& arena = bench.arena();
  Carry<TypeParam> carry = bench.block().take_carry(arena, sequences, 4, true);
  SpanState<TypeParam> const span{0, bench.block().take_tape(arena, {sequences, 5}, false), {}};
  Mat<TypeParam> const y = arena.template matrix<TypeParam>(15, 14);
  EXPECT_THROW(bench.block().forward(bench.pass_of(span), span.tape, carry, y), std::logic_error)
      << "no room";
  EXPECT_EQ(carry.position, 0);
  EXPECT_THROW(bench.block().backward(bench.pass_of(span), span.tape, carry, carry, y, y), std::logic_error)
      << "the tape holds one layer only";
}

}  // namespace
}  // namespace strata::test
