// SPDX-License-Identifier: Apache-2.0
#pragma once
// What the selective scan's forward and backward share: how the work is cut, registers of neighbouring
// channels, the exponential and the copies between matrices and scratch. doc/kernels/selective_scan.md
// explains the layout.

#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>

#include "kernels/common/check.hpp"
#include "kernels/common/math.hpp"
#include "kernels/common/register_tiles.hpp"
#include "kernels/common/row_ops.hpp"
#include "kernels/selective_scan.hpp"

namespace strata::kernels::selective_scan {

/// Neighbouring channels that one thread works on side by side: a SIMD register on the host, one on a GPU.
#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP) || defined(KOKKOS_ENABLE_SYCL)
template <class T>
using Pack = T;
#else
template <class T>
using Pack = typename tiles::Lanes<T>::Register;
#endif

template <class T>
inline constexpr int pack_width = tiles::Lanes<T>::width;
/// Channels whose numbers lie next to each other in scratch: those of one pack on the host, of the threads of
/// a team on a GPU.
template <class T>
inline constexpr int lanes = on_device ? 128 / static_cast<int>(sizeof(T)) : pack_width<T>;
/// States of a channel in flight at once: independent chains of operations that share what is loaded.
inline constexpr int together = on_device ? 2 : 4;
/// Channels of a task. A task's sums over its channels are what dB and dC are added up from.
inline constexpr int channel_block = on_device ? 32 : 64;
template <class T>
inline constexpr int lane_blocks = channel_block / lanes<T>;
static_assert(channel_block % lanes<float> == 0 && channel_block % lanes<double> == 0);

/// How a shape is cut. It depends on the shape alone, so that sums have the same order on any number of
/// threads.
struct Plan {
  Index count = 0, length = 0, channels = 0, state = 0;
  int padded_state = 0;       ///< a multiple of `together`
  Index padded_channels = 0;  ///< a multiple of channel_block
  Index channel_blocks = 0;
  int chunk = 1;                      ///< positions between two kept states
  Index const* slots = nullptr;       ///< lanes of the states, Sequences::slots
  Index chunks = 0;                   ///< of a sequence
  Index group = 1, groups = 0;        ///< sequences that a task takes one after the other
  Index pass_chunks = 1, passes = 0;  ///< backward takes this many chunks of all sequences at a time

  KOKKOS_INLINE_FUNCTION Index tasks() const { return groups * channel_blocks; }
  KOKKOS_INLINE_FUNCTION Index kept_states() const { return padded_channels * padded_state; }
  /// Partial sums of dB and dC that a task leaves for a chunk.
  KOKKOS_INLINE_FUNCTION Index partials_per_chunk() const { return Index(2) * chunk * padded_state; }
};
Plan make_plan(SelectiveScanShape const& shape);

using Policy = Kokkos::TeamPolicy<ExecSpace, Kokkos::Schedule<Kokkos::Dynamic>>;
using Member = Policy::member_type;

/// Numbers of scratch per team: those of a chunk, in a GPU's shared memory, and one or a few per state.
struct ScratchSize {
  Index chunk = 0, states = 0;
};

template <class T>
Policy make_policy(ExecSpace const& space, Index league, ScratchSize size) {
  STRATA_REQUIRE(league <= std::numeric_limits<int>::max(), "selective scan of " << league << " tasks");
  auto const bytes = [](Index elements) {
    return Kokkos::PerTeam(static_cast<int>(elements * static_cast<Index>(sizeof(T))) + 64);
  };
  int const tasks = static_cast<int>(league);
  if constexpr (on_device) {
    return Policy(space, tasks, lanes<T>)
        .set_scratch_size(0, bytes(size.chunk))
        .set_scratch_size(1, bytes(size.states));
  } else {
    return Policy(space, tasks, 1).set_scratch_size(1, bytes(size.chunk + size.states));
  }
}

/// Hands out pieces of a team's scratch memory.
template <class T>
struct Scratch {
  T *chunk, *states;

