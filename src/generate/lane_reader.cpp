// SPDX-License-Identifier: Apache-2.0
#include "generate/lane_reader.hpp"

#include <string>

#include "core/error.hpp"

namespace strata::generate {

namespace {

/// Bytes of a lane between two looks at the other ranks and the clock.
constexpr int steps_between_looks = 16;

struct Reader {
  Index lane = 0;
  std::size_t sequence = 0;
  Index place = 0;
};

}  // namespace

bool Watch::go_on(bool busy) {
  stopped_ = ranks_.any(follow_.stop && follow_.stop());
  if (follow_.progress) {
    // Also where this rank shows nothing: the sum is taken by all.
    auto const done = static_cast<Index>(ranks_.sum(static_cast<double>(here_)));
    follow_.progress(done);
  }
  return ranks_.any(busy) && !stopped_;
}

void read_in_lanes(Generator<float>& generator, Index window, std::vector<Index> const& lengths,
                   Visit const& visit, Watch& watch) {
  std::vector<Reader> readers;
  std::size_t next = 0;
  for (Index lane = 0; lane < generator.lanes() && next < lengths.size(); ++lane) {
    generator.reset(lane);
    readers.push_back({lane, next++, 0});
  }
  std::vector<Index> which, going_on;
  std::vector<std::int32_t> tokens;
  auto const step = [&] {
    which.clear();
    for (Reader const& reader : readers) which.push_back(reader.lane);
    std::span<float const> const logits = generator.logits(which);
    std::size_t const vocabulary = logits.size() / which.size();
    going_on.clear();
    tokens.clear();
    for (std::size_t i = 0; i < readers.size(); ++i) {
      Reader& reader = readers[i];
      std::uint8_t const byte =
          visit(reader.sequence, reader.place++, logits.subspan(i * vocabulary, vocabulary));
      if (reader.place < lengths[reader.sequence] && reader.place % window > 0) {
        going_on.push_back(reader.lane);
        tokens.push_back(byte);
      }
    }
    watch.add(static_cast<Index>(readers.size()));
    if (!going_on.empty()) generator.append(going_on, tokens);
    std::size_t kept = 0;
    for (Reader reader : readers) {
      bool const ended = reader.place == lengths[reader.sequence];
      if (ended && next == lengths.size()) continue;
      if (ended || reader.place % window == 0) generator.reset(reader.lane);
      if (ended) reader = {reader.lane, next++, 0};
      readers[kept++] = reader;
    }
    readers.resize(kept);
  };
  while (watch.go_on(!readers.empty()))
    for (int i = 0; i < steps_between_looks && !readers.empty(); ++i) step();
}

void check_window(model::ModelConfig const& config, Index window) {
  if (config.block[0].pos_emb_type == model::Position::fixed && window > config.context())
    throw core::InputError("a window of " + std::to_string(window) +
                           " bytes does not fit the model, whose fixed positions end at " +
                           std::to_string(config.context()) + " bytes (the product of seq_lens)");
}

}  // namespace strata::generate
