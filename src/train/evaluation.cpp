// SPDX-License-Identifier: Apache-2.0
#include "train/evaluation.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <string>

#include "core/error.hpp"
#include "data/loader.hpp"
#include "kernels/common/profile.hpp"
#include "train/exact_sum.hpp"

namespace strata::train {

namespace {

/// Exact sums and counts of n kinds, ready to be added up over ranks.
class Bins {
 public:
  explicit Bins(std::size_t n) : sums_(n), bytes_(n, 0.0) {}
  std::size_t size() const { return sums_.size(); }
  void add(std::size_t bin, double nats) {
    sums_[bin].add(nats);
    bytes_[bin] += 1;
  }
  std::vector<LossOf> over(parallel::Communicator const& ranks) const {
    std::vector<double> flat;
    flat.reserve(3 * size());
    for (std::size_t i = 0; i < size(); ++i)
      flat.insert(flat.end(), {sums_[i].high, sums_[i].low, bytes_[i]});
    if (!flat.empty()) ranks.sum_in_place(flat.data(), flat.size());
    std::vector<LossOf> result(size());
    for (std::size_t i = 0; i < size(); ++i)
      result[i] = {flat[3 * i] + flat[3 * i + 1], static_cast<Index>(flat[3 * i + 2])};
    return result;
  }

