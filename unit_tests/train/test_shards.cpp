// SPDX-License-Identifier: Apache-2.0
// Moments shared among ranks against one optimiser that keeps all of them: the same bits, everywhere.

#include "train/shards.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <limits>
#include <random>

#include "parallel/gradient_sync.hpp"
#include "train/checkpoint.hpp"
#include "train/optimizer.hpp"
#include "unit_tests/train/tiny_run.hpp"

namespace strata::train {
namespace {

using model::Initial;
using model::ParameterStore;
using model::Ready;
using test::tiny_deck;

/// Two ready ranges of `rows` rows each, decaying and not. Few rows: fewer units than ranks.
void fill_store(ParameterStore<float>& store, Index rows) {
  store.declare("weight", {rows, 100}, {Initial::Kind::normal, 0}, Ready::at_end);
  store.declare("bias", {101}, {Initial::Kind::uniform, 0.5}, Ready::at_end);
  store.declare("table", {rows, 77}, {Initial::Kind::normal, 0}, Ready::before_outer_backward);
  store.declare("scale", {3 * rows}, {Initial::Kind::uniform, 0.5}, Ready::before_outer_backward);
  store.allocate(true);
  store.initialise(3);
}

std::vector<float> host_copy(kernels::Vec<float> const& v) {
  std::vector<float> result(v.extent(0));
  Kokkos::deep_copy(Kokkos::View<float*, Kokkos::HostSpace, Kokkos::MemoryTraits<Kokkos::Unmanaged>>(
                        result.data(), result.size()),
                    v);
  return result;
}

TEST(Shards, MakeUpTheWholeBufferInUnits) {
  for (Index const rows : {1, 400}) {
    ParameterStore<float> store;
    fill_store(store, rows);
    for (Index const ranks : {1, 2, 3, 4, 64}) {
      std::vector<int> owners(static_cast<std::size_t>(store.flat_size()), 0);
      Index largest = 0;
      for (Index rank = 0; rank < ranks; ++rank) {
        Index size = 0;
        for (auto const& [begin, end] : shard_ranges(store, rank, ranks)) {
          ASSERT_TRUE(0 <= begin && begin <= end && end <= store.flat_size());
          for (Index i = begin; i < end; ++i) ++owners[static_cast<std::size_t>(i)];
          size += end - begin;
        }
        largest = std::max(largest, size);
      }
      EXPECT_EQ(std::count(owners.begin(), owners.end(), 1), store.flat_size()) << ranks;
      EXPECT_EQ(largest, largest_shard(store, ranks));
      EXPECT_LE(largest, store.flat_size() / ranks + 2 * shard_unit);
      auto const ranges = shard_ranges(store, 0, ranks);
      for (auto const ready : {Ready::before_outer_backward, Ready::at_end}) {
        auto const [begin, end] = ranges[ready == Ready::at_end ? 1 : 0];
        EXPECT_EQ(begin, store.ready_range(ready).begin);
        EXPECT_TRUE((end - begin) % shard_unit == 0 || end == store.ready_range(ready).end);
      }
    }
  }
}

TEST(Shards, OptimizerGivesTheSameBits) {
  parallel::Communicator const world;
  kernels::ExecSpace const space;
  for (Index const rows : {1, 400}) {
    ParameterStore<float> alone, shared;
    fill_store(alone, rows);
    fill_store(shared, rows);
    OptimizerSettings settings;
    settings.weight_decay = 0.1;
    settings.gradient_clipping = 1;
    Optimizer whole(alone, settings), part(shared, settings, &world);
    EXPECT_EQ(part.is_shared(), world.size() > 1);
    EXPECT_EQ(static_cast<Index>(whole.first_moment().extent(0)), alone.flat_size());
    EXPECT_LE(static_cast<Index>(part.first_moment().extent(0)), largest_shard(shared, world.size()));
    parallel::GradientSync<float> sync(world, shared.gradients(), {1000, shard_unit});
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    for (int step = 1; step <= 3; ++step) {
      auto const host = Kokkos::create_mirror(alone.gradients());
      for (std::size_t i = 0; i < host.extent(0); ++i) host(i) = normal(random);
      Kokkos::deep_copy(alone.gradients(), host);
      // What others own is not looked at.
      for (std::size_t i = 0; i < host.extent(0); ++i) {
        bool mine = false;
        for (auto const& [begin, end] : part.ranges())
          mine = mine || (begin <= static_cast<Index>(i) && static_cast<Index>(i) < end);
        if (!mine) host(i) = std::numeric_limits<float>::quiet_NaN();
      }
      Kokkos::deep_copy(shared.gradients(), host);
      double const norm = whole.gradient_norm(space, 7);
      EXPECT_EQ(norm, part.gradient_norm(space, 7));
      whole.step(space, step, 1e-2, 7, norm);
      part.step(space, step, 1e-2, 7, norm);
      for (auto const ready : {Ready::before_outer_backward, Ready::at_end})
        sync.gather(shared.values(), shared.ready_range(ready).begin, shared.ready_range(ready).end);
      EXPECT_EQ(host_copy(alone.values()), host_copy(shared.values()));
      EXPECT_EQ(host_copy(shared.gradients()), std::vector<float>(host.extent(0), 0));
    }
    for (bool const second : {false, true}) {
      std::vector<float> const all = host_copy(second ? whole.second_moment() : whole.first_moment());
      std::vector<float> const mine = host_copy(second ? part.second_moment() : part.first_moment());
      for_elements_of(part.ranges(), {0, alone.flat_size()}, [&](Index begin, Index end, Index place) {
        for (Index i = begin; i < end; ++i)
          ASSERT_EQ(all[static_cast<std::size_t>(i)], mine[static_cast<std::size_t>(place + i - begin)]) << i;
      });
    }
  }
}

/// Files of the same state, with all moments in one place and shared: the same bytes, and both read both.
TEST(Shards, CheckpointsAreTheSameBytes) {
  parallel::Communicator const world, self(MPI_COMM_SELF);
  test::SharedFolder const folder(world);
  for (Index const rows : {1, 400}) {
    ParameterStore<float> store;
    fill_store(store, rows);
    Optimizer whole(store, {}), part(store, {}, &world);
    auto const fill = [](std::vector<model::FlatRange> const& ranges, kernels::Vec<float> const& moment,
                         float sign) {
      auto const host = Kokkos::create_mirror_view(moment);
      for_elements_of(ranges, {0, Index(1) << 40}, [&](Index begin, Index end, Index place) {
        for (Index i = begin; i < end; ++i)
          host(static_cast<std::size_t>(place + i - begin)) = sign * static_cast<float>(i);
      });
      Kokkos::deep_copy(moment, host);
    };
    for (Optimizer* optimizer : {&whole, &part}) {
      fill(optimizer->ranges(), optimizer->first_moment(), 1);
      fill(optimizer->ranges(), optimizer->second_moment(), -1);
    }
    Deck const deck = tiny_deck(folder.path(), "any");
    std::string const one = folder / "one.h5", many = folder / "many.h5";
    if (world.is_root()) save_checkpoint(one, deck, store, whole, {}, self);
    save_checkpoint(many, deck, store, part, {}, world);
    world.barrier();
    auto const bytes = [](std::string const& path) {
      std::ifstream in(path, std::ios::binary);
      return std::string(std::istreambuf_iterator<char>(in), {});
    };
    EXPECT_TRUE(bytes(one) == bytes(many));
    for (std::string const& path : {one, many}) {
      Optimizer whole_again(store, {}), part_again(store, {}, &world);
      io::CheckpointReader const reader(path);
      load_optimizer(reader, store, whole_again);
      load_optimizer(reader, store, part_again);
      // Gaps between parameters are not stored.
      for (model::ParameterInfo const& info : store.all())
        for (auto const& [again, before] : {std::pair(&whole_again, &whole), std::pair(&part_again, &part)}) {
          std::vector<float> const first = host_copy(again->first_moment()),
                                   second = host_copy(again->second_moment());
          std::vector<float> const first_before = host_copy(before->first_moment());
          for_elements_of(
              again->ranges(), {info.place.offset, info.place.offset + info.place.size()},
              [&](Index begin, Index end, Index place) {
                for (Index i = place; i < place + end - begin; ++i) {
                  ASSERT_EQ(first[static_cast<std::size_t>(i)], first_before[static_cast<std::size_t>(i)]);
                  ASSERT_EQ(second[static_cast<std::size_t>(i)], -first_before[static_cast<std::size_t>(i)]);
                }
              });
        }
    }
    world.barrier();
  }
}

class SharedMoments : public testing::Test {
 protected:
  SharedMoments() {
    if (world_.is_root())
      test::write_dataset(folder_ / "data.h5", {test::words(3001, 1)}, {test::words(150, 2)});
    world_.barrier();
  }
  /// More than a shard for each of four ranks.
  Deck deck(std::string const& name, std::vector<std::string> changes) const {
    changes.insert(changes.end(), {"params.hidden_dims=[32, 32]",
                                   "train.target_elements=" + std::to_string(24 * world_.size())});
    return tiny_deck(folder_.path(), name, changes);
  }
  void expect_same(Deck const& a, Deck const& b) {
    world_.barrier();
    if (!world_.is_root()) return;
    EXPECT_EQ(test::metrics(a), test::metrics(b));
    EXPECT_EQ(test::checkpoints(a), test::checkpoints(b));
    EXPECT_EQ(test::arrays(test::latest(a)), test::arrays(test::latest(b)));
  }

