// SPDX-License-Identifier: Apache-2.0
#include "kernels/linear.hpp"

#include <KokkosBlas3_gemm.hpp>
#include <limits>

#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/common/tasks.hpp"
#include "kernels/linear_rows.hpp"

namespace strata::kernels {
namespace {

// The overload of gemm that takes an execution space came after Kokkos Kernels 3.4. Without it everything
// runs on the default instance, which is the same thing on a host: products there are synchronous.
#if KOKKOS_VERSION >= 40200
constexpr bool gemm_takes_space = true;
#else
constexpr bool gemm_takes_space = false;
#endif
static_assert(gemm_takes_space || !on_device,
              "on a device Strata needs Kokkos and Kokkos Kernels 4.2 or newer");

/// c = beta c + op(a) op(b); an operand is transposed where its letter is 'T', plain where it is 'N'.
template <class T>
void gemm(ExecSpace const& space, char const* transpose_a, char const* transpose_b, ConstMat<T> a,
          ConstMat<T> b, T beta, Mat<T> c) {
#if KOKKOS_VERSION >= 40200
  KokkosBlas::gemm(space, transpose_a, transpose_b, T(1), a, b, beta, c);
#else
  (void)space;
  KokkosBlas::gemm(transpose_a, transpose_b, T(1), a, b, beta, c);
#endif
}

/// BLAS counts in int, even where pointers have 64 bits.
template <class T>
bool fits_blas(Mat<T> const& m) {
  constexpr auto most = std::size_t(std::numeric_limits<int>::max());
  return m.extent(0) <= most && m.extent(1) <= most && std::size_t(m.stride(0)) <= most;
}

template <class T>
struct FillRows {
  Mat<T> y;
  ConstVec<T> bias;  // empty: zeros
  Index width;

  KOKKOS_INLINE_FUNCTION void operator()(Index i) const {
    if constexpr (on_device) {
      y(i / width, i % width) = bias.data() ? bias(i % width) : T(0);
    } else {
      T* const row = &y(i, 0);
      T const* const value = bias.data();
      if (value == nullptr) {
        for (Index n = 0; n < width; ++n) row[n] = T(0);
      } else {
        for (Index n = 0; n < width; ++n) row[n] = value[n];
      }
    }
  }
};

/// y = bias or 0, row by row on a host, element by element on a device.
template <class T>
void fill_rows(ExecSpace const& space, ConstVec<T> bias, Mat<T> y) {
  Index const width = Index(y.extent(1));
  Index const items = Index(y.extent(0)) * (on_device ? width : 1);
  for_tasks(space, "strata::linear::fill_rows", items, Index(y.size()), FillRows<T>{y, bias, width});
}

/// One element of c = beta c + op(a) op(b) per team, its sum along the contracted index in the team's fixed
/// tree.
template <class T>
struct DotProducts {
  T const* a;
  T const* b;
  Index a_step, a_row, b_step,
      b_column;  // strides along the contracted index, and along c's rows and columns
  Index length;
  T beta;
  Mat<T> c;
  using Member = typename Kokkos::TeamPolicy<ExecSpace>::member_type;

