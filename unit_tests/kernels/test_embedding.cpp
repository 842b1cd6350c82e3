// SPDX-License-Identifier: Apache-2.0
// kernels/embedding.hpp against embeddings written out token by token.

#include "kernels/embedding.hpp"

#include <gtest/gtest.h>

#include "unit_tests/support/gradient_check.hpp"
#include "unit_tests/support/near.hpp"
#include "unit_tests/support/owned.hpp"
#include "unit_tests/support/reference/embedding.hpp"
#include "unit_tests/support/token_batch.hpp"

namespace strata::test {
namespace {

using kernels::ExecSpace;
using reference::Span;

struct Case {
  char const* name;
  std::size_t windows, padded_length;
  Span span;
  int vocabulary, kinds, pad;  ///< tokens in the windows are below `kinds`
  bool wide;                   ///< 16-bit ids
  std::size_t width;
  int frozen;
};

/// Windows of 24 tokens as 6 sub-patches of 4 bytes, and so on; spans are {first_sequence, count,
/// first_position, length, patches, patch_bytes}.
constexpr Case cases[] = {
    {"whole windows, all but the last sub-patch read",
     3,
     24,
     {0, 3, 0, 6, 6, 4},
     257,
     256,
     256,
     false,
     5,
     256},
    {"whole windows, every sub-patch read", 3, 24, {0, 3, 0, 7, 6, 4}, 257, 200, 256, false, 16, -1},
    {"a span from the middle of each sequence", 3, 24, {1, 2, 3, 3, 6, 4}, 257, 256, 256, false, 7, 256},
    {"one position, the start vector only", 3, 24, {0, 3, 0, 1, 6, 4}, 257, 256, 256, false, 7, 256},
    {"one position in the middle", 2, 24, {0, 2, 4, 1, 6, 4}, 257, 256, 256, false, 1, 256},
    {"no sequences", 2, 24, {1, 0, 0, 6, 6, 4}, 257, 256, 256, false, 3, 256},
    {"inner sequences, bytes", 3, 24, {3, 4, 0, 4, 4, 1}, 257, 256, 256, false, 64, 256},
    {"inner sequences across windows, pad inside the bytes",
     3,
     24,
     {2, 8, 0, 4, 3, 2},
     256,
     256,
     0,
     false,
     33,
     0},
    {"16-bit ids", 3, 20, {0, 3, 0, 6, 5, 4}, 300, 300, 299, true, 19, 299},
    {"a frozen row that occurs in the text", 2, 30, {0, 2, 0, 11, 10, 3}, 16, 10, 11, false, 8, 4},
    {"large sub-patches, few values", 2, 15000, {0, 2, 0, 4, 3, 5000}, 257, 4, 256, false, 3, 256},
    {"few values, many columns", 2, 300, {0, 2, 0, 301, 300, 1}, 257, 4, 256, false, 600, 256},
};

template <class T>
struct Problem {
  Case c;
  std::vector<std::vector<int>> windows;
  TokenBatch batch;
  std::vector<int> read;  ///< tokens of the embedded sub-patches in order
  kernels::StageRows rows;
  Index height;
  Storage storage;
  std::vector<double> table, dtable0, dy;

  explicit Problem(Case const& which, Storage how = Storage::contiguous)
      : c(which),
        windows(random_windows(c.windows, c.padded_length, c.kinds, 7)),
        batch(windows, c.padded_length, c.pad, c.wide),
        read(reference::embedded_tokens(c.span, reference::padded_batch(windows, c.padded_length, c.pad))),
        rows{Index(c.span.first_sequence),
             {Index(c.span.count), Index(c.span.length)},
             Index(c.span.first_position),
             Index(c.span.patches),
             Index(c.span.patch_bytes)},
        height(Index(read.size())),
        storage(how),
        table(OwnedMat<T>::random(c.vocabulary, Index(c.width), 1).values()),
        dtable0(OwnedMat<T>::random(c.vocabulary, Index(c.width), 2).values()),
        dy(OwnedMat<T>::random(height, Index(c.width), 3).values()) {}

