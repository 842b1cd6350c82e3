// SPDX-License-Identifier: Apache-2.0
// The chunked state-space dual form against the plain recurrence: forward, gradients, carried states, chunk
// lengths.

#include "kernels/ssd.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "unit_tests/support/gradient_check.hpp"
#include "unit_tests/support/near.hpp"
#include "unit_tests/support/owned.hpp"
#include "unit_tests/support/reference/ssd.hpp"

namespace strata::test {
namespace {

using kernels::ExecSpace;
using kernels::Sequences;
using kernels::SsdShape;
using Values = std::vector<double>;

/// Relative to the largest wanted number.
testing::AssertionResult close(Values const& got, Values const& wanted, double tolerance) {
  double largest = 1e-300, worst = 0;
  for (double const w : wanted) largest = std::max(largest, std::fabs(w));
  if (got.size() != wanted.size()) return testing::AssertionFailure() << got.size() << " numbers";
  for (std::size_t i = 0; i < got.size(); ++i) {
    double const error = std::fabs(got[i] - wanted[i]);
    worst = std::isnan(error) ? INFINITY : std::max(worst, error);
  }
  if (worst <= tolerance * largest) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "error " << worst / largest << " of the largest number";
}

reference::Ssd<double> random_problem(SsdShape const& s, std::uint64_t seed) {
  auto const size = [](Index n) { return static_cast<std::size_t>(n); };
  std::size_t const rows = size(s.sequences.rows()), heads = size(s.heads);
  reference::Ssd<double> p;
  p.x = random_values(rows * size(s.channels()), seed);
  p.b = random_values(rows * size(s.state), seed + 1);
  p.c = random_values(rows * size(s.state), seed + 2);
  p.dt = random_values(rows * heads, seed + 3, -2, 1);
  p.dt_bias = random_values(heads, seed + 4, -2, 0);
  p.a_log = random_values(heads, seed + 5, -2, 1.5);
  p.d = random_values(heads, seed + 6);
  p.state = random_values(size(s.sequences.count * s.channels() * s.state), seed + 7);
  return p;
}

/// One call, forward and backward.
template <class T>
struct Call {
  SsdShape shape;
  bool carries;
  OwnedMat<T> x, b, c, dt, state, initial, dstate, y, dy, dx, db, dc, ddt;
  OwnedVec<T> dt_bias, a_log, d, ddt_bias, da_log, dd, workspace;

