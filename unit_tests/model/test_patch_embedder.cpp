// SPDX-License-Identifier: Apache-2.0
// Sub-patches of thousands of bytes are embedded a piece of the rows at a time; nobody shall notice.
#include "model/patch_embedder.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "unit_tests/model/small_model.hpp"
#include "unit_tests/support/owned.hpp"
#include "unit_tests/support/token_batch.hpp"

namespace strata::test {
namespace {

using kernels::StageRows;

constexpr Index patch_bytes = 64 * 64;

ModelConfig config(bool convolutions) {
  ModelConfig const linear = small_config(Head::complete, {200, 64, 64}, Position::none, 20, 19);
  return convolutions ? with_convolutions(linear) : linear;
}

/// An embedder of its own, with the gradients that it leaves behind.
template <class T>
class Embedder {
 public:
  explicit Embedder(ModelConfig const& config)
      : width_(config.hidden_dims[0]), embedder_(config, 0, model::Ready::at_end, store_) {
    store_.allocate(true);
    randomise(store_, 61);
  }

  /// Forward of the rows and backward from `dout`; the embedded rows. Adds to the gradients.
  std::vector<double> run(kernels::Tokens const& tokens, StageRows const& rows,
                          std::vector<double> const& dout) const {
    Index const n = rows.embedded_rows();
    core::Arena arena(std::max(embedder_.forward_scratch(rows), embedder_.backward_scratch(rows)));
    model::Pass<T> const pass{kernels::ExecSpace(), arena, store_, {}};
    OwnedVec<T> const tape(embedder_.tape_size(n));
    OwnedMat<T> const out(n, width_), d(n, width_, dout);
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
  Index width_;
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
  for (auto const& [windows, convolutions] : {std::pair<Index, bool>{1, false}, {3, false}, {1, true}}) {
    SCOPED_TRACE(testing::Message() << windows << (convolutions ? " windows, convolutions" : " windows"));
    ModelConfig const model = config(convolutions);
    Index const width = model.hidden_dims[0];
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

    Embedder<TypeParam> const whole(model), in_parts(model);
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

/// The convolutions over a whole window at once, in double and byte by byte, then concatenation and the two
/// norms, against the embedder's rows of patches with their history.
TYPED_TEST(PatchEmbedders, ConvolveLikeALoopOverTheWindow) {
  double const tolerance = std::is_same_v<TypeParam, double> ? 1e-12 : 1e-5;
  ModelConfig const model = with_convolutions(small_config(Head::complete, {6, 4}, Position::none, 20, 19));
  Index const patch = 4, patches = 6, length = patch * patches, before = 40;
  Index const width = model.hidden_dims[0], local = model.hidden_dims[1];
  model::ParameterStore<TypeParam> store;
  model::PatchEmbedder<TypeParam> const embedder(model, 0, model::Ready::at_end, store);
  store.allocate(true);
  randomise(store, 65);
  auto const value = [&](char const* name) {
    std::size_t const p = store.find(std::string("token_embs_rev.1.") + name);
    std::vector<TypeParam> values(static_cast<std::size_t>(store.place(p).size()));
    store.get(p, values.data());
    return std::vector<double>(values.begin(), values.end());
  };
  auto const windows = random_windows(3, static_cast<std::size_t>(length), 19, 66);
  TokenBatch const batch(windows, static_cast<std::size_t>(length), 19, false);

  auto const table = value("0.weight");
  std::vector<double> wanted;
  for (std::vector<int> const& window : windows) {
    // As many pads before the window as the infinitely many that are meant.
    std::vector<std::vector<double>> h(static_cast<std::size_t>(before + length));
    for (Index t = -before; t < length; ++t) {
      bool const inside = t >= 0 && t < static_cast<Index>(window.size());
      auto const row = table.begin() + (inside ? window[static_cast<std::size_t>(t)] : 19) * local;
      h[static_cast<std::size_t>(before + t)].assign(row, row + local);
    }
    for (std::size_t layer = 0; layer < 3; ++layer) {
      std::size_t const inputs = 3 + 2 * layer;
      auto const weight = value(("convolutions." + std::to_string(layer) + ".weight").c_str());
      auto const bias = value(("convolutions." + std::to_string(layer) + ".bias").c_str());
      auto next = h;
      for (std::size_t t = inputs; t < h.size(); ++t)
        for (std::size_t c = 0; c < static_cast<std::size_t>(local); ++c) {
          double sum = bias[c];
          for (std::size_t w = 0; w < inputs; ++w) sum += weight[c * inputs + w] * h[t + 1 + w - inputs][c];
          next[t][c] += sum / (1 + std::exp(-sum));
        }
      h = next;
    }
    auto const normed = [](std::vector<double> x, std::vector<double> const& gain,
                           std::vector<double> const& bias) {
      double mean = 0, square = 0;
      for (double const v : x) mean += v / static_cast<double>(x.size());
      for (double const v : x) square += (v - mean) * (v - mean) / static_cast<double>(x.size());
      for (std::size_t i = 0; i < x.size(); ++i)
        x[i] = (x[i] - mean) / std::sqrt(square + 1e-5) * gain[i] + bias[i];
      return x;
    };
    auto const weight = value("3.weight");
    for (Index e = 0; e + 1 < patches; ++e) {
      std::vector<double> row;
      for (Index t = before + e * patch; t < before + (e + 1) * patch; ++t)
        row.insert(row.end(), h[static_cast<std::size_t>(t)].begin(), h[static_cast<std::size_t>(t)].end());
      row = normed(row, value("2.weight"), value("2.bias"));
      std::vector<double> z = value("3.bias");
      for (std::size_t d = 0; d < z.size(); ++d)
        for (std::size_t i = 0; i < row.size(); ++i) z[d] += weight[d * row.size() + i] * row[i];
      z = normed(z, value("4.weight"), value("4.bias"));
      wanted.insert(wanted.end(), z.begin(), z.end());
    }
  }

  StageRows all;
  all.patches = patches;
  all.patch_bytes = patch;
  all.shape = {3, patches};
  Index const n = all.embedded_rows();
  core::Arena arena(embedder.forward_scratch(all));
  model::Pass<TypeParam> const pass{kernels::ExecSpace(), arena, store, {}};
  OwnedVec<TypeParam> const tape(embedder.tape_size(n));
  OwnedMat<TypeParam> const out(n, width);
  embedder.forward(pass, batch.tokens(), all, tape.span(), out.span());
  EXPECT_LE(relative_difference(wanted, out.values()), tolerance);
}

}  // namespace
}  // namespace strata::test
