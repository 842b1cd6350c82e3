// SPDX-License-Identifier: Apache-2.0
// kernels/attention.hpp with one query per sequence, as generation has it.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "kernels/attention.hpp"
#include "unit_tests/support/dual.hpp"
#include "unit_tests/support/near.hpp"
#include "unit_tests/support/owned.hpp"
#include "unit_tests/support/reference/attention.hpp"

namespace strata::kernels {
namespace {

using test::lift;
using test::near;
using test::OwnedMat;
using test::OwnedVec;
using test::same;
using test::Scaled;
using test::Storage;

template <class T>
class OneQuery : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(OneQuery, Scalars);

/// One query per lane of a cache that other lanes share. Each lane has a past of its own; rows beyond it are
/// NaN.
template <class T>
struct Lanes {
  Index heads, head_dim, capacity;
  std::vector<Index> slots, starts;  // of the lanes that take part
  OwnedMat<T> q, key_values, o, log_sum;
  Kokkos::View<Index*, MemSpace> device_slots, device_starts;

  Lanes(Index lanes, std::vector<Index> which, std::vector<Index> seen, Index h, Index d, Index rows)
      : heads(h),
        head_dim(d),
        capacity(rows),
        slots(which),
        starts(seen),
        q(OwnedMat<T>::random(count(), h * d, 7, Storage::strided, -2, 2)),
        key_values(OwnedMat<T>::random(lanes * rows, 2 * h * d, 8, Storage::strided)),
        o(count(), h * d, Storage::strided),
        log_sum(count(), h, Storage::strided),
        device_slots(copy("slots", which)),
        device_starts(copy("starts", seen)) {
    auto shown = key_values.values();
    for (std::size_t i = 0; i < shown.size(); ++i) {
      Index const row = Index(i) / (2 * h * d);
      bool seen_by_one = false;
      for (std::size_t k = 0; k < slots.size(); ++k)
        seen_by_one = seen_by_one || (row / capacity == slots[k] && row % capacity <= starts[k]);
      if (!seen_by_one) shown[i] = std::numeric_limits<double>::quiet_NaN();
    }
    key_values.fill(shown);
  }
  static Kokkos::View<Index*, MemSpace> copy(std::string const& name, std::vector<Index> const& from) {
    Kokkos::View<Index*, MemSpace> const to(name, from.size());
    auto const host = Kokkos::create_mirror_view(to);
    std::copy(from.begin(), from.end(), host.data());
    Kokkos::deep_copy(to, host);
    return to;
  }
  Index count() const { return Index(slots.size()); }
  AttentionShape shape(Index most) const {
    return {{count(), 1, device_slots.data(), device_starts.data()}, most, heads, head_dim, true};
  }

  std::vector<double> forward(Index most, bool with_workspace) const {
    AttentionShape const s = shape(most);
    OwnedVec<T> const workspace(attention_forward_workspace(s));
    attention_forward<T>(ExecSpace(), s, q.span(), {key_values.span(), capacity}, {}, o.span(),
                         log_sum.span(), with_workspace ? workspace.span() : Vec<T>());
    EXPECT_TRUE(o.guards_intact() && log_sum.guards_intact() && workspace.guards_intact());
    auto all = o.values();
    for (double const value : log_sum.values()) all.push_back(value);
    return all;
  }