  OwnedMat<T> forward() const {
    OwnedMat<T> const y(height, Index(c.width), storage), in(c.vocabulary, Index(c.width), table, storage);
    kernels::embedding_forward<T>(ExecSpace(), batch.tokens(), rows, in.span(), y.span());
    return y;
  }
  OwnedMat<T> backward(std::vector<double> const& start) const {
    OwnedMat<T> const in(height, Index(c.width), dy, storage),
        out(c.vocabulary, Index(c.width), start, storage);
    Index const size = kernels::embedding_workspace(rows, c.vocabulary);
    Kokkos::View<Index*, kernels::MemSpace> const workspace("workspace", std::size_t(size) + 1);
    Kokkos::deep_copy(workspace, Index(-1));  // nothing may rely on a clean workspace
    kernels::embedding_backward<T>(ExecSpace(), batch.tokens(), rows, in.span(), c.frozen, out.span(),
                                   kernels::Vec<Index>(workspace.data(), size));
    Index last = 0;
    Kokkos::deep_copy(last, Kokkos::subview(workspace, std::size_t(size)));
    EXPECT_EQ(last, -1) << "wrote behind the workspace";
    return out;
  }
};

template <class T>
class Embedding : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Embedding, Scalars);

TYPED_TEST(Embedding, ForwardCopiesTheTokensRows) {
  using T = TypeParam;
  for (Case const& c : cases) {
    for (Storage const storage : {Storage::contiguous, Storage::strided}) {
      SCOPED_TRACE(c.name);
      Problem<T> const p(c, storage);
      auto const y = p.forward();
      EXPECT_TRUE(same(y.values(), reference::embed<double>(p.read, p.table, c.width)));
      EXPECT_TRUE(y.guards_intact());
    }
  }
}

TYPED_TEST(Embedding, BackwardAddsEachTokensRows) {
  using T = TypeParam;
  for (Case const& c : cases) {
    for (Storage const storage : {Storage::contiguous, Storage::strided}) {
      SCOPED_TRACE(c.name);
      Problem<T> const p(c, storage);
      auto wanted = lift<Scaled>(p.dtable0);
      auto const added = reference::embed_gradient<Scaled>(p.read, lift<Scaled>(p.dy),
                                                           std::size_t(c.vocabulary), c.width, c.frozen);
      for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += added[i];
      EXPECT_TRUE(near(p.backward(p.dtable0), wanted, 8));
    }
  }
}

/// The order of every sum is part of the contract: it is what makes any number of threads give the same bits.
TYPED_TEST(Embedding, SumsInTheOrderOfTheRows) {
  using T = TypeParam;
  for (Case const& c : cases) {
    SCOPED_TRACE(c.name);
    Problem<T> const p(c);
    std::vector<double> wanted;
    for (int v = 0; v < c.vocabulary; ++v) {
      std::vector<std::size_t> places;
      for (std::size_t q = 0; q < p.read.size(); ++q) {
        if (p.read[q] == v && v != c.frozen) places.push_back(q);
      }
      std::size_t const run = kernels::on_device ? (places.size() + 15) / 16 : 128;
      for (std::size_t d = 0; d < c.width; ++d) {
        T value = T(p.dtable0[std::size_t(v) * c.width + d]);
        T strands = 0;
        for (std::size_t begin = 0; begin < places.size(); begin += run) {
          T part = 0;
          for (std::size_t i = begin; i < std::min(begin + run, places.size()); ++i) {
            part += T(p.dy[places[i] * c.width + d]);
          }
          (kernels::on_device ? strands : value) += part;
        }
        wanted.push_back(double(kernels::on_device && !places.empty() ? value + strands : value));
      }
    }
    auto const first = p.backward(p.dtable0).values();
    EXPECT_TRUE(same(first, wanted));
    EXPECT_TRUE(same(p.backward(p.dtable0).values(), first));
  }
}

TEST(EmbeddingGradient, BackwardIsTheTransposeOfTheDerivative) {
  for (Case c : cases) {
    if (c.span.count == 0 || c.span.length == 1) continue;  // a single position may embed nothing
    SCOPED_TRACE(c.name);
    c.frozen = -1;
    Problem<double> const p(c);
    auto const direction = random_values(p.table.size(), 21);
    GradientCheck check;
    check.output(reference::embed<Dual>(p.read, lift(p.table, direction), c.width), p.dy);
    check.input(p.backward(std::vector<double>(p.table.size(), 0.0)).values(), direction);
    EXPECT_TRUE(check.result());
  }
}

/// Positions [0, 4) and [4, 7) of each sequence in two calls read what one call over [0, 7) reads.
TEST(EmbeddingSplit, TwoSpansReadWhatOneReads) {
  Case whole{"", 3, 24, {0, 1, 0, 7, 6, 4}, 257, 256, 256, false, 5, 256};
  for (std::size_t sequence = 0; sequence < 3; ++sequence) {
    whole.span.first_sequence = sequence;
    Case head = whole, tail = whole;
    head.span.length = 4;
    tail.span.first_position = 4;
    tail.span.length = 3;
    auto parts = Problem<float>(head).forward().values();
    auto const rest = Problem<float>(tail).forward().values();
    parts.insert(parts.end(), rest.begin(), rest.end());
    EXPECT_TRUE(same(parts, Problem<float>(whole).forward().values()));
  }
}

TEST(EmbeddingChecks, WrongShapesThrow) {
  Problem<float> const p(cases[0]);
  OwnedMat<float> const table(257, 5), narrow(p.height, 4);
  EXPECT_THROW(
      kernels::embedding_forward<float>(ExecSpace(), p.batch.tokens(), p.rows, table.span(), narrow.span()),
      std::logic_error);
  OwnedMat<float> const dy(p.height, 5);
  EXPECT_THROW(kernels::embedding_backward<float>(ExecSpace(), p.batch.tokens(), p.rows, dy.span(), -1,
                                                  table.span(), kernels::Vec<Index>()),
               std::logic_error);
}

TEST(EmbeddingCost, MovesEachRowOnce) {
  kernels::StageRows const rows{0, {2, 4}, 0, 3, 5};
  EXPECT_EQ(kernels::embedding_forward_cost<float>(rows, 8).bytes_written, 2 * 3 * 5 * 8 * 4.0);
  EXPECT_EQ(kernels::embedding_backward_cost<float>(rows, 8).flops, 2 * 3 * 5 * 8.0);
}

}  // namespace
}  // namespace strata::test
