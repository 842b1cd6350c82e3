// SPDX-License-Identifier: Apache-2.0
// Sub-patches of thousands of bytes are embedded a piece of the rows at a time; nobody shall notice.
#include "model/patch_embedder.hpp"

#include <gtest/gtest.h>

#include "unit_tests/model/small_model.hpp"
#include "unit_tests/support/owned.hpp"
#include "unit_tests/support/token_batch.hpp"

namespace strata::test {
namespace {

using kernels::StageRows;

constexpr Index patch_bytes = 64 * 64;

ModelConfig config() { return small_config(Head::complete, {200, 64, 64}, Position::none, 20, 19); }

/// An embedder of its own, with the gradients that it leaves behind.
template <class T>
class Embedder {
 public:
  Embedder() : embedder_(config(), 0, model::Ready::at_end, store_) {
    store_.allocate(true);
    randomise(store_, 61);
  }

  /// Forward of the rows and backward from `dout`; the embedded rows. Adds to the gradients.
  std::vector<double> run(kernels::Tokens const& tokens, StageRows const& rows,
                          std::vector<double> const& dout) const {
    Index const n = rows.embedded_rows(), width = config().hidden_dims[0];
    core::Arena arena(std::max(embedder_.forward_scratch(n), embedder_.backward_scratch(n)));
    model::Pass<T> const pass{kernels::ExecSpace(), arena, store_, {}};
    OwnedVec<T> const tape(embedder_.tape_size(n));
    OwnedMat<T> const out(n, width), d(n, width, dout);
    embedder_.forward(pass, tokens, rows, tape.span(), out.span());
    embedder_.backward(pass, tokens, rows, tape.span(), d.span());
    return out.values();
  }

  std::vector<std::vector<T>> gradients() const {
    std::vector<std::vector<T>> result;
    for (std::size_t p = 0; p < store_.all().size(); ++p) {
      result.emplace_back(static_cast<std::size_t>(store_.place(p).size()));
      store_.get_gradient(p, result.back().data());
    }
    return result;
  }
  std::string const& name(std::size_t p) const { return store_.all()[p].name; }

 private:
  model::ParameterStore<T> store_;
  model::PatchEmbedder<T> embedder_;
};

template <class T>
class PatchEmbedders : public testing::Test {};
using Precisions = testing::Types<float, double>;
TYPED_TEST_SUITE(PatchEmbedders, Precisions);

/// Rows of one long window and of three short ones, more than a piece holds and no multiple of it, against
/// the same rows in calls of one piece each.
TYPED_TEST(PatchEmbedders, PiecesOfUnequalSizeMakeOneWhole) {
  double const tolerance = std::is_same_v<TypeParam, double> ? 1e-12 : 1e-5;
  Index const width = config().hidden_dims[0];
  for (Index const windows : {1, 3}) {
    SCOPED_TRACE(windows);
    StageRows all;
    all.patches = windows == 1 ? 200 : 50;
    all.patch_bytes = patch_bytes;
    all.shape = {windows, all.patches};
    TokenBatch const batch(random_windows(static_cast<std::size_t>(windows),
                                          static_cast<std::size_t>(all.patches * patch_bytes), 19, 62),
                           static_cast<std::size_t>(all.patches * patch_bytes), 19, false);
    std::vector<StageRows> parts;
    for (Index k = 0; k < 3; ++k) {
      StageRows part = all;
      if (windows == 1) {
        part.first_position = 70 * k;
        part.shape.length = std::min<Index>(70, all.patches - part.first_position);
      } else {
        part.first_sequence = k;
        part.shape.count = 1;
      }
      parts.push_back(part);
    }
    std::vector<double> const dout =
        random_values(static_cast<std::size_t>(all.embedded_rows() * width), 63, -1, 1);

    Embedder<TypeParam> const whole, in_parts;
    std::vector<double> const wanted = whole.run(batch.tokens(), all, dout);
    std::vector<double> got;
    for (StageRows const& part : parts) {
      auto const first = dout.begin() + static_cast<std::ptrdiff_t>(got.size());
      auto const piece = in_parts.run(batch.tokens(), part,
                                      std::vector<double>(first, first + part.embedded_rows() * width));
      got.insert(got.end(), piece.begin(), piece.end());
    }
    EXPECT_LE(relative_difference(wanted, got), tolerance);
    auto const a = whole.gradients(), b = in_parts.gradients();
    for (std::size_t p = 0; p < a.size(); ++p)
      EXPECT_LE(relative_difference(a[p], b[p]), tolerance) << whole.name(p);
  }
}

}  // namespace
}  // namespace strata::test
