// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <ostream>
#include <vector>

#include "unit_tests/support/dual.hpp"
#include "unit_tests/support/gradient_check.hpp"
#include "unit_tests/support/near.hpp"
#include "unit_tests/support/owned.hpp"
#include "unit_tests/support/reference/attention.hpp"

namespace strata::kernels {

std::ostream& operator<<(std::ostream& out, AttentionShape const& s) {
  return out << s.queries.count << " x " << s.queries.length << " from " << s.start << ", " << s.heads
             << " heads of " << s.head_dim << (s.causal ? ", causal" : "");
}

namespace {

using test::lift;
using test::near;
using test::OwnedMat;
using test::OwnedVec;
using test::random_values;
using test::same;
using test::Scaled;
using test::Storage;

// One head size per tile width and beyond, block edges (64), lengths around them, one and two passes
// backward.
std::vector<AttentionShape> shapes() {
  std::vector<AttentionShape> result;
  for (bool const causal : {true, false}) {
    result.push_back({{1, 1}, 0, 1, 1, causal});
    result.push_back({{3, 8}, 0, 2, 4, causal});
    result.push_back({{16, 8}, 0, 8, 64, causal});
    result.push_back({{5, 9}, 0, 4, 16, causal});
    result.push_back({{2, 13}, 0, 3, 5, causal});
    result.push_back({{1, 127}, 0, 2, 7, causal});
    result.push_back({{2, 64}, 0, 1, 33, causal});
    result.push_back({{1, 65}, 0, 1, 256, causal});
    result.push_back({{1, 200}, 0, 8, 8, causal});
    result.push_back({{1, 193}, 0, 2, 24, causal});
    result.push_back({{2, 1}, 75, 2, 40, causal});
    result.push_back({{2, 17}, 70, 2, 12, causal});
    result.push_back({{1, 131}, 67, 3, 9, causal});
  }
  return result;
}

Dropout some_dropout(AttentionShape const& shape) {
  Dropout dropout;
  dropout.probability = 0.3;
  dropout.seed = 0x123456789abcdefU;
  dropout.site = 17;
  dropout.base = 1000 + shape.start;
  dropout.length = shape.queries.length;
  dropout.stride = 500;
  return dropout;
}

test::reference::Keep keep_of(Dropout const& dropout) {
  if (!dropout.active()) return test::reference::keep_all();
  return [dropout](long row, long key, long head) {
    return dropout.scale<double>(row, key, static_cast<std::uint32_t>(head));
  };
}

/// One problem in precision T. Rows of keys and values that no query may see are NaN.
template <class T>
struct Problem {
  AttentionShape shape;
  Index capacity;
  std::vector<double> q_values, key_value_values, dout_values;
  OwnedMat<T> q, key_values, dout, o, log_sum, dq, dkey_values;
  OwnedVec<T> workspace;

  explicit Problem(AttentionShape const& s, double amplitude = 2, double initial = 0)
      : shape(s),
        capacity(s.start + s.queries.length + 3),
        q_values(rounded(random_values(std::size_t(s.queries.rows() * width()), 1, -amplitude, amplitude))),
        key_value_values(rounded(random_values(std::size_t(s.queries.count * capacity * 2 * width()), 2))),
        dout_values(rounded(random_values(q_values.size(), 3))),
        q(s.queries.rows(), width(), q_values, Storage::strided),
        key_values(s.queries.count * capacity, 2 * width(), Storage::strided),
        dout(s.queries.rows(), width(), dout_values, Storage::strided),
        o(s.queries.rows(), width(), Storage::strided),
        log_sum(s.queries.rows(), s.heads, Storage::strided),
        dq(s.queries.rows(), width(), Storage::strided),
        dkey_values(s.queries.count * capacity, 2 * width(), Storage::strided),
        workspace(attention_workspace(s)) {
    hide_later_rows();
    dkey_values.fill(initial);
  }

  Index width() const { return shape.heads * shape.head_dim; }
  bool later(std::size_t element) const {
    return Index(element) / (2 * width()) % capacity >= shape.start + shape.queries.length;
  }
  void hide_later_rows() {
    auto shown = key_value_values;
    for (std::size_t i = 0; i < shown.size(); ++i)
      if (later(i)) shown[i] = std::numeric_limits<double>::quiet_NaN();
    key_values.fill(shown);
  }
  /// So that kernel and reference start from the same numbers.
  static std::vector<double> rounded(std::vector<double> values) {
    for (double& value : values) value = static_cast<T>(value);
    return values;
  }

