// SPDX-License-Identifier: Apache-2.0
#include "io/dataset_file.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/error.hpp"

namespace strata::io {

namespace {

constexpr Index piece = 1 << 16;

struct SplitReader {
  std::optional<Dataset> elements, offsets, weights;
  DatasetFile::SplitInfo info;
};

}  // namespace

char const* to_string(Split split) {
  switch (split) {
    case Split::train:
      return "train";
    case Split::validation:
      return "validation";
    case Split::test:
      return "test";
  }
  return "?";
}

Split split_from_name(std::string const& name) {
  for (Split const split : all_splits) {
    if (name == to_string(split)) return split;
  }
  throw core::InputError("there is no split '" + name + "'; choose train, validation or test");
}

struct DatasetFile::Impl {
  explicit Impl(std::string const& path) : file(File::open(path)) {
    if (!file.has_attribute("/", "format") || file.text_attribute("/", "format") != "strata-dataset") {
      throw core::InputError(path + " is not a Strata dataset; make one with 'strata pack'");
    }
    version = file.integer_attribute("/", "version");
    if (version < 1 || version > dataset_version) {
      throw core::InputError(path + " is a dataset of format version " + std::to_string(version) +
                             ", but this program reads up to version " + std::to_string(dataset_version) +
                             "; use a newer program or pack the data again");
    }
    num_tokens = file.integer_attribute("/", "num_tokens");
    if (num_tokens < 1 || num_tokens > 65536) refuse("num_tokens must be 1 to 65536");
    if (file.has_attribute("/", "source_digest")) source_digest = file.text_attribute("/", "source_digest");
    if (file.has_attribute("/", "tool_version")) tool_version = file.text_attribute("/", "tool_version");
    for (Split const split : all_splits) open_split(split);
  }

  [[noreturn]] void refuse(std::string const& why) const { throw core::InputError(file.path() + ": " + why); }

  Dataset open_list(std::string const& object, ElementType type) const {
    Dataset data = file.dataset(object);
    if (data.type() != type || data.shape().size() != 1) {
      refuse(object + " must be a list of " + to_string(type) + ", not " +
             std::to_string(data.shape().size()) + "-dimensional " + to_string(data.type()));
    }
    return data;
  }

  void open_split(Split split) {
    std::string const group = std::string("/") + to_string(split);
    if (!file.exists(group)) return;
    if (!file.is_group(group)) refuse(group + " must be a group");
    SplitReader& in = splits[static_cast<std::size_t>(split)];
    bool const wide = num_tokens > 256;
    in.elements =
        open_list(group + (wide ? "/tokens" : "/bytes"), wide ? ElementType::uint16 : ElementType::uint8);
    in.info.size = in.elements->size();
    in.offsets = open_list(group + "/document_offsets", ElementType::uint64);
    if (file.exists(group + "/loss_weight")) {
      in.weights = open_list(group + "/loss_weight", ElementType::float32);
      in.info.weights = true;
      if (in.weights->size() != in.info.size) {
        refuse(group + "/loss_weight has " + std::to_string(in.weights->size()) + " elements for " +
               std::to_string(in.info.size) + " bytes");
      }
    }
    check_offsets(group, in);
  }

  /// First 0, last the size, never falling. Read in pieces, after the ends: a list of a claimed huge length
  /// fails there.
  void check_offsets(std::string const& group, SplitReader& in) const {
    std::string const object = group + "/document_offsets";
    Index const count = in.offsets->size();
    if (count < 1) refuse(object + " is empty; it must start with 0");
    in.info.documents = count - 1;
    std::uint64_t first = 0;
    std::uint64_t last = 0;
    in.offsets->read(0, std::span(&first, 1));
    in.offsets->read(count - 1, std::span(&last, 1));
    if (first != 0 || last != static_cast<std::uint64_t>(in.info.size)) {
      refuse(object + " must run from 0 to the split's size " + std::to_string(in.info.size) + ", not from " +
             std::to_string(first) + " to " + std::to_string(last));
    }
    std::vector<std::uint64_t> part(static_cast<std::size_t>(std::min(piece, count)));
    std::uint64_t before = 0;
    for (Index begin = 0; begin < count; begin += piece) {
      std::span<std::uint64_t> const now(part.data(),
                                         static_cast<std::size_t>(std::min(piece, count - begin)));
      in.offsets->read(begin, now);
      for (std::uint64_t const offset : now) {
        if (offset < before)
          refuse(object + " falls from " + std::to_string(before) + " to " + std::to_string(offset));
        before = offset;
      }
    }
  }

