// SPDX-License-Identifier: Apache-2.0
// kernels/cross_entropy.hpp against the definition of softmax cross-entropy and of what each row predicts.

#include "kernels/cross_entropy.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "unit_tests/support/gradient_check.hpp"
#include "unit_tests/support/near.hpp"
#include "unit_tests/support/owned.hpp"
#include "unit_tests/support/reference/cross_entropy.hpp"
#include "unit_tests/support/token_batch.hpp"

namespace strata::test {
namespace {

using kernels::ExecSpace;
using kernels::Prediction;
using reference::Span;

struct Case {
  char const* name;
  std::size_t windows, padded_length;
  Span span;  ///< first_sequence, count, first_position, length, patches, 1
  char const* rule;
  int vocabulary, ignored;
  bool wide, weighted;
};

/// Windows are shorter than their padded length, all but the first, so every rule meets rows without a
/// target.
constexpr Case cases[] = {
    {"complete, all sequences", 3, 12, {0, 9, 0, 4, 4, 1}, "same", 257, -1, false, false},
    {"complete, some sequences, weights", 3, 12, {2, 5, 0, 4, 4, 1}, "same", 257, -1, false, true},
    {"complete, later positions", 3, 12, {0, 9, 2, 2, 4, 1}, "same", 31, -1, false, true},
    {"reference, all sequences", 3, 12, {0, 9, 0, 5, 4, 1}, "next", 257, -1, false, false},
    {"reference, one stage", 3, 12, {0, 3, 0, 13, 12, 1}, "next", 256, 0, false, false},
    {"reference, some sequences, weights", 3, 12, {1, 6, 0, 5, 4, 1}, "next", 67, 3, false, true},
    {"reference, later positions", 3, 12, {0, 9, 1, 4, 4, 1}, "next", 257, -1, false, false},
    {"masked, all sequences", 3, 12, {0, 9, 0, 5, 4, 1}, "self", 257, -1, false, true},
    {"masked, later positions", 3, 12, {3, 4, 2, 3, 4, 1}, "self", 257, 5, false, false},
    {"16-bit ids", 3, 12, {0, 9, 0, 4, 4, 1}, "same", 301, 299, true, true},
    {"two values", 2, 7, {0, 2, 0, 7, 7, 1}, "same", 2, -1, false, false},
    {"one value", 2, 7, {0, 2, 0, 7, 7, 1}, "same", 1, -1, false, false},
    {"no rows", 2, 7, {0, 0, 0, 7, 7, 1}, "same", 257, -1, false, false},
    {"many rows", 5, 80, {0, 5, 0, 80, 80, 1}, "same", 257, -1, false, true},
};

Prediction prediction(std::string const& rule) {
  return rule == "same" ? Prediction::same : rule == "next" ? Prediction::next : Prediction::self;
}

/// The weight and target of a row; weight 0: the row does not count.
struct Term {
  double weight = 0;
  std::size_t target = 0;
};

template <class T>
struct Problem {
  Case c;
  std::vector<std::vector<int>> windows;
  TokenBatch batch;
  Kokkos::View<float*, kernels::MemSpace> weights;
  kernels::StageRows rows;
  kernels::Targets targets;
  std::vector<Term> terms;
  std::vector<double> logits, bias;