  void forward(Dropout const& dropout = {}) const {
    attention_forward<T>(ExecSpace(), shape, q.span(), {key_values.span(), capacity}, dropout, o.span(),
                         log_sum.span());
  }
  void backward(Dropout const& dropout = {}) const {
    attention_backward<T>(ExecSpace(), shape, q.span(), {key_values.span(), capacity}, o.span(),
                          log_sum.span(), dout.span(), dropout, dq.span(), {dkey_values.span(), capacity},
                          workspace.span());
  }
  auto reference_forward(Dropout const& dropout = {}) const {
    return test::reference::attention_forward(shape, capacity, lift<Scaled>(q_values),
                                              lift<Scaled>(key_value_values), keep_of(dropout));
  }
  auto reference_backward(Dropout const& dropout = {}) const {
    return test::reference::attention_backward(shape, capacity, lift<Scaled>(q_values),
                                               lift<Scaled>(key_value_values), lift<Scaled>(dout_values),
                                               keep_of(dropout));
  }
};

// Of the rounding unit times the size of the terms; the sizes count every rounding once, at its worst.
constexpr double bound = 2;

template <class T>
void expect_forward(Problem<T> const& problem, Dropout const& dropout = {}) {
  problem.forward(dropout);
  auto const wanted = problem.reference_forward(dropout);
  EXPECT_TRUE(near(problem.o, wanted.o, bound));
  EXPECT_TRUE(near(problem.log_sum, wanted.log_sum, bound));
}

template <class T>
void expect_backward(Problem<T> const& problem, Dropout const& dropout = {}, double initial = 0) {
  problem.forward(dropout);
  problem.backward(dropout);
  auto wanted = problem.reference_backward(dropout);
  for (Scaled& value : wanted.dkey_values) value += Scaled(initial);
  EXPECT_TRUE(near(problem.dq, wanted.dq, bound));
  EXPECT_TRUE(near(problem.dkey_values, wanted.dkey_values, bound));
  EXPECT_TRUE(problem.workspace.guards_intact());
}

template <class T>
class Attention : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Attention, Scalars);

TYPED_TEST(Attention, ForwardAgreesWithWholeScoreMatrix) {
  for (AttentionShape const& shape : shapes()) {
    SCOPED_TRACE(shape);
    expect_forward(Problem<TypeParam>(shape));
  }
}

TYPED_TEST(Attention, BackwardAgreesWithWholeScoreMatrixAndAccumulates) {
  for (AttentionShape const& shape : shapes()) {
    SCOPED_TRACE(shape);
    expect_backward(Problem<TypeParam>(shape, 2, 0.75), {}, 0.75);
  }
}

TYPED_TEST(Attention, DropsTheSameProbabilitiesForwardAndBackward) {
  for (AttentionShape const& shape : shapes()) {
    SCOPED_TRACE(shape);
    Problem<TypeParam> const problem(shape);
    expect_forward(problem, some_dropout(shape));
    expect_backward(problem, some_dropout(shape));
  }
}

TYPED_TEST(Attention, LongSequence) {
  expect_forward(Problem<TypeParam>({{1, 2003}, 0, 1, 12, true}));
  expect_backward(Problem<TypeParam>({{1, 2003}, 0, 1, 12, true}));
  expect_backward(Problem<TypeParam>({{1, 1000}, 1003, 1, 12, true}));
}

// Equal scores make every output the mean of the values seen so far, and the log of the sum a logarithm.
TYPED_TEST(Attention, TenThousandRowsOfEqualScores) {
  Index const length = 10000, d = 3;
  AttentionShape const shape{{1, length}, 0, 1, d, true};
  Problem<TypeParam> problem(shape);
  problem.q.fill(0);
  problem.forward();
  std::vector<Scaled> means, logs;
  std::vector<double> sum(std::size_t(d), 0);
  for (Index t = 0; t < length; ++t) {
    for (Index c = 0; c < d; ++c) {
      sum[std::size_t(c)] += problem.key_value_values[std::size_t((t * 2 + 1) * d + c)];
      means.emplace_back(sum[std::size_t(c)] / double(t + 1), 1.0);
    }
    logs.emplace_back(std::log(double(t + 1)), 1.0 + std::log(double(t + 1)));
  }
  EXPECT_TRUE(near(problem.o, means, bound));
  EXPECT_TRUE(near(problem.log_sum, logs, bound));
}

// Scores are whole numbers up to 10,000 in size and exact, so rounding is no excuse.
TYPED_TEST(Attention, HugeScoresStayFinite) {
  Index const length = 150, d = 4;
  AttentionShape const shape{{1, length}, 0, 2, d, true};
  Problem<TypeParam> problem(shape);
  for (double& value : problem.q_values) value = std::round(50 * value);          // |q| <= 100
  for (double& value : problem.key_value_values) value = std::round(50 * value);  // |k|, |v| <= 50
  problem.q.fill(problem.q_values);
  problem.hide_later_rows();
  problem.forward();
  problem.backward();
  auto const keep = test::reference::keep_all();
  auto const wanted = test::reference::attention_forward(shape, problem.capacity, problem.q_values,
                                                         problem.key_value_values, keep);
  auto const gradient = test::reference::attention_backward(
      shape, problem.capacity, problem.q_values, problem.key_value_values, problem.dout_values, keep);
  double largest = 0;
  for (double const value : wanted.log_sum) largest = std::max(largest, std::fabs(value));
  EXPECT_GT(largest, 5000);
  auto const sized = [](std::vector<double> const& values, double size) {
    std::vector<Scaled> result;
    for (double const value : values) result.emplace_back(value, size);
    return result;
  };
  EXPECT_TRUE(near(problem.o, sized(wanted.o, 50), bound));
  EXPECT_TRUE(near(problem.log_sum, sized(wanted.log_sum, 10000), bound));
  // exp(score - log_sum) has the rounding error of log_sum, up to 10,000 units; gradients are of size 50 *
  // 100.
  EXPECT_TRUE(near(problem.dq, sized(gradient.dq, 5000 * 10000.0), bound));
  EXPECT_TRUE(near(problem.dkey_values, sized(gradient.dkey_values, double(length) * 5000 * 10000), bound));
}

TYPED_TEST(Attention, NotANumberStaysInItsRow) {
  AttentionShape const shape{{2, 70}, 0, 1, 6, true};
  Problem<TypeParam> problem(shape);
  problem.forward();
  auto const clean = problem.o.values();
  std::size_t const row = 81;
  problem.q_values[row * 6 + 2] = std::numeric_limits<double>::quiet_NaN();
  problem.q.fill(problem.q_values);
  problem.forward();
  auto const got = problem.o.values();
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (i / 6 == row) {
      EXPECT_TRUE(std::isnan(got[i])) << i;
    } else {
      EXPECT_EQ(got[i], clean[i]) << i;
    }
  }
}