  KOKKOS_INLINE_FUNCTION void operator()(Member const& team) const {
    Index const columns = Index(c.extent(1));
    Index const i = Index(team.league_rank()) / columns;
    Index const j = Index(team.league_rank()) % columns;
    T sum = 0;
    Kokkos::parallel_reduce(
        Kokkos::TeamThreadRange(team, length),
        [&](Index l, T& part) { part += a[i * a_row + l * a_step] * b[j * b_column + l * b_step]; }, sum);
    Kokkos::single(Kokkos::PerTeam(team), [&] { c(i, j) = (beta == T(0) ? T(0) : beta * c(i, j)) + sum; });
  }
};

template <class T>
void dot_products(ExecSpace const& space, DotProducts<T> const& functor) {
  auto const elements = int(functor.c.extent(0) * functor.c.extent(1));
  Kokkos::parallel_for("strata::linear::dot_products",
                       Kokkos::TeamPolicy<ExecSpace>(space, elements, Kokkos::AUTO), functor);
}

template <class T>
void forward(ExecSpace const& space, ConstMat<T> x, ConstMat<T> weight, ConstVec<T> bias, Mat<T> y,
             bool accumulate) {
  STRATA_REQUIRE(
      x.extent(0) == y.extent(0) && weight.extent(0) == y.extent(1) && weight.extent(1) == x.extent(1),
      "x (" << x.extent(0) << ", " << x.extent(1) << "), weight (" << weight.extent(0) << ", "
            << weight.extent(1) << "), y (" << y.extent(0) << ", " << y.extent(1) << ")");
  STRATA_REQUIRE(bias.data() == nullptr || bias.extent(0) == y.extent(1),
                 "bias (" << bias.extent(0) << "), y has " << y.extent(1) << " columns");
  STRATA_REQUIRE(fits_blas(x) && fits_blas(weight) && fits_blas(y), "an extent exceeds BLAS's int");
  if (y.extent(0) == 0 || y.extent(1) == 0) return;
  bool const nothing_to_add = x.extent(1) == 0;
  if constexpr (!on_device) {
    if (Index(y.extent(0)) <= independent_rows && !nothing_to_add) {
      linear::multiply_few_rows<T>(space, x, weight, bias, y, accumulate);
      return;
    }
  }
  bool const start_from_bias = bias.data() != nullptr && !accumulate;
  if (start_from_bias || (nothing_to_add && !accumulate)) fill_rows<T>(space, bias, y);
  if (nothing_to_add) return;
  gemm<T>(space, "N", "T", x, weight, accumulate || start_from_bias ? T(1) : T(0), y);
}

/// dx = beta dx + dy W.
template <class T>
void backward_input(ExecSpace const& space, ConstMat<T> dy, ConstMat<T> weight, T beta, Mat<T> dx) {
  STRATA_REQUIRE(
      dy.extent(0) == dx.extent(0) && weight.extent(0) == dy.extent(1) && weight.extent(1) == dx.extent(1),
      "dy (" << dy.extent(0) << ", " << dy.extent(1) << "), weight (" << weight.extent(0) << ", "
             << weight.extent(1) << "), dx (" << dx.extent(0) << ", " << dx.extent(1) << ")");
  STRATA_REQUIRE(fits_blas(dy) && fits_blas(weight) && fits_blas(dx), "an extent exceeds BLAS's int");
  if (dx.extent(0) == 0 || dx.extent(1) == 0) return;
  if (dy.extent(1) == 0) {
    if (beta == T(0)) fill_rows<T>(space, {}, dx);
  } else if (dx.extent(1) == 1) {
    // Kokkos Kernels 4 turns this case into a gemv that takes the one column for contiguous.
    dot_products<T>(space, {dy.data(), weight.data(), 1, Index(dy.stride(0)), Index(weight.stride(0)), 0,
                            Index(dy.extent(1)), beta, dx});
  } else {
    gemm<T>(space, "N", "N", dy, weight, beta, dx);
  }
}

}  // namespace

template <class T>
void linear_forward(ExecSpace const& space, ConstMat<T> x, ConstMat<T> weight, ConstVec<T> bias, Mat<T> y) {
  KernelScope const timed("linear_forward",
                          [&] { return linear_cost<T>(x.extent(0), x.extent(1), y.extent(1)); });
  forward<T>(space, x, weight, bias, y, false);
}

template <class T>
void linear_forward_accumulate(ExecSpace const& space, ConstMat<T> x, ConstMat<T> weight, Mat<T> y) {
  KernelScope const timed("linear_forward_accumulate",
                          [&] { return linear_cost<T>(x.extent(0), x.extent(1), y.extent(1)); });
  forward<T>(space, x, weight, {}, y, true);
}

template <class T>
void linear_backward_input(ExecSpace const& space, ConstMat<T> dy, ConstMat<T> weight, Mat<T> dx) {
  KernelScope const timed("linear_backward_input",
                          [&] { return linear_cost<T>(dy.extent(0), dx.extent(1), dy.extent(1)); });
  backward_input<T>(space, dy, weight, T(0), dx);
}

template <class T>
void linear_backward_input_accumulate(ExecSpace const& space, ConstMat<T> dy, ConstMat<T> weight, Mat<T> dx) {
  KernelScope const timed("linear_backward_input_accumulate",
                          [&] { return linear_cost<T>(dy.extent(0), dx.extent(1), dy.extent(1)); });
  backward_input<T>(space, dy, weight, T(1), dx);
}

template <class T>
void linear_backward_weight(ExecSpace const& space, ConstMat<T> dy, ConstMat<T> x, Mat<T> dweight) {
  KernelScope const timed("linear_backward_weight",
                          [&] { return linear_cost<T>(dy.extent(0), x.extent(1), dy.extent(1)); });
  STRATA_REQUIRE(
      dy.extent(0) == x.extent(0) && dweight.extent(0) == dy.extent(1) && dweight.extent(1) == x.extent(1),
      "dy (" << dy.extent(0) << ", " << dy.extent(1) << "), x (" << x.extent(0) << ", " << x.extent(1)
             << "), dweight (" << dweight.extent(0) << ", " << dweight.extent(1) << ")");
  STRATA_REQUIRE(fits_blas(dy) && fits_blas(x) && fits_blas(dweight), "an extent exceeds BLAS's int");
  if (dy.extent(0) == 0 || dweight.extent(0) == 0 || dweight.extent(1) == 0) return;
  if (on_device && dweight.extent(0) * dweight.extent(1) < 100) {
    // Kokkos Kernels 4 sums so small a result on a device with atomics, in whatever order they come.
    dot_products<T>(space, {dy.data(), x.data(), Index(dy.stride(0)), 1, Index(x.stride(0)), 1,
                            Index(dy.extent(0)), T(1), dweight});
  } else {
    gemm<T>(space, "T", "N", dy, x, T(1), dweight);
  }
}

template <class T>
Cost linear_cost(Index rows, Index inputs, Index outputs) {
  double const m = double(rows), k = double(inputs), n = double(outputs);
  return {sizeof(T) * (m * k + n * k), sizeof(T) * m * n, 2 * m * n * k, 2 * m * n * k};
}

#define STRATA_LINEAR(T)                                                                                 \
  template void linear_forward<T>(ExecSpace const&, ConstMat<T>, ConstMat<T>, ConstVec<T>, Mat<T>);      \
  template void linear_forward_accumulate<T>(ExecSpace const&, ConstMat<T>, ConstMat<T>, Mat<T>);        \
  template void linear_backward_input<T>(ExecSpace const&, ConstMat<T>, ConstMat<T>, Mat<T>);            \
  template void linear_backward_input_accumulate<T>(ExecSpace const&, ConstMat<T>, ConstMat<T>, Mat<T>); \
  template void linear_backward_weight<T>(ExecSpace const&, ConstMat<T>, ConstMat<T>, Mat<T>);           \
  template Cost linear_cost<T>(Index, Index, Index);
STRATA_INSTANTIATE(STRATA_LINEAR)

}  // namespace strata::kernels
