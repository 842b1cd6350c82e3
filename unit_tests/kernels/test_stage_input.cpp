// SPDX-License-Identifier: Apache-2.0
// kernels/stage_input.hpp against rows assembled one by one.

#include "kernels/stage_input.hpp"

#include <gtest/gtest.h>

#include "unit_tests/support/gradient_check.hpp"
#include "unit_tests/support/near.hpp"
#include "unit_tests/support/owned.hpp"
#include "unit_tests/support/reference/stage_input.hpp"

namespace strata::test {
namespace {

using kernels::ExecSpace;
using reference::Positions;
using reference::Span;

struct Case {
  char const* name;
  Span span;
  std::size_t width, lag;
  Positions positions;
  bool context;
};

/// Spans are {first_sequence, count, first_position, length, patches, patch_bytes}.
constexpr Case cases[] = {
    {"complete, table", {0, 3, 0, 5, 5, 1}, 6, 0, Positions::table, true},
    {"complete, rotation", {2, 3, 0, 5, 5, 1}, 10, 0, Positions::rotation, true},
    {"reference, table", {1, 2, 0, 6, 5, 1}, 7, 1, Positions::table, true},
    {"reference, rotation", {0, 2, 0, 6, 5, 1}, 1024, 1, Positions::rotation, true},
    {"no positions", {0, 4, 0, 3, 3, 2}, 33, 0, Positions::none, true},
    {"outermost, part of the time", {0, 2, 3, 4, 16, 2}, 12, 0, Positions::table, false},
    {"outermost, rotated part", {0, 2, 3, 4, 16, 2}, 12, 0, Positions::rotation, false},
    {"outermost, nothing shared", {0, 2, 3, 4, 16, 2}, 12, 0, Positions::none, false},
    {"inner, first positions only", {0, 3, 0, 2, 5, 1}, 9, 0, Positions::table, true},
    {"inner, reference, last positions only", {0, 3, 4, 2, 5, 1}, 9, 1, Positions::table, true},
    {"start vector only", {0, 3, 0, 1, 5, 1}, 8, 0, Positions::rotation, true},
    {"start vector only, reference", {0, 3, 0, 1, 5, 1}, 8, 1, Positions::table, true},
    {"one feature", {0, 2, 0, 4, 4, 1}, 1, 0, Positions::table, true},
    {"no sequences", {0, 0, 0, 4, 4, 1}, 8, 0, Positions::table, true},
    {"several segments, table", {5, 197, 0, 4, 4, 1}, 130, 0, Positions::table, true},
    {"several segments, no positions", {0, 131, 0, 3, 3, 1}, 64, 0, Positions::none, true},
};

/// cosines | sines of the interleaved pairs' angles, computed here rather than by a kernel.
std::vector<double> rotation_table(std::size_t first, std::size_t rows, std::size_t width) {
  std::vector<double> table(rows * width);
  for (std::size_t j = 0; j < rows; ++j) {
    for (std::size_t i = 0; i < width / 2; ++i) {
      double const angle = double(first + j) * std::pow(10000.0, -2.0 * double(i) / double(width));
      table[j * width + i] = std::cos(angle);
      table[j * width + width / 2 + i] = std::sin(angle);
    }
  }
  return table;
}

template <class T>
struct Problem {
  Case c;
  Storage storage;
  kernels::StageRows rows;
  Index width, height, embedded_height, context_height, patches;
  std::vector<double> embedded, start, table, context, dx, dstart0, dtable0;

  explicit Problem(Case const& which, Storage how = Storage::contiguous)
      : c(which),
        storage(how),
        rows{Index(c.span.first_sequence),
             {Index(c.span.count), Index(c.span.length)},
             Index(c.span.first_position),
             Index(c.span.patches),
             Index(c.span.patch_bytes)},
        width(Index(c.width)),
        height(rows.shape.rows()),
        embedded_height(rows.embedded_rows()),
        context_height(rows.shape.count * rows.patches),
        patches(rows.patches) {
    auto const draw = [this](Index n, std::uint64_t seed) {
      return OwnedMat<T>::random(n, width, seed).values();
    };
    embedded = draw(embedded_height, 1);
    start = draw(1, 2);
    table = draw(patches, 3);
    context = draw(context_height, 4);
    dx = draw(height, 5);
    dstart0 = draw(1, 6);
    dtable0 = draw(patches, 7);
  }
  OwnedMat<T> mat(Index n, std::vector<double> const& values) const {
    return OwnedMat<T>(n, width, values, storage);
  }

