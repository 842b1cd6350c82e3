// SPDX-License-Identifier: Apache-2.0
// What --profile says of a run, on one rank and on two, and what it must not change.

#include "train/profile.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>

#include "train/evaluation.hpp"
#include "unit_tests/model/small_model.hpp"
#include "unit_tests/train/tiny_run.hpp"

namespace strata::train {
namespace {

using test::tiny_deck;

Machine const limits{1e11, 1e10};

double sum(std::vector<ProfileRow> const& rows) {
  double seconds = 0;
  for (ProfileRow const& row : rows) seconds += row.seconds;
  return seconds;
}

/// A step and an evaluation of a small model with blocks by letter.
Profile profile_of(std::string const& letters, model::Chunking const& chunking, double& formula) {
  std::vector<Index> const lens =
      letters.size() == 2 ? std::vector<Index>{4, 3} : std::vector<Index>{4, 3, 2};
  auto const config = test::with_blocks(
      test::small_config(model::Head::complete, lens, model::Position::none, 257, 256, 0.1), letters);
  Index const window = letters.size() == 2 ? 12 : 24;
  test::Trial<float> trial(config, test::Windows({window, window - 2}, 257, 3), chunking);
  formula = 3 * trial.model().forward_flops(2, trial.padded());
  trial.step(5);  // takes memory
  core::Profiler profiler;
  trial.step(5);
  profiler.stop();
  return summarise(profiler, limits);
}

TEST(Profile, CountsTheOperationsOfTheModelsFormula) {
  for (std::string const letters : {"TT", "TTT", "1T", "2T", "T1T"}) {
    double formula = 0;
    Profile const profile = profile_of(letters, {}, formula);
    EXPECT_NEAR(profile.model_flops, formula, 1e-9 * formula) << letters;
  }
}

TEST(Profile, RebuiltTapesAreTimedButNotUseful) {
  model::Chunking chunking;
  chunking.outer_positions = 1;
  chunking.outer_tapes = model::OuterTapes::rebuild;
  double formula = 0;
  Profile const profile = profile_of("TT", chunking, formula);
  EXPECT_NEAR(profile.model_flops, formula, 1e-9 * formula);
  double all = 0;
  for (ProfileRow const& row : profile.kernels) all += row.cost.model_flops;
  EXPECT_GT(all, 1.05 * formula);
}

TEST(Profile, ListsDivideTheTime) {
  double formula = 0;
  Profile const profile = profile_of("TTT", {}, formula);
  EXPECT_NEAR(sum(profile.sections), profile.seconds, 1e-9);
  EXPECT_NEAR(sum(profile.parts), profile.seconds, 1e-9);
  EXPECT_NEAR(sum(profile.kernels), profile.parts[0].seconds, 1e-9);
  EXPECT_NEAR(sum(profile.mpi), profile.parts[1].seconds, 1e-9);
  std::set<std::string> names;
  for (ProfileRow const& row : profile.sections) names.insert(row.name);
  for (ProfileRow const& row : profile.layers) names.insert(row.name);
  for (char const* name : {"stage 1 forward", "stage 1 backward", "stage 1 rebuild", "stage 3 backward",
                           "loss", "stage 1 forward, layer 2", "stage 2 backward, layer 1"})
    EXPECT_TRUE(names.contains(name)) << name;
}

/// Regions as a Kokkos Tools library sees them.
struct Seen {
  std::vector<std::string> open;
  std::set<std::string> paths;
  int pops_too_many = 0;
} seen;

void push(char const* name) {
  seen.open.emplace_back(name);
  std::string path;
  for (std::string const& part : seen.open) path += (path.empty() ? "" : "/") + part;
  seen.paths.insert(path);
}

void pop() {
  if (seen.open.empty()) {
    ++seen.pops_too_many;
  } else {
    seen.open.pop_back();
  }
}

class ProfiledRuns : public testing::Test {
 protected:
  ProfiledRuns() {
    if (world_.is_root())
      test::write_dataset(folder_ / "data.h5", {test::words(3000, 1)}, {test::words(256, 2)});
    world_.barrier();
  }

  Deck deck(std::string const& name, std::vector<std::string> changes = {}) const {
    changes.push_back("train.gradient_accumulate_every=" + std::to_string(2 / world_.size()));
    return tiny_deck(folder_.path(), name, changes);
  }

  static nlohmann::json report(Deck const& of) {
    std::ifstream in(of.run_folder() / "profile.json");
    return nlohmann::json::parse(in);
  }

