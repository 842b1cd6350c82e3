// SPDX-License-Identifier: Apache-2.0
#include <optional>

#include "core/error.hpp"
#include "io/dataset_file.hpp"

namespace strata::io {

namespace {

constexpr std::size_t offsets_held = 8192;

/// The open datasets of one split.
struct SplitWriter {
  std::optional<Dataset> elements, offsets, weights;
  std::vector<std::uint64_t> pending_offsets{0};
  std::uint64_t size = 0;
  std::uint64_t document_begin = 0;
};

template <class T>
void check_range(std::span<T const> values, std::int64_t limit) {
  for (T const value : values) {
    if (value >= limit) {
      throw core::InputError("token " + std::to_string(value) + " is outside the declared " +
                             std::to_string(limit) + " tokens");
    }
  }
}

}  // namespace

struct DatasetWriter::Impl {
  Impl(std::string const& path, DatasetOptions const& given)
      : options(given), target(path, given.overwrite), file(File::create(target.partial())) {}

  SplitWriter& operator[](Split split) { return splits.at(static_cast<std::size_t>(split)); }

  template <class T>
  void append(Split split, std::span<T const> values, std::span<float const> weights) {
    if (weights.size() != (options.loss_weights ? values.size() : 0)) {
      throw std::logic_error(
          "DatasetWriter::append: one loss weight per element exactly when the options ask for them");
    }
    SplitWriter& out = (*this)[split];
    out.elements->append(values);
    if (out.weights) out.weights->append(weights);
    out.size += values.size();
  }

  void flush_offsets(SplitWriter& out) {
    out.offsets->append(std::span<std::uint64_t const>(out.pending_offsets));
    out.pending_offsets.clear();
  }

  // Destruction runs backwards: the datasets, then the file (abandoned unless closed), then the partial file.
  DatasetOptions options;
  AtomicFile target;
  File file;
  std::array<SplitWriter, 3> splits;
};

DatasetWriter::DatasetWriter(std::string const& path, DatasetOptions const& options) {
  if (options.num_tokens < 1 || options.num_tokens > 65536) {
    throw core::InputError("a dataset holds 1 to 65536 different tokens, not " +
                           std::to_string(options.num_tokens));
  }
  if (options.compression < 0 || options.compression > 9) {
    throw core::InputError("the compression level must be 0 to 9, not " +
                           std::to_string(options.compression));
  }
  impl_ = std::make_unique<Impl>(path, options);
  File& file = impl_->file;
  file.set_attribute("/", "format", std::string("strata-dataset"));
  file.set_attribute("/", "version", dataset_version);
  file.set_attribute("/", "num_tokens", options.num_tokens);
  file.set_attribute("/", "tool_version", options.tool_version);
  Layout const stream{true, options.compression};
  for (Split const split : all_splits) {
    std::string const group = std::string("/") + to_string(split);
    SplitWriter& out = (*impl_)[split];
    file.make_group(group);
    bool const wide = options.num_tokens > 256;
    out.elements = file.create_dataset(group + (wide ? "/tokens" : "/bytes"),
                                       wide ? ElementType::uint16 : ElementType::uint8, {}, stream);
    out.offsets = file.create_dataset(group + "/document_offsets", ElementType::uint64, {}, stream);
    if (options.loss_weights) {
      out.weights = file.create_dataset(group + "/loss_weight", ElementType::float32, {}, stream);
    }
  }
}

DatasetWriter::~DatasetWriter() = default;

void DatasetWriter::append(Split split, std::span<std::uint8_t const> bytes, std::span<float const> weights) {
  if (impl_->options.num_tokens > 256)
    throw std::logic_error("DatasetWriter: bytes appended to a dataset of tokens");
  if (impl_->options.num_tokens < 256) check_range(bytes, impl_->options.num_tokens);
  impl_->append(split, bytes, weights);
}

void DatasetWriter::append(Split split, std::span<std::uint16_t const> tokens,
                           std::span<float const> weights) {
  if (impl_->options.num_tokens <= 256)
    throw std::logic_error("DatasetWriter: tokens appended to a dataset of bytes");
  check_range(tokens, impl_->options.num_tokens);
  impl_->append(split, tokens, weights);
}

void DatasetWriter::end_document(Split split) {
  SplitWriter& out = (*impl_)[split];
  out.pending_offsets.push_back(out.size);
  out.document_begin = out.size;
  if (out.pending_offsets.size() >= offsets_held) impl_->flush_offsets(out);
}

void DatasetWriter::close(std::string const& source_digest) {
  Impl& impl = *impl_;
  for (SplitWriter& out : impl.splits) {
    if (out.document_begin != out.size)
      throw std::logic_error("DatasetWriter::close: a document was not ended");
    impl.flush_offsets(out);
    out.elements->flush();
    out.offsets->flush();
    if (out.weights) out.weights->flush();
  }
  impl.file.set_attribute("/", "source_digest", source_digest);
  impl.splits = {};
  impl.file.close();
  impl.target.commit();
}

}  // namespace strata::io