  KOKKOS_INLINE_FUNCTION Scratch(Member const& team, ScratchSize size) {
    if constexpr (on_device) {
      chunk = block(team, 0, size.chunk);
      states = block(team, 1, size.states);
    } else {
      chunk = block(team, 1, size.chunk + size.states);
      states = chunk + size.chunk;
    }
  }
  KOKKOS_INLINE_FUNCTION T* take_chunk(Index elements) {
    T* const taken = chunk;
    chunk += elements;
    return taken;
  }
  KOKKOS_INLINE_FUNCTION T* take_states(Index elements) {
    T* const taken = states;
    states += elements;
    return taken;
  }

 private:
  KOKKOS_INLINE_FUNCTION static T* block(Member const& team, int level, Index elements) {
    auto const bytes = static_cast<int>(elements * static_cast<Index>(sizeof(T))) + 64;
    auto* const memory = static_cast<char*>(team.team_scratch(level).get_shmem(bytes));
    return reinterpret_cast<T*>(memory + (64 - reinterpret_cast<std::uintptr_t>(memory) % 64) % 64);
  }
};

/// f(lane) for the first lane of every pack of a lane block. What f computes for a lane stays with the same
/// thread from call to call, so calls that read only their own lane need no barrier in between.
template <class T, class F>
KOKKOS_FORCEINLINE_FUNCTION void for_lanes(Member const& team, F const& f) {
  if constexpr (on_device) {
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team, lanes<T>), f);
  } else {
    f(0);
  }
}

/// f(i) for i in [0, n), shared by the team.
template <class F>
KOKKOS_FORCEINLINE_FUNCTION void for_elements(Member const& team, int n, F const& f) {
  if constexpr (on_device) {
    Kokkos::parallel_for(Kokkos::TeamThreadRange(team, n), f);
  } else {
    STRATA_INDEPENDENT
    for (int i = 0; i < n; ++i) f(i);
  }
}

template <class T>
KOKKOS_FORCEINLINE_FUNCTION Pack<T> load(T const* from) {
  return tiles::Lanes<T>::load(from).value;
}
template <class T>
KOKKOS_FORCEINLINE_FUNCTION void store(T* to, Pack<T> pack) {
  tiles::Lanes<T>{pack}.store(to);
}
/// The same for the first n lanes; the others are 0, and nothing is read or written for them.
template <class T>
KOKKOS_FORCEINLINE_FUNCTION Pack<T> load_first(T const* from, Index n) {
  if (n >= pack_width<T>) return load<T>(from);
  T part[pack_width<T>] = {};
  for (int l = 0; l < n; ++l) part[l] = from[l];
  return load<T>(part);
}
template <class T>
KOKKOS_FORCEINLINE_FUNCTION void store_first(T* to, Pack<T> pack, Index n) {
  if (n >= pack_width<T>) {
    store<T>(to, pack);
    return;
  }
  T part[pack_width<T>];
  store<T>(part, pack);
  for (int l = 0; l < n; ++l) to[l] = part[l];
}

