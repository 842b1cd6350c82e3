// SPDX-License-Identifier: Apache-2.0
// The selective scan against the plain recurrence: outputs, gradients, carried states, chunks, splits.

#include "kernels/selective_scan.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "unit_tests/support/gradient_check.hpp"
#include "unit_tests/support/near.hpp"
#include "unit_tests/support/owned.hpp"
#include "unit_tests/support/reference/selective_scan.hpp"

namespace strata::test {
namespace {

using kernels::ExecSpace;
using kernels::SelectiveScanShape;
using Arrays = reference::SelectiveScanArrays<double>;
using Values = std::vector<double>;

SelectiveScanShape shape_of(Index count, Index length, Index channels, Index state, Index chunk = 0) {
  return {{count, length}, channels, state, chunk};
}

/// Everything a forward and backward pass is given.
struct Data {
  explicit Data(SelectiveScanShape const& shape, double memory = -3) {
    auto const rows = static_cast<std::size_t>(shape.sequences.rows()),
               channels = static_cast<std::size_t>(shape.channels),
               state = static_cast<std::size_t>(shape.state),
               states = static_cast<std::size_t>(shape.sequences.count) * channels * state;
    in.delta = random_values(rows * channels, 1, -2, 2);
    in.delta_bias = random_values(channels, 2);
    in.x = random_values(rows * channels, 3);
    in.b = random_values(rows * state, 4);
    in.c = random_values(rows * state, 5);
    in.a_log = random_values(channels * state, 6, memory, 2);
    in.d = random_values(channels, 7);
    in.state = random_values(states, 8);
    dy = random_values(rows * channels, 9);
    dlast = random_values(states, 10);
  }
  Arrays in;
  Values dy, dlast;
};

/// A call of the kernels. Whatever is written starts as NaN, the workspaces too.
template <class T>
struct Scan {
  SelectiveScanShape shape;
  bool carries;
  Storage storage;
  OwnedMat<T> delta, x, b, c, a_log, initial, state, y, dy, ddelta, dx, db, dc, da_log, dstate;
  OwnedVec<T> delta_bias, d, ddelta_bias, dd, forward_workspace, workspace;

