// SPDX-License-Identifier: Apache-2.0
// Strided evaluation, byte by byte, against windows and half-patch-shifted windows read one at a time.

#include <gtest/gtest.h>

#include "train/evaluation.hpp"
#include "unit_tests/model/small_model.hpp"
#include "unit_tests/train/tiny_run.hpp"

namespace strata::train {
namespace {

using model::Head;

struct Model {
  char const* name;
  Head head;
  std::vector<Index> lens;
  std::string blocks;
};

class Strided : public testing::TestWithParam<Model> {
 protected:
  model::ModelConfig config() const {
    Model const& m = GetParam();
    return test::with_blocks(test::small_config(m.head, m.lens, model::Position::fixed, 257, 256), m.blocks);
  }
  /// Every byte a document of its own, so that an evaluation tells each byte's loss.
  void write(std::string const& name, std::string const& text) {
    std::vector<std::string> bytes;
    for (char const c : text) bytes.emplace_back(1, c);
    if (world_.is_root()) test::write_dataset(folder_ / name, {"train"}, bytes);
    world_.barrier();
  }
  EvaluationSettings settings(Index stride, bool strided) const {
    EvaluationSettings s;
    s.window = config().context();
    s.stride = stride;
    s.batch_size = 3;
    s.strided = strided;
    s.details = true;
    return s;
  }
  Evaluation evaluate(std::string const& name, Index stride, bool strided = true) {
    io::DatasetFile const file(folder_ / name);
    return Evaluator(model(), file, world_, settings(stride, strided)).run();
  }
  model::Hierarchy<float>& model() {
    if (!model_) {
      model_.emplace(config(), model::Chunking(), false);
      model_->parameters().initialise(7);
    }
    return *model_;
  }
  /// Losses of a text that is a window of its own.
  std::vector<float> window_losses(std::string const& text) {
    std::vector<Index> const lengths = {static_cast<Index>(text.size())};
    model::DeviceBatch device(1, lengths[0], false, false);
    model::HostWindows host;
    host.bytes = reinterpret_cast<std::uint8_t const*>(text.data());
    host.lengths = lengths;
    host.stride = lengths[0];
    auto const batch = device.upload(kernels::ExecSpace(), host, config(), model().padded_length(lengths[0]));
    return test::byte_losses(model(), batch, lengths);
  }
  /// What a window says of its byte i: the row that predicts byte i must be one of the first half of its
  /// patch, where both readings have such a row; the longer half is the first.
  double expected(std::string const& window, Index i) {
    Index const patch = config().seq_lens.back();
    Index const half = patch - patch / 2;
    Index const row = GetParam().head == Head::complete ? i : std::max<Index>(0, i - 1);
    bool const first = row < patch || row % patch < half;
    if (first) return static_cast<double>(window_losses(window)[static_cast<std::size_t>(i)]);
    return static_cast<double>(
        window_losses(window.substr(static_cast<std::size_t>(half)))[static_cast<std::size_t>(i - half)]);
  }

  parallel::Communicator world_;
  test::SharedFolder folder_{world_};
  std::optional<model::Hierarchy<float>> model_;
};

TEST_P(Strided, EqualsShiftedWindowsReadOneAtATime) {
  Index const window = config().context();
  // The last window is a short one, and so is its second reading, or empty.
  for (Index const rest : {Index(1), window - 3}) {
    std::string const text = test::words(static_cast<std::size_t>(4 * window + rest), 5);
    auto const total = static_cast<Index>(text.size());
    std::string const name = "data" + std::to_string(rest) + ".h5";
    write(name, text);
    for (Index const stride : {Index(0), window / 2}) {
      Evaluation const result = evaluate(name, stride);
      EXPECT_EQ(result.total.bytes, evaluate(name, stride, false).total.bytes);
      EXPECT_EQ(result.total.bytes, total);
      ASSERT_EQ(result.documents.size(), text.size());
      double sum = 0;
      Index const step = stride > 0 ? stride : window;
      for (Index i = 0; i < total; ++i) {
        Index const start = i < window ? 0 : (i - window + step) / step * step;
        LossOf const& byte = result.documents[static_cast<std::size_t>(i)];
        ASSERT_EQ(byte.bytes, 1) << "byte " << i << ", stride " << stride;
        double const right = expected(
            text.substr(static_cast<std::size_t>(start), static_cast<std::size_t>(window)), i - start);
        EXPECT_NEAR(byte.nats, right, 1e-5 * right) << "byte " << i << ", stride " << stride;
        sum += byte.nats;
      }
      EXPECT_NEAR(result.total.nats, sum, 1e-9 * sum);
      EXPECT_EQ(result.flops, 2 * evaluate(name, stride, false).flops);
    }
  }
}

TEST_P(Strided, NoByteSeesItselfOrLaterOnes) {
  Index const window = config().context();
  std::string const text = test::words(static_cast<std::size_t>(2 * window + 5), 6);
  write("data.h5", text);
  Evaluation const before = evaluate("data.h5", window / 2);
  for (std::size_t const at : {std::size_t(window - 2), std::size_t(window + 3)}) {
    std::string changed = text;
    for (std::size_t i = at; i < changed.size(); ++i) changed[i] = static_cast<char>(changed[i] ^ 3);
    std::string const name = "changed" + std::to_string(at) + ".h5";
    write(name, changed);
    Evaluation const after = evaluate(name, window / 2);
    for (std::size_t i = 0; i < at; ++i)
      EXPECT_EQ(after.documents[i].nats, before.documents[i].nats) << "byte " << i << " sees byte " << at;
    EXPECT_NE(after.documents[at + 1].nats, before.documents[at + 1].nats);
  }
}

TEST_P(Strided, AnyNumberOfRanksGivesTheSameBits) {
  write("data.h5", test::words(static_cast<std::size_t>(7 * config().context() + 2), 8));
  io::DatasetFile const file(folder_ / "data.h5");
  parallel::Communicator const self(MPI_COMM_SELF);
  Evaluation const together = evaluate("data.h5", config().context() / 2);
  Evaluation const alone = Evaluator(model(), file, self, settings(config().context() / 2, true)).run();
  EXPECT_EQ(together.total.nats, alone.total.nats);
  for (auto member : {&Evaluation::documents, &Evaluation::context, &Evaluation::patch}) {
    ASSERT_EQ((together.*member).size(), (alone.*member).size());
    for (std::size_t i = 0; i < (alone.*member).size(); ++i) {
      EXPECT_EQ((together.*member)[i].nats, (alone.*member)[i].nats);
      EXPECT_EQ((together.*member)[i].bytes, (alone.*member)[i].bytes);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Strided,
                         testing::Values(Model{"TwoStages", Head::complete, {5, 4}, "TT"},
                                         Model{"OddPatches", Head::complete, {4, 5}, "TT"},
                                         Model{"ThreeStages", Head::complete, {3, 2, 4}, "2TT"},
                                         Model{"ReferenceHead", Head::reference, {5, 4}, "TT"},
                                         Model{"ReferenceThreeStages", Head::reference, {3, 2, 3}, "T2T"}),
                         [](auto const& param) { return std::string(param.param.name); });

TEST(StridedEvaluation, NeedsPatchesOfTwoBytes) {
  auto const halves = [](std::vector<Index> const& lens) {
    HalfPatches const made(test::small_config(Head::complete, lens, model::Position::none, 257, 256));
  };
  EXPECT_THROW(halves({16}), core::InputError);
  EXPECT_THROW(halves({16, 1}), core::InputError);
  EXPECT_NO_THROW(halves({16, 2}));
}

}  // namespace
}  // namespace strata::train
