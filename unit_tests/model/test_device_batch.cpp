// SPDX-License-Identifier: Apache-2.0
// What a batch says of its windows, and that it does not copy them where kernels can read them in place.

#include <gtest/gtest.h>

#include "core/error.hpp"
#include "unit_tests/model/small_model.hpp"
#include "unit_tests/support/sparse_memory.hpp"

namespace strata::test {
namespace {

using model::DeviceBatch;
using model::HostWindows;

TEST(DeviceBatch, PointsAtTheCallersWindowsOrCopiesThem) {
  ModelConfig const config = small_config(Head::complete, {4, 3}, Position::none, 257, 256);
  std::vector<std::uint8_t> const bytes{1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  std::vector<float> const weights{1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  std::vector<Index> const lengths{5, 3};
  HostWindows host;
  host.bytes = bytes.data();
  host.weights = weights.data();
  host.lengths = lengths;
  host.stride = 5;
  host.first_sample = 11;
  DeviceBatch device(2, 5, false, true);
  model::Batch const batch = device.upload(kernels::ExecSpace(), host, config, 6);
  EXPECT_EQ(batch.tokens.bytes == bytes.data(), !DeviceBatch::copies);
  EXPECT_EQ(batch.targets.tokens.bytes, batch.tokens.bytes);
  EXPECT_EQ(batch.targets.weights == weights.data(), !DeviceBatch::copies);
  EXPECT_EQ(batch.tokens.lengths == lengths.data(), !DeviceBatch::copies);
  EXPECT_EQ(batch.tokens.ids, nullptr);
  EXPECT_EQ(batch.tokens.windows, 2);
  EXPECT_EQ(batch.tokens.padded_length, 6);
  EXPECT_EQ(batch.first_sample, 11);
  EXPECT_EQ(DeviceBatch::memory_bytes(2, 5, false, true), DeviceBatch::copies ? 2 * (5 * 5 + 8) : 0);
  EXPECT_EQ(DeviceBatch::memory_bytes(2, 5, true, false), DeviceBatch::copies ? 2 * (5 * 2 + 8) : 0);

  host.weights = nullptr;
  model::Batch const plain = device.upload(kernels::ExecSpace(), host.rows(1, 2), config, 6);
  EXPECT_EQ(plain.targets.weights, nullptr);
  EXPECT_EQ(plain.tokens.windows, 1);
  EXPECT_EQ(plain.first_sample, 12);
  kernels::Targets const targets = model::on_host(plain.targets, host.rows(1, 2).lengths);
  kernels::StageRows rows;
  rows.patches = 3;
  rows.shape = {2, 3};
  std::vector<Index> flat;
  for (Index r = 0; r < 6; ++r) flat.push_back(targets.flat(rows, r));
  EXPECT_EQ(flat, (std::vector<Index>{0, 1, 2, -1, -1, -1}));
}

TEST(DeviceBatch, RefusesTokensWithoutEmbedding) {
  ModelConfig const config = small_config(Head::complete, {4, 3}, Position::none, 20, 19);
  std::vector<std::uint8_t> const bytes{1, 19, 20, 4};
  std::vector<Index> lengths{2};
  HostWindows host;
  host.bytes = bytes.data();
  host.lengths = lengths;
  host.stride = 4;
  DeviceBatch device(1, 4, false, false);
  EXPECT_NO_THROW(device.upload(kernels::ExecSpace(), host, config, 6));  // the 20 is behind the end
  lengths[0] = 3;
  EXPECT_THROW(device.upload(kernels::ExecSpace(), host, config, 6), core::InputError);
  EXPECT_THROW(device.upload(kernels::ExecSpace(), {}, config, 6), std::logic_error);
}

/// Windows of more than 2^32 bytes; in host memory, so that nothing is copied.
TEST(DeviceBatch, FindsRowsBeyond32Bits) {
  constexpr Index stride = (Index(1) << 32) + 11;
  SparseMemory<std::uint8_t> const bytes(3 * stride);
  std::vector<Index> const lengths{stride, 1, stride - 1};
  HostWindows host;
  host.bytes = bytes.data();
  host.lengths = lengths;
  host.stride = stride;
  HostWindows const last = host.rows(2, 3);
  EXPECT_EQ(last.bytes, bytes.data() + 2 * stride);
  EXPECT_EQ(last.lengths.size(), 1U);
  EXPECT_EQ(last.lengths[0], stride - 1);
  if constexpr (!DeviceBatch::copies) {
    bytes[2 * stride + (Index(1) << 32)] = 99;
    ModelConfig const config = small_config(Head::complete, {4, 3}, Position::none, 257, 256);
    DeviceBatch device(3, stride, false, false);
    model::Batch const batch = device.upload(kernels::ExecSpace(), host, config, stride);
    EXPECT_EQ(batch.tokens(2 * stride + (Index(1) << 32)), 99);
  }
}

}  // namespace
}  // namespace strata::test