  Scan(SelectiveScanShape const& s, Data const& data, bool carries_states = true,
       Storage stored = Storage::contiguous)
      : shape(s),
        carries(carries_states),
        storage(stored),
        delta(s.sequences.rows(), s.channels, data.in.delta, stored),
        x(s.sequences.rows(), s.channels, data.in.x, stored),
        b(s.sequences.rows(), s.state, data.in.b, stored),
        c(s.sequences.rows(), s.state, data.in.c, stored),
        a_log(s.channels, s.state, data.in.a_log),
        initial(s.sequences.count, s.channels * s.state, data.in.state, stored),
        state(s.sequences.count, s.channels * s.state, data.in.state, stored),
        y(s.sequences.rows(), s.channels, stored),
        dy(s.sequences.rows(), s.channels, data.dy, stored),
        ddelta(s.sequences.rows(), s.channels, stored),
        dx(s.sequences.rows(), s.channels, stored),
        db(s.sequences.rows(), s.state, stored),
        dc(s.sequences.rows(), s.state, stored),
        da_log(s.channels, s.state),
        dstate(s.sequences.count, s.channels * s.state, data.dlast, stored),
        delta_bias(s.channels, data.in.delta_bias),
        d(s.channels, data.in.d),
        ddelta_bias(s.channels),
        dd(s.channels),
        forward_workspace(kernels::selective_scan_forward_workspace(s)),
        workspace(kernels::selective_scan_backward_workspace(s)) {
    da_log.fill(0);
    ddelta_bias.fill(0);
    dd.fill(0);
  }
  kernels::SelectiveScanInputs<T> inputs() const {
    return {delta.span(), delta_bias.span(), x.span(), b.span(), c.span(), a_log.span(), d.span()};
  }
  auto optional(OwnedMat<T> const& m) const { return carries ? m.span() : kernels::Mat<T>(); }
  void forward() {
    kernels::selective_scan_forward<T>(ExecSpace(), shape, inputs(), optional(state), y.span(),
                                       forward_workspace.span());
  }
  void backward() {
    kernels::selective_scan_backward<T>(
        ExecSpace(), shape, inputs(), optional(initial), dy.span(),
        {ddelta.span(), dx.span(), db.span(), dc.span(), ddelta_bias.span(), da_log.span(), dd.span()},
        optional(dstate), workspace.span());
  }
  /// Gradients; that of the state where it is carried.
  Arrays gradients() const {
    return {ddelta.values(), ddelta_bias.values(), dx.values(), db.values(),
            dc.values(),     da_log.values(),      dd.values(), carries ? dstate.values() : Values()};
  }
  bool guards_intact() const {
    return y.guards_intact() && state.guards_intact() && ddelta.guards_intact() && dx.guards_intact() &&
           db.guards_intact() && dc.guards_intact() && da_log.guards_intact() && dstate.guards_intact() &&
           ddelta_bias.guards_intact() && dd.guards_intact() && workspace.guards_intact() &&
           forward_workspace.guards_intact();
  }
};

/// |got - wanted| <= tolerance * the largest |wanted|, elementwise.
testing::AssertionResult close(Values const& got, Values const& wanted, double tolerance,
                               std::string const& what) {
  if (got.size() != wanted.size()) return testing::AssertionFailure() << what << ": sizes differ";
  double largest = 0;
  for (double const v : wanted) largest = std::max(largest, std::fabs(v));
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (!(std::fabs(got[i] - wanted[i]) <= tolerance * largest))
      return testing::AssertionFailure() << what << "[" << i << "]: got " << got[i] << ", wanted "
                                         << wanted[i] << ", largest " << largest;
  }
  return testing::AssertionSuccess();
}

void expect_close(Arrays const& got, Arrays const& wanted, double tolerance) {
  EXPECT_TRUE(close(got.delta, wanted.delta, tolerance, "delta"));
  EXPECT_TRUE(close(got.x, wanted.x, tolerance, "x"));
  EXPECT_TRUE(close(got.b, wanted.b, tolerance, "b"));
  EXPECT_TRUE(close(got.c, wanted.c, tolerance, "c"));
  EXPECT_TRUE(close(got.delta_bias, wanted.delta_bias, tolerance, "delta_bias"));
  EXPECT_TRUE(close(got.a_log, wanted.a_log, tolerance, "a_log"));
  EXPECT_TRUE(close(got.d, wanted.d, tolerance, "d"));
  EXPECT_TRUE(close(got.state, wanted.state, tolerance, "state"));
}

/// Both passes of the kernels in type T against the reference, for several chunk lengths.
template <class T>
void expect_follows_recurrence(SelectiveScanShape shape, std::vector<Index> const& chunks, bool carries,
                               Storage storage, double forward_tolerance, double backward_tolerance) {
  Data data(shape);
  Data wanted_data = data;
  if (!carries) {
    std::fill(wanted_data.in.state.begin(), wanted_data.in.state.end(), 0.0);
    std::fill(wanted_data.dlast.begin(), wanted_data.dlast.end(), 0.0);
  }
  auto const wanted = reference::selective_scan<double>(shape, wanted_data.in);
  Arrays gradients =
      reference::selective_scan_gradients(shape, wanted_data.in, wanted_data.dy, wanted_data.dlast);
  if (!carries) gradients.state.clear();
  for (Index const chunk : chunks) {
    shape.chunk = chunk;
    SCOPED_TRACE(testing::Message() << shape.sequences.count << " x " << shape.sequences.length << ", "
                                    << shape.channels << " channels, state " << shape.state << ", chunk "
                                    << chunk << (carries ? ", carries" : ""));
    Scan<T> scan(shape, data, carries, storage);
    scan.forward();
    EXPECT_TRUE(close(scan.y.values(), wanted.y, forward_tolerance, "y"));
    if (carries)
      EXPECT_TRUE(close(scan.state.values(), wanted.last(shape), forward_tolerance, "last state"));
    else
      EXPECT_TRUE(same(scan.state.values(), Scan<T>(shape, data).state.values()));
    scan.backward();
    expect_close(scan.gradients(), gradients, backward_tolerance);
    EXPECT_TRUE(scan.guards_intact());
  }
}

TEST(SelectiveScanReference, GradientIsTheTransposeOfTheDerivative) {
  SelectiveScanShape const shape = shape_of(2, 9, 3, 4);
  Data const data(shape);
  auto const gradients = reference::selective_scan_gradients(shape, data.in, data.dy, data.dlast);
  Values Arrays::*const members[] = {&Arrays::delta, &Arrays::delta_bias, &Arrays::x, &Arrays::b,
                                     &Arrays::c,     &Arrays::a_log,      &Arrays::d, &Arrays::state};
  using DualArrays = reference::SelectiveScanArrays<Dual>;
  std::vector<Dual> DualArrays::*const dual_members[] = {
      &DualArrays::delta, &DualArrays::delta_bias, &DualArrays::x, &DualArrays::b,
      &DualArrays::c,     &DualArrays::a_log,      &DualArrays::d, &DualArrays::state};
  for (std::size_t moved = 0; moved < 8; ++moved) {  // one input at a time
    DualArrays in;
    Values direction;
    for (std::size_t m = 0; m < 8; ++m) {
      Values const& values = data.in.*members[m];
      Values const v = m == moved ? random_values(values.size(), 20 + m) : Values(values.size(), 0.0);
      in.*dual_members[m] = lift(values, v);
      if (m == moved) direction = v;
    }
    auto const result = reference::selective_scan<Dual>(shape, in);
    GradientCheck check;
    check.output(result.y, data.dy);
    check.output(result.last(shape), data.dlast);
    check.input(gradients.*members[moved], direction);
    EXPECT_TRUE(check.result()) << "input " << moved;
  }
}

TEST(SelectiveScan, FollowsTheRecurrenceInDouble) {
  struct Case {
    Index count, length, channels, state;
  };
  for (Case const& c : {Case{1, 1, 1, 1},
                        {3, 1, 37, 16},
                        {2, 2, 70, 3},
                        {5, 3, 33, 5},
                        {20, 7, 5, 16},
                        {1, 16, 130, 17},
                        {3, 33, 37, 16},
                        {2, 100, 65, 5},
                        {1, 257, 19, 17},
                        {1, 1000, 37, 3},
                        {2, 100, 3, 128}}) {
    bool const is_strided = c.length % 2 == 1;
    expect_follows_recurrence<double>(shape_of(c.count, c.length, c.channels, c.state),
                                      {0, 1, 2, 5, 16, 64, c.length, c.length + 7}, true,
                                      is_strided ? Storage::strided : Storage::contiguous, 1e-12, 1e-11);
    expect_follows_recurrence<double>(shape_of(c.count, c.length, c.channels, c.state), {0, 5}, false,
                                      is_strided ? Storage::contiguous : Storage::strided, 1e-12, 1e-11);
  }
}

TEST(SelectiveScan, FollowsTheRecurrenceInFloat) {
  // A state remembers up to 400 positions, each of which adds a relative error of a few roundings.
  constexpr double epsilon = std::numeric_limits<float>::epsilon();
  for (Index const length : {1, 7, 64, 400})
    for (Index const state : {1, 16, 17})
      for (bool const carries : {false, true})
        expect_follows_recurrence<float>(shape_of(2, length, length > 100 ? 19 : 75, state), {0, 5, 64},
                                         carries, Storage::strided, 30 * epsilon, 100 * epsilon);
}

TEST(SelectiveScan, SplittingSequencesChangesNothing) {
  constexpr Index count = 2, length = 41, channels = 21, state = 5;
  SelectiveScanShape const shape = shape_of(count, length, channels, state, 7);
  Data const data(shape);
  Scan<double> whole(shape, data);
  whole.forward();
  whole.backward();
  Arrays const wanted = whole.gradients();
  // Rows [begin, end) of every sequence, and back.
  auto const part_of = [&](Values const& m, Index begin, Index end, Index width) {
    Values part;
    for (Index s = 0; s < count; ++s)
      part.insert(part.end(), m.begin() + (s * length + begin) * width,
                  m.begin() + (s * length + end) * width);
    return part;
  };
  auto const put_back = [&](Values const& part, Index begin, Index end, Index width, Values& m) {
    for (Index s = 0; s < count; ++s)
      std::copy_n(part.begin() + s * (end - begin) * width, (end - begin) * width,
                  m.begin() + (s * length + begin) * width);
  };
  for (auto const& cuts : {std::vector<Index>{0, 20, 41}, std::vector<Index>{0, 1, 6, 40, 41}, [] {
                             std::vector<Index> all;
                             for (Index t = 0; t <= length; ++t) all.push_back(t);
                             return all;
                           }()}) {
    std::vector<Scan<double>> spans;
    Values carried = data.in.state, y(data.dy.size());
    for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
      Index const begin = cuts[i], end = cuts[i + 1];
      Data part = data;
      part.in.delta = part_of(data.in.delta, begin, end, channels);
      part.in.x = part_of(data.in.x, begin, end, channels);
      part.in.b = part_of(data.in.b, begin, end, state);
      part.in.c = part_of(data.in.c, begin, end, state);
      part.in.state = carried;
      part.dy = part_of(data.dy, begin, end, channels);
      spans.emplace_back(shape_of(count, end - begin, channels, state, 7), part);
      spans.back().forward();
      carried = spans.back().state.values();
      put_back(spans.back().y.values(), begin, end, channels, y);
    }
    EXPECT_TRUE(close(y, whole.y.values(), 1e-13, "y"));
    EXPECT_TRUE(close(carried, whole.state.values(), 1e-13, "last state"));

    Arrays got;
    got.delta.resize(wanted.delta.size());
    got.x.resize(wanted.x.size());
    got.b.resize(wanted.b.size());
    got.c.resize(wanted.c.size());
    got.delta_bias.assign(wanted.delta_bias.size(), 0);
    got.a_log.assign(wanted.a_log.size(), 0);
    got.d.assign(wanted.d.size(), 0);
    got.state = data.dlast;
    for (std::size_t i = spans.size(); i-- > 0;) {
      Scan<double>& span = spans[i];
      span.dstate.fill(got.state);
      span.ddelta_bias.fill(got.delta_bias);  // gradients of parameters go on being added to
      span.da_log.fill(got.a_log);
      span.dd.fill(got.d);
      span.backward();
      Arrays const part = span.gradients();
      put_back(part.delta, cuts[i], cuts[i + 1], channels, got.delta);
      put_back(part.x, cuts[i], cuts[i + 1], channels, got.x);
      put_back(part.b, cuts[i], cuts[i + 1], state, got.b);
      put_back(part.c, cuts[i], cuts[i + 1], state, got.c);
      got.delta_bias = part.delta_bias;
      got.a_log = part.a_log;
      got.d = part.d;
      got.state = part.state;
    }
    expect_close(got, wanted, 1e-12);
  }
}