TYPED_TEST(Attention, RepeatsBitForBit) {
  for (AttentionShape const& shape : {AttentionShape{{1, 300}, 20, 2, 24, true}, {{16, 9}, 0, 8, 20, true}}) {
    SCOPED_TRACE(shape);
    Problem<TypeParam> const first(shape), second(shape);
    first.forward(some_dropout(shape));
    first.backward(some_dropout(shape));
    for (int repeat = 0; repeat < 3; ++repeat) {
      second.forward(some_dropout(shape));
      EXPECT_TRUE(same(second.o.values(), first.o.values()));
    }
    second.backward(some_dropout(shape));
    EXPECT_TRUE(same(second.dq.values(), first.dq.values()));
    EXPECT_TRUE(same(second.dkey_values.values(), first.dkey_values.values()));
  }
}

// Other sequences change which thread computes what; they must not change a bit.
TYPED_TEST(Attention, SequencesDoNotTouchEachOther) {
  AttentionShape const shape{{7, 40}, 5, 3, 10, true};
  Problem<TypeParam> const together(shape);
  together.forward();
  together.backward();
  AttentionShape alone_shape = shape;
  alone_shape.queries.count = 1;
  Index const w = together.width();
  auto const part = [](std::vector<double> const& values, Index begin, Index size) {
    return std::vector<double>(values.begin() + begin, values.begin() + begin + size);
  };
  for (Index s = 0; s < shape.queries.count; ++s) {
    Problem<TypeParam> alone(alone_shape);
    Index const size = 40 * w, wide = alone.capacity * 2 * w;
    alone.q.fill(part(together.q_values, s * size, size));
    alone.dout.fill(part(together.dout_values, s * size, size));
    alone.key_values.fill(part(together.key_value_values, s * wide, wide));
    alone.forward();
    alone.backward();
    EXPECT_TRUE(same(alone.o.values(), part(together.o.values(), s * size, size)));
    EXPECT_TRUE(same(alone.dq.values(), part(together.dq.values(), s * size, size)));
    EXPECT_TRUE(same(alone.dkey_values.values(), part(together.dkey_values.values(), s * wide, wide)));
  }
}

