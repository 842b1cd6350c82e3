// SPDX-License-Identifier: Apache-2.0
#include "generate/sampling.hpp"

#include <Random123/philox.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "core/error.hpp"

namespace strata::generate {

namespace {

double uniform(std::uint64_t seed, std::uint64_t number, std::uint64_t position) {
  r123::Philox4x32::ctr_type const counter{
      {static_cast<std::uint32_t>(position), static_cast<std::uint32_t>(position >> 32),
       static_cast<std::uint32_t>(number), static_cast<std::uint32_t>(number >> 32)}};
  r123::Philox4x32::key_type const key{
      {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)}};
  auto const words = r123::Philox4x32()(counter, key);
  return (static_cast<double>((std::uint64_t(words[0]) << 21) ^ (words[1] >> 11)) + 0.5) * 0x1p-53;
}

}  // namespace

void Sampling::validate() const {
  if (!(temperature >= 0) || !std::isfinite(temperature))
    throw core::InputError("--temperature " + std::to_string(temperature) + " must be 0 or more");
  if (top_k < 0)
    throw core::InputError("--top-k " + std::to_string(top_k) + " must be 0 (all tokens) or more");
  if (!(top_p > 0 && top_p <= 1))
    throw core::InputError("--top-p " + std::to_string(top_p) + " must be above 0 and at most 1");
}

std::int32_t sample(Sampling const& settings, std::span<float const> logits, Index allowed,
                    std::uint64_t number, std::uint64_t position) {
  std::size_t const candidates = std::min(logits.size(), static_cast<std::size_t>(allowed));
  for (std::size_t v = 0; v < candidates; ++v)
    if (std::isnan(logits[v]))
      throw core::InputError("the model's prediction is not a number; its weights are damaged");
  std::vector<std::int32_t> order(candidates);
  std::iota(order.begin(), order.end(), 0);
  // Most likely first; equal ones by id, so that the order is the same everywhere.
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  if (settings.temperature == 0) return order.front();

  std::size_t kept = candidates;
  if (settings.top_k > 0) kept = std::min(kept, static_cast<std::size_t>(settings.top_k));
  double const highest = logits[static_cast<std::size_t>(order.front())];
  std::vector<double> weight(kept);
  double sum = 0;
  for (std::size_t i = 0; i < kept; ++i) {
    weight[i] = std::exp((logits[static_cast<std::size_t>(order[i])] - highest) / settings.temperature);
    sum += weight[i];
  }
  if (settings.top_p < 1) {
    double reached = 0;
    std::size_t enough = 0;
    while (enough < kept && reached < settings.top_p * sum) reached += weight[enough++];
    kept = enough;
    sum = reached;
  }
  double left = uniform(settings.seed, number, position) * sum;
  for (std::size_t i = 0; i < kept; ++i) {
    left -= weight[i];
    if (left < 0) return order[i];
  }
  return order[kept - 1];
}

}  // namespace strata::generate
