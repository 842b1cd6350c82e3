// SPDX-License-Identifier: Apache-2.0
// Kept sets of every filter, frequencies of what is drawn, and that a draw depends on nothing else.
#include "generate/sampling.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "core/error.hpp"
#include "unit_tests/support/random.hpp"

namespace strata::generate {
namespace {

using Ids = std::vector<std::int32_t>;

/// Logits whose softmax is `probabilities`.
std::vector<float> logits_of(std::vector<double> const& probabilities) {
  std::vector<float> logits;
  for (double const p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

std::vector<float> random_logits(std::size_t count, std::uint64_t seed) {
  std::vector<double> const values = test::random_values(count, seed, -4, 4);
  return {values.begin(), values.end()};
}

/// Ids kept among the first `allowed` of `logits`.
Ids kept(Sampling const& settings, std::vector<float> const& logits, Index allowed = 256) {
  Sampler sampler(settings, static_cast<Index>(logits.size()), allowed);
  std::int32_t const id = sampler.draw(logits, 3, 5);
  Ids const ids(sampler.kept().begin(), sampler.kept().end());
  EXPECT_NE(std::find(ids.begin(), ids.end(), id), ids.end());
  return ids;
}

/// The k most likely ids by a full sort, ascending.
Ids most_likely(std::vector<float> const& logits, std::size_t count, std::size_t allowed = 256) {
  Ids ids(std::min(allowed, logits.size()));
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](std::int32_t a, std::int32_t b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  ids.resize(std::min(count, ids.size()));
  std::sort(ids.begin(), ids.end());
  return ids;
}

Sampling with(void (*change)(Sampling&)) {
  Sampling settings;
  change(settings);
  return settings;
}

TEST(FilterThres, CountsAsThePackageDoes) {
  struct Case {
    double filter_thres;
    Index vocabulary, count;
  };
  for (Case const& c : {Case{1.0, 257, 1},
                        {0.99, 257, 2},
                        {0.9, 257, 25},
                        {0.5, 257, 128},
                        {0, 257, 257},
                        {0.9, 256, 25},
                        {0.95, 256, 12},
                        {1.0, 1, 1},
                        {0, 1, 1}})
    EXPECT_EQ(filter_count(c.filter_thres, c.vocabulary), c.count)
        << c.filter_thres << " of " << c.vocabulary;
}

TEST(FilterThres, KeepsTheMostLikelyOfTheVocabularysCount) {
  std::vector<float> const logits = random_logits(257, 1);
  for (double const f : {1.0, 0.99, 0.9, 0.5, 0.0}) {
    Sampling settings;
    settings.filter_thres = f;
    EXPECT_EQ(kept(settings, logits), most_likely(logits, static_cast<std::size_t>(filter_count(f, 257))))
        << f;
  }
}

TEST(Sampler, TopKKeepsTheMostLikely) {
  std::vector<float> const logits = random_logits(257, 2);
  for (Index const k : {1, 2, 17, 128, 255, 256, 257, 10000}) {
    Sampling settings;
    settings.top_k = k;
    EXPECT_EQ(kept(settings, logits), most_likely(logits, static_cast<std::size_t>(k))) << k;
  }
  EXPECT_EQ(kept({}, logits).size(), 256U);
}

TEST(Sampler, TiesGoToTheLowerId) {
  std::vector<float> const equal(257, 1.5F);
  Sampling settings;
  settings.top_k = 3;
  EXPECT_EQ(kept(settings, equal), (Ids{0, 1, 2}));
  std::vector<float> const some = {1, 2, 2, 0, 2, 1};
  EXPECT_EQ(kept(settings, some), (Ids{1, 2, 4}));
  settings.top_k = 2;
  EXPECT_EQ(kept(settings, some), (Ids{1, 2}));
  settings.top_k = 4;
  EXPECT_EQ(kept(settings, some), (Ids{0, 1, 2, 4}));
  Sampling const nucleus = with([](Sampling& s) { s.top_p = 0.26; });
  EXPECT_EQ(kept(nucleus, std::vector<float>(4, 0.0F)), (Ids{0, 1}));
  Sampling const greedy = with([](Sampling& s) { s.temperature = 0; });
  EXPECT_EQ(kept(greedy, some), (Ids{1}));
}

TEST(Sampler, TopPKeepsTheFewestThatReachIt) {
  std::vector<float> const logits = logits_of({0.1, 0.4, 0.05, 0.25, 0.2});
  Sampling settings;
  auto const at = [&](double p) {
    settings.top_p = p;
    return kept(settings, logits);
  };
  EXPECT_EQ(at(0.01), (Ids{1}));
  EXPECT_EQ(at(0.39), (Ids{1}));
  EXPECT_EQ(at(0.41), (Ids{1, 3}));
  EXPECT_EQ(at(0.66), (Ids{1, 3, 4}));
  EXPECT_EQ(at(0.86), (Ids{0, 1, 3, 4}));
  EXPECT_EQ(at(0.96), (Ids{0, 1, 2, 3, 4}));
  EXPECT_EQ(at(1), (Ids{0, 1, 2, 3, 4}));
}

TEST(Sampler, TopPAgreesWithAFullSort) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    std::vector<float> const logits = random_logits(256, 100 + seed);
    Ids order = most_likely(logits, 256);
    std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
      return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
    });
    std::vector<double> cumulative;
    double sum = 0;
    for (std::int32_t const id : order)
      cumulative.push_back(sum += std::exp(static_cast<double>(logits[static_cast<std::size_t>(id)])));
    // Half-way between two sums, so that rounding decides nothing.
    for (std::size_t const count : {1, 7, 100, 255}) {
      Sampling settings;
      settings.top_p = (cumulative[count - 1] + (count > 1 ? cumulative[count - 2] : 0)) / 2 / sum;
      EXPECT_EQ(kept(settings, logits), most_likely(logits, count)) << count;
    }
  }
}