  explicit Problem(Case const& which, double range = 4)
      : c(which),
        windows(random_windows(c.windows, c.padded_length,
                               c.wide ? c.vocabulary : std::min(c.vocabulary, 256), 5)),
        batch(windows, c.padded_length, 0, c.wide),
        weights("weights", c.windows * std::size_t(batch.tokens().stride)),
        rows{Index(c.span.first_sequence),
             {Index(c.span.count), Index(c.span.length)},
             Index(c.span.first_position),
             Index(c.span.patches),
             1},
        targets{batch.tokens(), c.weighted ? weights.data() : nullptr, c.ignored, prediction(c.rule)} {
    // Cells between the windows hold a weight that would show; a third of the others is 0.
    auto const host = Kokkos::create_mirror_view(weights);
    Kokkos::deep_copy(host, 1e6F);
    Random random(6);
    std::size_t const stride = std::size_t(batch.tokens().stride);
    for (std::size_t b = 0; b < c.windows; ++b) {
      for (std::size_t i = 0; i < windows[b].size(); ++i) {
        host(b * stride + i) = random.next() % 3 == 0 ? 0.0F : float(random.uniform(0.25, 2));
      }
    }
    Kokkos::deep_copy(weights, host);
    for (std::size_t k = 0; k < c.span.count; ++k) {
      for (std::size_t t = c.span.first_position; t < c.span.first_position + c.span.length; ++t) {
        Term term;
        long const flat = reference::predicted(c.span, c.rule, k, t, windows, c.padded_length);
        if (flat >= 0) {
          std::size_t const b = std::size_t(flat) / c.padded_length, i = std::size_t(flat) % c.padded_length;
          term.target = std::size_t(windows[b][i]);
          term.weight = windows[b][i] == c.ignored ? 0.0 : c.weighted ? double(host(b * stride + i)) : 1.0;
        }
        terms.push_back(term);
      }
    }
    logits = OwnedMat<T>::random(Index(terms.size()), c.vocabulary, 1, Storage::contiguous, -range, range)
                 .values();
    bias = OwnedVec<T>::random(c.vocabulary, 2).values();
  }

  std::size_t counted() const {
    std::size_t n = 0;
    for (Term const& term : terms) n += term.weight != 0;
    return n;
  }
  template <class S>
  std::vector<S> row(std::vector<S> const& z, std::vector<S> const& b, std::size_t r) const {
    std::size_t const width = std::size_t(c.vocabulary);
    std::vector<S> result;
    for (std::size_t v = 0; v < width; ++v) result.push_back(z[r * width + v] + b[v]);
    return result;
  }
  template <class S>
  std::vector<S> reference_losses(std::vector<S> const& z, std::vector<S> const& b) const {
    std::vector<S> result;
    for (std::size_t r = 0; r < terms.size(); ++r) {
      result.push_back(terms[r].weight == 0
                           ? S(-1.0)
                           : S(terms[r].weight) * reference::row_loss(row(z, b, r), terms[r].target));
    }
    return result;
  }
  std::vector<Scaled> reference_gradient(double scale) const {
    std::vector<Scaled> result;
    for (std::size_t r = 0; r < terms.size(); ++r) {
      auto const gradient =
          reference::row_gradient(row(lift<Scaled>(logits), lift<Scaled>(bias), r), terms[r].target);
      for (Scaled const& g : gradient) {
        result.push_back(terms[r].weight == 0 ? Scaled(0.0) : Scaled(scale * terms[r].weight) * g);
      }
    }
    return result;
  }

