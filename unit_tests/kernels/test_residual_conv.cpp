// SPDX-License-Identifier: Apache-2.0
// The residual convolution against its definition: forward, gradients, accumulation, sequences side by side.

#include "kernels/residual_conv.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "unit_tests/support/gradient_check.hpp"
#include "unit_tests/support/near.hpp"
#include "unit_tests/support/owned.hpp"

namespace strata::test {
namespace {

using kernels::ExecSpace;
using kernels::Sequences;

/// One call, forward and backward, with random data.
template <class T>
struct ConvCall {
  Sequences shape;
  Index channels, inputs, input_rows;
  OwnedMat<T> x, y, dy, dx, weight, dweight;
  OwnedVec<T> bias, dbias, workspace;

  ConvCall(Sequences s, Index c, Index f, Storage storage = Storage::contiguous)
      : shape(s),
        channels(c),
        inputs(f),
        input_rows(s.count * (s.length + f - 1)),
        x(OwnedMat<T>::random(input_rows, c, 1, storage, -2, 2)),
        y(s.rows(), c, storage),
        dy(OwnedMat<T>::random(s.rows(), c, 3, storage)),
        dx(input_rows, c, storage),
        weight(OwnedMat<T>::random(c, f, 5)),
        dweight(c, f),
        bias(OwnedVec<T>::random(c, 6)),
        dbias(c),
        workspace(kernels::residual_conv_workspace(input_rows, c, f)) {
    dweight.fill(0);
    dbias.fill(0);
  }
  void forward() {
    kernels::residual_conv_forward<T>(ExecSpace(), shape, x.span(), weight.span(), bias.span(), y.span());
  }
  void backward() {
    kernels::residual_conv_backward<T>(ExecSpace(), shape, dy.span(), x.span(), weight.span(), bias.span(),
                                       dx.span(), dweight.span(), dbias.span(), workspace.span());
  }
  /// y by the definition, of any scalar.
  template <class S>
  std::vector<S> wanted(std::vector<S> const& in, std::vector<S> const& k, std::vector<S> const& b) const {
    using std::exp;
    auto const at = [](Index i) { return static_cast<std::size_t>(i); };
    std::vector<S> result;
    for (Index s = 0; s < shape.count; ++s)
      for (Index t = 0; t < shape.length; ++t)
        for (Index c = 0; c < channels; ++c) {
          Index const first = s * (shape.length + inputs - 1) + t;
          S a = b[at(c)];
          for (Index w = 0; w < inputs; ++w) a += k[at(c * inputs + w)] * in[at((first + w) * channels + c)];
          result.push_back(in[at((first + inputs - 1) * channels + c)] + a / (S(1) + exp(-a)));
        }
    return result;
  }
};

template <class T>
class ResidualConv : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(ResidualConv, Scalars);

struct Shape {
  Sequences sequences;
  Index channels;
};
/// Channels beside a vector's and a tile's length, sequences shorter than a filter and beside a block's
/// length.
std::vector<Shape> const shapes = {{{0, 4}, 3},  {{1, 1}, 1},   {{3, 1}, 517}, {{2, 2}, 13},
                                   {{3, 7}, 16}, {{2, 67}, 13}, {{1, 33}, 5},  {{17, 3}, 520}};

TYPED_TEST(ResidualConv, ForwardFollowsItsDefinition) {
  using T = TypeParam;
  for (auto const& [sequences, channels] : shapes)
    for (Index const inputs : {3, 5, 7})
      for (Storage const storage : {Storage::contiguous, Storage::strided}) {
        ConvCall<T> conv(sequences, channels, inputs, storage);
        conv.forward();
        EXPECT_TRUE(near(conv.y,
                         conv.wanted(lift<Scaled>(conv.x.values()), lift<Scaled>(conv.weight.values()),
                                     lift<Scaled>(conv.bias.values())),
                         4))
            << sequences.count << " x " << sequences.length << " x " << channels << ", filter " << inputs;
      }
}

TEST(ResidualConvGradient, IsTheTransposeOfTheDerivative) {
  for (auto const& [sequences, channels] : shapes)
    for (Index const inputs : {3, 5, 7})
      for (Storage const storage : {Storage::contiguous, Storage::strided}) {
        if (sequences.count == 0) continue;
        ConvCall<double> conv(sequences, channels, inputs, storage);
        conv.backward();
        auto const vx = random_values(conv.x.values().size(), 11),
                   vw = random_values(conv.weight.values().size(), 13),
                   vb = random_values(conv.bias.values().size(), 14);
        GradientCheck check;
        check.output(conv.wanted(lift(conv.x.values(), vx), lift(conv.weight.values(), vw),
                                 lift(conv.bias.values(), vb)),
                     conv.dy.values());
        check.input(conv.dx.values(), vx);
        check.input(conv.dweight.values(), vw);
        check.input(conv.dbias.values(), vb);
        EXPECT_TRUE(check.result()) << sequences.length << " rows, filter " << inputs;
        EXPECT_TRUE(conv.dx.guards_intact() && conv.dweight.guards_intact() && conv.dbias.guards_intact() &&
                    conv.workspace.guards_intact());
      }
}

/// In float against double, with the same numbers.
TEST(ResidualConvGradient, OfFloatIsThatOfDouble) {
  for (auto const& [sequences, channels] : shapes)
    for (Index const inputs : {3, 5, 7}) {
      ConvCall<float> narrow(sequences, channels, inputs);
      ConvCall<double> wide(sequences, channels, inputs);
      wide.x.fill(narrow.x.values());
      wide.dy.fill(narrow.dy.values());
      wide.weight.fill(narrow.weight.values());
      wide.bias.fill(narrow.bias.values());
      narrow.backward();
      wide.backward();
      auto const sized = [](std::vector<double> const& values) {
        double largest = 1;
        for (double const v : values) largest = std::max(largest, std::fabs(v));
        std::vector<Scaled> result;
        for (double const v : values) result.emplace_back(v, largest);
        return result;
      };
      EXPECT_TRUE(near(narrow.dx, sized(wide.dx.values()), 8));
      EXPECT_TRUE(near(narrow.dweight, sized(wide.dweight.values()), 8));
      EXPECT_TRUE(near(narrow.dbias, sized(wide.dbias.values()), 8));
    }
}

TYPED_TEST(ResidualConv, AddsToGradientsAndRepeatsBitForBit) {
  using T = TypeParam;
  ConvCall<T> conv({2, 71}, 37, 5);
  conv.backward();
  auto const dx = conv.dx.values(), dweight = conv.dweight.values(), dbias = conv.dbias.values();
  conv.workspace.fill_nan();
  conv.backward();
  auto const twice = [](std::vector<double> values) {
    for (double& v : values) v *= 2;
    return values;
  };
  EXPECT_TRUE(same(conv.dx.values(), dx));
  EXPECT_TRUE(same(conv.dweight.values(), twice(dweight)));
  EXPECT_TRUE(same(conv.dbias.values(), twice(dbias)));
}

/// Rows [begin, end) of a sequence in a call of their own, after the F - 1 rows before them.
TYPED_TEST(ResidualConv, APartOfASequenceIsTheSameBits) {
  using T = TypeParam;
  ConvCall<T> whole({1, 67}, 37, 7);
  whole.forward();
  auto const x = whole.x.values(), y = whole.y.values();
  for (auto const& [begin, end] : {std::pair<Index, Index>{0, 1}, {5, 40}, {31, 67}}) {
    ConvCall<T> part({1, end - begin}, 37, 7);
    part.x.fill(std::vector<double>(x.begin() + begin * 37, x.begin() + (end + 6) * 37));
    part.forward();
    EXPECT_TRUE(same(part.y.values(), std::vector<double>(y.begin() + begin * 37, y.begin() + end * 37)));
  }
}

TEST(ResidualConvChecks, WrongShapesThrow) {
  ConvCall<float> conv({2, 5}, 3, 5);
  OwnedMat<float> const even(3, 4), short_x(10, 3);
  EXPECT_THROW(kernels::residual_conv_forward<float>(ExecSpace(), conv.shape, conv.x.span(), even.span(),
                                                     conv.bias.span(), conv.y.span()),
               std::logic_error);
  EXPECT_THROW(kernels::residual_conv_forward<float>(ExecSpace(), conv.shape, short_x.span(),
                                                     conv.weight.span(), conv.bias.span(), conv.y.span()),
               std::logic_error);
}

TEST(ResidualConvCost, CountsTheRowsBeforeTheSequences) {
  auto const forward = kernels::residual_conv_forward_cost<float>({2, 10}, 8, 5);
  EXPECT_EQ(forward.bytes_read, (2 * 14 * 8 + 6 * 8) * 4.0);
  EXPECT_EQ(forward.bytes_written, 2 * 10 * 8 * 4.0);
  EXPECT_EQ(forward.model_flops, 2 * 5 * 2 * 10 * 8.0);
  EXPECT_EQ((kernels::residual_conv_backward_cost<float>({2, 10}, 8, 5).model_flops),
            2 * forward.model_flops);
}

}  // namespace
}  // namespace strata::test