TEST(Sampler, MinPIsAFractionOfTheMostLikely) {
  std::vector<float> const logits = logits_of({0.1, 0.4, 0.05, 0.25, 0.2});
  Sampling settings;
  auto const at = [&](double p) {
    settings.min_p = p;
    return kept(settings, logits);
  };
  EXPECT_EQ(at(0), (Ids{0, 1, 2, 3, 4}));
  EXPECT_EQ(at(0.12), (Ids{0, 1, 2, 3, 4}));
  EXPECT_EQ(at(0.13), (Ids{0, 1, 3, 4}));
  EXPECT_EQ(at(0.51), (Ids{1, 3}));
  EXPECT_EQ(at(1), (Ids{1}));
  EXPECT_EQ(kept(settings, {2, 0, 2}), (Ids{0, 2})) << "equal to the most likely";
}

TEST(Sampler, FiltersFollowOneAnother) {
  std::vector<float> const logits = logits_of({0.1, 0.4, 0.05, 0.25, 0.2});
  // Of the three most likely, 0.4 and 0.25 make up 0.76 of 0.85.
  Sampling const nucleus_of_top = with([](Sampling& s) {
    s.top_k = 3;
    s.top_p = 0.7;
  });
  EXPECT_EQ(kept(nucleus_of_top, logits), (Ids{1, 3}));
  Sampling const all = with([](Sampling& s) {
    s.top_k = 4;
    s.top_p = 0.99;
    s.min_p = 0.3;
  });
  EXPECT_EQ(kept(all, logits), (Ids{1, 3, 4}));
  // Temperature comes first: at 0.5 the ratios are squared.
  Sampling const cold = with([](Sampling& s) {
    s.temperature = 0.5;
    s.min_p = 0.3;
  });
  EXPECT_EQ(kept(cold, logits), (Ids{1, 3}));
}

TEST(Sampler, OnlyAllowedIdsTakePart) {
  std::vector<float> logits(300, 0.0F);
  logits[256] = 50;
  logits[299] = 60;
  logits[7] = 1;
  Sampling settings;
  for (double const temperature : {0.0, 0.5, 1.0}) {
    settings.temperature = temperature;
    Sampler sampler(settings, 300, 256);
    for (std::uint64_t t = 0; t < 200; ++t) EXPECT_LT(sampler.draw(logits, 0, t), 256);
  }
  EXPECT_EQ(kept(with([](Sampling& s) { s.temperature = 0; }), logits), (Ids{7}));
}

/// Pearson's statistic of n draws against softmax(logits / temperature) over the kept ids.
double chi_squared(Sampling const& settings, std::vector<float> const& logits, Ids const& ids,
                   double temperature) {
  constexpr int n = 20000;
  Sampler sampler(settings, static_cast<Index>(logits.size()), 256);
  std::vector<double> expected(logits.size(), 0.0), seen(logits.size(), 0.0);
  double sum = 0;
  for (std::int32_t const id : ids) {
    auto const i = static_cast<std::size_t>(id);
    sum += expected[i] = std::exp(static_cast<double>(logits[i]) / temperature);
  }
  for (int t = 0; t < n; ++t)
    seen[static_cast<std::size_t>(sampler.draw(logits, 11, static_cast<std::uint64_t>(t)))] += 1;
  double total = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    double const e = expected[i] / sum * n;
    if (e == 0) {
      EXPECT_EQ(seen[i], 0) << i;
    } else {
      total += (seen[i] - e) * (seen[i] - e) / e;
    }
  }
  return total;
}

TEST(Sampler, FrequenciesAreThoseOfTheSoftmax) {
  std::vector<float> const logits = {0.5F, -1, 2, 0, 1.5F, 1, -0.5F, 0.25F};
  Sampling settings;
  Ids const all = {0, 1, 2, 3, 4, 5, 6, 7};
  // 99.9 % quantiles: 24.3 for 7 degrees of freedom, 13.8 for 2.
  for (double const temperature : {0.5, 1.0, 3.0}) {
    settings.temperature = temperature;
    EXPECT_LT(chi_squared(settings, logits, all, temperature), 24.3) << temperature;
  }
  EXPECT_GT(chi_squared(settings, logits, all, 2.7), 24.3) << "the statistic sees a wrong temperature";
  settings.temperature = 1;
  settings.top_k = 3;
  EXPECT_LT(chi_squared(settings, logits, {2, 4, 5}, 1), 13.8);
}