  OwnedVec<T> forward(Storage storage = Storage::contiguous) const {
    OwnedMat<T> const z(Index(terms.size()), c.vocabulary, logits, storage);
    OwnedVec<T> const b(c.vocabulary, bias);
    OwnedVec<T> losses((Index(terms.size())));
    auto const before = z.values();
    kernels::cross_entropy_forward<T>(ExecSpace(), targets, rows, z.span(), b.span(), losses.span());
    EXPECT_TRUE(same(z.values(), before)) << "forward changed the logits";
    return losses;
  }
  struct Result {
    OwnedVec<T> losses;
    OwnedMat<T> gradient;
  };
  Result both(double scale, Storage storage = Storage::contiguous) const {
    OwnedVec<T> const b(c.vocabulary, bias);
    Result result{OwnedVec<T>(Index(terms.size())),
                  OwnedMat<T>(Index(terms.size()), c.vocabulary, logits, storage)};
    kernels::cross_entropy_forward_backward<T>(ExecSpace(), targets, rows, result.gradient.span(), b.span(),
                                               T(scale), result.losses.span());
    return result;
  }
};

template <class T>
class CrossEntropy : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(CrossEntropy, Scalars);

TYPED_TEST(CrossEntropy, LossesAgreeWithTheDefinition) {
  using T = TypeParam;
  for (Case const& c : cases) {
    for (Storage const storage : {Storage::contiguous, Storage::strided}) {
      SCOPED_TRACE(c.name);
      Problem<T> const p(c);
      EXPECT_EQ(p.counted() > 0, c.span.count > 0);
      auto const wanted = p.reference_losses(lift<Scaled>(p.logits), lift<Scaled>(p.bias));
      EXPECT_TRUE(near(p.forward(storage), wanted, 4));
      EXPECT_TRUE(near(p.both(0.125, storage).losses, wanted, 4));
    }
  }
}

TYPED_TEST(CrossEntropy, LogitsBecomeTheirGradient) {
  using T = TypeParam;
  for (Case const& c : cases) {
    for (Storage const storage : {Storage::contiguous, Storage::strided}) {
      SCOPED_TRACE(c.name);
      Problem<T> const p(c);
      EXPECT_TRUE(near(p.both(0.125, storage).gradient, p.reference_gradient(0.125), 4));
    }
  }
}

TYPED_TEST(CrossEntropy, RowsThatDoNotCountHaveMinusOneAndZeros) {
  using T = TypeParam;
  for (Case const& c : cases) {
    SCOPED_TRACE(c.name);
    Problem<T> p(c);
    std::size_t const width = std::size_t(c.vocabulary);
    for (std::size_t r = 0; r < p.terms.size(); ++r) {
      if (p.terms[r].weight == 0) p.logits[r * width] = std::nan("");  // not even looked at
    }
    auto const result = p.both(1);
    auto const losses = result.losses.values(), gradient = result.gradient.values();
    for (std::size_t r = 0; r < p.terms.size(); ++r) {
      if (p.terms[r].weight != 0) {
        EXPECT_GE(losses[r], 0);
        continue;
      }
      EXPECT_EQ(losses[r], -1);
      for (std::size_t v = 0; v < width; ++v) EXPECT_EQ(gradient[r * width + v], 0);
    }
  }
}

TEST(CrossEntropyGradient, BackwardIsTheTransposeOfTheDerivative) {
  for (Case const& c : cases) {
    if (c.span.count == 0 || c.vocabulary == 1) continue;  // nothing to differentiate: the loss is constant
    SCOPED_TRACE(c.name);
    Problem<double> const p(c);
    auto const vz = random_values(p.logits.size(), 41), vb = random_values(p.bias.size(), 42);
    auto const gradient = p.both(0.125).gradient.values();
    std::vector<double> dbias(p.bias.size());
    for (std::size_t i = 0; i < gradient.size(); ++i) dbias[i % dbias.size()] += gradient[i];
    GradientCheck check;
    check.output(p.reference_losses(lift(p.logits, vz), lift(p.bias, vb)),
                 std::vector<double>(p.terms.size(), 0.125));
    check.input(gradient, vz);
    check.input(dbias, vb);
    EXPECT_TRUE(check.result());
  }
}

/// A diverged model must be seen: any NaN or infinity in a counted row makes its loss NaN or infinite.
TYPED_TEST(CrossEntropy, BadLogitsGiveBadLosses) {
  using T = TypeParam;
  Case const c{"", 1, 3, {0, 1, 0, 3, 3, 1}, "same", 257, -1, false, false};
  double const infinity = std::numeric_limits<double>::infinity();
  for (double const bad : {std::nan(""), infinity, -infinity}) {
    for (std::size_t const column : {0U, 1U, 100U, 255U, 256U, 1000U}) {  // 1000: the target's
      SCOPED_TRACE(testing::Message() << bad << " in column " << column);
      Problem<T> p(c);
      std::size_t const place = column == 1000 ? p.terms[1].target : column;
      p.logits[257 + place] = bad;
      auto const forward = p.forward().values(), both = p.both(1).losses.values();
      for (auto const& losses : {forward, both}) {
        EXPECT_FALSE(std::isfinite(losses[1]));
        EXPECT_FALSE(losses[1] < 0);
        EXPECT_TRUE(std::isfinite(losses[0]) && std::isfinite(losses[2]));
      }
    }
  }
}

TYPED_TEST(CrossEntropy, LargeLogitsDoNotOverflow) {
  using T = TypeParam;
  Problem<T> const p(cases[0], 3e4);
  EXPECT_TRUE(near(p.forward(), p.reference_losses(lift<Scaled>(p.logits), lift<Scaled>(p.bias)), 4));
  EXPECT_TRUE(near(p.both(1).gradient, p.reference_gradient(1), 4));
}

/// A certain prediction has a loss of 0, never a little below, which would read as "no target".
TYPED_TEST(CrossEntropy, CertainPredictionsCount) {
  using T = TypeParam;
  for (double const lead : {5.0, 20.0, 200.0}) {
    Problem<T> p(cases[13], 1);
    std::size_t const width = std::size_t(p.c.vocabulary);
    for (std::size_t r = 0; r < p.terms.size(); ++r) p.logits[r * width + p.terms[r].target] += lead;
    auto const losses = p.forward().values();
    for (std::size_t r = 0; r < p.terms.size(); ++r) EXPECT_EQ(losses[r] >= 0, p.terms[r].weight != 0);
  }
}

TYPED_TEST(CrossEntropy, RepeatsBitForBit) {
  using T = TypeParam;
  Problem<T> const p(cases[13]);
  auto const first = p.both(0.125), second = p.both(0.125);
  EXPECT_TRUE(same(first.losses.values(), second.losses.values()));
  EXPECT_TRUE(same(first.gradient.values(), second.gradient.values()));
  EXPECT_TRUE(same(p.forward().values(), first.losses.values()));
}

/// Positions [0, 2) and [2, 5) of each sequence in two calls have the losses of one call over [0, 5).
TEST(CrossEntropySplit, TwoSpansHaveTheLossesOfOne) {
  for (char const* const rule : {"same", "next", "self"}) {
    std::size_t const length = std::string(rule) == "same" ? 4 : 5;
    for (std::size_t sequence = 0; sequence < 9; ++sequence) {
      SCOPED_TRACE(testing::Message() << rule << " sequence " << sequence);
      Case const whole{"", 3, 12, {sequence, 1, 0, length, 4, 1}, rule, 257, -1, false, true};
      Case head = whole, tail = whole;
      head.span.length = 2;
      tail.span.first_position = 2;
      tail.span.length = length - 2;
      Problem<float> const all(whole);
      Problem<float> first(head), second(tail);
      first.logits.assign(all.logits.begin(), all.logits.begin() + 2 * 257);
      second.logits.assign(all.logits.begin() + 2 * 257, all.logits.end());
      auto losses = first.forward().values();
      auto const rest = second.forward().values();
      losses.insert(losses.end(), rest.begin(), rest.end());
      EXPECT_TRUE(same(losses, all.forward().values()));
    }
  }
}

TEST(CrossEntropyChecks, WrongShapesThrow) {
  Problem<float> p(cases[0]);
  p.bias.pop_back();
  OwnedMat<float> const z(Index(p.terms.size()), 257, p.logits);
  OwnedVec<float> const bias(256, p.bias), losses(Index(p.terms.size()));
  EXPECT_THROW(kernels::cross_entropy_forward<float>(ExecSpace(), p.targets, p.rows, z.span(), bias.span(),
                                                     losses.span()),
               std::logic_error);
}

TEST(CrossEntropyCost, GrowsWithTheLogits) {
  auto const cost = kernels::cross_entropy_cost<float>(10, 257);
  EXPECT_EQ(cost.bytes_read, 4.0 * 10 * 257);
  EXPECT_EQ(cost.flops, 6.0 * 10 * 257);
}

}  // namespace
}  // namespace strata::test
