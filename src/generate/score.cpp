// SPDX-License-Identifier: Apache-2.0
#include "generate/score.hpp"

#include <algorithm>
#include <string>

#include "core/error.hpp"
#include "generate/sampling.hpp"
#include "parallel/block.hpp"

namespace strata::generate {

namespace {

struct Piece {
  std::size_t text = 0;
  std::span<std::uint8_t const> bytes;
};

}  // namespace

std::optional<std::vector<Score>> score(model::Hierarchy<float> const& model,
                                        std::vector<std::span<std::uint8_t const>> const& texts, Index window,
                                        Index lanes, parallel::Communicator const& ranks,
                                        Follow const& follow) {
  model::ModelConfig const& config = model.config();
  std::size_t longest = 1;
  for (auto const& text : texts) longest = std::max(longest, text.size());
  window = std::min(window, static_cast<Index>(longest));
  check_window(config, window);
  std::vector<Piece> pieces;
  for (std::size_t t = 0; t < texts.size(); ++t) {
    for (std::uint8_t const byte : texts[t])
      if (byte >= config.num_tokens)
        throw core::InputError("byte " + std::to_string(byte) + " is outside the model's vocabulary of " +
                               std::to_string(config.num_tokens));
    for (auto left = texts[t]; !left.empty();) {
      std::size_t const size = std::min(left.size(), static_cast<std::size_t>(window));
      pieces.push_back({t, left.first(size)});
      left = left.subspan(size);
    }
  }

  parallel::Block const mine =
      parallel::block_of(static_cast<Index>(pieces.size()), ranks.rank(), ranks.size());
  auto const first = static_cast<std::size_t>(mine.first);
  std::vector<Index> lengths;
  for (auto p = first; p < static_cast<std::size_t>(mine.last); ++p)
    lengths.push_back(static_cast<Index>(pieces[p].bytes.size()));
  Index const most = Generator<float>::most_lanes();
  lanes = std::clamp<Index>(lanes > 0 ? std::min(lanes, most) : most, 1, std::max<Index>(mine.size(), 1));
  Generator<float> generator(model, lanes, window);
  Watch watch(ranks, follow);
  // A piece belongs to one rank, so the sums over ranks are exact.
  std::vector<double> nats(pieces.size()), counts(pieces.size());
  read_in_lanes(
      generator, window, lengths,
      [&](std::size_t piece, Index place, std::span<float const> logits) {
        std::uint8_t const byte = pieces[first + piece].bytes[static_cast<std::size_t>(place)];
        if (byte != config.pad_token_id) {
          nats[first + piece] -= log_probability(logits, byte);
          counts[first + piece] += 1;
        }
        return byte;
      },
      watch);
  if (watch.stopped()) return std::nullopt;
  ranks.sum_in_place(nats.data(), nats.size());
  ranks.sum_in_place(counts.data(), counts.size());
  std::vector<Score> scores(texts.size());
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    scores[pieces[p].text].nats += nats[p];
    scores[pieces[p].text].bytes += static_cast<Index>(counts[p]);
  }
  return scores;
}

}  // namespace strata::generate
