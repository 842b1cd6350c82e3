// SPDX-License-Identifier: Apache-2.0
// Whole models: mblm, mblm_encoder and megabyte files.

#include <algorithm>
#include <cmath>

#include "generate/generator.hpp"
#include "model/device_batch.hpp"
#include "model/predictions.hpp"
#include "train/deck.hpp"
#include "unit_tests/parity/fixture.hpp"
#include "unit_tests/support/byte_losses.hpp"

namespace strata::parity {

namespace {

/// The batch of a fixture, with everything its loss needs.
struct Inputs {
  Index windows = 0, length = 0;
  std::vector<std::int64_t> ids, labels;
  std::vector<float> weights;

  static Inputs read(io::File const& file) {
    Inputs in;
    io::Shape shape;
    in.ids = file.read<std::int64_t>("/inputs/ids", &shape);
    in.windows = shape.at(0);
    in.length = shape.at(1);
    if (file.exists("/inputs/labels")) {
      in.labels = file.read<std::int64_t>("/inputs/labels");
      for (std::uint8_t const m : file.read<std::uint8_t>("/inputs/mask")) in.weights.push_back(m);
    } else if (file.exists("/inputs/loss_mask")) {
      for (double const w : file.read<double>("/inputs/loss_mask"))
        in.weights.push_back(static_cast<float>(w));
    }
    return in;
  }
};

/// A device batch that predicts as the fixture's model does.
class FixtureBatch {
 public:
  FixtureBatch(Inputs const& in, model::ModelConfig const& config, Index padded_length,
               std::optional<Index> mask_token)
      : ids_(in.ids.begin(), in.ids.end()),
        labels_(in.labels.begin(), in.labels.end()),
        lengths_(static_cast<std::size_t>(in.windows), in.length),
        inputs_(in.windows, in.length, true, !in.weights.empty()),
        targets_(in.windows, in.length, true, !in.weights.empty()) {
    model::HostWindows host;
    host.ids = ids_.data();
    host.lengths = lengths_;
    host.stride = in.length;
    host.weights = in.weights.empty() ? nullptr : in.weights.data();
    batch_ = inputs_.upload(kernels::ExecSpace(), host, config, padded_length);
    if (!mask_token) return;
    host.ids = labels_.data();
    batch_.targets = targets_.upload(kernels::ExecSpace(), host, config, padded_length).targets;
    batch_.targets.ignored = static_cast<std::int32_t>(*mask_token);
    batch_.targets.prediction = kernels::Prediction::self;
  }
  model::Batch const& get() const { return batch_; }
  std::vector<Index> const& lengths() const { return lengths_; }

 private:
  std::vector<std::uint16_t> ids_, labels_;
  std::vector<Index> lengths_;
  model::DeviceBatch inputs_, targets_;
  model::Batch batch_;
};

template <class T>
std::vector<double> to_host(kernels::Vec<T> const& v) {
  auto const host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), v);
  return {host.data(), host.data() + host.extent(0)};
}

