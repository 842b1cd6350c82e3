// SPDX-License-Identifier: Apache-2.0
// Embedding of bytes: one to a row in many sequences (last stage), or eight to a row in one (the stages
// above). Rows and widths are those of the table of shapes.

#include "kernels/embedding.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

constexpr Index vocabulary = 257;

/// Windows, rows and tokens of `rows` rows that each embed `patch_bytes` bytes.
struct Input {
  Input(Index row_count, Index patch_bytes) : window(row_count * patch_bytes) {
    rows.shape = patch_bytes == 1 ? kernels::Sequences{row_count / 8, 8} : kernels::Sequences{1, row_count};
    rows.patches = rows.shape.length;
    rows.patch_bytes = patch_bytes;
    Index const bytes = row_count * patch_bytes;
    tokens = {window.bytes.data(), nullptr, window.lengths.data(), 1, bytes, bytes, 256};
  }
  Window window;
  kernels::StageRows rows;
  kernels::Tokens tokens;
};

template <class T>
void forward(benchmark::State& state, Index rows, Index width, Index patch_bytes) {
  Input const in(rows, patch_bytes);
  auto const table = random_matrix<T>(vocabulary, width),
             y = random_matrix<T>(in.rows.embedded_bytes(), width);
  measure(
      state, kernels::embedding_forward_cost<T>(in.rows, width), gemm_limit<T>(),
      [=](ExecSpace const& space) { kernels::embedding_forward<T>(space, in.tokens, in.rows, table, y); });
}

template <class T>
void backward(benchmark::State& state, Index rows, Index width, Index patch_bytes) {
  Input const in(rows, patch_bytes);
  auto const dtable = random_matrix<T>(vocabulary, width),
             dy = random_matrix<T>(in.rows.embedded_bytes(), width);
  Vector<Index> const workspace("strata::perf_workspace", kernels::embedding_workspace(in.rows, vocabulary));
  measure(state, kernels::embedding_backward_cost<T>(in.rows, width), gemm_limit<T>(),
          [=](ExecSpace const& space) {
            kernels::embedding_backward<T>(space, in.tokens, in.rows, dy, 256, dtable, workspace);
          });
}

template <class T>
void add_embeddings() {
  for (RowShape const& shape : row_shapes()) {
    Index const rows = shape.rows, width = shape.width;
    for (Index const patch : {Index(1), Index(8)}) {
      std::string const text =
          std::to_string(rows) + "x" + std::to_string(patch) + "x" + std::to_string(width);
      add("embedding_forward", type_name<T>(), shape.group, text,
          [=](auto& s) { forward<T>(s, rows, width, patch); });
      add("embedding_backward", type_name<T>(), shape.group, text,
          [=](auto& s) { backward<T>(s, rows, width, patch); });
    }
  }
}

Registration const registration([] {
  add_embeddings<float>();
  add_embeddings<double>();
});

}  // namespace
}  // namespace strata::perf
