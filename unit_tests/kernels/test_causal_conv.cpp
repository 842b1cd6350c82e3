// SPDX-License-Identifier: Apache-2.0
// The causal convolution + SiLU against its definition: forward, gradients, accumulation, splitting of
// sequences.

#include "kernels/causal_conv.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "unit_tests/support/gradient_check.hpp"
#include "unit_tests/support/near.hpp"
#include "unit_tests/support/owned.hpp"
#include "unit_tests/support/reference/causal_conv.hpp"

namespace strata::test {
namespace {

using kernels::ExecSpace;
using kernels::Sequences;

/// One call, forward and backward, with random data.
template <class T>
struct ConvCall {
  Sequences shape;
  Index channels, inputs;
  bool carries;  // whether there are inputs before the span and a gradient behind it
  OwnedMat<T> x, previous, y, dy, dx, dborder;
  OwnedMat<T> weight, dweight;
  OwnedVec<T> bias, dbias, workspace;
  std::vector<double> dout, dnext;

  ConvCall(Sequences s, Index c, Index w, bool has_carries, Storage storage = Storage::contiguous)
      : shape(s),
        channels(c),
        inputs(w),
        carries(has_carries && w > 1),
        x(OwnedMat<T>::random(s.rows(), c, 1, storage, -2, 2)),
        previous(OwnedMat<T>::random(s.count, (w - 1) * c, 2, storage, -2, 2)),
        y(s.rows(), c, storage),
        dy(OwnedMat<T>::random(s.rows(), c, 3, storage)),
        dx(s.rows(), c, storage),
        dborder(OwnedMat<T>::random(s.count, (w - 1) * c, 4, storage)),
        weight(OwnedMat<T>::random(c, w, 5)),
        dweight(c, w),
        bias(OwnedVec<T>::random(c, 6)),
        dbias(c),
        workspace(kernels::causal_conv_workspace(s, c, w)),
        dout(dy.values()),
        dnext(dborder.values()) {
    dweight.fill(0);
    dbias.fill(0);
  }
  auto optional(OwnedMat<T> const& m) const { return carries ? m.span() : kernels::Mat<T>(); }
  reference::CausalConv reference() const { return {shape, channels, inputs}; }
  std::vector<double> before() const { return carries ? previous.values() : std::vector<double>(); }
  std::vector<double> behind() const { return carries ? dnext : std::vector<double>(); }
  void forward() {
    kernels::causal_conv_silu_forward<T>(ExecSpace(), shape, x.span(), optional(previous), weight.span(),
                                         bias.span(), y.span());
  }
  void backward() {
    kernels::causal_conv_silu_backward<T>(ExecSpace(), shape, dy.span(), x.span(), optional(previous),
                                          weight.span(), bias.span(), dx.span(), optional(dborder),
                                          dweight.span(), dbias.span(), workspace.span());
  }
};

/// The values with a common size, `scale` times the largest (1 at least).
std::vector<Scaled> sized(std::vector<double> const& values, double scale = 1) {
  double largest = 1;
  for (double const v : values) largest = std::max(largest, std::fabs(v));
  std::vector<Scaled> result;
  for (double const v : values) result.emplace_back(v, scale * largest);
  return result;
}

template <class T>
class CausalConv : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(CausalConv, Scalars);

struct Shape {
  Sequences sequences;
  Index channels;
};
/// Channels beside a vector's and a tile's length, spans shorter than the border and beside a block's length.
std::vector<Shape> const shapes = {{{0, 4}, 3},  {{1, 1}, 1},   {{3, 1}, 517}, {{2, 2}, 13},
                                   {{3, 7}, 16}, {{2, 67}, 13}, {{1, 33}, 5},  {{17, 3}, 520}};

TYPED_TEST(CausalConv, ForwardFollowsItsDefinition) {
  using T = TypeParam;
  for (auto const& [sequences, channels] : shapes)
    for (Index const inputs : {1, 2, 3, 4, 5, 8})
      for (bool const carries : {false, true})
        for (Storage const storage : {Storage::contiguous, Storage::strided}) {
          ConvCall<T> conv(sequences, channels, inputs, carries, storage);
          conv.forward();
          auto const wanted =
              conv.reference().forward(lift<Scaled>(conv.x.values()), lift<Scaled>(conv.before()),
                                       lift<Scaled>(conv.weight.values()), lift<Scaled>(conv.bias.values()));
          EXPECT_TRUE(near(conv.y, wanted, 4)) << sequences.count << " x " << sequences.length << " x "
                                               << channels << ", " << inputs << " inputs";
        }
}

TYPED_TEST(CausalConv, BackwardFollowsItsDefinition) {
  using T = TypeParam;
  for (auto const& [sequences, channels] : shapes)
    for (Index const inputs : {1, 2, 3, 4, 5, 8})
      for (bool const carries : {false, true})
        for (Storage const storage : {Storage::contiguous, Storage::strided}) {
          ConvCall<T> conv(sequences, channels, inputs, carries, storage);
          conv.backward();
          auto const wanted =
              conv.reference().backward(conv.dout, conv.x.values(), conv.before(), conv.weight.values(),
                                        conv.bias.values(), conv.behind());
          EXPECT_TRUE(near(conv.dx, sized(wanted.dx), 8) && near(conv.dweight, sized(wanted.dweight), 8) &&
                      near(conv.dbias, sized(wanted.dbias), 8))
              << sequences.count << " x " << sequences.length << " x " << channels << ", " << inputs
              << " inputs";
          EXPECT_TRUE(near(conv.dborder, sized(carries ? wanted.dborder : conv.dnext), 8));
          EXPECT_TRUE(conv.dy.guards_intact() && conv.workspace.guards_intact());
        }
}

TEST(CausalConvGradient, IsTheTransposeOfTheDerivative) {
  for (Sequences const shape : {Sequences{1, 1}, {3, 2}, {2, 67}})
    for (Index const inputs : {1, 2, 3, 4, 6})
      for (bool const carries : {false, true}) {
        ConvCall<double> conv(shape, 13, inputs, carries, Storage::strided);
        conv.backward();
        auto const vx = random_values(conv.x.values().size(), 11),
                   vp = random_values(conv.before().size(), 12),
                   vw = random_values(conv.weight.values().size(), 13), vb = random_values(13, 14);
        auto const x = lift(conv.x.values(), vx), previous = lift(conv.before(), vp);
        GradientCheck check;
        check.output(conv.reference().forward(x, previous, lift(conv.weight.values(), vw),
                                              lift(conv.bias.values(), vb)),
                     conv.dout);
        if (carries) check.output(conv.reference().next_border(x, previous), conv.dnext);
        check.input(conv.dx.values(), vx);
        if (conv.carries) check.input(conv.dborder.values(), vp);
        check.input(conv.dweight.values(), vw);
        check.input(conv.dbias.values(), vb);
        EXPECT_TRUE(check.result()) << shape.length << " rows, " << inputs << " inputs";
      }
}

TYPED_TEST(CausalConv, BorderHoldsTheLastInputs) {
  using T = TypeParam;
  for (auto const& [sequences, channels] : shapes)
    for (Index const inputs : {1, 2, 4, 7})
      for (bool const carries : {false, true}) {
        ConvCall<T> conv(sequences, channels, inputs, carries, Storage::strided);
        auto const wanted = conv.reference().next_border(conv.x.values(), conv.before());
        OwnedMat<T> next(sequences.count, (inputs - 1) * channels, Storage::strided);
        kernels::causal_conv_border<T>(ExecSpace(), sequences, conv.x.span(), conv.optional(conv.previous),
                                       next.span());
        EXPECT_TRUE(same(next.values(), wanted));
        EXPECT_TRUE(next.guards_intact());
        if (!conv.carries) continue;
        kernels::causal_conv_border<T>(ExecSpace(), sequences, conv.x.span(), conv.previous.span(),
                                       conv.previous.span());
        EXPECT_TRUE(same(conv.previous.values(), wanted));
      }
}

TYPED_TEST(CausalConv, AddsToGradientsAndRepeatsBitForBit) {
  using T = TypeParam;
  for (Index const inputs : {4, 5}) {
    ConvCall<T> conv({2, 71}, 37, inputs, true);
    conv.backward();
    auto const dx = conv.dx.values(), dborder = conv.dborder.values(), dweight = conv.dweight.values(),
               dbias = conv.dbias.values();
    conv.dy.fill(conv.dout);
    conv.dborder.fill(conv.dnext);
    conv.workspace.fill_nan();
    conv.backward();
    auto const twice = [](std::vector<double> values) {
      for (double& v : values) v *= 2;
      return values;
    };
    EXPECT_TRUE(same(conv.dx.values(), dx));
    EXPECT_TRUE(same(conv.dborder.values(), dborder));
    EXPECT_TRUE(same(conv.dweight.values(), twice(dweight)));
    EXPECT_TRUE(same(conv.dbias.values(), twice(dbias)));
  }
}

/// Spans of the given length, the last one shorter, with one border for all of them that is updated in place.
template <class T>
void expect_spans_agree(ConvCall<T> const& whole, Index span) {
  Index const count = whole.shape.count, length = whole.shape.length, channels = whole.channels;
  auto const part_of = [&](std::vector<double> const& m, Index begin, Index end) {
    std::vector<double> part;
    for (Index s = 0; s < count; ++s)
      part.insert(part.end(), m.begin() + (s * length + begin) * channels,
                  m.begin() + (s * length + end) * channels);
    return part;
  };
  OwnedMat<T> border(count, (whole.inputs - 1) * channels, whole.before());
  std::vector<ConvCall<T>> parts;
  for (Index begin = 0; begin < length; begin += span) {
    Index const end = std::min(begin + span, length);
    ConvCall<T>& part = parts.emplace_back(Sequences{count, end - begin}, channels, whole.inputs, true);
    part.x.fill(part_of(whole.x.values(), begin, end));
    part.dy.fill(part_of(whole.dout, begin, end));
    part.previous.fill(border.values());
    part.forward();
    EXPECT_TRUE(same(part.y.values(), part_of(whole.y.values(), begin, end))) << span << " at " << begin;
    kernels::causal_conv_border<T>(ExecSpace(), part.shape, part.x.span(), border.span(), border.span());
  }
  std::vector<double> dborder = whole.dnext, dweight(whole.dweight.values().size(), 0),
                      dbias(whole.dbias.values().size(), 0);
  for (Index i = static_cast<Index>(parts.size()) - 1; i >= 0; --i) {
    ConvCall<T>& part = parts[static_cast<std::size_t>(i)];
    part.dborder.fill(dborder);
    part.dweight.fill(dweight);
    part.dbias.fill(dbias);
    part.backward();
    dborder = part.dborder.values();
    dweight = part.dweight.values();
    dbias = part.dbias.values();
    EXPECT_TRUE(near(part.dx, sized(part_of(whole.dx.values(), i * span, i * span + part.shape.length)), 8))
        << "spans of " << span << ", number " << i;
  }
  EXPECT_TRUE(near<T>(dborder, sized(whole.dborder.values()), 8)) << span;
  EXPECT_TRUE(near<T>(dweight, sized(whole.dweight.values()), 8)) << span;
  EXPECT_TRUE(near<T>(dbias, sized(whole.dbias.values()), 8)) << span;
}

TYPED_TEST(CausalConv, SplittingSequencesChangesNothing) {
  for (Index const inputs : {2, 3, 4, 6}) {
    ConvCall<TypeParam> whole({2, 11}, 19, inputs, true);
    whole.forward();
    whole.backward();
    for (Index span = 1; span < 11; ++span) expect_spans_agree(whole, span);
  }
}

TYPED_TEST(CausalConv, RefusesWrongShapes) {
  using T = TypeParam;
  ConvCall<T> conv({2, 5}, 6, 4, true);
  OwnedMat<T> const narrow(2, 12), tall(11, 6);
  auto const forward = [&](kernels::Mat<T> previous, kernels::Mat<T> y) {
    kernels::causal_conv_silu_forward<T>(ExecSpace(), conv.shape, conv.x.span(), previous, conv.weight.span(),
                                         conv.bias.span(), y);
  };
  EXPECT_THROW(forward(narrow.span(), conv.y.span()), std::logic_error);
  EXPECT_THROW(forward(conv.previous.span(), tall.span()), std::logic_error);
  EXPECT_NO_THROW(forward(conv.previous.span(), conv.y.span()));
}

}  // namespace
}  // namespace strata::test
