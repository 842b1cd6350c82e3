// SPDX-License-Identifier: Apache-2.0
// What a sequence sees of the one before it.

#include "kernels/cross_patch.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/attention.hpp"
#include "unit_tests/support/owned.hpp"
#include "unit_tests/support/random.hpp"

namespace strata::test {
namespace {

using kernels::ExecSpace;
using kernels::KeyValues;
using kernels::Mat;
using kernels::Previous;
using kernels::Sequences;

/// A batch of 5 sequences: the batch starts with number `first` of windows of 3.
struct Batch {
  Index r, length, heads, head_dim, first;
  bool turns;

  Sequences shape() const { return {5, length}; }
  Index width() const { return heads * head_dim; }
  Index capacity() const { return r + length; }
  bool has_previous(Index k) const { return k > 0 && (first + k) % 3 != 0; }
};

std::vector<Batch> batches() {
  return {{2, 3, 2, 4, 1, true}, {3, 3, 1, 6, 0, true}, {1, 4, 3, 2, 5, false}, {70, 90, 1, 4, 2, true}};
}

class Marks {
 public:
  explicit Marks(Batch const& b) : seen_("seen", 5) {
    kernels::mark_previous(ExecSpace(), b.first, 3, b.r, kernels::Vec<Index>(seen_.data(), 5));
    for (Index k = 0; k < 5; ++k) total_ += b.has_previous(k) ? b.r : 0;
  }
  Previous previous() const { return {seen_.data(), total_}; }
  std::vector<Index> values() const {
    auto const host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), seen_);
    return {host.data(), host.data() + 5};
  }

 private:
  Kokkos::View<Index*, kernels::MemSpace> seen_;
  Index total_ = 0;
};

template <class T>
Mat<T> table(OwnedMat<T> const& t, Index first, bool turns) {
  if (!turns) return {};
  kernels::rotary_table<T>(ExecSpace(), first, t.span());
  return t.span();
}

template <class T>
double worst(std::vector<T> const& a, std::vector<T> const& b) {
  double most = a.size() == b.size() && !a.empty() ? 0 : 1e30;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i)
    most = std::max(most, std::isnan(a[i] - b[i]) ? 1e30 : std::abs(a[i] - b[i]));
  return most;
}

TEST(CrossPatch, WindowsAndBatchesBeginWithoutOneBefore) {
  for (Batch const& b : batches()) {
    std::vector<Index> wanted;
    for (Index k = 0; k < 5; ++k) wanted.push_back(b.has_previous(k) ? b.r : 0);
    EXPECT_EQ(Marks(b).values(), wanted);
  }
}

/// Attention then gives what the last r rows and the sequence give as one sequence.
TEST(CrossPatch, ContinuesTheSequenceBefore) {
  using T = double;
  for (Batch const& b : batches()) {
    SCOPED_TRACE(testing::Message() << b.r << " of " << b.length << ", first " << b.first);
    Index const rows = 5 * b.length, w = b.width();
    auto const qkv = OwnedMat<T>::random(rows, 3 * w, 1);
    OwnedMat<T> q(rows, w), stored(5 * b.capacity(), 2 * w), o(rows, w), log_sum(rows, b.heads);
    OwnedMat<T> own(b.length, b.head_dim), before(b.r, b.head_dim);
    KeyValues<T> const key_values{stored.span(), b.capacity(), b.r};
    Marks const marks(b);
    kernels::split_rotate_forward<T>(ExecSpace(), b.shape(), 0, b.heads, table(own, 0, b.turns), qkv.span(),
                                     q.span(), key_values);
    kernels::cross_patch_forward<T>(ExecSpace(), b.shape(), marks.previous(), b.heads,
                                    table(before, -b.r, b.turns), qkv.span(), key_values);
    kernels::attention_forward<T>(ExecSpace(), {b.shape(), 0, b.heads, b.head_dim, true, marks.previous()},
                                  q.span(), key_values, {}, o.span(), log_sum.span());
    EXPECT_TRUE(stored.guards_intact());
    std::vector<double> const outputs = o.values(), sums = log_sum.values(), all = qkv.values();
    for (Index k = 0; k < 5; ++k) {
      Index const r = b.has_previous(k) ? b.r : 0, n = r + b.length, from = k * b.length - r;
      OwnedMat<T> const part(n, 3 * w, {all.begin() + from * 3 * w, all.begin() + (from + n) * 3 * w});
      OwnedMat<T> one_q(n, w), one_kv(n, 2 * w), one_o(n, w), one_sum(n, b.heads), angles(n, b.head_dim);
      kernels::split_rotate_forward<T>(ExecSpace(), {1, n}, 0, b.heads, table(angles, 0, b.turns),
                                       part.span(), one_q.span(), {one_kv.span(), n});
      kernels::attention_forward<T>(ExecSpace(), {{1, n}, 0, b.heads, b.head_dim}, one_q.span(),
                                    {one_kv.span(), n}, {}, one_o.span(), one_sum.span());
      auto const tail = [&](std::vector<double> const& values, Index columns) {
        return std::vector<double>(values.begin() + r * columns, values.end());
      };
      auto const ours = [&](std::vector<double> const& values, Index columns) {
        return std::vector<double>(values.begin() + k * b.length * columns,
                                   values.begin() + (k + 1) * b.length * columns);
      };
      EXPECT_LE(worst(ours(outputs, w), tail(one_o.values(), w)), 1e-13) << "sequence " << k;
      EXPECT_LE(worst(ours(sums, b.heads), tail(one_sum.values(), b.heads)), 1e-13) << "sequence " << k;
    }
  }
}

