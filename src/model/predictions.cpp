// SPDX-License-Identifier: Apache-2.0
#include "model/predictions.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "model/device_batch.hpp"

namespace strata::model {

namespace {

/// Token that a row of the last stage predicts, or -1, counting the padding as tokens too.
Index predicted(Head head, kernels::StageRows const& rows, Index r, Index padded_length) {
  Index const t = rows.first_position + r % rows.shape.length;
  Index const first = (rows.first_sequence + r / rows.shape.length) * rows.patches;
  if (head == Head::complete) return first + t;
  if (t == 0 && first % padded_length != 0) return -1;
  return first + t;
}

}  // namespace

template <class T>
Predictions predict(Hierarchy<T>& model, std::vector<std::int64_t> const& ids, Index windows) {
  ModelConfig const& config = model.config();
  Predictions result;
  result.windows = windows;
  result.length = static_cast<Index>(ids.size()) / windows;
  result.vocabulary = config.num_tokens;
  result.width = config.hidden_dims.back();
  double const nothing = std::numeric_limits<double>::quiet_NaN();
  result.logits.assign(static_cast<std::size_t>(windows * (result.length + 1) * result.vocabulary), nothing);
  result.hidden.assign(static_cast<std::size_t>(windows * result.length * result.width), nothing);

  std::vector<std::uint16_t> const tokens(ids.begin(), ids.end());
  std::vector<Index> const lengths(static_cast<std::size_t>(windows), result.length);
  Index const padded = model.padded_length(result.length);
  DeviceBatch device(windows, result.length, true, false);
  HostWindows host;
  host.ids = tokens.data();
  host.lengths = lengths;
  host.stride = result.length;
  Batch const batch = device.upload(ExecSpace(), host, config, padded);

  // Row t of a patch predicts token t of it; in head `reference` the last row of a patch predicts the next
  // patch's first.
  Index const length = result.length;
  model.visit(batch, [&](kernels::StageRows const& rows, Mat<T> hidden, Mat<T> logits) {
    auto const logits_host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), logits);
    auto const hidden_host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), hidden);
    for (Index r = 0; r < rows.shape.rows(); ++r) {
      Index const flat = predicted(config.head, rows, r, padded);
      if (flat < 0) continue;
      // The row after a window's last token stands at the start of the next window's range.
      bool const after_patch =
          config.head == Head::reference && (rows.first_position + r % rows.shape.length) > 0;
      Index const window = (after_patch ? flat - 1 : flat) / padded;
      Index const t = flat - window * padded;
      if (t > length) continue;
      for (Index v = 0; v < result.vocabulary; ++v)
        result.logits[static_cast<std::size_t>((window * (length + 1) + t) * result.vocabulary + v)] =
            logits_host(r, v);
      if (config.head == Head::complete || t == 0) continue;
      for (Index c = 0; c < result.width; ++c)
        result.hidden[static_cast<std::size_t>((window * length + t - 1) * result.width + c)] =
            hidden_host(r, c);
    }
  });
  return result;
}

template <class T>
std::vector<std::uint8_t> dependencies(Hierarchy<T>& model, std::vector<std::int64_t> const& ids,
                                       double threshold, Index replacements) {
  ModelConfig const& config = model.config();
  Index const length = static_cast<Index>(ids.size());
  std::vector<std::uint8_t> result(static_cast<std::size_t>(length * (length + 1)), 0);
  // One window as it is, and several with one token changed, in each pass.
  Index const variants = std::clamp<Index>(4096 / length, 1, replacements * length);
  std::vector<std::pair<Index, std::int64_t>> changes;
  for (Index i = 0; i < length; ++i) {
    std::int64_t id = ids[static_cast<std::size_t>(i)];
    for (Index k = 0; k < replacements; ++k) {
      do {
        id = (id + 7) % config.num_tokens;
      } while (id == config.pad_token_id || id == ids[static_cast<std::size_t>(i)]);
      changes.emplace_back(i, id);
    }
  }
  for (std::size_t first = 0; first < changes.size(); first += static_cast<std::size_t>(variants)) {
    std::size_t const count = std::min(static_cast<std::size_t>(variants), changes.size() - first);
    std::vector<std::int64_t> windows(ids);
    for (std::size_t k = 0; k < count; ++k) {
      auto const [place, id] = changes[first + k];
      std::size_t const at = windows.size() + static_cast<std::size_t>(place);
      windows.insert(windows.end(), ids.begin(), ids.end());
      windows[at] = id;
    }
    Predictions const p = predict(model, windows, static_cast<Index>(count) + 1);
    for (std::size_t k = 0; k < count; ++k) {
      for (Index t = 0; t <= length; ++t) {
        double const* const before = p.at(0, t);
        double const* const after = p.at(static_cast<Index>(k) + 1, t);
        bool const moved = std::inner_product(
            before, before + p.vocabulary, after, false, [](bool a, bool b) { return a || b; },
            [&](double a, double b) { return std::abs(a - b) > threshold; });
        if (moved) result[static_cast<std::size_t>(changes[first + k].first * (length + 1) + t)] = 1;
      }
    }
  }
  return result;
}

template Predictions predict(Hierarchy<float>&, std::vector<std::int64_t> const&, Index);
template Predictions predict(Hierarchy<double>&, std::vector<std::int64_t> const&, Index);
template std::vector<std::uint8_t> dependencies(Hierarchy<float>&, std::vector<std::int64_t> const&, double,
                                                Index);
template std::vector<std::uint8_t> dependencies(Hierarchy<double>&, std::vector<std::int64_t> const&, double,
                                                Index);

}  // namespace strata::model