  OwnedMat<T> rotations() const {
    return mat(rows.embedded_length(),
               rotation_table(std::size_t(rows.first_patch()), std::size_t(rows.embedded_length()), c.width));
  }

  template <class S>
  std::vector<S> reference_rows(std::vector<S> const& e, std::vector<S> const& s, std::vector<S> const& t,
                                std::vector<S> const& p) const {
    return reference::stage_input<S>(c.span, c.width, c.lag, c.positions, e, s, t,
                                     c.context ? p : std::vector<S>());
  }
  OwnedMat<T> forward() const {
    auto const e = mat(embedded_height, embedded), t = mat(patches, table), p = mat(context_height, context);
    auto const r = rotations();
    OwnedVec<T> const s(width, start);
    OwnedMat<T> x(height, width, storage);
    kernels::stage_input_forward<T>(
        ExecSpace(), rows, e.span(), s.span(), choose(t, Positions::table), choose(r, Positions::rotation),
        c.context ? p.const_span() : kernels::Mat<T const>(), Index(c.lag), x.span());
    return x;
  }
  kernels::Mat<T const> choose(OwnedMat<T> const& m, Positions kind) const {
    return c.positions == kind ? m.const_span() : kernels::Mat<T const>();
  }

  struct Gradients {
    OwnedMat<T> embedded;
    OwnedVec<T> start;
    OwnedMat<T> table, context;
  };
  Gradients backward() const {
    auto const in = mat(height, dx), r = rotations();
    Gradients g{OwnedMat<T>(embedded_height, width, storage), OwnedVec<T>(width, dstart0),
                mat(patches, dtable0), OwnedMat<T>(context_height, width, storage)};
    OwnedVec<T> const workspace(kernels::stage_input_workspace(rows, width));
    kernels::stage_input_backward<T>(ExecSpace(), rows, in.span(), choose(r, Positions::rotation),
                                     Index(c.lag), g.embedded.span(), g.start.span(),
                                     c.positions == Positions::table ? g.table.span() : kernels::Mat<T>(),
                                     c.context ? g.context.span() : kernels::Mat<T>(), workspace.span());
    EXPECT_TRUE(workspace.guards_intact());
    return g;
  }
};

template <class T>
class StageInput : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(StageInput, Scalars);

TYPED_TEST(StageInput, ForwardAgreesWithTheDefinition) {
  using T = TypeParam;
  for (Case const& c : cases) {
    for (Storage const storage : {Storage::contiguous, Storage::strided}) {
      SCOPED_TRACE(c.name);
      Problem<T> const p(c, storage);
      auto const wanted = p.reference_rows(lift<Scaled>(p.embedded), lift<Scaled>(p.start),
                                           lift<Scaled>(p.table), lift<Scaled>(p.context));
      EXPECT_TRUE(near(p.forward(), wanted, 4));
    }
  }
}

/// Every gradient by its own definition: sums over the rows that read the value, 0 for slots that none reads.
TYPED_TEST(StageInput, BackwardAgreesWithTheDefinition) {
  using T = TypeParam;
  for (Case const& c : cases) {
    for (Storage const storage : {Storage::contiguous, Storage::strided}) {
      SCOPED_TRACE(c.name);
      Problem<T> const p(c, storage);
      auto const got = p.backward();
      std::vector<Scaled> embedded, start = lift<Scaled>(p.dstart0), table = lift<Scaled>(p.dtable0),
                                    context(std::size_t(p.context_height) * c.width);
      std::size_t row = 0;
      for (std::size_t k = 0; k < c.span.count; ++k) {
        for (std::size_t t = c.span.first_position; t < c.span.first_position + c.span.length; ++t, ++row) {
          auto const at = [&](std::size_t d) { return Scaled(p.dx[row * c.width + d]); };
          for (std::size_t d = 0; d < c.width; ++d) {
            if (t == 0) start[d] += at(d);
            if (t > 0 && c.positions == Positions::table) table[(t - 1) * c.width + d] += at(d);
            if (t >= c.lag) context[(k * c.span.patches + t - c.lag) * c.width + d] = at(d);
            if (t == 0) continue;
            if (c.positions == Positions::rotation) {
              double const angle = double(t - 1) * std::pow(10000.0, -double(d / 2 * 2) / double(c.width));
              Scaled const cosine(std::cos(angle)), sine(std::sin(angle));
              embedded.push_back(d % 2 == 0 ? at(d) * cosine + at(d + 1) * sine
                                            : at(d) * cosine - at(d - 1) * sine);
            } else {
              embedded.push_back(at(d));
            }
          }
        }
      }
      EXPECT_TRUE(near(got.embedded, embedded, 4));
      EXPECT_TRUE(near(got.start, start, 8));
      EXPECT_TRUE(near(got.table, table, 8));
      if (c.context) {
        EXPECT_TRUE(near(got.context, context, 0));
      } else {
        EXPECT_TRUE(got.context.guards_intact());
      }
    }
  }
}

TEST(StageInputGradient, BackwardIsTheTransposeOfTheDerivative) {
  for (Case const& c : cases) {
    if (c.span.count == 0) continue;
    SCOPED_TRACE(c.name);
    Problem<double> p(c);
    p.dstart0.assign(p.dstart0.size(), 0.0);
    p.dtable0.assign(p.dtable0.size(), 0.0);
    auto const ve = random_values(p.embedded.size(), 31), vs = random_values(p.start.size(), 32),
               vt = random_values(p.table.size(), 33), vp = random_values(p.context.size(), 34);
    auto const got = p.backward();
    GradientCheck check;
    check.output(
        p.reference_rows(lift(p.embedded, ve), lift(p.start, vs), lift(p.table, vt), lift(p.context, vp)),
        p.dx);
    check.input(got.embedded.values(), ve);
    check.input(got.start.values(), vs);
    check.input(got.table.values(), vt);
    if (c.context) check.input(got.context.values(), vp);
    EXPECT_TRUE(check.result());
  }
}

TYPED_TEST(StageInput, RepeatsBitForBit) {
  using T = TypeParam;
  for (Case const& c : cases) {
    SCOPED_TRACE(c.name);
    Problem<T> const p(c);
    auto const first = p.backward(), second = p.backward();
    EXPECT_TRUE(same(first.start.values(), second.start.values()));
    EXPECT_TRUE(same(first.table.values(), second.table.values()));
    EXPECT_TRUE(same(first.embedded.values(), second.embedded.values()));
    EXPECT_TRUE(same(p.forward().values(), p.forward().values()));
  }
}

/// Positions [0, 3) and [3, 6) of a sequence in two calls are the rows of one call over [0, 6).
TEST(StageInputSplit, TwoSpansMakeTheRowsOfOne) {
  for (Positions const positions : {Positions::none, Positions::table, Positions::rotation}) {
    Case const whole{"whole", {0, 1, 0, 6, 5, 1}, 8, 1, positions, true};
    Case head = whole, tail = whole;
    head.span.length = 3;
    tail.span.first_position = 3;
    tail.span.length = 3;
    Problem<float> const all(whole);
    Problem<float> first(head), second(tail);
    first.embedded.assign(all.embedded.begin(), all.embedded.begin() + 2 * 8);
    second.embedded.assign(all.embedded.begin() + 2 * 8, all.embedded.end());
    auto rows = first.forward().values();
    auto const rest = second.forward().values();
    rows.insert(rows.end(), rest.begin(), rest.end());
    EXPECT_TRUE(same(rows, all.forward().values()));
  }
}

TEST(StageInputChecks, WrongShapesThrow) {
  Problem<float> p(cases[0]);
  p.rows.shape.length += 1;  // one position more than the sub-patches of head `complete` allow
  EXPECT_THROW(p.forward(), std::logic_error);
  Case odd = cases[1];
  odd.width = 9;
  EXPECT_THROW(Problem<float>(odd).forward(), std::logic_error);
}

TEST(StageInputCost, MovesThreeRowsPerRow) {
  kernels::StageRows const rows{0, {2, 4}, 0, 4, 1};
  EXPECT_EQ(kernels::stage_input_cost<double>(rows, 16).bytes(), 3.0 * 2 * 4 * 16 * 8);
}

}  // namespace
}  // namespace strata::test