/// Copying is linear, and backward its transpose.
TEST(CrossPatch, BackwardIsTheTranspose) {
  using T = double;
  for (Batch const& b : batches()) {
    Index const rows = 5 * b.length, w = b.width();
    auto const qkv = OwnedMat<T>::random(rows, 3 * w, 2);
    OwnedMat<T> stored(5 * b.capacity(), 2 * w), dqkv(rows, 3 * w), before(b.r, b.head_dim);
    auto const dstored = OwnedMat<T>::random(5 * b.capacity(), 2 * w, 3);
    stored.fill(0);
    dqkv.fill(0);
    Mat<T> const angles = table(before, -b.r, b.turns);
    Marks const marks(b);
    kernels::cross_patch_forward<T>(ExecSpace(), b.shape(), marks.previous(), b.heads, angles, qkv.span(),
                                    {stored.span(), b.capacity(), b.r});
    kernels::cross_patch_backward<T>(ExecSpace(), b.shape(), marks.previous(), b.heads, angles,
                                     {dstored.span(), b.capacity(), b.r}, dqkv.span());
    auto const product = [](std::vector<double> const& x, std::vector<double> const& y) {
      double sum = 0;
      for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
      return sum;
    };
    double const there = product(stored.values(), dstored.values());
    EXPECT_GT(std::abs(there), 1e-3);
    EXPECT_NEAR(there, product(qkv.values(), dqkv.values()), 1e-12);
  }
}

/// A lane that moves on has before its next sequence what a batch has there.
TEST(CrossPatch, NextSequenceSeesTheSame) {
  using T = double;
  for (Batch const& b : batches()) {
    Index const w = b.width();
    auto const qkv = OwnedMat<T>::random(5 * b.length, 3 * w, 4);
    OwnedMat<T> stored(5 * b.capacity(), 2 * w), q(5 * b.length, w);
    OwnedMat<T> own(b.length, b.head_dim), before(b.r, b.head_dim), back(1, b.head_dim);
    KeyValues<T> const key_values{stored.span(), b.capacity(), b.r};
    kernels::split_rotate_forward<T>(ExecSpace(), b.shape(), 0, b.heads, table(own, 0, b.turns), qkv.span(),
                                     q.span(), key_values);
    kernels::cross_patch_forward<T>(ExecSpace(), b.shape(), Marks(b).previous(), b.heads,
                                    table(before, -b.r, b.turns), qkv.span(), key_values);
    std::vector<double> const batch = stored.values();
    kernels::cross_patch_next<T>(ExecSpace(), b.shape(), b.length, b.heads, table(back, -b.length, b.turns),
                                 key_values);
    std::vector<double> const next = stored.values();
    auto const rows_before = [&](std::vector<double> const& values, Index k) {
      auto const begin = values.begin() + k * b.capacity() * 2 * w;
      return std::vector<double>(begin, begin + b.r * 2 * w);
    };
    int compared = 0;
    for (Index k = 1; k < 5; ++k) {
      if (!b.has_previous(k)) continue;
      EXPECT_LE(worst(rows_before(next, k - 1), rows_before(batch, k)), 1e-14) << "sequence " << k;
      ++compared;
    }
    EXPECT_GE(compared, 2);
  }
}

}  // namespace
}  // namespace strata::test
