// SPDX-License-Identifier: Apache-2.0
#include "generate/sampling.hpp"

#include <Random123/philox.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.hpp"
#include "kernels/common/check.hpp"

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

/// Most likely first, equal ones by id: a total order, so that every filter keeps the same ids everywhere.
struct MoreLikely {
  std::span<float const> logits;
  bool operator()(std::int32_t a, std::int32_t b) const {
    float const x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
    return x > y || (x == y && a < b);
  }
};

/// Leaves those of `ids`, in their order, that are not after `last`.
void keep_up_to(std::vector<std::int32_t>& ids, std::int32_t last, MoreLikely const& before) {
  std::erase_if(ids, [&](std::int32_t id) { return before(last, id); });
}

}  // namespace

void Sampling::validate() const {
  if (!(temperature >= 0) || !std::isfinite(temperature))
    throw core::InputError(fmt::format("--temperature {} must be a number of 0 or more", temperature));
  if (top_k < 0) throw core::InputError(fmt::format("--top-k {} must be 0 (all bytes) or more", top_k));
  if (filter_thres && !(*filter_thres >= 0 && *filter_thres <= 1))
    throw core::InputError(fmt::format("--filter-thres {} must be from 0 to 1", *filter_thres));
  if (filter_thres && top_k > 0)
    throw core::InputError("--filter-thres and --top-k both say how many bytes to choose among; give one");
  if (!(top_p > 0 && top_p <= 1))
    throw core::InputError(fmt::format("--top-p {} must be above 0 and at most 1", top_p));
  if (!(min_p >= 0 && min_p <= 1))
    throw core::InputError(fmt::format("--min-p {} must be from 0 to 1", min_p));
}

Index filter_count(double filter_thres, Index vocabulary) {
  return std::max<Index>(static_cast<Index>((1 - filter_thres) * static_cast<double>(vocabulary)), 1);
}

double log_probability(std::span<float const> logits, std::int32_t token) {
  double const highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float const logit : logits) sum += std::exp(static_cast<double>(logit) - highest);
  return static_cast<double>(logits[static_cast<std::size_t>(token)]) - highest - std::log(sum);
}

Sampler::Sampler(Sampling const& settings, Index vocabulary, Index allowed)
    : settings_(settings),
      allowed_(static_cast<std::size_t>(std::min(allowed, vocabulary))),
      most_kept_(allowed_),
      weight_(allowed_) {
  settings.validate();
  Index count = settings.top_k;
  if (settings.filter_thres) count = filter_count(*settings.filter_thres, vocabulary);
  if (count > 0) most_kept_ = std::min(allowed_, static_cast<std::size_t>(count));
  kept_.reserve(allowed_);
  order_.reserve(allowed_);
}

std::int32_t Sampler::draw(std::span<float const> logits, std::uint64_t number, std::uint64_t position) {
  STRATA_REQUIRE(logits.size() >= allowed_, logits.size() << " logits for " << allowed_ << " tokens");
  std::size_t best = 0;
  bool finite = true;
  for (std::size_t v = 0; v < allowed_; ++v) {
    finite = finite && std::isfinite(logits[v]);
    if (logits[v] > logits[best]) best = v;
  }
  if (!finite)
    throw core::InputError("the model's prediction is not a finite number; its weights are damaged");
  kept_.assign(1, static_cast<std::int32_t>(best));
  if (settings_.temperature == 0 || most_kept_ == 1) return kept_.front();

  double const highest = logits[best];
  for (std::size_t v = 0; v < allowed_; ++v)
    weight_[v] = std::exp((static_cast<double>(logits[v]) - highest) / settings_.temperature);
  kept_.resize(allowed_);
  std::iota(kept_.begin(), kept_.end(), 0);
  if (most_kept_ < allowed_) keep_most_likely(logits, most_kept_);
  if (settings_.top_p < 1) keep_mass(logits);
  auto const weight = [&](std::int32_t id) { return weight_[static_cast<std::size_t>(id)]; };
  if (settings_.min_p > 0)
    std::erase_if(kept_, [&](std::int32_t id) { return weight(id) < settings_.min_p; });

  double sum = 0;
  for (std::int32_t const id : kept_) sum += weight(id);
  double left = uniform(settings_.seed, number, position) * sum;
  for (std::int32_t const id : kept_) {
    left -= weight(id);
    if (left < 0) return id;
  }
  return static_cast<std::int32_t>(best);  // the sum was rounded up
}

void Sampler::keep_most_likely(std::span<float const> logits, std::size_t count) {
  MoreLikely const before{logits};
  order_.assign(kept_.begin(), kept_.end());
  auto const last = order_.begin() + static_cast<std::ptrdiff_t>(count - 1);
  std::nth_element(order_.begin(), last, order_.end(), before);
  keep_up_to(kept_, *last, before);
}

/// top_p, from a heap: only the tokens that are kept are put in order.
void Sampler::keep_mass(std::span<float const> logits) {
  MoreLikely const before{logits};
  auto const less_likely = [&](std::int32_t a, std::int32_t b) { return before(b, a); };
  order_.assign(kept_.begin(), kept_.end());
  double sum = 0;
  for (std::int32_t const id : order_) sum += weight_[static_cast<std::size_t>(id)];
  std::make_heap(order_.begin(), order_.end(), less_likely);
  std::int32_t last = order_.front();
  double reached = 0;
  while (!order_.empty() && reached < settings_.top_p * sum) {
    std::pop_heap(order_.begin(), order_.end(), less_likely);
    last = order_.back();
    order_.pop_back();
    reached += weight_[static_cast<std::size_t>(last)];
  }
  keep_up_to(kept_, last, before);
}

}  // namespace strata::generate
