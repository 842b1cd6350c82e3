// SPDX-License-Identifier: Apache-2.0
#include "kernels/stage_input.hpp"

#include <algorithm>

#include "kernels/common/check.hpp"
#include "kernels/common/profile.hpp"
#include "kernels/common/row_ops.hpp"

namespace strata::kernels {
namespace {

template <class T>
struct Forward {
  StageRows rows;
  ConstMat<T> embedded;
  ConstVec<T> start;
  ConstMat<T> positions, rotation, context;
  Index lag;
  Mat<T> x;

  KOKKOS_INLINE_FUNCTION void operator()(Lanes const& lanes, Index r) const {
    Index const width = Index(x.extent(1));
    Index const sequence = r / rows.shape.length;
    Index const offset = r - sequence * rows.shape.length;
    Index const t = rows.shape.start(sequence, rows.first_position) + offset;
    T const* const own =
        t == 0 ? start.data() : &embedded(sequence * rows.embedded_length() + offset - rows.starts(), 0);
    T const* const position = t > 0 && positions.data() ? &positions(t - 1, 0) : nullptr;
    T const* const parent = t >= lag && context.data()
                                ? &context(rows.shape.slot(sequence) * rows.patches + t - lag, 0)
                                : nullptr;
    T* const out = &x(r, 0);
    if (t > 0 && rotation.data()) {
      T const* const cosine = &rotation(rows.shape.starts == nullptr ? offset - rows.starts() : sequence, 0);
      T const* const sine = cosine + width / 2;
      lanes.loop(width / 2, [=](Index i) {
        T const a = own[2 * i], b = own[2 * i + 1];
        out[2 * i] = a * cosine[i] - b * sine[i] + (parent ? parent[2 * i] : T(0));
        out[2 * i + 1] = b * cosine[i] + a * sine[i] + (parent ? parent[2 * i + 1] : T(0));
      });
    } else {
      lanes.loop(width, [=](Index d) {
        out[d] = own[d] + (position ? position[d] : T(0)) + (parent ? parent[d] : T(0));
      });
    }
  }
};

/// Rows [0, embedded_rows): gradient of the embedded sub-patches. The rows after them: gradient of the
/// context.
template <class T>
struct Backward {
  StageRows rows;
  Index embedded_rows;
  ConstMat<T> dx, rotation;
  Index lag;
  Mat<T> dembedded, dcontext;

  KOKKOS_INLINE_FUNCTION void operator()(Lanes const& lanes, Index i) const {
    if (i < embedded_rows) {
      embedded_row(lanes, i);
    } else {
      context_row(lanes, i - embedded_rows);
    }
  }
  KOKKOS_INLINE_FUNCTION void embedded_row(Lanes const& lanes, Index e) const {
    Index const width = Index(dx.extent(1));
    Index const sequence = e / rows.embedded_length();
    Index const offset = rows.starts() + e - sequence * rows.embedded_length();
    T const* const in = &dx(sequence * rows.shape.length + offset, 0);
    T* const out = &dembedded(e, 0);
    if (rotation.data()) {
      T const* const cosine = &rotation(offset - rows.starts(), 0);
      T const* const sine = cosine + width / 2;
      lanes.loop(width / 2, [=](Index i) {
        T const a = in[2 * i], b = in[2 * i + 1];
        out[2 * i] = a * cosine[i] + b * sine[i];
        out[2 * i + 1] = b * cosine[i] - a * sine[i];
      });
    } else {
      lanes.loop(width, [=](Index d) { out[d] = in[d]; });
    }
  }
  KOKKOS_INLINE_FUNCTION void context_row(Lanes const& lanes, Index c) const {
    Index const width = Index(dx.extent(1));
    Index const sequence = c / rows.patches;
    Index const offset = c - sequence * rows.patches + lag - rows.first_position;
    T* const out = &dcontext(c, 0);
    if (offset >= 0 && offset < rows.shape.length) {
      T const* const in = &dx(sequence * rows.shape.length + offset, 0);
      lanes.loop(width, [=](Index d) { out[d] = in[d]; });
    } else {
      lanes.loop(width, [=](Index d) { out[d] = T(0); });
    }
  }
};

/// Sequences whose gradients are summed one after the other; the sums of such segments are added in a second
/// step.
constexpr Index segment = 64;

Index segments(Index sequences) { return (sequences + segment - 1) / segment; }

/// The gradients of what all sequences share: the start vector (position 0) and the rows of the position
/// table.
template <class T>
struct SharedGradient {
  StageRows rows;
  Index positions;  ///< leading positions of dx's rows that have a shared addend
  Index parts;      ///< segments
  ConstMat<T> dx;
  Vec<T> dstart;
  Mat<T> dpositions;
  T* partial;  ///< (parts, positions, D)