  parallel::Communicator world_;
  test::SharedFolder folder_{world_};
};

TEST_F(ProfiledRuns, ChangeNoBit) {
  for (std::string const deterministic : {"false", "true"}) {
    std::vector<std::string> const changes = {"train.deterministic=" + deterministic};
    Deck const plain = deck("plain_" + deterministic, changes);
    Deck const profiled = deck("profiled_" + deterministic, changes);
    run_training(plain, world_, true);
    testing::internal::CaptureStdout();
    run_training(profiled, world_, true, true);
    std::string const table = testing::internal::GetCapturedStdout();
    EXPECT_EQ(table.empty(), !world_.is_root());
    if (!world_.is_root()) continue;
    EXPECT_EQ(test::metrics(plain), test::metrics(profiled));
    EXPECT_EQ(test::arrays(test::latest(plain)), test::arrays(test::latest(profiled)));
    EXPECT_FALSE(std::filesystem::exists(plain.run_folder() / "profile.json"));
  }
}

TEST_F(ProfiledRuns, TheReportAddsUp) {
  Deck const of = deck("run");
  testing::internal::CaptureStdout();
  run_training(of, world_, true, true);
  std::string const table = testing::internal::GetCapturedStdout();
  if (!world_.is_root()) return;
  auto const json = report(of);
  double const seconds = json["seconds"];
  double parts = 0, sections = 0;
  for (auto const& [name, value] : json["parts"].items()) parts += value.get<double>();
  for (auto const& row : json["sections"]) sections += row["seconds"].get<double>();
  EXPECT_NEAR(parts, seconds, 1e-6 * seconds);
  EXPECT_NEAR(sections, seconds, 1e-6 * seconds);
  EXPECT_LT(json["parts"]["unaccounted"].get<double>(), 0.1 * seconds);
  EXPECT_EQ(json["steps"], 20);
  EXPECT_EQ(json["ranks"], world_.size());
  EXPECT_GT(json["limits"]["gemm_flops_per_second"], 1e8);
  EXPECT_GT(json["limits"]["memory_bytes_per_second"], 1e8);
  EXPECT_GT(json["memory"]["peak_resident"], 1e6);
  EXPECT_GT(json["memory"]["planned"].size(), 5U);
  for (char const* key : {"reading data", "checkpoints", "kernels"}) EXPECT_GT(json["parts"][key], 0) << key;
  for (auto const& [name, spread] : json["over_ranks"].items()) {
    EXPECT_LE(spread["least"], spread["mean"].get<double>() * (1 + 1e-12)) << name;
    EXPECT_LE(spread["mean"], spread["most"].get<double>() * (1 + 1e-12)) << name;
  }
  if (world_.size() > 1) {
    EXPECT_GT(json["parts"]["MPI"], 0);
  }
  std::set<std::string> kernels;
  for (auto const& row : json["kernels"]) kernels.insert(row["name"].get<std::string>());
  for (char const* name : {"linear_forward", "linear_forward_accumulate", "linear_backward_weight",
                           "attention_backward", "adamw_step", "squared_norm", "cross_entropy_forward"})
    EXPECT_TRUE(kernels.contains(name)) << name;

  // The table has the same rows: a name, calls, seconds, a share.
  std::istringstream lines(table);
  std::size_t found = 0;
  for (std::string line; std::getline(lines, line);) {
    for (char const* list : {"kernels", "sections"}) {
      for (auto const& row : json[list]) {
        std::string const name = row["name"];
        if (!line.starts_with(name + "  ")) continue;
        std::istringstream rest(line.substr(name.size()));
        Index calls = -1;
        double time = -1, share = -1;
        rest >> calls >> time >> share;
        EXPECT_EQ(calls, row["calls"]) << line;
        EXPECT_NEAR(time, row["seconds"].get<double>(), 0.51e-4) << line;
        EXPECT_NEAR(share, 100 * row["share"].get<double>(), 0.051) << line;
        ++found;
      }
    }
  }
  EXPECT_EQ(found, json["kernels"].size() + json["sections"].size());
  for (char const* text : {"unaccounted", "reading data", "useful operations", "GEMM", "resident"})
    EXPECT_NE(table.find(text), std::string::npos) << text;
}

TEST_F(ProfiledRuns, CountedOperationsAgreeWithTheRunsOwn) {
  // Windows that fill the splits evenly: every step trains on whole windows only.
  Deck const of = deck("run", {"io.dataset=" + folder_ / "even.h5"});
  if (world_.is_root())
    test::write_dataset(folder_ / "even.h5", {test::words(3200, 1)}, {test::words(256, 2)});
  world_.barrier();
  testing::internal::CaptureStdout();
  run_training(of, world_, true, true);
  testing::internal::GetCapturedStdout();
  if (!world_.is_root()) return;
  auto const flops = report(of)["model_flops"];
  double const all = flops["by_formula_on_all_ranks"];
  EXPECT_NEAR(flops["counted_on_this_rank"].get<double>() * world_.size(), all, 1e-9 * all);
}

TEST_F(ProfiledRuns, ToolsSeeBalancedRegionsOfEveryPart) {
  seen = {};
  Kokkos::Tools::Experimental::set_push_region_callback(push);
  Kokkos::Tools::Experimental::set_pop_region_callback(pop);
  run_training(deck("run"), world_, true);
  Kokkos::Tools::Experimental::set_push_region_callback(nullptr);
  Kokkos::Tools::Experimental::set_pop_region_callback(nullptr);
  EXPECT_EQ(seen.pops_too_many, 0);
  EXPECT_TRUE(seen.open.empty());
  for (char const* path :
       {"set up", "read data", "stage 1/forward/layer 1", "stage 1/forward/layer 2",
        "stage 2/forward/layer 1", "loss", "stage 2/backward/layer 1", "stage 1/backward/layer 2/rebuild",
        "stage 1/backward/layer 1", "reduce gradients", "optimizer", "checkpoint",
        "evaluate/stage 1/forward/layer 2", "evaluate/loss", "evaluate/read data", "log"})
    EXPECT_EQ(seen.paths.contains(path), std::string(path) != "log" || world_.is_root()) << path;
  std::size_t const before = seen.paths.size();
  { kernels::Region const region("afterwards"); }
  EXPECT_EQ(seen.paths.size(), before);
}

}  // namespace
}  // namespace strata::train
