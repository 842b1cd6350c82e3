// SPDX-License-Identifier: Apache-2.0
#include "kernels/selective_scan_sweep.hpp"

#include "kernels/common/profile.hpp"

namespace strata::kernels {
namespace selective_scan {

Plan make_plan(SelectiveScanShape const& shape) {
  // A chunk of `state` positions makes the kept states as large as one activation. Scratch grows with the
  // chunk and should fit the second-level cache, or shared memory.
  constexpr Index least = on_device ? 16 : 32, most = on_device ? 48 : 256;
  Plan plan;
  plan.count = shape.sequences.count;
  plan.length = shape.sequences.length;
  plan.slots = shape.sequences.slots;
  plan.channels = shape.channels;
  plan.state = shape.state;
  plan.padded_state = static_cast<int>(blocks_of(shape.state, together)) * together;
  plan.channel_blocks = blocks_of(shape.channels, channel_block);
  plan.padded_channels = plan.channel_blocks * channel_block;
  Index const wanted = shape.chunk > 0 ? shape.chunk : std::max(least, shape.state);
  plan.chunk = static_cast<int>(std::max<Index>(1, std::min({wanted, most, plan.length})));
  plan.chunks = blocks_of(plan.length, plan.chunk);
  // A task's setup costs as much as a few positions for every state, its sums of parameter gradients take
  // `state` numbers a channel.
  plan.group =
      std::max<Index>(1, std::min(plan.count, blocks_of(4 * shape.state, std::max<Index>(1, plan.length))));
  plan.groups = blocks_of(plan.count, plan.group);
  // Partial sums of dB and dC: at most about one activation as well.
  Index const passes = std::max<Index>(1, std::min(plan.chunks, blocks_of(2 * shape.state, channel_block)));
  plan.pass_chunks = std::max<Index>(1, blocks_of(plan.chunks, passes));
  plan.passes = blocks_of(plan.chunks, plan.pass_chunks);
  return plan;
}

}  // namespace selective_scan

template <class T>
void selective_scan_forward(ExecSpace const& space, SelectiveScanShape const& shape,
                            SelectiveScanInputs<T> const& in, Mat<T> state, Mat<T> y, Vec<T> workspace) {
  KernelScope const timed("selective_scan_forward", [&] { return selective_scan_forward_cost<T>(shape); });
  using selective_scan::Purpose;
  selective_scan::require_inputs<T>(shape, in);
  selective_scan::require_states<T>(shape, state);
  STRATA_REQUIRE(static_cast<Index>(y.extent(0)) == shape.sequences.rows() &&
                     static_cast<Index>(y.extent(1)) == shape.channels,
                 "y is (" << y.extent(0) << ", " << y.extent(1) << ")");
  STRATA_REQUIRE(static_cast<Index>(workspace.extent(0)) >= selective_scan_forward_workspace(shape),
                 "workspace of " << workspace.extent(0));
  if (shape.sequences.rows() == 0) return;
  selective_scan::run_sweep(space,
                            selective_scan::Sweep<Purpose::outputs, T>{selective_scan::make_plan(shape), in,
                                                                       state, y, state, nullptr},
                            "strata::selective_scan::forward");
}

Index selective_scan_forward_workspace(SelectiveScanShape const&) { return 0; }

template <class T>
Cost selective_scan_forward_cost(SelectiveScanShape const& shape) {
  double const rows = static_cast<double>(shape.sequences.rows()),
               count = static_cast<double>(shape.sequences.count), e = static_cast<double>(shape.channels),
               n = static_cast<double>(shape.state);
  // Per state: step A, its exp, two products and a sum for h, a product and a sum for y. Per channel: bias
  // and softplus (5), step x, D x added.
  double const flops = rows * e * (7 * n + 8);
  return {(rows * (2 * e + 2 * n) + count * e * n + e * n + 2 * e) * sizeof(T),
          (rows * e + count * e * n) * sizeof(T), flops, flops};
}

#define STRATA_SELECTIVE_SCAN_FORWARD(T)                                                          \
  template void selective_scan_forward<T>(ExecSpace const&, SelectiveScanShape const&,            \
                                          SelectiveScanInputs<T> const&, Mat<T>, Mat<T>, Vec<T>); \
  template Cost selective_scan_forward_cost<T>(SelectiveScanShape const&);
STRATA_INSTANTIATE(STRATA_SELECTIVE_SCAN_FORWARD)

}  // namespace strata::kernels
