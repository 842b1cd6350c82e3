// SPDX-License-Identifier: Apache-2.0
#pragma once
// Small hierarchies with random weights and batches for them.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/device_batch.hpp"
#include "model/hierarchy.hpp"
#include "unit_tests/support/byte_losses.hpp"
#include "unit_tests/support/random.hpp"

namespace strata::test {

using model::Chunking;
using model::Head;
using model::Hierarchy;
using model::Index;
using model::ModelConfig;
using model::OuterTapes;
using model::Position;

/// Stages of `lens` sub-patches; widths and layers differ from stage to stage, and so do heads and their
/// sizes.
inline ModelConfig small_config(Head head, std::vector<Index> const& lens, Position position,
                                Index vocabulary, Index pad, double dropout = 0) {
  ModelConfig c;
  c.num_tokens = vocabulary;
  c.pad_token_id = pad;
  c.seq_lens = lens;
  c.head = head;
  for (std::size_t s = 0; s < lens.size(); ++s) {
    bool const first = s == 0;
    c.hidden_dims.push_back(first ? 14 : 8 + 2 * static_cast<Index>(s % 2));
    c.num_layers.push_back(first ? 2 : 1);
    model::BlockConfig block;
    block.attn_head_dims = first ? 6 : 4;
    block.attn_num_heads = 2 + static_cast<Index>(s % 2);
    block.attn_use_rot_embs = s != 1;
    block.pos_emb_type = position;
    block.attn_dropout = block.ff_dropout = dropout;
    block.ff_multiplier = first ? 2 : 3;
    c.block.push_back(block);
  }
  return c;
}

/// The same stages with blocks by letter, outermost first: '1' Mamba-1, '2' Mamba-2, 'T' Transformer.
inline ModelConfig with_blocks(ModelConfig config, std::string const& letters) {
  for (std::size_t s = 0; s < config.stages(); ++s) {
    model::BlockConfig& block = config.block[s];
    if (letters.at(s) == 'T') continue;
    block.block_type = letters[s] == '1' ? model::BlockType::mamba1 : model::BlockType::mamba2;
    block.d_state = 5 + static_cast<Index>(s);
    block.d_conv = s == 0 ? 4 : 3;
    block.expand = 2;
    block.headdim = 4;
    block.dropout = block.ff_dropout;
  }
  return config;
}

/// The same model with a convolutional patch encoder.
inline ModelConfig with_convolutions(ModelConfig config) {
  config.patch_encoder = model::PatchEncoder::convolution;
  return config;
}

/// The same stages with cross-patch attention: what each sees of the patch before, stages that see any having
/// `layers` layers.
inline ModelConfig with_cross_patch(ModelConfig config, std::vector<Index> const& seen, Index layers = 2) {
  for (std::size_t s = 0; s < config.stages(); ++s) {
    config.block[s].cross_patch_attention = seen.at(s);
    if (seen[s] > 0) config.num_layers[s] = layers;
  }
  return config;
}

/// Random windows on the host: lengths[b] tokens each, no weights unless asked for.
struct Windows {
  std::vector<Index> lengths;
  Index stride = 0;
  std::vector<std::uint16_t> ids;
  std::vector<float> weights;