TEST(SelectiveScan, RepeatsBitForBit) {
  SelectiveScanShape const shape = shape_of(3, 150, 200, 40);
  Data const data(shape);
  Scan<float> first(shape, data), second(shape, data);
  second.workspace.fill(1);
  for (Scan<float>* const scan : {&first, &second}) {
    scan->forward();
    scan->backward();
  }
  EXPECT_TRUE(same(first.y.values(), second.y.values()));
  EXPECT_TRUE(same(first.state.values(), second.state.values()));
  Arrays const a = first.gradients(), b = second.gradients();
  for (auto const member : {&Arrays::delta, &Arrays::delta_bias, &Arrays::x, &Arrays::b, &Arrays::c,
                            &Arrays::a_log, &Arrays::d, &Arrays::state})
    EXPECT_TRUE(same(a.*member, b.*member));
}

TEST(SelectiveScan, AddsToTheGradientsOfParametersOnly) {
  SelectiveScanShape const shape = shape_of(2, 9, 20, 3);
  Scan<double> scan(shape, Data(shape));
  scan.backward();
  Arrays const once = scan.gradients();
  scan.dstate.fill(Data(shape).dlast);
  scan.backward();
  Arrays twice = once;
  for (auto const member : {&Arrays::delta_bias, &Arrays::a_log, &Arrays::d})
    for (double& v : twice.*member) v *= 2;
  expect_close(scan.gradients(), twice, 0);
}