  KOKKOS_INLINE_FUNCTION T* target(Index offset) const {
    Index const t = rows.first_position + offset;
    return t == 0 ? dstart.data() : &dpositions(t - 1, 0);
  }
};

template <class T>
struct SumSegment {
  static constexpr Index tile = on_device ? 1 : 64;  // features summed side by side by one thread
  SharedGradient<T> to;

  KOKKOS_INLINE_FUNCTION void operator()(Lanes const& lanes, Index item) const {
    Index const width = Index(to.dx.extent(1));
    Index const part = item / to.positions;
    Index const offset = item - part * to.positions;
    Index const begin = part * segment;
    Index const end = begin + segment < to.rows.shape.count ? begin + segment : to.rows.shape.count;
    T* const out = to.parts == 1 ? to.target(offset) : to.partial + item * width;
    bool const add = to.parts == 1;
    lanes.loop((width + tile - 1) / tile, [=, *this](Index j) {
      Index const first = j * tile;
      Index const features = width - first < tile ? width - first : tile;
      T sum[tile] = {};
      for (Index k = begin; k < end; ++k) {
        T const* const in = &to.dx(k * to.rows.shape.length + offset, first);
        if (features == tile) {
          for (Index d = 0; d < tile; ++d) sum[d] += in[d];
        } else {
          for (Index d = 0; d < features; ++d) sum[d] += in[d];
        }
      }
      for (Index d = 0; d < features; ++d) out[first + d] = add ? out[first + d] + sum[d] : sum[d];
    });
  }
};

template <class T>
struct AddSegments {
  SharedGradient<T> to;

