// SPDX-License-Identifier: Apache-2.0
#pragma once
// Random numbers for tests: the same on every machine and compiler, unlike std::uniform_real_distribution.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace strata::test {

/// SplitMix64 (Steele, Lea, Flood 2014).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15U);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
  }
  double uniform(double low, double high) {
    return low + (high - low) * static_cast<double>(next() >> 11) * 0x1p-53;
  }

 private:
  std::uint64_t state_;
};

/// n numbers uniform in [low, high).
inline std::vector<double> random_values(std::size_t n, std::uint64_t seed, double low = -1,
                                         double high = 1) {
  Random random(seed);
  std::vector<double> values(n);
  for (double& value : values) value = random.uniform(low, high);
  return values;
}

}  // namespace strata::test