TEST(SelectiveScan, TakesStepsOfAnySize) {
  // Steps beyond the linear branch of softplus, decays that underflow, steps next to nothing.
  SelectiveScanShape const shape = shape_of(1, 40, 18, 5);
  Data data(shape);
  for (std::size_t i = 0; i < data.in.delta.size(); ++i)
    data.in.delta[i] = i % 7 == 0 ? 25 : i % 7 == 1 ? 1000 : i % 7 == 2 ? -60 : data.in.delta[i];
  auto const wanted = reference::selective_scan<double>(shape, data.in);
  auto const gradients = reference::selective_scan_gradients(shape, data.in, data.dy, data.dlast);
  Scan<double> twice(shape, data);
  twice.forward();
  twice.backward();
  EXPECT_TRUE(close(twice.y.values(), wanted.y, 1e-12, "y"));
  expect_close(twice.gradients(), gradients, 1e-11);
  Scan<float> single(shape, data);
  single.forward();
  single.backward();
  EXPECT_TRUE(close(single.y.values(), wanted.y, 1e-6, "y"));
  expect_close(single.gradients(), gradients, 1e-5);
}

TEST(SelectiveScan, KeepsANaNInItsChannel) {
  SelectiveScanShape const shape = shape_of(1, 6, 20, 3);
  Data data(shape);
  data.in.delta[2 * 20 + 18] = std::nan("");
  Scan<float> scan(shape, data);
  scan.forward();
  auto const y = scan.y.values();
  for (std::size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), i % 20 == 18 && i / 20 >= 2) << i;
}

TEST(SelectiveScan, KeepsNoMoreThanAboutTwoActivations) {
  for (Index const state : {16, 128}) {
    SelectiveScanShape const shape = shape_of(1, 4096, 1024, state);
    EXPECT_EQ(kernels::selective_scan_forward_workspace(shape), 0);
    EXPECT_LE(kernels::selective_scan_backward_workspace(shape), 2.3 * 4096 * 1024);
  }
}

TEST(SelectiveScan, RefusesWrongShapes) {
  SelectiveScanShape const shape = shape_of(2, 4, 6, 3);
  Data const data(shape);
  Scan<float> scan(shape, data);
  scan.shape.state = 4;
  EXPECT_THROW(scan.forward(), std::logic_error);
  EXPECT_THROW(scan.backward(), std::logic_error);
}

}  // namespace
}  // namespace strata::test
