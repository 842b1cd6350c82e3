// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <nlohmann/json.hpp>

#include "train/metrics.hpp"
#include "unit_tests/io/temp_folder.hpp"

namespace strata::train {
namespace {

MetricsRecord record(Index step, double loss) {
  MetricsRecord r;
  r.step = step;
  r.split = "train";
  r.loss = loss;
  r.elapsed = static_cast<double>(step);
  return r;
}

std::vector<nlohmann::json> lines(std::string const& path) {
  std::vector<nlohmann::json> result;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) result.push_back(nlohmann::json::parse(line));
  return result;
}

TEST(Metrics, EveryKeyIsThereAndLossesKeepTheirBits) {
  double const loss = std::nextafter(1.2345678901234567, 2.0);
  auto const json = nlohmann::json::parse(to_json(record(3, loss)));
  for (char const* key :
       {"step", "split", "loss", "bits_per_byte", "learning_rate", "gradient_norm", "bytes_seen",
        "bytes_per_second", "step_seconds", "optimizer_seconds", "communication_exposed_seconds",
        "communication_hidden_seconds", "gemm_fraction", "epoch", "elapsed_seconds", "peak_memory"})
    EXPECT_TRUE(json.contains(key)) << key;
  EXPECT_EQ(json["loss"].get<double>(), loss);
  EXPECT_DOUBLE_EQ(json["bits_per_byte"].get<double>(), loss / std::log(2.0));
}

TEST(Metrics, ResumingDropsLaterAndBrokenLines) {
  test::TempFolder const folder;
  std::string const path = folder / "metrics.jsonl";
  {
    MetricsFile file(path, 0);
    for (Index step = 1; step <= 5; ++step) EXPECT_TRUE(file.write(record(step, 1.0)));
  }
  std::ofstream(path, std::ios::app) << R"({"step":6,"split":"tr)";
  {
    MetricsFile file(path, 3);
    EXPECT_EQ(file.elapsed(), 3);
    EXPECT_TRUE(file.write(record(4, 2.0)));
  }
  auto const result = lines(path);
  ASSERT_EQ(result.size(), 4U);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(result[i]["step"], i + 1);
  EXPECT_EQ(result[3]["loss"], 2.0);
}

TEST(Metrics, KeepsLinesThatDoNotFitAndWritesThemLater) {
  test::TempFolder const folder;
  std::string const path = folder / "metrics.jsonl";
  MetricsFile file(path, 0);
  ASSERT_TRUE(file.write(record(1, 1.0)));
  auto const one = static_cast<rlim_t>(std::filesystem::file_size(path));
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit const tight{one + one / 2, before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &tight);
  bool const fits = file.write(record(2, 1.0));
  auto const size = static_cast<rlim_t>(std::filesystem::file_size(path));
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_FALSE(fits);
  EXPECT_EQ(size, one);
  EXPECT_TRUE(file.write(record(3, 1.0)));
  EXPECT_EQ(lines(path).size(), 3U);
}

}  // namespace
}  // namespace strata::train