TEST(Sampler, DrawsAreAFunctionOfSeedNumberAndPosition) {
  std::vector<float> const logits = random_logits(256, 3);
  Sampling settings;
  auto const sequence = [&](std::uint64_t number) {
    Sampler sampler(settings, 256, 256);
    Ids ids;
    for (std::uint64_t t = 0; t < 50; ++t) ids.push_back(sampler.draw(logits, number, t));
    return ids;
  };
  Ids const first = sequence(0);
  EXPECT_EQ(sequence(0), first);
  EXPECT_NE(sequence(1), first);
  Sampler sampler(settings, 256, 256);
  for (std::uint64_t t = 50; t-- > 0;) EXPECT_EQ(sampler.draw(logits, 0, t), first[t]) << "in any order";
  settings.top_k = 256;
  settings.top_p = 1;
  settings.filter_thres.reset();
  EXPECT_EQ(sequence(0), first) << "a filter that keeps everything changes nothing";
  settings.top_k = 0;
  settings.filter_thres = 0.0;
  EXPECT_EQ(sequence(0), first);
  settings.seed = 2;
  EXPECT_NE(sequence(0), first);
}

TEST(Sampler, ExtremeTemperatures) {
  std::vector<float> const logits = {-30, 80, 79, 80};
  Sampling settings;
  settings.temperature = 1e-300;
  Sampler cold(settings, 4, 256);
  for (std::uint64_t t = 0; t < 20; ++t) EXPECT_EQ(cold.draw(logits, 0, t) % 2, 1);
  settings.temperature = 1e300;
  EXPECT_LT(chi_squared(settings, logits, {0, 1, 2, 3}, 1e300), 16.3);
}

TEST(Sampler, RefusesDamagedLogits) {
  for (float const bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    Sampler sampler({}, 3, 256);
    EXPECT_THROW(sampler.draw(std::vector<float>{0, bad, 1}, 0, 0), core::InputError);
  }
}

TEST(LogProbability, IsThatOfTheWholeSoftmax) {
  std::vector<float> const logits = logits_of({0.1, 0.4, 0.05, 0.25, 0.2});
  EXPECT_NEAR(log_probability(logits, 1), std::log(0.4), 1e-6);
  EXPECT_NEAR(log_probability(logits, 2), std::log(0.05), 1e-6);
  std::vector<float> const high = {500, 500};
  EXPECT_NEAR(log_probability(high, 0), -std::log(2.0), 1e-15);
  std::vector<float> const far{1, 2, 3, 1000};
  EXPECT_EQ(log_probability(far, 3), 0);
  EXPECT_EQ(log_probability(far, 0), -999);
  EXPECT_NEAR(log_probability(std::span(far).first(3), 1), -std::log(std::exp(-1.0) + 1 + std::exp(1.0)),
              1e-15);
  double sum = 0;
  std::vector<float> const many = random_logits(257, 4);
  for (std::int32_t id = 0; id < 257; ++id) sum += std::exp(log_probability(many, id));
  EXPECT_NEAR(sum, 1, 1e-12);
}

TEST(Sampling, RefusalsNameTheOption) {
  struct Case {
    void (*change)(Sampling&);
    char const* option;
  };
  for (Case const& c : {Case{[](Sampling& s) { s.temperature = -0.1; }, "--temperature -0.1"},
                        {[](Sampling& s) { s.temperature = std::nan(""); }, "--temperature nan"},
                        {[](Sampling& s) { s.top_k = -1; }, "--top-k -1"},
                        {[](Sampling& s) { s.top_p = 0; }, "--top-p 0"},
                        {[](Sampling& s) { s.top_p = 1.5; }, "--top-p 1.5"},
                        {[](Sampling& s) { s.min_p = -1; }, "--min-p -1"},
                        {[](Sampling& s) { s.min_p = 1.01; }, "--min-p 1.01"},
                        {[](Sampling& s) { s.filter_thres = 1.1; }, "--filter-thres 1.1"},
                        {[](Sampling& s) { s.filter_thres = -0.1; }, "--filter-thres -0.1"},
                        {[](Sampling& s) {
                           s.filter_thres = 0.5;
                           s.top_k = 3;
                         },
                         "--filter-thres and --top-k"}}) {
    try {
      with(c.change).validate();
      ADD_FAILURE() << c.option << " was accepted";
    } catch (core::InputError const& error) {
      EXPECT_NE(std::string(error.what()).find(c.option), std::string::npos) << error.what();
    }
  }
  Sampling().validate();
}

}  // namespace
}  // namespace strata::generate
