// SPDX-License-Identifier: Apache-2.0
#include "data/loader.hpp"

#include <algorithm>
#include <string>

#include "core/error.hpp"
#include "parallel/block.hpp"

namespace strata::data {

namespace {

void check(bool good, std::string const& message) {
  if (!good) throw core::InputError(message);
}

Index checked_total(io::DatasetFile const& file, io::Split split) {
  Index const total = file.info(split).size;
  check(total > 0, file.path() + ": split " + to_string(split) + " is empty");
  return total;
}

BatchMemory memory_of(io::DatasetFile const& file, io::Split split, Index rows, Index stride) {
  return {rows, stride, file.wide(), file.info(split).weights};
}

/// Sets the shape of a batch; its rows' windows are then filled in and read.
void shape_batch(MicroBatch& batch, io::DatasetFile const& file, io::Split split, Index rows, Index stride) {
  auto const elements = static_cast<std::size_t>(rows * stride);
  batch.rows = rows;
  batch.stride = stride;
  batch.bytes.resize(file.wide() ? 0 : elements);
  batch.tokens.resize(file.wide() ? elements : 0);
  batch.weights.resize(file.info(split).weights ? elements : 0);
  batch.windows.resize(static_cast<std::size_t>(rows));
  batch.lengths.resize(static_cast<std::size_t>(rows));
  batch.first_scored.assign(static_cast<std::size_t>(rows), 0);
}

template <class T>
void clear_behind(std::vector<T>& elements, std::size_t begin, std::size_t length, Index stride) {
  if (elements.empty()) return;
  auto const row = elements.begin() + static_cast<std::ptrdiff_t>(begin);
  std::fill(row + static_cast<std::ptrdiff_t>(length), row + stride, T(0));
}

void read_rows(MicroBatch& batch, io::DatasetFile const& file, io::Split split) {
  for (Index r = 0; r < batch.rows; ++r) {
    Window const window = batch.windows[static_cast<std::size_t>(r)];
    batch.lengths[static_cast<std::size_t>(r)] = window.length;
    auto const begin = static_cast<std::size_t>(r * batch.stride);
    auto const length = static_cast<std::size_t>(window.length);
    clear_behind(batch.bytes, begin, length, batch.stride);
    clear_behind(batch.tokens, begin, length, batch.stride);
    clear_behind(batch.weights, begin, length, batch.stride);
    if (file.wide()) {
      file.read(split, window.start, std::span(batch.tokens.data() + begin, length));
    } else {
      file.read(split, window.start, std::span(batch.bytes.data() + begin, length));
    }
    if (!batch.weights.empty()) {
      file.read_weights(split, window.start, std::span(batch.weights.data() + begin, length));
    }
  }
}

void check_ranks(Index batch_size, Index rank, Index ranks) {
  check(batch_size >= 1, "the batch size must be at least 1, not " + std::to_string(batch_size));
  check(ranks >= 1 && rank >= 0 && rank < ranks,
        "rank " + std::to_string(rank) + " does not exist among " + std::to_string(ranks));
}

/// The state of a training loader on its reader thread.
class TrainingReader {
 public:
  TrainingReader(io::DatasetFile const& file, LoaderOptions const& options, SampleOrder const& order)
      : file_(&file),
        options_(options),
        order_(order),
        place_(order.advance(options.start, 0)),
        counter_(order.counter(place_)) {}

  bool operator()(MicroBatch& batch) {
    LoaderOptions const& o = options_;
    Index const per_rank = o.micro_batches * o.batch_size;
    Index const per_step = o.ranks * per_rank;
    if (micro_batch_ == 0) {
      step_bytes_ = 0;
      next_place_ = place_;
      for (Index s = 0; s < per_step; ++s) {
        step_bytes_ += order_.window(next_place_).length;
        next_place_ = order_.advance(next_place_, 1);
      }
    }
    shape_batch(batch, *file_, o.split, o.batch_size, o.window_length);
    Index const first = o.rank * per_rank + micro_batch_ * o.batch_size;
    Place place = order_.advance(place_, first);
    for (Window& window : batch.windows) {
      window = order_.window(place);
      place = order_.advance(place, 1);
    }
    read_rows(batch, *file_, o.split);
    batch.step = step_;
    batch.micro_batch = micro_batch_;
    batch.first_sample = counter_ + first;
    batch.step_bytes = step_bytes_;
    batch.place = place_;
    batch.next_place = next_place_;
    if (++micro_batch_ == o.micro_batches) {
      micro_batch_ = 0;
      ++step_;
      counter_ += per_step;
      place_ = next_place_;
    }
    return true;
  }