// Spans share the buffer of keys and values; backward visits them in reverse and adds up their gradients.
TYPED_TEST(Attention, AnySplitIntoSpansAgreesWithTheWhole) {
  Index const length = 90;
  AttentionShape const shape{{2, length}, 0, 2, 10, true};
  Problem<TypeParam> whole(shape);
  Index const w = whole.width();
  for (double const probability : {0.0, 0.3}) {
    Dropout dropout = some_dropout(shape);
    dropout.probability = probability;
    auto const wanted = whole.reference_forward(dropout);
    auto const gradient = whole.reference_backward(dropout);
    for (std::vector<Index> const& ends :
         {std::vector<Index>{1, 90}, {89, 90}, {64, 90}, {3, 7, 63, 70, 90}}) {
      SCOPED_TRACE(testing::Message() << "probability " << probability << ", first end " << ends[0]);
      whole.dkey_values.fill(0);
      std::vector<Problem<TypeParam>> spans;
      std::vector<Dropout> dropouts;
      Index begin = 0;
      auto const place = [&](Problem<TypeParam> const& span, std::size_t i) {
        Index const row = Index(i) / w, n = span.shape.queries.length;
        return std::size_t((row / n * length + span.shape.start + row % n) * w + Index(i) % w);
      };
      for (Index const end : ends) {
        spans.emplace_back(AttentionShape{{2, end - begin}, begin, 2, 10, true});
        Problem<TypeParam>& span = spans.back();
        for (std::size_t i = 0; i < span.q_values.size(); ++i) {
          span.q_values[i] = whole.q_values[place(span, i)];
          span.dout_values[i] = whole.dout_values[place(span, i)];
        }
        span.q.fill(span.q_values);
        span.dout.fill(span.dout_values);
        dropouts.push_back(dropout);
        dropouts.back().base = dropout.base + begin;
        dropouts.back().length = end - begin;
        attention_forward<TypeParam>(ExecSpace(), span.shape, span.q.span(),
                                     {whole.key_values.span(), whole.capacity}, dropouts.back(),
                                     span.o.span(), span.log_sum.span());
        begin = end;
      }
      for (std::size_t s = spans.size(); s-- > 0;) {
        Problem<TypeParam> const& span = spans[s];
        attention_backward<TypeParam>(ExecSpace(), span.shape, span.q.span(),
                                      {whole.key_values.span(), whole.capacity}, span.o.span(),
                                      span.log_sum.span(), span.dout.span(), dropouts[s], span.dq.span(),
                                      {whole.dkey_values.span(), whole.capacity}, span.workspace.span());
        std::vector<Scaled> o, dq;
        for (std::size_t i = 0; i < span.q_values.size(); ++i) {
          o.push_back(wanted.o[place(span, i)]);
          dq.push_back(gradient.dq[place(span, i)]);
        }
        EXPECT_TRUE(near(span.o, o, bound));
        EXPECT_TRUE(near(span.dq, dq, bound));
      }
      EXPECT_TRUE(near(whole.dkey_values, gradient.dkey_values, bound));
    }
  }
}