 private:
  std::vector<ExactSum> sums_;
  std::vector<double> bytes_;
};

std::size_t context_bin(Index position) {
  return static_cast<std::size_t>(std::bit_width(static_cast<std::uint64_t>(position)));
}

Index window_of(io::DatasetFile const& file, EvaluationSettings const& settings) {
  Index const size = file.info(settings.split).size;
  if (size == 0)
    throw core::InputError(file.path() + ": the split " + io::to_string(settings.split) +
                           " holds no bytes to evaluate on");
  return std::min(settings.window, size);
}

}  // namespace

struct Evaluator::Sums {
  Bins total, documents, context, patch;
  double flops = 0;
};

model::HostWindows host_windows(data::MicroBatch const& batch) {
  model::HostWindows windows;
  if (batch.bytes.empty()) {
    windows.ids = batch.tokens.data();
  } else {
    windows.bytes = batch.bytes.data();
  }
  windows.weights = batch.weights.empty() ? nullptr : batch.weights.data();
  windows.lengths = {batch.lengths.data(), static_cast<std::size_t>(batch.rows)};
  windows.stride = batch.stride;
  windows.first_sample = batch.first_sample;
  return windows;
}

void check_fit(model::ModelConfig const& config, io::DatasetFile const& file, Index window) {
  if (file.wide() && file.num_tokens() > config.num_tokens)
    throw core::InputError(file.path() + " holds tokens up to " + std::to_string(file.num_tokens() - 1) +
                           ", but the model's num_tokens is " + std::to_string(config.num_tokens));
  bool const fixed = config.block[0].pos_emb_type == model::Position::fixed;
  if (fixed && window > config.context())
    throw core::InputError("a window of " + std::to_string(window) +
                           " bytes does not fit the model, whose fixed positions end at " +
                           std::to_string(config.context()) + " bytes (the product of seq_lens)");
}

HalfPatches::HalfPatches(model::ModelConfig const& config)
    : patch_(config.seq_lens.back()),
      offset_((patch_ + 1) / 2),
      lag_(config.head == model::Head::reference ? 1 : 0) {
  if (config.stages() == 1)
    throw core::InputError("strided inference reads half patches, but a model of one stage has no patches");
  if (patch_ < 2)
    throw core::InputError("strided inference reads half patches, but those of the last stage hold one byte");
}

Evaluator::Evaluator(model::Hierarchy<float>& model, io::DatasetFile const& file,
                     parallel::Communicator const& ranks, EvaluationSettings const& settings)
    : model_(model),
      file_(file),
      ranks_(ranks),
      settings_(settings),
      padded_length_(model.padded_length(window_of(file, settings))),
      device_batch_(settings.batch_size, window_of(file, settings), file.wide(),
                    file.info(settings.split).weights),
      totals_("strata::evaluation_totals", 2) {
  settings_.window = window_of(file, settings);
  settings_.stride = std::min(settings_.stride, settings_.window);
  if (settings_.strided) halves_.emplace(model.config());
  check_fit(model.config(), file, settings_.window);
  // The last batch may be of any size.
  for (Index windows = settings_.batch_size; windows >= 1; --windows)
    model.reserve(windows, padded_length_, false);
  if (settings_.details) documents_ = file.document_offsets(settings_.split);
}

Evaluation Evaluator::run() {
  kernels::Region const region("evaluate");
  auto const start = std::chrono::steady_clock::now();
  data::EvaluationOptions options;
  options.split = settings_.split;
  options.window = settings_.window;
  options.stride = settings_.stride;
  options.batch_size = settings_.batch_size;
  options.rank = ranks_.rank();
  options.ranks = ranks_.size();
  options.max_batches = settings_.max_batches;
  data::EvaluationLoader loader(file_, options);

  bool const details = settings_.details;
  auto const patch = static_cast<std::size_t>(model_.config().bytes_per_position(0));
  Sums sums{Bins(1), Bins(details ? documents_.size() - 1 : 0),
            Bins(details ? context_bin(settings_.window - 1) + 1 : 0), Bins(details ? patch : 0)};
  auto const read = [&] {
    kernels::Region const reading("read data");
    return loader.next();
  };
  while (data::MicroBatch const* batch = read()) {
    add_batch(*batch, {0, batch->lengths}, sums);
    if (!halves_) continue;
    Reading second{halves_->offset(), batch->lengths};
    for (Index& length : second.lengths) length = std::max<Index>(0, length - second.offset);
    add_batch(*batch, second, sums);
  }

  Evaluation result;
  result.total = sums.total.over(ranks_).front();
  result.documents = sums.documents.over(ranks_);
  result.context = sums.context.over(ranks_);
  result.patch = sums.patch.over(ranks_);
  result.flops = ranks_.sum(sums.flops);
  result.seconds =
      ranks_.max(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  if (result.total.bytes == 0)
    throw core::InputError(file_.path() + ": no byte of the split " + io::to_string(settings_.split) +
                           " counts: all are the pad token");
  return result;
}

void Evaluator::add_batch(data::MicroBatch const& batch, Reading const& reading, Sums& sums) {
  kernels::ExecSpace const space;
  model::HostWindows const windows = host_windows(batch).from(reading.offset, reading.lengths);
  model::Batch const on_device = device_batch_.upload(space, windows, model_.config(), padded_length_);
  kernels::Targets const targets = model::on_host(on_device.targets, reading.lengths);
  model_.evaluate(on_device, kernels::Vec<double>(totals_.data(), 2),
                  [&](kernels::StageRows const& rows, kernels::Vec<float> losses) {
                    add_rows(batch, reading, targets, rows, losses, sums);
                  });
  sums.flops += model_.forward_flops(batch.rows, padded_length_);
}

void Evaluator::add_rows(data::MicroBatch const& batch, Reading const& reading,
                         kernels::Targets const& targets, kernels::StageRows const& rows,
                         kernels::Vec<float> losses, Sums& sums) const {
  auto const on_host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), losses);
  Index const patch = model_.config().bytes_per_position(0);
  bool const first_pass = reading.offset == 0;
  std::size_t document = 0;
  for (Index r = 0; r < rows.shape.rows(); ++r) {
    auto const nats = static_cast<double>(on_host(r));
    if (nats < 0) continue;  // predicts nothing, or the pad token
    Index const flat = targets.flat(rows, r);
    auto const window = static_cast<std::size_t>(flat / padded_length_);
    Index const place_read = flat % padded_length_;
    Index const i = reading.offset + place_read;
    if (i < batch.first_scored[window] || (halves_ && halves_->in_first_pass(i) != first_pass)) continue;
    sums.total.add(0, nats);
    if (!settings_.details) continue;
    auto const place = static_cast<std::uint64_t>(batch.windows[window].start + i);
    if (place < documents_[document] || place >= documents_[document + 1]) {
      auto const after = std::upper_bound(documents_.begin(), documents_.end(), place);
      document = static_cast<std::size_t>(after - documents_.begin()) - 1;
    }
    sums.documents.add(document, nats);
    sums.context.add(context_bin(i), nats);
    sums.patch.add(static_cast<std::size_t>(place_read % patch), nats);
  }
}

}  // namespace strata::train