#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP) || defined(KOKKOS_ENABLE_SYCL)
/// sums[i] = the sum over the lanes of row i of `from` (n, lanes), shared by the team.
template <class T>
KOKKOS_INLINE_FUNCTION void sum_lanes(Member const& team, int n, T const* from, T* sums) {
  for_elements(team, n, [&](int const i) {
    T sum = 0;
    // Each thread starts at another lane, or all would want the same memory bank.
    for (int l = 0; l < lanes<T>; ++l) sum += from[i * lanes<T> + (l + i) % lanes<T>];
    sums[i] = sum;
  });
}
#else
/// Sums of neighbouring lanes: those of a, then those of b.
template <class T, int... i>
Pack<T> add_neighbours(Pack<T> a, Pack<T> b, std::integer_sequence<int, i...>) {
  return __builtin_shufflevector(a, b, 2 * i...) + __builtin_shufflevector(a, b, (2 * i + 1)...);
}
/// Lane i of the result is made of row i: for rows = lanes its sum.
template <class T, int rows>
Pack<T> add_up_rows(T const* from) {
  if constexpr (rows == 1) {
    return load<T>(from);
  } else {
    constexpr int half = rows / 2;
    return add_neighbours<T>(add_up_rows<T, half>(from), add_up_rows<T, half>(from + half * lanes<T>),
                             std::make_integer_sequence<int, lanes<T>>());
  }
}
/// sums[i] = the sum over the lanes of row i of `from` (n, lanes). Reads rows up to the next multiple of
/// `lanes`, whatever they hold.
template <class T>
void sum_lanes(Member const&, int n, T const* from, T* sums) {
  for (int i = 0; i < n; i += lanes<T>)
    store_first<T>(sums + i, add_up_rows<T, lanes<T>>(from + i * lanes<T>), n - i);
}
#endif

/// element = f(element) for the packs at `lane` of buffer (n, lanes).
template <class T, class F>
KOKKOS_FORCEINLINE_FUNCTION void transform(T* buffer, int n, int lane, F const& f) {
  if constexpr (on_device) {
    for (int i = 0; i < n; ++i) buffer[i * lanes<T> + lane] = f(buffer[i * lanes<T> + lane]);
  } else {
    STRATA_INDEPENDENT
    for (int i = 0; i < n * lanes<T>; ++i) buffer[i] = f(buffer[i]);
  }
}

/// Rates are A times this, so that decay(step * rate) = exp(step * A).
template <class T>
inline constexpr T rate_unit = on_device ? T(1) : T(1.44269504088896340736);

/// The coefficients of q in 2^f = 1 + f q(f), |f| <= 1/2: q's interpolant in Chebyshev points, highest power
/// first. Relative error of 2^f: float 5e-9, double 8e-18.
template <class T>
struct Exponential;

template <>
struct Exponential<float> {
  static constexpr int mantissa_bits = 23, bias = 127;
  static constexpr float coefficients[] = {0.000154531629F, 0.00133908634F, 0.00961808256F,
                                           0.0555035711F,   0.240226508F,   0.693147188F};
};
template <>
struct Exponential<double> {
  static constexpr int mantissa_bits = 52, bias = 1023;
  static constexpr double coefficients[] = {
      4.4549605981865186e-10, 7.0725859492692234e-09, 1.0178062445845774e-07, 1.3215442587921689e-06,
      1.5252733829836119e-05, 0.0001540353044173605,  0.0013333558146416936,  0.0096181291076068882,
      0.055504108664821597,   0.24022650695910097,    0.69314718055994529};
};

/// exp(step * A) for step >= 0, rate <= 0; on the host by 2^(step * rate) in registers. Its largest error
/// there is that of the product's rounding; results below 2^-bias become 0, and a NaN stays one.
template <class T>
KOKKOS_FORCEINLINE_FUNCTION Pack<T> decay(Pack<T> step, Pack<T> rate) {
  if constexpr (on_device) {
    return math::exp(step * rate);
  } else {
    using E = Exponential<T>;
    using Bits = decltype(step < rate);
    // Adding 1.5 * 2^mantissa_bits rounds to an integer, which then stands in the low bits of the sum; with
    // the bias in it as well, these bits shifted to the exponent's place are the power of two.
    constexpr T zero = T(3) * T(std::int64_t(1) << (E::mantissa_bits - 1)), magic = zero + T(E::bias);
    Pack<T> const shifted = step * rate + magic;
    Pack<T> const f = step * rate - (shifted - magic);
    Pack<T> sum = f * E::coefficients[0] + E::coefficients[1];
    constexpr int terms = sizeof(E::coefficients) / sizeof(T);
#if !defined(__CUDACC__)
#pragma GCC unroll 16
#endif
    for (int i = 2; i < terms; ++i) sum = sum * f + E::coefficients[i];
    sum = sum * f + T(1);
    Pack<T> const power = math::bits_as<Pack<T>>(math::bits_as<Bits>(shifted) << E::mantissa_bits);
    return shifted <= Pack<T>{} + zero ? Pack<T>{} : sum * power;
  }
}