// Several queries: the slots choose the keys, the start is common.
TYPED_TEST(Attention, SlotsChooseTheKeys) {
  AttentionShape const shape{{3, 70}, 9, 2, 12, true};
  Problem<TypeParam> const plain(shape);
  plain.forward();
  std::vector<Index> const slots = {2, 0, 3};
  Index const wide = plain.capacity * 2 * plain.width();
  std::vector<double> placed(std::size_t(4 * wide), std::numeric_limits<double>::quiet_NaN());
  auto const shown = plain.key_values.values();
  for (std::size_t k = 0; k < slots.size(); ++k)
    std::copy(shown.begin() + Index(k) * wide, shown.begin() + Index(k + 1) * wide,
              placed.begin() + slots[k] * wide);
  OwnedMat<TypeParam> const cache(4 * plain.capacity, 2 * plain.width(), placed);
  OwnedMat<TypeParam> const o(shape.queries.rows(), plain.width()),
      log_sum(shape.queries.rows(), shape.heads);
  Kokkos::View<Index*, MemSpace> const device_slots("slots", slots.size());
  auto const host_slots = Kokkos::create_mirror_view(device_slots);
  std::copy(slots.begin(), slots.end(), host_slots.data());
  Kokkos::deep_copy(device_slots, host_slots);
  AttentionShape slotted = shape;
  slotted.queries.slots = device_slots.data();
  attention_forward<TypeParam>(ExecSpace(), slotted, plain.q.span(), {cache.span(), plain.capacity}, {},
                               o.span(), log_sum.span());
  EXPECT_TRUE(same(o.values(), plain.o.values()));
  EXPECT_TRUE(same(log_sum.values(), plain.log_sum.values()));
}

TEST(AttentionGradient, AgreesWithDualNumbers) {
  for (AttentionShape const& shape : shapes()) {
    for (double const probability : {0.0, 0.3}) {
      if (shape.queries.rows() == 1) continue;  // one key: the probability is 1 whatever the queries are
      SCOPED_TRACE(testing::Message() << shape << ", dropout " << probability);
      Dropout dropout = some_dropout(shape);
      dropout.probability = probability;
      Problem<double> const problem(shape);
      problem.forward(dropout);
      problem.backward(dropout);
      auto const q_direction = random_values(problem.q_values.size(), 5);
      auto const direction = random_values(problem.key_value_values.size(), 6);
      auto const moved =
          test::reference::attention_forward(shape, problem.capacity, lift(problem.q_values, q_direction),
                                             lift(problem.key_value_values, direction), keep_of(dropout));
      test::GradientCheck check;
      check.output(moved.o, problem.dout_values);
      check.input(problem.dq.values(), q_direction);
      check.input(problem.dkey_values.values(), direction);
      EXPECT_TRUE(check.result());
    }
  }
}

TEST(AttentionArguments, WrongShapesThrow) {
  Problem<float> const problem({{2, 8}, 3, 2, 4, true});
  AttentionShape shape = problem.shape;
  shape.start = 10;  // beyond the capacity
  auto const run = [&] {
    attention_forward<float>(ExecSpace(), shape, problem.q.span(),
                             {problem.key_values.span(), problem.capacity}, {}, problem.o.span(),
                             problem.log_sum.span());
  };
  EXPECT_THROW(run(), std::logic_error);
  shape = problem.shape;
  shape.heads = 4;
  EXPECT_THROW(run(), std::logic_error);
  shape = problem.shape;
  EXPECT_NO_THROW(run());
}

TEST(AttentionCost, CountsOnlyVisiblePairs) {
  AttentionShape shape{{1, 1000}, 0, 1, 64, true};
  double const causal = attention_forward_cost<float>(shape).flops;
  shape.causal = false;
  double const all = attention_forward_cost<float>(shape).flops;
  EXPECT_NEAR(causal / all, 0.5, 0.001);
  EXPECT_NEAR(all, 4.0 * 64 * 1000 * 1000, 0.02 * all);
  shape.start = 1000;
  EXPECT_NEAR(attention_backward_cost<float>(shape).flops, 8.0 * 64 * 1000 * 2000,
              0.01 * 8.0 * 64 * 1000 * 2000);
  EXPECT_EQ(attention_forward_cost<double>(shape).bytes(), 2 * attention_forward_cost<float>(shape).bytes());
}

}  // namespace
}  // namespace strata::kernels
