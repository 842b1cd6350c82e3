// SPDX-License-Identifier: Apache-2.0
// Whole runs of a tiny model: it learns, it resumes bit for bit from any of its checkpoints, and it survives
// what disks and numbers do to it.

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "train/checkpoint.hpp"
#include "train/evaluation.hpp"
#include "unit_tests/train/tiny_run.hpp"

namespace strata::train {
namespace {

namespace fs = std::filesystem;
using test::tiny_deck;

class Training : public testing::Test {
 protected:
  Training() { test::write_dataset(folder_ / "data.h5", {test::words(3001, 1)}, {test::words(403, 2)}); }

  TrainingOutcome run(Deck const& deck) const { return run_training(deck, ranks_, true); }
  /// Leaves a run as if it had been killed right after saving `checkpoint`.
  static void rewind(Deck const& deck, std::string const& checkpoint) {
    fs::remove(deck.run_folder() / "DONE");
    for (std::string const& name : test::checkpoints(deck))
      if (name > checkpoint) fs::remove(deck.run_folder() / "checkpoints" / name);
  }

  parallel::Communicator ranks_;
  test::TempFolder folder_;
};

TEST_F(Training, MemorisesASmallFile) {
  std::string const text = "Sixty-four bytes of rock: quartz, feldspar, mica, and some opal!";
  ASSERT_EQ(text.size(), 64U);
  test::write_dataset(folder_ / "small.h5", {text}, {text});
  Deck deck = tiny_deck(folder_.path(), "small",
                        {"params.input_seq_len=64", "params.seq_lens=[16, 4]", "params.hidden_dims=[32, 32]",
                         "params.block.attn_dropout=0", "params.block.ff_dropout=0", "train.batch_size=1",
                         "train.gradient_accumulate_every=1", "train.target_elements=400",
                         "train.learning_rate=0.01", "io.log_train_loss_amount=4", "io.checkpoint_every=0"});
  deck.io.dataset = folder_ / "small.h5";
  TrainingOutcome const outcome = run(deck);
  ASSERT_TRUE(outcome.validation_loss.has_value());
  EXPECT_LT(*outcome.validation_loss / std::log(2.0), 0.02);
}

TEST_F(Training, LeavesACompleteFolder) {
  Deck const deck = tiny_deck(folder_.path(), "a");
  TrainingOutcome const outcome = run(deck);
  EXPECT_EQ(outcome.status, core::ExitStatus::success);
  EXPECT_EQ(outcome.step, 20);
  fs::path const run_folder = deck.run_folder();
  for (char const* name : {"config.yaml", "provenance.json", "metrics.jsonl", "latest.h5", "best.h5", "DONE"})
    EXPECT_TRUE(fs::exists(run_folder / name)) << name;
  EXPECT_EQ(test::read_file((run_folder / "config.yaml").string()), deck.text());
  EXPECT_EQ(fs::canonical(run_folder / "latest.h5").filename(), "step_0000000020.h5");
  EXPECT_LE(test::checkpoints(deck).size(), 3U);  // two newest and one best
  auto const train = test::losses(deck, "train");
  ASSERT_EQ(train.size(), 20U);
  EXPECT_LT(train.back(), train.front() - 0.5);
  EXPECT_EQ(test::losses(deck, "validation").size(), 4U);
  // The best link points at the lowest validation loss of all.
  auto const validation = test::losses(deck, "validation");
  LoadedModel const best = load_model((run_folder / "best.h5").string());
  ASSERT_TRUE(best.validation_loss.has_value());
  EXPECT_EQ(*best.validation_loss, *std::min_element(validation.begin(), validation.end()));
  EXPECT_EQ(load_model(run_folder.string()).step, 20);
  // Once more: nothing to do.
  auto const time = fs::last_write_time(run_folder / "metrics.jsonl");
  EXPECT_EQ(run(deck).status, core::ExitStatus::success);
  EXPECT_EQ(fs::last_write_time(run_folder / "metrics.jsonl"), time);
}

TEST_F(Training, LinksNeverDangle) {
  Deck const deck = tiny_deck(folder_.path(), "links", {"io.num_models_to_save=0", "io.validate_amount=1"});
  run(deck);
  EXPECT_EQ(test::checkpoints(deck).size(), 2U);
  for (char const* name : {"latest.h5", "best.h5"}) EXPECT_TRUE(fs::exists(deck.run_folder() / name)) << name;
  EXPECT_EQ(fs::canonical(deck.run_folder() / "best.h5").filename(), "step_0000000020.h5");
}

/// The time of a step is that of its bytes, and the optimiser's is a part of it.
TEST_F(Training, RecordsTheTimeOfAStepAndItsOptimizer) {
  Deck const deck = tiny_deck(folder_.path(), "times");
  run(deck);
  std::ifstream in(deck.run_folder() / "metrics.jsonl");
  int training = 0;
  for (std::string line; std::getline(in, line);) {
    auto const record = nlohmann::json::parse(line);
    double const step = record["step_seconds"].get<double>();
    double const optimizer = record["optimizer_seconds"].get<double>();
    if (record["split"] == "validation") {
      EXPECT_EQ(step, 0) << line;
      EXPECT_EQ(optimizer, 0) << line;
      continue;
    }
    ++training;
    EXPECT_GT(optimizer, 0) << line;
    EXPECT_LT(optimizer, step) << line;
    double const bytes = record["bytes_per_second"].get<double>() * step;
    EXPECT_NEAR(bytes, std::round(bytes), 1e-6) << line;
    EXPECT_LE(bytes, 4 * 32 + 1e-6) << line;
    EXPECT_GT(bytes, 3 * 32) << line;  // one window may be the short one at the end of the split
  }
  EXPECT_EQ(training, 20);
}

TEST_F(Training, ResumesBitForBitFromEveryCheckpoint) {
  Deck const whole = tiny_deck(folder_.path(), "whole", {"io.num_models_to_save=100"});
  run(whole);
  auto const expected = test::arrays(test::latest(whole));
  auto const records = test::metrics(whole);
  ASSERT_GT(test::checkpoints(whole).size(), 4U);
  for (std::string const& checkpoint : test::checkpoints(whole)) {
    fs::path const copy = fs::path(folder_.path()) / "copy";
    fs::remove_all(copy);
    fs::copy(whole.run_folder(), copy, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
    Deck const deck = tiny_deck(folder_.path(), "copy", {"io.num_models_to_save=100"});
    rewind(deck, checkpoint);
    run(deck);
    EXPECT_EQ(test::arrays(test::latest(deck)), expected) << checkpoint;
    EXPECT_EQ(test::metrics(deck), records) << checkpoint;
  }
}

TEST_F(Training, FallsBackFromDamagedCheckpoints) {
  Deck const deck = tiny_deck(folder_.path(), "damaged");
  run(deck);
  auto const expected = test::arrays(test::latest(deck));
  std::string const newest = (deck.run_folder() / "checkpoints" / test::checkpoints(deck).back()).string();
  std::string const content = test::read_file(newest);
  for (bool const truncated : {true, false}) {
    fs::remove(deck.run_folder() / "DONE");
    std::string bad = truncated ? content.substr(0, content.size() / 2) : content;
    if (!truncated)  // a byte in the middle of every 4 KiB
      for (std::size_t i = 6000; i < bad.size(); i += 4096) bad[i] = static_cast<char>(bad[i] ^ 0x10);
    test::write_file(newest, bad);
    testing::internal::CaptureStderr();
    run(deck);
    std::string const remark = testing::internal::GetCapturedStderr();
    EXPECT_NE(remark.find(newest + " is damaged"), std::string::npos) << remark;
    EXPECT_NE(remark.find("continues from"), std::string::npos) << remark;
    EXPECT_EQ(test::arrays(newest), expected);
    EXPECT_EQ(test::losses(deck, "train").size(), 20U);
  }
  fs::remove(deck.run_folder() / "DONE");
  for (std::string const& name : test::checkpoints(deck))
    test::write_file((deck.run_folder() / "checkpoints" / name).string(), "not HDF5");
  EXPECT_NE(test::message_of<core::InputError>([&] { run(deck); }).find("to start again"), std::string::npos);
}

TEST_F(Training, StopsAtTheFirstNumberThatIsNotFinite) {
  Deck const deck =
      tiny_deck(folder_.path(), "nan", {"train.learning_rate=1e30", "train.gradient_clipping=null"});
  std::string const message = test::message_of<std::runtime_error>([&] { run(deck); });
  EXPECT_NE(message.find("is not finite"), std::string::npos) << message;
  EXPECT_NE(message.find("step_00000000"), std::string::npos) << message;
  auto const records = test::losses(deck, "train");
  EXPECT_LT(records.size(), 20U);
  for (double const loss : records) EXPECT_TRUE(std::isfinite(loss));
  EXPECT_NE(message.find("step " + std::to_string(records.size() + 1)), std::string::npos) << message;
}

TEST_F(Training, ADiskThatIsFullKeepsTheCheckpointBefore) {
  Deck const deck = tiny_deck(folder_.path(), "full", {"io.num_models_to_save=100"});
  run(deck);
  auto const before = test::checkpoints(deck);
  rewind(deck, before[2]);
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  auto const size = static_cast<rlim_t>(fs::file_size(deck.run_folder() / "checkpoints" / before[2]));
  rlimit const tight{size / 2, old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &tight);
  testing::internal::CaptureStderr();
  std::string const message = test::message_of<std::runtime_error>([&] { run(deck); });
  std::string const remark = testing::internal::GetCapturedStderr();
  setrlimit(RLIMIT_FSIZE, &old);
  EXPECT_NE(remark.find("no checkpoint of step"), std::string::npos) << remark;
  EXPECT_NE(message.find("no checkpoint of step 20"), std::string::npos) << message;
  EXPECT_NE(message.find(before[2]), std::string::npos) << message;
  EXPECT_EQ(test::checkpoints(deck), std::vector<std::string>(before.begin(), before.begin() + 3));
  // With room again the run goes on from there and ends as ever.
  run(deck);
  EXPECT_EQ(test::losses(deck, "train").size(), 20U);
  EXPECT_TRUE(fs::exists(deck.run_folder() / "DONE"));
}

TEST_F(Training, RefusesToContinueAsAnotherRun) {
  run(tiny_deck(folder_.path(), "same"));
  auto const refusal = [&](std::string const& change) {
    Deck const deck = tiny_deck(folder_.path(), "same", {change});
    fs::remove(deck.run_folder() / "DONE");
    return test::message_of<core::InputError>([&] { run(deck); });
  };
  EXPECT_NE(refusal("train.learning_rate=0.1").find("train.learning_rate was"), std::string::npos);
  EXPECT_NE(refusal("train.seed=7").find("train.seed was"), std::string::npos);
  EXPECT_NE(refusal("params.num_layers=[1, 1]").find("params.num_layers"), std::string::npos);
  EXPECT_NE(refusal("params.block.attn_num_heads=1").find("attn_num_heads"), std::string::npos);
  EXPECT_NE(refusal("train.target_elements=800").find("train.target_elements"), std::string::npos);
  EXPECT_NE(refusal("train.batch_size=4").find("4 windows per step"), std::string::npos);
  Deck const harmless =
      tiny_deck(folder_.path(), "same", {"io.checkpoint_every=5", "train.eval_batch_size=3"});
  EXPECT_EQ(run(harmless).status, core::ExitStatus::success);
}

TEST_F(Training, RefusesStagesThatSeeTheFuture) {
  Deck deck = tiny_deck(folder_.path(), "encoder");
  deck.params.head = model::Head::reference;
  deck.params.block[0].block_type = model::BlockType::transformer_encoder;
  EXPECT_NE(test::message_of<core::InputError>([&] { run(deck); }).find("transformerEncoder"),
            std::string::npos);
}

TEST_F(Training, StartsFromOtherWeights) {
  Deck const first = tiny_deck(folder_.path(), "first");
  run(first);
  Deck next = tiny_deck(folder_.path(), "next");
  next.train.init_from = test::latest(first);
  run(next);
  EXPECT_LT(test::losses(next, "train").front(), test::losses(first, "train").front() - 0.3);
}

/// A stage's dropout acts whatever its block calls it, also where it is the model's only one.
TEST_F(Training, DropoutOfAnyBlockActs) {
  std::string const transformer =
      "params.block={block_type: transformer, attn_head_dims: 8, attn_num_heads: 2, attn_use_rot_embs: true, "
      "pos_emb_type: fixed, ";
  std::string const mamba2 =
      "params.block={block_type: mamba2, pos_emb_type: fixed, d_state: 8, d_conv: 4, expand: 2, headdim: 8, ";
  int number = 0;
  auto const losses_with = [&](std::string const& block) {
    Deck const deck =
        tiny_deck(folder_.path(), "drop" + std::to_string(number++), {block, "train.target_elements=8"});
    run(deck);
    return test::losses(deck, "train");
  };
  for (auto const& [block, key] : {std::pair(mamba2, "dropout"), std::pair(transformer, "attn_dropout"),
                                   std::pair(transformer, "ff_dropout")}) {
    auto const without = losses_with(block + key + ": 0}");
    auto const with = losses_with(block + key + ": 0.5}");
    ASSERT_FALSE(without.empty());
    ASSERT_EQ(with.size(), without.size());
    for (std::size_t i = 0; i < with.size(); ++i) EXPECT_NE(with[i], without[i]) << key << " of record " << i;
  }
}

/// The model hands out its losses in blocks; how they are cut does not show.
TEST_F(Training, EvaluationDoesNotDependOnChunks) {
  test::write_dataset(folder_ / "parts.h5", {"train"}, {test::words(150, 3), "", test::words(90, 4)});
  io::DatasetFile const file(folder_ / "parts.h5");
  for (model::Head const head : {model::Head::complete, model::Head::reference}) {
    model::ModelConfig config = tiny_deck(folder_.path(), "chunks").params;
    config.head = head;
    auto const evaluate = [&](model::Chunking const& chunking) {
      model::Hierarchy<float> model(config, chunking, false);
      model.parameters().initialise(3);
      EvaluationSettings settings;
      settings.window = 32;
      settings.stride = 20;
      settings.batch_size = 3;
      settings.details = true;
      return Evaluator(model, file, ranks_, settings).run();
    };
    model::Chunking small;
    small.outer_positions = 3;
    small.inner_rows = 5;
    Evaluation const whole = evaluate({}), cut = evaluate(small);
    auto const equal = [](std::vector<LossOf> const& a, std::vector<LossOf> const& b) {
      ASSERT_EQ(a.size(), b.size());
      for (std::size_t i = 0; i < a.size(); ++i) {
        EXPECT_EQ(a[i].bytes, b[i].bytes) << i;
        EXPECT_NEAR(a[i].nats, b[i].nats, 1e-5 * a[i].nats) << i;
      }
    };
    equal({whole.total}, {cut.total});
    equal(whole.documents, cut.documents);
    equal(whole.context, cut.context);
    equal(whole.patch, cut.patch);
    EXPECT_EQ(whole.total.bytes, 240);
    ASSERT_EQ(whole.documents.size(), 3U);
    EXPECT_EQ(whole.documents[0].bytes, 150);
    EXPECT_EQ(whole.documents[1].bytes, 0);
    EXPECT_EQ(whole.documents[2].bytes, 90);
  }
}

TEST_F(Training, EvaluationCountsEachByteOnceAndEqualsADirectSum) {
  Deck const deck = tiny_deck(folder_.path(), "eval");
  run(deck);
  LoadedModel const model = load_model(test::latest(deck));
  io::DatasetFile const file(folder_ / "data.h5");
  EvaluationSettings settings;
  settings.window = 32;
  settings.details = true;
  settings.batch_size = 3;
  Evaluation const result = Evaluator(*model.hierarchy, file, ranks_, settings).run();
  EXPECT_EQ(result.total.bytes, 403);
  // Window by window in the order of the split.
  settings.batch_size = 1;
  settings.details = false;
  Evaluation const single = Evaluator(*model.hierarchy, file, ranks_, settings).run();
  EXPECT_NEAR(result.total.nats, single.total.nats, 1e-5 * single.total.nats);
  for (auto const* parts : {&result.documents, &result.context, &result.patch}) {
    LossOf sum;
    for (LossOf const& part : *parts) {
      sum.nats += part.nats;
      sum.bytes += part.bytes;
    }
    EXPECT_EQ(sum.bytes, 403);
    EXPECT_NEAR(sum.nats, result.total.nats, 1e-12 * sum.nats);
  }
  EXPECT_EQ(result.context.size(), 6U);  // 0, 1, 2-3, 4-7, 8-15, 16-31
  EXPECT_EQ(result.context[0].bytes, 13);
  EXPECT_EQ(result.patch.size(), 4U);
  // Sliding windows count each byte once as well, with more context.
  settings.stride = 5;
  Evaluation const sliding = Evaluator(*model.hierarchy, file, ranks_, settings).run();
  EXPECT_EQ(sliding.total.bytes, 403);
  EXPECT_NE(sliding.total.nats, single.total.nats);
  settings.stride = 0;
  settings.max_batches = 2;
  EXPECT_EQ(Evaluator(*model.hierarchy, file, ranks_, settings).run().total.bytes, 64);
  settings.window = 33;
  EXPECT_THROW(Evaluator(*model.hierarchy, file, ranks_, settings), core::InputError);
}

// Counts what Kokkos allocates, by way of its tools interface.
std::vector<std::string>* allocations = nullptr;
int allocations_before = 0;
void on_allocate(Kokkos_Profiling_SpaceHandle, char const* label, void const*, std::uint64_t) {
  if (allocations != nullptr) {
    allocations->emplace_back(label);
  } else {
    ++allocations_before;
  }
}

/// Label of the kernel that ends a step; it tells when the first one is over.
int steps_seen = 0;
void on_parallel_for(char const* name, std::uint32_t, std::uint64_t*) {
  if (std::string(name).find("adamw") != std::string::npos) ++steps_seen;
  if (steps_seen > 0 && allocations == nullptr) {
    static std::vector<std::string> list;
    allocations = &list;
  }
}

TEST_F(Training, AllocatesNothingAfterTheFirstStep) {
  for (char const* deterministic : {"false", "true"}) {
    Deck const deck = tiny_deck(folder_.path(), std::string("allocations_") + deterministic,
                                {std::string("train.deterministic=") + deterministic});
    steps_seen = 0;
    allocations_before = 0;
    if (allocations != nullptr) allocations->clear();
    allocations = nullptr;
    Kokkos::Tools::Experimental::set_allocate_data_callback(on_allocate);
    Kokkos::Tools::Experimental::set_begin_parallel_for_callback(on_parallel_for);
    run(deck);
    Kokkos::Tools::Experimental::set_allocate_data_callback(nullptr);
    Kokkos::Tools::Experimental::set_begin_parallel_for_callback(nullptr);
    ASSERT_GT(steps_seen, 1) << "no kernel of the optimiser was seen";
    ASSERT_GT(allocations_before, 10) << "allocations are not seen";
    ASSERT_NE(allocations, nullptr);
    EXPECT_TRUE(allocations->empty())
        << allocations->size() << " allocations, the first: " << allocations->front();
  }
}

}  // namespace
}  // namespace strata::train