/// What a thread knows of the channels of a pack.
struct Channels {
  Index first;  ///< of all channels
  Index left;   ///< channels from `first` on: those of the pack, where it is not full
};

/// A task: some sequences and a block of channels.
template <class T>
struct Task {
  Index block;       ///< of channels
  Index begin, end;  ///< sequences
  Index channel;     ///< the block's first
  int lane_blocks;   ///< that have channels
  Index group;

  KOKKOS_INLINE_FUNCTION Task(Plan const& plan, Index number)
      : block(number % plan.channel_blocks),
        begin(number / plan.channel_blocks * plan.group),
        end(math::min(begin + plan.group, plan.count)),
        channel(block * channel_block),
        lane_blocks(static_cast<int>(
            blocks_of(math::min(Index(channel_block), plan.channels - channel), Index(lanes<T>)))),
        group(number / plan.channel_blocks) {}

  KOKKOS_INLINE_FUNCTION Channels channels(Plan const& plan, int lane_block, int lane) const {
    Index const first = channel + lane_block * lanes<T> + lane;
    return {first, plan.channels - first};
  }
};

/// buffer (padded_state, lanes) at `lane` = from (channels, state), transposed; zeros where there is no
/// channel or state, and everywhere if from is null.
template <class T>
KOKKOS_INLINE_FUNCTION void load_states(Plan const& plan, Channels const channels, T const* from, int lane,
                                        T* buffer) {
  if (from == nullptr) {
    for (int i = 0; i < plan.padded_state; ++i) store<T>(buffer + i * lanes<T> + lane, Pack<T>{});
    return;
  }
  for (int l = 0; l < pack_width<T>; ++l) {
    T* const to = buffer + lane + l;
    int const n = l < channels.left ? static_cast<int>(plan.state) : 0;
    for (int i = 0; i < n; ++i) to[i * lanes<T>] = from[(channels.first + l) * plan.state + i];
    for (int i = n; i < plan.padded_state; ++i) to[i * lanes<T>] = T(0);
  }
}
template <class T>
KOKKOS_INLINE_FUNCTION void store_states(Plan const& plan, Channels const channels, T const* buffer, int lane,
                                         T* to) {
  for (int l = 0; l < pack_width<T> && l < channels.left; ++l) {
    for (int i = 0; i < plan.state; ++i)
      to[(channels.first + l) * plan.state + i] = buffer[i * lanes<T> + lane + l];
  }
}

/// rates (padded_state, lanes) at `lane` = -rate_unit exp(a_log).
template <class T>
KOKKOS_INLINE_FUNCTION void load_rates(Plan const& plan, Channels const channels, T const* a_log, int lane,
                                       T* rates) {
  load_states<T>(plan, channels, a_log, lane, rates);
  transform(rates, static_cast<int>(plan.state), lane, [](T a) { return -rate_unit<T> * math::exp(a); });
}

/// f(t, k, at) for n positions and all lane blocks of a task: `at` is the place of lane `lane` in a buffer
/// (lane block, positions, lanes). Position by position, since the lane blocks of a row are neighbours.
template <class T, class F>
KOKKOS_FORCEINLINE_FUNCTION void for_positions(int n, int blocks, int positions, int lane, F const& f) {
  for (int t = 0; t < n; ++t)
    for (int k = 0; k < blocks; ++k) f(t, k, (k * positions + t) * lanes<T> + lane);
}

/// Elements of a matrix at the positions and channels of a task.
template <class T>
struct Rows {
  T* data;
  Index stride;