  Windows(std::vector<Index> of_lengths, Index vocabulary, std::uint64_t seed, bool weighted = false)
      : lengths(std::move(of_lengths)), stride(*std::max_element(lengths.begin(), lengths.end())) {
    Random random(seed);
    for (Index i = 0; i < stride * static_cast<Index>(lengths.size()); ++i) {
      ids.push_back(static_cast<std::uint16_t>(random.next() % static_cast<std::uint64_t>(vocabulary)));
      // Zeros and fractions alike.
      if (weighted) weights.push_back(static_cast<float>(std::max(0.0, random.uniform(-0.3, 1.5))));
    }
  }
};

/// Weights at random, gains around 1; also the pad rows.
template <class T>
void randomise(model::ParameterStore<T>& store, std::uint64_t seed) {
  store.initialise(seed);
  for (std::size_t p = 0; p < store.all().size(); ++p) {
    std::vector<T> values(static_cast<std::size_t>(store.place(p).size()));
    store.get(p, values.data());
    auto const noise = random_values(values.size(), seed + 1000 + p, -0.2, 0.2);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(values[i] + noise[i]);
    store.set(p, values.data());
  }
}

/// What a training step leaves behind.
template <class T>
struct Outcome {
  double nats = 0, bytes = 0;
  std::vector<std::vector<T>> gradients;  // parameter by parameter
};

/// A model and a batch on the device.
template <class T>
class Trial {
 public:
  Trial(ModelConfig const& config, Windows const& windows, Chunking const& chunking = {}, Index padded = 0)
      : model_(config, chunking, true),
        windows_(windows),
        device_(static_cast<Index>(windows.lengths.size()), windows.stride, config.num_tokens > 256,
                !windows.weights.empty()),
        bytes_(windows.ids.begin(), windows.ids.end()),
        totals_("totals", 2) {
    randomise(model_.parameters(), 17);
    padded_ = padded > 0 ? padded : model_.padded_length(windows.stride);
    model::HostWindows host;  // of what lives as long as the batch, which may point at it
    if (config.num_tokens > 256) {
      host.ids = windows_.ids.data();
    } else {
      host.bytes = bytes_.data();
    }
    host.weights = windows_.weights.empty() ? nullptr : windows_.weights.data();
    host.lengths = windows_.lengths;
    host.stride = windows_.stride;
    host.first_sample = 5;
    batch_ = device_.upload(kernels::ExecSpace(), host, config, padded_);
  }

  Hierarchy<T>& model() { return model_; }
  model::Batch const& batch() const { return batch_; }
  Index padded() const { return padded_; }

  Outcome<T> step(std::optional<std::uint64_t> dropout_seed = {}, T scale = 1) {
    Kokkos::deep_copy(totals_, 0.0);
    Kokkos::deep_copy(model_.parameters().gradients(), T(0));
    model_.forward_backward(batch_, scale, kernels::Vec<double>(totals_.data(), 2), dropout_seed);
    Kokkos::fence();
    Outcome<T> out;
    read_totals(out.nats, out.bytes);
    model::ParameterStore<T> const& store = model_.parameters();
    for (std::size_t p = 0; p < store.all().size(); ++p) {
      out.gradients.emplace_back(static_cast<std::size_t>(store.place(p).size()));
      store.get_gradient(p, out.gradients.back().data());
    }
    return out;
  }

  /// The loss sum; with dropout as in a training step, which is what training computes on the way.
  double loss(std::optional<std::uint64_t> dropout_seed = {}) {
    if (dropout_seed) return step(dropout_seed).nats;
    Kokkos::deep_copy(totals_, 0.0);
    model_.evaluate(batch_, kernels::Vec<double>(totals_.data(), 2));
    double nats = 0, bytes = 0;
    read_totals(nats, bytes);
    return nats;
  }

  /// Weighted nats byte by byte, (windows, padded).
  std::vector<T> byte_losses() { return test::byte_losses(model_, batch_, windows_.lengths); }

 private:
  void read_totals(double& nats, double& bytes) const {
    Kokkos::fence();
    auto const host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), totals_);
    nats = host(0);
    bytes = host(1);
  }

  Hierarchy<T> model_;
  Windows windows_;
  model::DeviceBatch device_;
  std::vector<std::uint8_t> bytes_;
  Kokkos::View<double*, kernels::MemSpace> totals_;
  model::Batch batch_;
  Index padded_ = 0;
};

/// Largest difference of two arrays as a fraction of the first one's largest element (of least_size where
/// that is less).
template <class T>
double relative_difference(std::vector<T> const& a, std::vector<T> const& b, double least_size = 1e-30) {
  double size = least_size, difference = a.size() == b.size() ? 0 : 1e30;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    size = std::max(size, std::abs(static_cast<double>(a[i])));
    double const d = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    difference = std::isnan(d) ? 1e30 : std::max(difference, d);
  }
  return difference / size;
}

}  // namespace strata::test
