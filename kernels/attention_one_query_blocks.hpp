// SPDX-License-Identifier: Apache-2.0
#pragma once
// How a team takes one query per head over a block of keys and values: on a GPU warps, on a host one thread
// with registers along the features.

#include "kernels/attention_blocks.hpp"
#include "kernels/common/math.hpp"
#include "kernels/common/register_sums.hpp"

namespace strata::kernels::attention {

/// Keys whose scores a team holds at a time.
inline constexpr int block_keys = 64;

/// The softmax so far of the heads of a team: per head the largest score, the sum of exponentials and that of
/// the values they weigh, all relative to the largest score.
template <class T>
struct Softmax {
  T* maximum;
  T* total;
  T* sum;
};

/// What a team works on: `heads` heads, rows of keys and values `step` apart up to row `end`, the scaled
/// queries (heads, d).
template <class T>
struct Past {
  T const* keys;
  T const* values;
  Index step, end;
  int heads, d;
  T const* queries;
};

#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP) || defined(KOKKOS_ENABLE_SYCL)

/// scores (heads, block_keys) of `count` keys: a warp per score.
template <class T>
KOKKOS_INLINE_FUNCTION void score_block(Member const& team, Past<T> const& past, Index key, int count,
                                        T* scores) {
  int const d = past.d;
  Kokkos::parallel_for(Kokkos::TeamThreadRange(team, past.heads * block_keys), [&](int const pair) {
    int const head = pair / block_keys, j = pair % block_keys;
    T score = hidden_score<T>;
    if (j < count) {
      T const* const k = past.keys + (key + j) * past.step + head * d;
      T const* const q = past.queries + head * d;
      Kokkos::parallel_reduce(
          Kokkos::ThreadVectorRange(team, d), [&](int const c, T& part) { part += q[c] * k[c]; }, score);
    }
    Kokkos::single(Kokkos::PerThread(team), [&] { scores[pair] = score; });
  });
}

/// scores -> exp(scores - new maximum); the factor of earlier blocks stays in `correction` (heads).
template <class T>
KOKKOS_INLINE_FUNCTION void soften_block(Member const& team, int heads, T* scores, Softmax<T> const& softmax,
                                         T* correction) {
  Kokkos::parallel_for(Kokkos::TeamThreadRange(team, heads), [&](int const head) {
    T* const s = scores + head * block_keys;
    T const before = softmax.maximum[head];
    T most = hidden_score<T>, part = 0;
    Kokkos::parallel_reduce(
        Kokkos::ThreadVectorRange(team, block_keys),
        [&](int const j, T& top) { top = s[j] > top ? s[j] : top; }, Kokkos::Max<T>(most));
    most = before > most ? before : most;
    Kokkos::parallel_reduce(
        Kokkos::ThreadVectorRange(team, block_keys),
        [&](int const j, T& all) {
          T const p = math::exp(s[j] - most);
          s[j] = p;
          all += p;
        },
        part);
    Kokkos::single(Kokkos::PerThread(team), [&] {
      T const factor = math::exp(before - most);
      correction[head] = factor;
      softmax.maximum[head] = most;
      softmax.total[head] = factor * softmax.total[head] + part;
    });
  });
}

/// sum = correction * sum + the values of the block weighed by its exponentials: a thread per column.
template <class T>
KOKKOS_INLINE_FUNCTION void add_values(Member const& team, Past<T> const& past, Index key, int count,
                                       T const* scores, T const* correction, T* sum) {
  int const d = past.d;
  T const* const values = past.values + key * past.step;
  Kokkos::parallel_for(Kokkos::TeamVectorRange(team, past.heads * d), [&](int const c) {
    int const head = c / d;
    T const* const p = scores + head * block_keys;
    T part = 0;
    for (int j = 0; j < count; ++j) part += p[j] * values[j * past.step + c];
    sum[c] = correction[head] * sum[c] + part;
  });
}

#else

/// Asks for `count` elements that will be read soon.
template <class T>
inline void prefetch(T const* from, int count) {
  constexpr int line = 64 / static_cast<int>(sizeof(T));
  for (int c = 0; c < count; c += line) __builtin_prefetch(from + c, 0, 2);
}

/// scores (heads, block_keys) of `count` keys, four at a time. Values of the same positions lie next to the
/// keys in memory and are fetched on the way, so that memory is read in one direction.
template <class T>
inline void score_block(Member const&, Past<T> const& past, Index key, int count, T* scores) {
  constexpr int together = 4, rows_ahead = 8, width = Lanes<T>::width;
  int const d = past.d, all = past.heads * d, whole = d / width * width;
  for (int j = 0; j < count; j += together) {
    T const* rows[together];
    for (int i = 0; i < together; ++i) {
      rows[i] = past.keys + (key + least(j + i, count - 1)) * past.step;
      if (key + j + i + rows_ahead < past.end) prefetch(rows[i] + rows_ahead * past.step, all);
      prefetch(past.values + (rows[i] - past.keys), all);
    }
    for (int head = 0; head < past.heads; ++head) {
      T const* const q = past.queries + head * d;
      Register<T> sums[together] = {};
      T* const score = scores + head * block_keys + j;
      for (int c = 0; c < whole; c += width) {
        auto const left = load(q + c);
        for (int i = 0; i < together; ++i) sums[i] += left * load(rows[i] + head * d + c);
      }
      sum_lanes<T>(sums, score);
      for (int c = whole; c < d; ++c) {
        for (int i = 0; i < together; ++i) score[i] += q[c] * rows[i][head * d + c];
      }
    }
  }
  for (int head = 0; head < past.heads; ++head) {
    for (int j = count; j < block_keys; ++j) scores[head * block_keys + j] = hidden_score<T>;
  }
}

/// scores -> exp(scores - new maximum); the factor of earlier blocks stays in `correction` (heads).
template <class T>
inline void soften_block(Member const&, int heads, T* scores, Softmax<T> const& softmax, T* correction) {
  constexpr int lanes = 16;
  for (int head = 0; head < heads; ++head) {
    T* const s = scores + head * block_keys;
    T top[lanes], part[lanes] = {};
    for (int l = 0; l < lanes; ++l) top[l] = softmax.maximum[head];
    for (int j = 0; j < block_keys; j += lanes) {
      for (int l = 0; l < lanes; ++l) top[l] = s[j + l] > top[l] ? s[j + l] : top[l];
    }
    T most = top[0];
    for (int l = 1; l < lanes; ++l) most = top[l] > most ? top[l] : most;
    for (int j = 0; j < block_keys; ++j) s[j] = math::exp(s[j] - most);
    for (int j = 0; j < block_keys; j += lanes) {
      for (int l = 0; l < lanes; ++l) part[l] += s[j + l];
    }
    for (int half = lanes / 2; half > 0; half /= 2) {
      for (int l = 0; l < half; ++l) part[l] += part[l + half];
    }
    correction[head] = math::exp(softmax.maximum[head] - most);
    softmax.maximum[head] = most;
    softmax.total[head] = correction[head] * softmax.total[head] + part[0];
  }
}

/// sum = correction * sum + the values of the block weighed by its exponentials, `registers` registers wide.
template <int registers, class T>
inline void add_columns(T const* values, Index step, int count, T const* p, T correction, T* sum) {
  constexpr int width = Lanes<T>::width;
  Lanes<T> part[registers];
  for (int r = 0; r < registers; ++r) part[r] = Lanes<T>::zero();
  for (int j = 0; j < count; ++j) {
    for (int r = 0; r < registers; ++r)
      part[r].add_product(p[j], Lanes<T>::load(values + j * step + r * width));
  }
  for (int r = 0; r < registers; ++r) {
    part[r].add_product(correction, Lanes<T>::load(sum + r * width));
    part[r].store(sum + r * width);
  }
}

template <class T>
inline void add_values(Member const&, Past<T> const& past, Index key, int count, T const* scores,
                       T const* correction, T* sum) {
  constexpr int together = 4, width = Lanes<T>::width;
  int const d = past.d;
  for (int head = 0; head < past.heads; ++head) {
    T const* const values = past.values + key * past.step + head * d;
    T const* const p = scores + head * block_keys;
    T* const to = sum + head * d;
    T const factor = correction[head];
    int c = 0;
    for (; c + together * width <= d; c += together * width)
      add_columns<together>(values + c, past.step, count, p, factor, to + c);
    for (; c + width <= d; c += width) add_columns<1>(values + c, past.step, count, p, factor, to + c);
    if (c == d) continue;
    T rest[width] = {};
    for (int j = 0; j < count; ++j) {
      for (int l = 0; l < d - c; ++l) rest[l] += p[j] * values[j * past.step + c + l];
    }
    for (int l = 0; l < d - c; ++l) to[c + l] = factor * to[c + l] + rest[l];
  }
}

#endif

}  // namespace strata::kernels::attention