  KOKKOS_FORCEINLINE_FUNCTION Rows(Mat<T> const& m, Index row, Index column)
      : data(m.data() + row * static_cast<Index>(m.stride(0)) + column), stride(m.stride(0)) {}
  KOKKOS_FORCEINLINE_FUNCTION T* at(int t, int k) const { return data + t * stride + k * lanes<T>; }
  /// Asks for a row of the task's channels ahead of its use: nothing else does, since rows are far apart.
  KOKKOS_FORCEINLINE_FUNCTION void prefetch(Index t) const {
    if constexpr (!on_device) {
      constexpr int line = 64 / static_cast<int>(sizeof(T)), for_writing = std::is_const_v<T> ? 0 : 1;
      for (int i = 0; i < channel_block; i += line) __builtin_prefetch(data + t * stride + i, for_writing);
    }
  }
};

/// bc (n, 2, together) = columns [first, first + together) of B and C for n rows from `row` on, 0 beyond the
/// last.
template <class T>
KOKKOS_INLINE_FUNCTION void copy_bc(Member const& team, Plan const& plan, SelectiveScanInputs<T> const& in,
                                    Index row, int n, int first, T* bc) {
  Index const b_stride = in.b.stride(0), c_stride = in.c.stride(0);
  T const* const b = in.b.data() + row * b_stride + first;
  T const* const c = in.c.data() + row * c_stride + first;
  int const columns = static_cast<int>(math::min(plan.state - first, Index(together)));
  for_elements(team, n, [&](int const t) {
    for (int q = 0; q < together; ++q) {
      bc[t * 2 * together + q] = q < columns ? b[t * b_stride + q] : T(0);
      bc[t * 2 * together + together + q] = q < columns ? c[t * c_stride + q] : T(0);
    }
  });
}

/// Checks the arguments forward and backward share.
template <class T>
void require_inputs(SelectiveScanShape const& shape, SelectiveScanInputs<T> const& in) {
  Index const rows = shape.sequences.rows(), channels = shape.channels, state = shape.state;
  STRATA_REQUIRE(channels >= 1 && state >= 1 && shape.chunk >= 0,
                 channels << " channels, state " << state << ", chunk " << shape.chunk);
  auto const is = [](Mat<T const> const& m, Index m_rows, Index m_columns) {
    return static_cast<Index>(m.extent(0)) == m_rows && static_cast<Index>(m.extent(1)) == m_columns;
  };
  STRATA_REQUIRE(is(in.delta, rows, channels) && is(in.x, rows, channels),
                 "delta is (" << in.delta.extent(0) << ", " << in.delta.extent(1) << "), x ("
                              << in.x.extent(0) << ", " << in.x.extent(1) << ")");
  STRATA_REQUIRE(is(in.b, rows, state) && is(in.c, rows, state),
                 "b is (" << in.b.extent(0) << ", " << in.b.extent(1) << "), c (" << in.c.extent(0) << ", "
                          << in.c.extent(1) << ")");
  STRATA_REQUIRE(is(in.a_log, channels, state) && in.a_log.span_is_contiguous(),
                 "a_log is (" << in.a_log.extent(0) << ", " << in.a_log.extent(1) << ")");
  STRATA_REQUIRE(static_cast<Index>(in.delta_bias.extent(0)) == channels &&
                     static_cast<Index>(in.d.extent(0)) == channels,
                 "delta_bias is " << in.delta_bias.extent(0) << ", d " << in.d.extent(0));
}

/// Checks that states is empty or (lanes, channels * state).
template <class T>
void require_states(SelectiveScanShape const& shape, ConstMat<T> states) {
  STRATA_REQUIRE(
      states.data() == nullptr || (shape.sequences.fits(states.extent(0)) &&
                                   static_cast<Index>(states.extent(1)) == shape.channels * shape.state),
      "states are (" << states.extent(0) << ", " << states.extent(1) << ")");
}

}  // namespace strata::kernels::selective_scan