 private:
  io::DatasetFile const* file_;
  LoaderOptions options_;
  SampleOrder order_;
  Place place_, next_place_;
  Index counter_, step_ = 0, micro_batch_ = 0, step_bytes_ = 0;
};

}  // namespace

std::size_t BatchMemory::batch_bytes() const {
  std::size_t const element = (wide ? sizeof(std::uint16_t) : 1) + (weights ? sizeof(float) : 0);
  std::size_t const row = sizeof(Window) + 2 * sizeof(Index);  // where it lies, its length, its first scored
  return static_cast<std::size_t>(rows) * (static_cast<std::size_t>(stride) * element + row);
}

Index BatchMemory::depth(Index wanted) const {
  constexpr std::size_t large = std::size_t{8} << 20;
  return batch_bytes() > large ? 1 : std::max<Index>(wanted, 1);
}

Loader::Loader(io::DatasetFile const& file, LoaderOptions const& options)
    : order_(checked_total(file, options.split), options.window_length, options.shuffle, options.seed) {
  check_ranks(options.batch_size, options.rank, options.ranks);
  check(options.micro_batches >= 1,
        "the number of micro-batches must be at least 1, not " + std::to_string(options.micro_batches));
  check(options.start.epoch >= 0 && options.start.index >= 0, "the place in the data must not be negative");
  BatchMemory const memory = memory_of(file, options.split, options.batch_size, options.window_length);
  read_ahead_ =
      std::make_unique<ReadAhead>(TrainingReader(file, options, order_), memory.depth(options.depth));
}

EvaluationLoader::EvaluationLoader(io::DatasetFile const& file, EvaluationOptions const& options) {
  check_ranks(options.batch_size, options.rank, options.ranks);
  EvaluationPlan const plan(checked_total(file, options.split), options.window, options.stride);
  Index const size = options.batch_size;
  Index total = (plan.count() + size - 1) / size;
  if (options.max_batches > 0) total = std::min(total, options.max_batches);
  parallel::Block const block = parallel::block_of(total, options.rank, options.ranks);
  batches_ = block.last - block.first;
  Index const stride = std::min(options.window, file.info(options.split).size);
  auto fill = [=, &file, next = block.first](MicroBatch& batch) mutable {
    if (next == block.last) return false;
    Index const first = next * size;
    shape_batch(batch, file, options.split, std::min(size, plan.count() - first), stride);
    for (Index r = 0; r < batch.rows; ++r) {
      ScoredWindow const scored = plan.window(first + r);
      batch.windows[static_cast<std::size_t>(r)] = scored.window;
      batch.first_scored[static_cast<std::size_t>(r)] = scored.first_scored;
    }
    read_rows(batch, file, options.split);
    batch.step = next++;
    batch.first_sample = first;
    return true;
  };
  BatchMemory const memory = memory_of(file, options.split, size, stride);
  read_ahead_ = std::make_unique<ReadAhead>(std::move(fill), memory.depth(options.depth));
}

EvaluationLoader::EvaluationLoader(io::DatasetFile const& file, io::Split split, std::vector<Window> windows,
                                   Index batch_size) {
  check_ranks(batch_size, 0, 1);
  Index stride = 0;
  for (Window const& window : windows) {
    check(window.start >= 0 && window.length >= 1 && window.length <= file.info(split).size - window.start,
          file.path() + ": split " + to_string(split) + " has no window of " + std::to_string(window.length) +
              " bytes at " + std::to_string(window.start));
    stride = std::max(stride, window.length);
  }
  auto const count = static_cast<Index>(windows.size());
  batches_ = (count + batch_size - 1) / batch_size;
  auto fill = [=, &file, windows = std::move(windows), next = Index{0}](MicroBatch& batch) mutable {
    Index const first = next * batch_size;
    if (first >= count) return false;
    shape_batch(batch, file, split, std::min(batch_size, count - first), stride);
    std::copy_n(windows.begin() + first, batch.rows, batch.windows.begin());
    read_rows(batch, file, split);
    batch.step = next++;
    batch.first_sample = first;
    return true;
  };
  read_ahead_ =
      std::make_unique<ReadAhead>(std::move(fill), memory_of(file, split, batch_size, stride).depth(2));
}

}  // namespace strata::data