template <class T>
Worst check_outputs(io::File const& file, std::string const& kind, Inputs const& in,
                    model::Hierarchy<T>& model) {
  double const allowed = tolerance<T>().output;
  model::Predictions const p = model::predict(model, in.ids, in.windows);
  std::vector<double> logits, first;
  for (Index b = 0; b < in.windows; ++b) {
    first.insert(first.end(), p.at(b, 0), p.at(b, 1));
    logits.insert(logits.end(), p.at(b, 1), p.at(b, 1) + in.length * p.vocabulary);
  }
  Worst worst;
  worst.add("logits", logits, file.read<double>("/outputs/logits"), allowed);
  if (file.exists("/outputs/first_byte_logits"))
    worst.add("first_byte_logits", first, file.read<double>("/outputs/first_byte_logits"), allowed);
  if (file.exists("/outputs/hidden_state"))
    worst.add("hidden_state", p.hidden, file.read<double>("/outputs/hidden_state"), allowed);
  if (file.exists("/outputs/start_logits"))
    worst.add("start_logits", generate::empty_prompt_logits(model),
              file.read<double>("/outputs/start_logits"), allowed);
  if (kind != "mblm_encoder") {
    // The cached, byte-by-byte path gives the same as the whole windows at once.
    generate::Generator<T> generator(model, in.windows);
    std::vector<double> stepped;
    for (Index t = 0; t < in.length; ++t) {
      std::vector<std::int32_t> bytes;
      for (Index b = 0; b < in.windows; ++b)
        bytes.push_back(static_cast<std::int32_t>(in.ids[static_cast<std::size_t>(b * in.length + t)]));
      std::vector<T> const row = generator.step(bytes);
      stepped.insert(stepped.end(), row.begin(), row.end());
    }
    std::vector<double> wanted(stepped.size());
    std::vector<double> const reference = file.read<double>("/outputs/logits");
    auto const at = [&](Index b, Index t) {
      return static_cast<std::size_t>((b * in.length + t) * p.vocabulary);
    };
    for (Index t = 0; t < in.length; ++t)
      for (Index b = 0; b < in.windows; ++b)
        std::copy_n(reference.begin() + static_cast<std::ptrdiff_t>(at(b, t)), p.vocabulary,
                    wanted.begin() + (t * in.windows + b) * p.vocabulary);
    worst.add("logits byte by byte", stepped, wanted, allowed);
  }
  return worst;
}

}  // namespace

template <class T>
Report check_model(io::File const& file, std::string const& kind) {
  auto [config, mask_token] =
      train::parse_package_model(file.text_attribute("/", "config_yaml"), file.path());
  config.head = model::Head::reference;
  config.pad_row_is_trained = kind == "megabyte";
  Inputs const in = Inputs::read(file);
  // Chunks far smaller than the model, so that every border is crossed.
  model::Chunking chunking;
  chunking.outer_positions = 3;
  chunking.inner_rows = 7;
  chunking.outer_tapes = model::OuterTapes::two_level;
  model::Hierarchy<T> model(config, chunking, true);
  load_parameters(file, kind, model.parameters());
  Index const padded = model.padded_length(in.length);
  FixtureBatch const batch(in, config, padded, mask_token);

  Report report;
  report.logits = check_outputs(file, kind, in, model);

  Kokkos::View<double*, kernels::MemSpace> const totals("totals", 2);
  kernels::Vec<double> const totals_span(totals.data(), 2);
  model.evaluate(batch.get(), totals_span);
  std::vector<double> const sum = to_host(totals_span);
  if (file.exists("/outputs/token_loss")) {
    std::vector<T> const all = test::byte_losses(model, batch.get(), batch.lengths());
    std::vector<double> got;
    for (Index b = 0; b < in.windows; ++b)
      for (Index t = 0; t < in.length; ++t)
        got.push_back(std::max(0.0, static_cast<double>(all[static_cast<std::size_t>(b * padded + t)])));
    report.loss.add("token_loss", got, file.read<double>("/outputs/token_loss"), tolerance<T>().loss);
  }
  report.loss.add("loss", {sum[0] / sum[1]}, file.read<double>("/outputs/loss"), tolerance<T>().loss);
  if (file.has_attribute("/", "count_of_scored_elements"))
    report.loss.add("count_of_scored_elements", {sum[1]},
                    {static_cast<double>(file.integer_attribute("/", "count_of_scored_elements"))}, 0.5);

  model.forward_backward(batch.get(), static_cast<T>(1 / sum[1]), totals_span);
  report.gradients = compare_gradients(file, "/grads", kind, model.parameters());

  if (file.exists("/outputs/dependency")) {
    std::vector<std::int64_t> const first(in.ids.begin(), in.ids.begin() + in.length);
    double const threshold = std::is_same_v<T, double> ? 1e-6 : 1e-4;
    report.dependencies_equal =
        model::dependencies(model, first, threshold) == file.read<std::uint8_t>("/outputs/dependency");
  }
  return report;
}

template Report check_model<float>(io::File const&, std::string const&);
template Report check_model<double>(io::File const&, std::string const&);

}  // namespace strata::parity