  parallel::Communicator world_;
  test::SharedFolder folder_{world_};
};

TEST_F(SharedMoments, RunsInAFixedOrderGiveTheSameBits) {
  Deck const whole = deck("whole", {"train.deterministic=true"});
  Deck const shared = deck("shared", {"train.deterministic=true", "train.shard_optimizer=true"});
  for (Deck const* run : {&whole, &shared}) run_training(*run, world_, true);
  expect_same(whole, shared);
}

/// Also with small buckets; and so do runs that lose their later checkpoints and go on with the option
/// switched.
TEST_F(SharedMoments, RunsGiveTheSameBits) {
  namespace fs = std::filesystem;
  std::string const keep = "io.num_models_to_save=100";
  Deck const whole = deck("whole", {keep}), undisturbed = deck("undisturbed", {keep});
  Deck const shared = deck("shared", {keep, "train.shard_optimizer=true", "train.bucket_size=1k"});
  for (Deck const* run : {&whole, &shared}) run_training(*run, world_, true);
  expect_same(whole, shared);
  if (world_.is_root()) {
    fs::copy(whole.run_folder(), undisturbed.run_folder(),
             fs::copy_options::recursive | fs::copy_options::copy_symlinks);
    for (Deck const* run : {&whole, &shared}) {
      fs::remove(run->run_folder() / "DONE");
      for (auto const& entry : fs::directory_iterator(run->run_folder() / "checkpoints"))
        if (entry.path().filename() > "step_0000000003.h5") fs::remove(entry.path());
    }
  }
  world_.barrier();
  run_training(deck("whole", {keep, "train.shard_optimizer=true"}), world_, true);
  run_training(deck("shared", {keep}), world_, true);
  expect_same(undisturbed, whole);
  expect_same(undisturbed, shared);
}

}  // namespace
}  // namespace strata::train
