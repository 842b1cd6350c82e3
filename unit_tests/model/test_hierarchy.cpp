// SPDX-License-Identifier: Apache-2.0
// Gradients of whole models against differences of the loss, and batches of windows of different lengths.
#include <gtest/gtest.h>

#include <cmath>

#include "unit_tests/model/small_model.hpp"

namespace strata::test {
namespace {

struct GradientCase {
  char const* what;
  ModelConfig config;
  Windows windows;
  std::optional<std::uint64_t> dropout_seed;
};

std::vector<GradientCase> gradient_cases() {
  Head const complete = Head::complete, reference = Head::reference;
  std::vector<GradientCase> cases{
      {"two stages, fixed, partial last patch",
       small_config(complete, {4, 3}, Position::fixed, 257, 256),
       Windows({11, 12, 7}, 256, 1),
       {}},
      {"two stages, reference, fixed, partial last patch",
       small_config(reference, {4, 3}, Position::fixed, 257, 256),
       Windows({11, 12, 7}, 256, 2),
       {}},
      {"two stages, rope, weights",
       small_config(complete, {5, 4}, Position::rope, 257, 256),
       Windows({20, 18, 1}, 256, 3, true),
       {}},
      {"two stages, reference, rope, weights",
       small_config(reference, {5, 4}, Position::rope, 257, 256),
       Windows({20, 18, 1}, 256, 4, true),
       {}},
      {"two stages, no positions, pad 0 among 256",
       small_config(complete, {4, 3}, Position::none, 256, 0),
       Windows({10, 10, 10}, 256, 5),
       {}},
      {"three stages, pad 9 among 20",
       small_config(complete, {3, 2, 3}, Position::fixed, 20, 9),
       Windows({17, 18, 4}, 20, 6, true),
       {}},
      {"three stages, reference, pad 9 among 20",
       small_config(reference, {3, 2, 3}, Position::rope, 20, 9),
       Windows({17, 18, 4}, 20, 7),
       {}},
      {"one stage", small_config(complete, {9}, Position::fixed, 20, 19), Windows({9, 5, 8}, 20, 8), {}},
      {"two stages, dropout", small_config(complete, {4, 3}, Position::none, 20, 19, 0.3),
       Windows({11, 12, 7}, 20, 9), 77},
      {"three stages, reference, dropout", small_config(reference, {3, 2, 3}, Position::none, 20, 19, 0.3),
       Windows({18, 13, 7}, 20, 10), 78}};
  // A bidirectional stage above a causal one, as the package's encoder has.
  cases.push_back({"encoder above",
                   small_config(reference, {3, 4}, Position::fixed, 20, 19),
                   Windows({12, 9, 11}, 20, 11),
                   {}});
  cases.back().config.block[0].block_type = model::BlockType::transformer_encoder;
  cases.push_back({"two stages, cross-patch attention",
                   with_cross_patch(small_config(complete, {6, 3}, Position::fixed, 20, 19), {0, 2}),
                   Windows({17, 18, 7}, 20, 15),
                   {}});
  cases.push_back({"two stages, cross-patch attention, rotary positions, dropout",
                   with_cross_patch(small_config(complete, {6, 3}, Position::none, 20, 19, 0.3), {0, 3}),
                   Windows({17, 18, 7}, 20, 16), 80});
  cases.back().config.block[1].attn_use_rot_embs = true;
  cases.push_back({"three stages, cross-patch attention",
                   with_cross_patch(small_config(complete, {3, 2, 3}, Position::rope, 20, 19), {0, 1, 2}, 3),
                   Windows({17, 18, 4}, 20, 17, true),
                   {}});
  cases.push_back(
      {"2TT, cross-patch attention in the middle",
       with_cross_patch(with_blocks(small_config(complete, {3, 2, 3}, Position::none, 20, 19), "2TT"),
                        {0, 2, 0}),
       Windows({17, 18, 4}, 20, 18),
       {}});
  for (char const* const letters : {"2T", "1T", "12", "T2", "21"})
    cases.push_back({letters,
                     with_blocks(small_config(complete, {4, 3}, Position::none, 20, 19), letters),
                     Windows({11, 12, 7}, 20, 12),
                     {}});
  cases.push_back({"2T1, reference",
                   with_blocks(small_config(reference, {3, 2, 3}, Position::fixed, 20, 19), "2T1"),
                   Windows({17, 18, 4}, 20, 13),
                   {}});
  cases.push_back({"two stages, convolutions",
                   with_convolutions(small_config(complete, {5, 4}, Position::fixed, 20, 19)),
                   Windows({17, 20, 7}, 20, 15),
                   {}});
  cases.push_back({"three stages, reference, convolutions",
                   with_convolutions(small_config(reference, {3, 2, 3}, Position::rope, 20, 9)),
                   Windows({17, 18, 4}, 20, 16, true),
                   {}});
  cases.push_back({"22, dropout",
                   with_blocks(small_config(complete, {4, 3}, Position::none, 20, 19, 0.3), "22"),
                   Windows({11, 12, 7}, 20, 14), 79});
  return cases;
}

/// Each parameter tensor is moved along a random direction of length 1; the slope of the loss there comes
/// from four points.
TEST(HierarchyGradient, AgreesWithDifferencesOfTheLoss) {
  for (GradientCase const& c : gradient_cases()) {
    SCOPED_TRACE(c.what);
    Trial<double> trial(c.config, c.windows);
    model::ParameterStore<double>& store = trial.model().parameters();
    Outcome<double> const outcome = trial.step(c.dropout_seed);
    EXPECT_GT(outcome.bytes, 5);
    EXPECT_NEAR(outcome.nats, trial.loss(c.dropout_seed), 1e-12 * outcome.nats);
    for (std::size_t p = 0; p < store.all().size(); ++p) {
      model::ParameterInfo const& info = store.all()[p];
      SCOPED_TRACE(info.name);
      std::vector<double> const& gradient = outcome.gradients[p];
      std::vector<double> direction = random_values(gradient.size(), 100 + p);
      if (Index const row = info.initial.zero_row; row >= 0) {
        // The pad token's row counts as constant.
        for (Index i = row * info.place.columns; i < (row + 1) * info.place.columns; ++i) {
          EXPECT_EQ(gradient[static_cast<std::size_t>(i)], 0);
          direction[static_cast<std::size_t>(i)] = 0;
        }
      }
      double length = 0, slope = 0, size = 0;
      for (double const d : direction) length += d * d;
      for (std::size_t i = 0; i < gradient.size(); ++i) {
        direction[i] /= std::sqrt(length);
        slope += gradient[i] * direction[i];
        size += std::abs(gradient[i] * direction[i]);
      }
      std::vector<double> values(gradient.size());
      store.get(p, values.data());
      double const h = 2e-3;
      auto const loss_at = [&](double t) {
        std::vector<double> moved(values);
        for (std::size_t i = 0; i < moved.size(); ++i) moved[i] += t * direction[i];
        store.set(p, moved.data());
        return trial.loss(c.dropout_seed);
      };
      double const differences =
          (8 * (loss_at(h) - loss_at(-h)) - (loss_at(2 * h) - loss_at(-2 * h))) / (12 * h);
      store.set(p, values.data());
      // Below the first bound, what the differences themselves lose: rounding of the loss sum over h.
      EXPECT_LE(std::abs(differences - slope), 1e-8 * size + 1e-14 * outcome.nats / h);
      EXPECT_GT(size, 1e-6) << "vacuous";
    }
  }
}

TEST(HierarchyGradient, IsAddedAndScaled) {
  Trial<double> trial(small_config(Head::complete, {4, 3}, Position::fixed, 20, 19),
                      Windows({11, 12}, 20, 12));
  Outcome<double> const one = trial.step();
  Outcome<double> const half = trial.step({}, 0.5);
  for (std::size_t p = 0; p < one.gradients.size(); ++p) {
    std::vector<double> doubled = half.gradients[p];
    for (double& g : doubled) g *= 2;
    EXPECT_LE(relative_difference(one.gradients[p], doubled), 1e-13)
        << trial.model().parameters().all()[p].name;
  }
  EXPECT_EQ(half.nats, one.nats);
  Kokkos::View<double*, kernels::MemSpace> const totals("totals", 2);
  trial.model().forward_backward(trial.batch(), 0.5, kernels::Vec<double>(totals.data(), 2));
  for (std::size_t p = 0; p < one.gradients.size(); ++p) {
    std::vector<double> added(one.gradients[p].size());
    trial.model().parameters().get_gradient(p, added.data());
    EXPECT_LE(relative_difference(one.gradients[p], added), 1e-13)
        << trial.model().parameters().all()[p].name;
  }
}

/// Windows of several lengths give what each gives alone, padded as in the batch or as little as possible.
TEST(HierarchyBatch, WindowsDoNotTouchEachOther) {
  for (Head const head : {Head::complete, Head::reference}) {
    ModelConfig const config = small_config(head, {4, 2, 3}, Position::fixed, 257, 256);
    Windows const all({24, 17, 5, 1}, 256, 13, true);
    Trial<double> together(config, all);
    Outcome<double> const sum = together.step();
    std::vector<double> const losses = together.byte_losses();
    for (bool const short_padding : {false, true}) {
      double nats = 0, bytes = 0;
      std::vector<std::vector<double>> gradients;
      for (std::size_t b = 0; b < all.lengths.size(); ++b) {
        Windows one = all;
        one.lengths = {all.lengths[b]};
        one.ids.erase(one.ids.begin(), one.ids.begin() + static_cast<Index>(b) * all.stride);
        one.weights.erase(one.weights.begin(), one.weights.begin() + static_cast<Index>(b) * all.stride);
        one.ids.resize(static_cast<std::size_t>(all.stride));
        one.weights.resize(static_cast<std::size_t>(all.stride));
        Index const padded = short_padding ? (one.lengths[0] + 5) / 6 * 6 : 24;
        Trial<double> alone(config, one, {}, padded);
        Outcome<double> const part = alone.step();
        nats += part.nats;
        bytes += part.bytes;
        if (b == 0) gradients = part.gradients;
        for (std::size_t p = 0; b > 0 && p < gradients.size(); ++p)
          for (std::size_t i = 0; i < gradients[p].size(); ++i) gradients[p][i] += part.gradients[p][i];
        std::vector<double> const alone_losses = alone.byte_losses();
        for (Index t = 0; t < 24; ++t) {
          double const wanted = t < padded ? alone_losses[static_cast<std::size_t>(t)] : -1;
          EXPECT_NEAR(losses[b * 24 + static_cast<std::size_t>(t)], wanted, 1e-12 * std::max(1.0, wanted))
              << "window " << b << " byte " << t;
          EXPECT_EQ(wanted < 0,
                    t >= all.lengths[b] || all.weights[b * 24 + static_cast<std::size_t>(t)] == 0);
        }
      }
      EXPECT_NEAR(nats, sum.nats, 1e-12 * nats);
      EXPECT_EQ(bytes, sum.bytes);
      for (std::size_t p = 0; p < gradients.size(); ++p)
        EXPECT_LE(relative_difference(sum.gradients[p], gradients[p]), 1e-12)
            << together.model().parameters().all()[p].name;
    }
  }
}

}  // namespace
}  // namespace strata::test
