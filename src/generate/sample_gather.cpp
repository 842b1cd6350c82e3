// SPDX-License-Identifier: Apache-2.0
#include "generate/sample_gather.hpp"

#include <algorithm>
#include <cstring>
#include <string>

namespace strata::generate {

namespace {

template <class V>
void put(std::string& out, V const* values, std::size_t count) {
  out.append(reinterpret_cast<char const*>(values), count * sizeof(V));
}

template <class V>
std::size_t take(std::string const& in, std::size_t at, V* values, std::size_t count) {
  if (count > 0) std::memcpy(values, in.data() + at, count * sizeof(V));
  return at + count * sizeof(V);
}

/// number, end, how many bytes and log-probabilities.
using Head = std::array<Index, 4>;

}  // namespace

Index first_sample(Index total, int rank, int ranks) { return (total * rank + ranks - 1) / ranks; }

std::vector<Sample> gather(parallel::Communicator const& ranks, std::vector<Sample> const& mine) {
  std::string packed;
  for (Sample const& sample : mine) {
    Head const head = {sample.number, static_cast<Index>(sample.end), static_cast<Index>(sample.bytes.size()),
                       static_cast<Index>(sample.log_probabilities.size())};
    put(packed, head.data(), head.size());
    put(packed, sample.bytes.data(), sample.bytes.size());
    put(packed, sample.log_probabilities.data(), sample.log_probabilities.size());
  }
  std::vector<Sample> all;
  for (std::string const& part : ranks.gather(packed)) {
    for (std::size_t at = 0; at < part.size();) {
      Head head = {};
      at = take(part, at, head.data(), head.size());
      Sample sample;
      sample.number = head[0];
      sample.end = static_cast<End>(head[1]);
      sample.bytes.resize(static_cast<std::size_t>(head[2]));
      sample.log_probabilities.resize(static_cast<std::size_t>(head[3]));
      at = take(part, at, sample.bytes.data(), sample.bytes.size());
      at = take(part, at, sample.log_probabilities.data(), sample.log_probabilities.size());
      all.push_back(std::move(sample));
    }
  }
  std::sort(all.begin(), all.end(), [](Sample const& a, Sample const& b) { return a.number < b.number; });
  return all;
}

}  // namespace strata::generate