  Call(SsdShape const& s, reference::Ssd<double> const& p, Values const& dy_values, Values const& dlast,
       bool carried)
      : shape(s),
        carries(carried),
        x(s.sequences.rows(), s.channels(), p.x, Storage::strided),
        b(s.sequences.rows(), s.state, p.b, Storage::strided),
        c(s.sequences.rows(), s.state, p.c, Storage::strided),
        dt(s.sequences.rows(), s.heads, p.dt, Storage::strided),
        state(s.sequences.count, s.channels() * s.state, p.state, Storage::strided),
        initial(s.sequences.count, s.channels() * s.state, p.state, Storage::strided),
        dstate(s.sequences.count, s.channels() * s.state, dlast, Storage::strided),
        y(s.sequences.rows(), s.channels(), Storage::strided),
        dy(s.sequences.rows(), s.channels(), dy_values, Storage::strided),
        dx(s.sequences.rows(), s.channels(), Storage::strided),
        db(s.sequences.rows(), s.state, Storage::strided),
        dc(s.sequences.rows(), s.state, Storage::strided),
        ddt(s.sequences.rows(), s.heads, Storage::strided),
        dt_bias(s.heads, p.dt_bias),
        a_log(s.heads, p.a_log),
        d(s.heads, p.d),
        ddt_bias(s.heads),
        da_log(s.heads),
        dd(s.heads),
        workspace(std::max(kernels::ssd_forward_workspace<T>(s, carried),
                           kernels::ssd_backward_workspace<T>(s, carried))) {
    for (auto* const sum : {&ddt_bias, &da_log, &dd}) sum->fill(0.25);
  }
  kernels::SsdInputs<T> inputs() const {
    return {x.span(), b.span(), c.span(), dt.span(), dt_bias.span(), a_log.span(), d.span()};
  }
  void forward() {
    workspace.fill_nan();
    kernels::ssd_forward<T>(ExecSpace(), shape, inputs(), carries ? state.span() : kernels::Mat<T>(),
                            y.span(), workspace.span());
  }
  void backward() {
    workspace.fill_nan();
    kernels::ssd_backward<T>(
        ExecSpace(), shape, inputs(), carries ? initial.span() : kernels::Mat<T>(), dy.span(),
        {dx.span(), db.span(), dc.span(), ddt.span(), ddt_bias.span(), da_log.span(), dd.span()},
        carries ? dstate.span() : kernels::Mat<T>(), workspace.span());
  }
  void expect(reference::Ssd<double> const& problem, Values const& dy_values, Values const& dlast,
              double forward_bound, double backward_bound) {
    auto in = problem;
    Values last = dlast;
    if (!carries) {
      std::fill(in.state.begin(), in.state.end(), 0);
      std::fill(last.begin(), last.end(), 0);
    }
    auto const result = reference::ssd<double>(shape, in);
    auto const g = reference::ssd_gradient(shape, in, dy_values, last);
    auto const added = [](Values values) {
      for (double& v : values) v += 0.25;
      return values;
    };
    EXPECT_TRUE(close(y.values(), result.y, forward_bound)) << "y";
    EXPECT_TRUE(close(dx.values(), g.x, backward_bound)) << "dx";
    EXPECT_TRUE(close(db.values(), g.b, backward_bound)) << "db";
    EXPECT_TRUE(close(dc.values(), g.c, backward_bound)) << "dc";
    EXPECT_TRUE(close(ddt.values(), g.dt, backward_bound)) << "ddt";
    EXPECT_TRUE(close(ddt_bias.values(), added(g.dt_bias), backward_bound)) << "ddt_bias";
    EXPECT_TRUE(close(da_log.values(), added(g.a_log), backward_bound)) << "da_log";
    EXPECT_TRUE(close(dd.values(), added(g.d), backward_bound)) << "dd";
    if (carries) {
      EXPECT_TRUE(close(state.values(), result.state, forward_bound)) << "state";
      EXPECT_TRUE(close(dstate.values(), g.state, backward_bound)) << "dstate";
    }
    for (auto const* const m : {&y, &dx, &db, &dc, &ddt, &state, &dstate}) EXPECT_TRUE(m->guards_intact());
    EXPECT_TRUE(workspace.guards_intact());
  }
};

template <class T>
void check(SsdShape const& shape, bool carries, double forward_bound, double backward_bound) {
  SCOPED_TRACE(testing::Message() << shape.sequences.count << " x " << shape.sequences.length << ", heads "
                                  << shape.heads << " x " << shape.head_width << ", state " << shape.state
                                  << ", chunk " << shape.chunk << (carries ? ", carried" : ""));
  auto const problem = random_problem(shape, 11);
  Values const dy = random_values(problem.x.size(), 31), dlast = random_values(problem.state.size(), 32);
  Call<T> call(shape, problem, dy, dlast, carries);
  call.forward();
  call.backward();
  call.expect(problem, dy, dlast, forward_bound, backward_bound);
}

TEST(Ssd, AgreesWithTheRecurrenceAtEveryLengthAndChunk) {
  struct Size {
    Index heads, head_width, state;
  };
  Size const sizes[] = {{3, 5, 7}, {1, 1, 1}, {2, 16, 12}, {1, 17, 33}, {5, 8, 3}};
  std::size_t next = 0;
  for (Index const length : {1, 2, 3, 7, 16, 33, 64, 65, 100, 257})
    for (Index const chunk :
         {Index(1), Index(2), Index(5), Index(16), Index(64), length, length + 7, Index(0)})
      for (bool const carries : {false, true}) {
        Size const& s = sizes[next++ % 5];
        Index const count = length > 100 ? 1 : 1 + static_cast<Index>(next % 3);
        check<double>({{count, length}, s.heads, s.head_width, s.state, chunk}, carries, 1e-12, 1e-11);
      }
  for (Index const chunk : {1, 64, 1000, 2000, 0})
    check<double>({{1, 1000}, 2, 4, 8, chunk}, true, 1e-12, 1e-11);
}

TEST(Ssd, AgreesInSinglePrecision) {
  for (Index const length : {1, 9, 65, 300})
    for (bool const carries : {false, true}) check<float>({{2, length}, 3, 24, 20, 0}, carries, 2e-6, 1e-5);
}

TEST(Ssd, TakesHeadsAndStatesOfPublishedSizes) { check<float>({{1, 130}, 20, 64, 128, 0}, true, 2e-6, 1e-5); }

/// Spans of any length, one after the other, give what one call gives, and so do their gradients in reverse.
TEST(Ssd, SplitsAnywhere) {
  SsdShape const whole{{2, 23}, 3, 6, 9, 8};
  auto const problem = random_problem(whole, 41);
  Values const dy = random_values(problem.x.size(), 42), dlast = random_values(problem.state.size(), 43);
  auto const wanted = reference::ssd<double>(whole, problem);
  auto const gradient = reference::ssd_gradient(whole, problem, dy, dlast);
  auto const part = [&](Values const& all, Index width, Index begin, Index end) {
    Values rows;
    for (Index k = 0; k < whole.sequences.count; ++k)
      rows.insert(rows.end(), all.begin() + (k * whole.sequences.length + begin) * width,
                  all.begin() + (k * whole.sequences.length + end) * width);
    return rows;
  };
  for (std::vector<Index> const& ends : {std::vector<Index>{1, 2, 3, 23}, {8, 23}, {5, 11, 22, 23}}) {
    std::vector<Call<double>> calls;
    Values state = problem.state;
    Index begin = 0;
    for (Index const end : ends) {
      SsdShape shape = whole;
      shape.sequences.length = end - begin;
      reference::Ssd<double> p = problem;
      p.x = part(problem.x, whole.channels(), begin, end);
      p.b = part(problem.b, whole.state, begin, end);
      p.c = part(problem.c, whole.state, begin, end);
      p.dt = part(problem.dt, whole.heads, begin, end);
      p.state = state;
      calls.emplace_back(shape, p, part(dy, whole.channels(), begin, end), dlast, true);
      calls.back().forward();
      state = calls.back().state.values();
      EXPECT_TRUE(close(calls.back().y.values(), part(wanted.y, whole.channels(), begin, end), 1e-12));
      begin = end;
    }
    EXPECT_TRUE(close(state, wanted.state, 1e-12));
    Values dstate = dlast, sums(static_cast<std::size_t>(whole.heads), 0);
    for (std::size_t k = calls.size(); k-- > 0;) {
      Index const first = k == 0 ? 0 : ends[k - 1];
      calls[k].dstate.fill(dstate);
      calls[k].da_log.fill(sums);
      calls[k].backward();
      dstate = calls[k].dstate.values();
      sums = calls[k].da_log.values();
      EXPECT_TRUE(close(calls[k].dx.values(), part(gradient.x, whole.channels(), first, ends[k]), 1e-11));
      EXPECT_TRUE(close(calls[k].db.values(), part(gradient.b, whole.state, first, ends[k]), 1e-11));
    }
    EXPECT_TRUE(close(dstate, gradient.state, 1e-11));
    EXPECT_TRUE(close(sums, gradient.a_log, 1e-11));
  }
}

TEST(Ssd, RepeatsItselfBitForBit) {
  SsdShape const shape{{2, 150}, 6, 16, 16, 0};
  auto const problem = random_problem(shape, 51);
  Values const dy = random_values(problem.x.size(), 52), dlast = random_values(problem.state.size(), 53);
  Call<float> first(shape, problem, dy, dlast, true), second(shape, problem, dy, dlast, true);
  for (auto* const call : {&first, &second}) {
    call->forward();
    call->backward();
  }
  EXPECT_TRUE(same(first.y.values(), second.y.values()));
  EXPECT_TRUE(same(first.db.values(), second.db.values()));
  EXPECT_TRUE(same(first.da_log.values(), second.da_log.values()));
}

TEST(Ssd, RefusesWrongSizes) {
  SsdShape const shape{{1, 4}, 2, 3, 5, 0};
  auto const problem = random_problem(shape, 61);
  Call<double> call(shape, problem, random_values(problem.x.size(), 62),
                    random_values(problem.state.size(), 63), true);
  call.shape.state = 6;
  EXPECT_THROW(call.forward(), std::logic_error);
  call.shape.state = 5;
  call.carries = false;
  kernels::SsdInputs<double> const in = call.inputs();
  EXPECT_THROW(kernels::ssd_forward<double>(ExecSpace(), shape, in, {}, call.y.span(), {}), std::logic_error);
}

/// The oracle's own gradient against dual numbers.
TEST(SsdReference, GradientIsTheTransposeOfTheDerivative) {
  SsdShape const shape{{2, 9}, 2, 3, 4, 0};
  auto const p = random_problem(shape, 71);
  auto const v = random_problem(shape, 81);
  reference::Ssd<Dual> moved{lift(p.x, v.x),
                             lift(p.b, v.b),
                             lift(p.c, v.c),
                             lift(p.dt, v.dt),
                             lift(p.dt_bias, v.dt_bias),
                             lift(p.a_log, v.a_log),
                             lift(p.d, v.d),
                             lift(p.state, v.state)};
  auto const result = reference::ssd<Dual>(shape, moved);
  Values const dy = random_values(p.x.size(), 91), dlast = random_values(p.state.size(), 92);
  auto const g = reference::ssd_gradient(shape, p, dy, dlast);
  GradientCheck check;
  check.output(result.y, dy);
  check.output(result.state, dlast);
  check.input(g.x, v.x);
  check.input(g.b, v.b);
  check.input(g.c, v.c);
  check.input(g.dt, v.dt);
  check.input(g.dt_bias, v.dt_bias);
  check.input(g.a_log, v.a_log);
  check.input(g.d, v.d);
  check.input(g.state, v.state);
  EXPECT_TRUE(check.result());
}

}  // namespace
}  // namespace strata::test