  /// One head of the k-th sequence with nothing else in the cache: columns of q, and of the result.
  std::vector<double> alone(std::size_t k, Index head, bool with_workspace) const {
    Index const seen = starts[k] + 1, d = head_dim;
    auto const queries = q.values(), all = key_values.values();
    std::vector<double> one_q, one_past;
    for (Index c = 0; c < d; ++c) one_q.push_back(queries[std::size_t((Index(k) * heads + head) * d + c)]);
    for (Index row = slots[k] * capacity; row < slots[k] * capacity + seen; ++row)
      for (Index part = 0; part < 2; ++part)
        for (Index c = 0; c < d; ++c)
          one_past.push_back(all[std::size_t(((row * 2 + part) * heads + head) * d + c)]);
    OwnedMat<T> const small_q(1, d, one_q), past(seen, 2 * d, one_past), small_o(1, d), small_log(1, 1);
    AttentionShape const s{{1, 1}, seen - 1, 1, d, true};
    OwnedVec<T> const workspace(attention_forward_workspace(s));
    attention_forward<T>(ExecSpace(), s, small_q.span(), {past.span(), seen}, {}, small_o.span(),
                         small_log.span(), with_workspace ? workspace.span() : Vec<T>());
    auto result = small_o.values();
    result.push_back(small_log.values()[0]);
    return result;
  }
};

// Around the borders of blocks (64 keys) and pieces (256 keys and more), heads narrower and wider than
// registers.
TYPED_TEST(OneQuery, AgreesWithTheDefinition) {
  using T = TypeParam;
  for (Index const start : {0, 1, 2, 62, 63, 64, 129, 255, 256, 257, 1000, 17000}) {
    for (Index const d : {1, 5, 16, 24, 64, 83}) {
      if (start > 500 && d != 24) continue;  // the oracle takes long
      for (bool const causal : {true, false}) {
        AttentionShape const shape{{2, 1}, start, 3, d, causal};
        SCOPED_TRACE(testing::Message() << start << " positions before, heads of " << d);
        Index const capacity = start + 4, width = 3 * d;
        auto const q = OwnedMat<T>::random(2, width, 1, Storage::strided, -2, 2);
        auto past = OwnedMat<T>::random(2 * capacity, 2 * width, 2, Storage::strided);
        auto shown = past.values();
        for (std::size_t i = 0; i < shown.size(); ++i)
          if (Index(i) / (2 * width) % capacity > start) shown[i] = std::numeric_limits<double>::quiet_NaN();
        past.fill(shown);
        auto const wanted = test::reference::attention_forward(
            shape, capacity, lift<Scaled>(q.values()), lift<Scaled>(shown), test::reference::keep_all());
        OwnedVec<T> const workspace(attention_forward_workspace(shape));
        for (bool const with_workspace : {false, true}) {
          OwnedMat<T> const o(2, width, Storage::strided), log_sum(2, 3, Storage::strided);
          attention_forward<T>(ExecSpace(), shape, q.span(), {past.span(), capacity}, {}, o.span(),
                               log_sum.span(), with_workspace ? workspace.span() : Vec<T>());
          // Of the rounding unit times the size of the terms; the sizes count every rounding once.
          EXPECT_TRUE(near(o, wanted.o, 2));
          EXPECT_TRUE(near(log_sum, wanted.log_sum, 2));
          EXPECT_TRUE(workspace.guards_intact());
        }
      }
    }
  }
}

// A head of a lane alone is one team's work per piece: other lanes, other heads, the bound on the starts and
// the threads among which they are shared out must not change a bit.
TYPED_TEST(OneQuery, LanesDoNotTouchEachOther) {
  Index const heads = 5;
  for (Index const d : {16, 21}) {
    Lanes<TypeParam> const lanes(6, {4, 0, 2, 5}, {700, 0, 63, 1300}, heads, d, 1400);
    for (bool const with_workspace : {false, true}) {
      auto const together = lanes.forward(1399, with_workspace);
      EXPECT_TRUE(same(lanes.forward(1300, with_workspace), together));
      for (std::size_t k = 0; k < lanes.slots.size(); ++k) {
        for (Index head = 0; head < heads; ++head) {
          SCOPED_TRACE(testing::Message() << "lane " << lanes.slots[k] << ", head " << head << " of " << d
                                          << (with_workspace ? ", workspace" : ""));
          std::vector<double> part;
          for (Index c = 0; c < d; ++c)
            part.push_back(together[std::size_t((Index(k) * heads + head) * d + c)]);
          part.push_back(together[std::size_t(lanes.count() * heads * d + Index(k) * heads + head)]);
          EXPECT_TRUE(same(part, lanes.alone(k, head, with_workspace)));
        }
      }
    }
  }
}

TEST(OneQueryArguments, OwnStartsAreForOneQueryWithoutDropout) {
  Lanes<float> const lanes(2, {1, 0}, {4, 7}, 2, 4, 9);
  AttentionShape shape = lanes.shape(7);
  Dropout dropout;
  auto const run = [&] {
    OwnedMat<float> const q(shape.queries.rows(), 8), o(shape.queries.rows(), 8),
        log_sum(shape.queries.rows(), 2);
    attention_forward<float>(ExecSpace(), shape, q.span(), {lanes.key_values.span(), lanes.capacity}, dropout,
                             o.span(), log_sum.span());
  };
  EXPECT_NO_THROW(run());
  dropout.probability = 0.5;
  dropout.length = dropout.stride = 1;
  EXPECT_THROW(run(), std::logic_error);
  dropout = {};
  shape.queries.length = 2;
  EXPECT_THROW(run(), std::logic_error);
}

}  // namespace
}  // namespace strata::kernels