  SplitReader const& range(Split split, Index offset, std::size_t count) const {
    SplitReader const& in = splits[static_cast<std::size_t>(split)];
    if (offset < 0 || offset > in.info.size || static_cast<Index>(count) > in.info.size - offset) {
      refuse(std::string("split ") + to_string(split) + " has no bytes " + std::to_string(offset) + " to " +
             std::to_string(offset + static_cast<Index>(count)) + ", only " + std::to_string(in.info.size));
    }
    return in;
  }

  template <class T>
  void check_tokens(std::span<T const> values) const {
    for (T const value : values) {
      if (static_cast<std::int64_t>(value) >= num_tokens) {
        refuse("holds token " + std::to_string(value) + " although it declares only " +
               std::to_string(num_tokens));
      }
    }
  }

  File file;
  std::int64_t version = 0;
  std::int64_t num_tokens = 0;
  std::string source_digest, tool_version;
  std::array<SplitReader, 3> splits;
};

DatasetFile::DatasetFile(std::string const& path) : impl_(std::make_unique<Impl>(path)) {}
DatasetFile::~DatasetFile() = default;

std::string const& DatasetFile::path() const { return impl_->file.path(); }
std::int64_t DatasetFile::version() const { return impl_->version; }
std::int64_t DatasetFile::num_tokens() const { return impl_->num_tokens; }
std::string const& DatasetFile::source_digest() const { return impl_->source_digest; }
std::string const& DatasetFile::tool_version() const { return impl_->tool_version; }
DatasetFile::SplitInfo DatasetFile::info(Split split) const {
  return impl_->splits[static_cast<std::size_t>(split)].info;
}

void DatasetFile::read(Split split, Index offset, std::span<std::uint8_t> out) const {
  SplitReader const& in = impl_->range(split, offset, out.size());
  if (wide()) impl_->refuse("holds tokens above 255; they cannot be read as bytes");
  if (out.empty()) return;
  in.elements->read(offset, out);
  if (num_tokens() < 256) impl_->check_tokens(std::span<std::uint8_t const>(out));
}

void DatasetFile::read(Split split, Index offset, std::span<std::uint16_t> out) const {
  SplitReader const& in = impl_->range(split, offset, out.size());
  if (out.empty()) return;
  in.elements->read(offset, out);
  impl_->check_tokens(std::span<std::uint16_t const>(out));
}

void DatasetFile::read_weights(Split split, Index offset, std::span<float> out) const {
  SplitReader const& in = impl_->range(split, offset, out.size());
  if (out.empty()) return;
  if (!in.weights) {
    std::fill(out.begin(), out.end(), 1.0F);
    return;
  }
  in.weights->read(offset, out);
  for (float const weight : out) {
    if (!(weight >= 0) || !std::isfinite(weight)) {
      impl_->refuse(std::string("/") + to_string(split) +
                    "/loss_weight holds a negative or non-finite weight");
    }
  }
}

std::vector<std::uint64_t> DatasetFile::document_offsets(Split split) const {
  SplitReader const& in = impl_->splits[static_cast<std::size_t>(split)];
  if (!in.offsets) return {0};
  std::vector<std::uint64_t> offsets(static_cast<std::size_t>(in.offsets->size()));
  in.offsets->read(std::span(offsets));
  return offsets;
}

}  // namespace strata::io