  KOKKOS_INLINE_FUNCTION void operator()(Lanes const& lanes, Index offset) const {
    Index const width = Index(to.dx.extent(1));
    Index const stride = to.positions * width;
    Index const parts = to.parts;
    T const* const in = to.partial + offset * width;
    T* const out = to.target(offset);
    lanes.loop(width, [=](Index d) {
      T sum = 0;
      for (Index part = 0; part < parts; ++part) sum += in[part * stride + d];
      out[d] += sum;
    });
  }
};

/// Shapes that forward and backward share.
void check(StageRows const& rows, Index lag, std::size_t x_rows, std::size_t width, std::size_t embedded_rows,
           std::size_t embedded_width, std::size_t context_rows, bool has_context, std::size_t rotation_rows,
           std::size_t rotation_width, bool has_rotation) {
  Index const embedded = std::max(Index(0), rows.embedded_rows());
  Index const end = rows.first_position + rows.shape.length;
  STRATA_REQUIRE(lag == 0 || lag == 1, "lag " << lag);
  STRATA_REQUIRE(Index(x_rows) == rows.shape.rows(), x_rows << " rows, not " << rows.shape.rows());
  STRATA_REQUIRE(embedded == 0 || (Index(embedded_rows) == embedded && embedded_width == width),
                 "embedded (" << embedded_rows << ", " << embedded_width << "), not (" << embedded << ", "
                              << width << ")");
  STRATA_REQUIRE(!has_context || (rows.shape.fits(Index(context_rows) / rows.patches) &&
                                  Index(context_rows) % rows.patches == 0 &&
                                  (rows.shape.starts != nullptr || end <= rows.patches + lag)),
                 "context of " << context_rows << " rows for positions up to " << end << " of "
                               << rows.patches << " sub-patches");
  STRATA_REQUIRE(
      !has_rotation || (rotation_width == width && width % 2 == 0 &&
                        Index(rotation_rows) >=
                            (rows.shape.starts == nullptr ? rows.embedded_length() : rows.shape.count)),
      "rotation (" << rotation_rows << ", " << rotation_width << ") for " << rows.embedded_length()
                   << " sub-patches of width " << width);
}

}  // namespace

template <class T>
void stage_input_forward(ExecSpace const& space, StageRows const& rows, ConstMat<T> embedded,
                         ConstVec<T> start, ConstMat<T> positions, ConstMat<T> rotation, ConstMat<T> context,
                         Index lag, Mat<T> x) {
  KernelScope const timed("stage_input_forward", [&] { return stage_input_cost<T>(rows, x.extent(1)); });
  if (x.extent(0) == 0 || x.extent(1) == 0) return;
  check(rows, lag, x.extent(0), x.extent(1), embedded.extent(0), embedded.extent(1), context.extent(0),
        context.data() != nullptr, rotation.extent(0), rotation.extent(1), rotation.data() != nullptr);
  STRATA_REQUIRE(rows.first_position > 0 || start.extent(0) == x.extent(1),
                 "start (" << start.extent(0) << ")");
  STRATA_REQUIRE(!positions.data() || !rotation.data(), "positions are either learnt or rotations");
  STRATA_REQUIRE(!positions.data() || rows.shape.starts != nullptr ||
                     Index(positions.extent(0)) >= rows.first_position + rows.shape.length - 1,
                 positions.extent(0) << " positions");
  for_rows(space, "strata::stage_input::forward", rows.shape.rows(), Index(x.extent(1)),
           Forward<T>{rows, embedded, start, positions, rotation, context, lag, x});
}

template <class T>
void stage_input_backward(ExecSpace const& space, StageRows const& rows, ConstMat<T> dx, ConstMat<T> rotation,
                          Index lag, Mat<T> dembedded, Vec<T> dstart, Mat<T> dpositions, Mat<T> dcontext,
                          Vec<T> workspace) {
  KernelScope const timed("stage_input_backward", [&] { return stage_input_cost<T>(rows, dx.extent(1)); });
  check(rows, lag, dx.extent(0), dx.extent(1), dembedded.extent(0), dembedded.extent(1), dcontext.extent(0),
        dcontext.data() != nullptr, rotation.extent(0), rotation.extent(1), rotation.data() != nullptr);
  Index const width = Index(dx.extent(1));
  Index const embedded_rows = rows.shape.rows() == 0 ? 0 : rows.embedded_rows();
  if (width == 0) return;
  for_rows(space, "strata::stage_input::backward", embedded_rows + Index(dcontext.extent(0)), width,
           Backward<T>{rows, embedded_rows, dx, rotation, lag, dembedded, dcontext});

  Index const positions = dpositions.data() ? rows.shape.length : std::min(rows.starts(), rows.shape.length);
  if (rows.shape.count == 0 || positions == 0) return;
  STRATA_REQUIRE(rows.first_position > 0 || Index(dstart.extent(0)) == width,
                 "dstart (" << dstart.extent(0) << ")");
  STRATA_REQUIRE(
      !dpositions.data() || (Index(dpositions.extent(0)) >= rows.first_position + rows.shape.length - 1 &&
                             Index(dpositions.extent(1)) == width),
      "dpositions (" << dpositions.extent(0) << ", " << dpositions.extent(1) << ")");
  STRATA_REQUIRE(Index(workspace.extent(0)) >= stage_input_workspace(rows, width),
                 workspace.extent(0) << " elements of " << stage_input_workspace(rows, width));
  Index const parts = segments(rows.shape.count);
  SharedGradient<T> const to{rows, positions, parts, dx, dstart, dpositions, workspace.data()};
  for_rows(space, "strata::stage_input::sum_segment", parts * positions, width, SumSegment<T>{to});
  if (parts > 1) for_rows(space, "strata::stage_input::add_segments", positions, width, AddSegments<T>{to});
}

Index stage_input_workspace(StageRows const& rows, Index width) {
  Index const parts = segments(rows.shape.count);
  return parts > 1 ? parts * rows.shape.length * width : 0;
}

template <class T>
Cost stage_input_cost(StageRows const& rows, Index width) {
  double const elements = double(rows.shape.rows()) * double(width);
  // Forward reads a row of the sub-patch and one of the context; backward reads one and writes both.
  return {2 * elements * sizeof(T), elements * sizeof(T), 2 * elements};
}

#define STRATA_STAGE_INPUT(T)                                                                                \
  template void stage_input_forward<T>(ExecSpace const&, StageRows const&, ConstMat<T>, ConstVec<T>,         \
                                       ConstMat<T>, ConstMat<T>, ConstMat<T>, Index, Mat<T>);                \
  template void stage_input_backward<T>(ExecSpace const&, StageRows const&, ConstMat<T>, ConstMat<T>, Index, \
                                        Mat<T>, Vec<T>, Mat<T>, Mat<T>, Vec<T>);                             \
  template Cost stage_input_cost<T>(StageRows const&, Index);
STRATA_INSTANTIATE(STRATA_STAGE_INPUT)

}  // namespace strata::kernels
