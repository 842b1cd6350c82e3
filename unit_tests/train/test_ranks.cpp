// SPDX-License-Identifier: Apache-2.0
// The same run on 1, 2 and 4 ranks at the same global batch, against one rank that works alone.

#include <gtest/gtest.h>

#include "train/checkpoint.hpp"
#include "train/evaluation.hpp"
#include "unit_tests/train/tiny_run.hpp"

namespace strata::train {
namespace {

using test::tiny_deck;

class Ranks : public testing::Test {
 protected:
  Ranks() {
    if (world_.is_root())
      test::write_dataset(folder_ / "data.h5", {test::words(3001, 1)},
                          {test::words(150, 2), "", test::words(253, 3)});
    world_.barrier();
  }
  /// Four windows per step whatever the number of ranks.
  Deck deck(std::string const& name, int ranks, std::vector<std::string> changes = {}) const {
    changes.push_back("train.batch_size=" + std::to_string(ranks == 4 ? 1 : 2));
    changes.push_back("train.gradient_accumulate_every=" + std::to_string(ranks == 1 ? 2 : 1));
    return tiny_deck(folder_.path(), name, changes);
  }

  parallel::Communicator world_;
  parallel::Communicator self_{MPI_COMM_SELF};
  test::SharedFolder folder_{world_};
};

TEST_F(Ranks, LossesAgree) {
  Deck const together = deck("together", world_.size());
  run_training(together, world_, true);
  if (!world_.is_root()) return;
  Deck const alone = deck("alone", 1);
  run_training(alone, self_, true);
  auto const a = test::losses(together, "train");
  auto const b = test::losses(alone, "train");
  ASSERT_EQ(a.size(), 20U);
  ASSERT_EQ(b.size(), 20U);
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5 * b[i]) << i;
}

TEST_F(Ranks, DeterministicModeGivesTheSameBits) {
  Deck const together = deck("together", world_.size(), {"train.deterministic=true"});
  run_training(together, world_, true);
  if (!world_.is_root()) return;
  Deck const alone = deck("alone", 1, {"train.deterministic=true"});
  run_training(alone, self_, true);
  EXPECT_EQ(test::losses(together, "train"), test::losses(alone, "train"));
  EXPECT_EQ(test::arrays(test::latest(together)), test::arrays(test::latest(alone)));
}

TEST_F(Ranks, ARunContinuesOnAnotherNumberOfRanks) {
  std::vector<std::string> const changes = {"train.deterministic=true", "io.num_models_to_save=100"};
  Deck const alone = deck("alone", 1, changes);
  namespace fs = std::filesystem;
  if (world_.is_root()) {
    run_training(alone, self_, true);
    fs::copy(alone.run_folder(), folder_ / "moved",
             fs::copy_options::recursive | fs::copy_options::copy_symlinks);
    fs::remove(fs::path(folder_ / "moved") / "DONE");
    for (auto const& entry : fs::directory_iterator(folder_ / "moved/checkpoints"))
      if (entry.path().filename() > "step_0000000009.h5") fs::remove(entry.path());
  }
  world_.barrier();
  Deck const moved = deck("moved", world_.size(), changes);
  run_training(moved, world_, true);
  if (!world_.is_root()) return;
  EXPECT_EQ(test::metrics(moved), test::metrics(alone));
  EXPECT_EQ(test::arrays(test::latest(moved)), test::arrays(test::latest(alone)));
}

TEST_F(Ranks, EvaluationGivesTheSameBits) {
  Deck const trained = deck("trained", world_.size());
  run_training(trained, world_, true);
  io::DatasetFile const file(folder_ / "data.h5");
  LoadedModel const model = load_model(trained.run_folder().string());
  for (Index const stride : {0, 7}) {
    EvaluationSettings settings;
    settings.window = 32;
    settings.stride = stride;
    settings.batch_size = 3;
    settings.details = true;
    Evaluation const together = Evaluator(*model.hierarchy, file, world_, settings).run();
    Evaluation const alone = Evaluator(*model.hierarchy, file, self_, settings).run();
    EXPECT_EQ(together.total.bytes, 403);
    EXPECT_EQ(together.total.bytes, alone.total.bytes);
    EXPECT_EQ(together.total.nats, alone.total.nats);
    ASSERT_EQ(together.documents.size(), 3U);
    EXPECT_EQ(together.documents[0].bytes, 150);
    EXPECT_EQ(together.documents[1].bytes, 0);
    for (auto member : {&Evaluation::documents, &Evaluation::context, &Evaluation::patch}) {
      ASSERT_EQ((together.*member).size(), (alone.*member).size());
      for (std::size_t i = 0; i < (alone.*member).size(); ++i) {
        EXPECT_EQ((together.*member)[i].nats, (alone.*member)[i].nats);
        EXPECT_EQ((together.*member)[i].bytes, (alone.*member)[i].bytes);
      }
    }
  }
}

}  // namespace
}  // namespace strata::train
