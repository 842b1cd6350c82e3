// SPDX-License-Identifier: Apache-2.0
#include "train/checkpoint.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <span>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "core/runtime.hpp"
#include "io/tensor_file.hpp"
#include "train/shards.hpp"

namespace strata::train {

namespace {

char const* const first_group = "optimizer/first_moment";
char const* const second_group = "optimizer/second_moment";

kernels::Vec<float> part(kernels::Vec<float> const& flat, model::Parameter const& place) {
  return kernels::range(flat, place.offset, place.offset + place.size());
}

template <class U>
using HostVec = Kokkos::View<U*, Kokkos::HostSpace, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;

/// One array per parameter out of a flat buffer of the store's layout; straight from it where one rank writes
/// what the host can read.
void write_group(io::CheckpointWriter& writer, char const* group,
                 model::ParameterStore<float> const& parameters, kernels::Vec<float> const& flat,
                 bool alone) {
  for (model::ParameterInfo const& info : parameters.all()) {
    if (alone && !kernels::on_device) {
      writer.array(group, info.name, info.shape, part(flat, info.place).data());
      continue;
    }
    writer.array(
        group, info.name, info.shape, [from = part(flat, info.place)](Index first, std::span<float> out) {
          auto const count = static_cast<Index>(out.size());
          Kokkos::deep_copy(HostVec<float>(out.data(), count), kernels::range(from, first, first + count));
        });
  }
}

/// The same of a buffer that holds this rank's shard of the elements only.
void write_shard(io::CheckpointWriter& writer, char const* group,
                 model::ParameterStore<float> const& parameters, std::vector<model::FlatRange> const& shard,
                 kernels::Vec<float> const& flat) {
  for (model::ParameterInfo const& info : parameters.all()) {
    Index const offset = info.place.offset;
    io::Ranges mine;
    for_elements_of(shard, {offset, offset + info.place.size()}, [&](Index begin, Index end, Index) {
      mine.push_back({begin - offset, end - offset});
    });
    writer.array(
        group, info.name, info.shape,
        [shard, flat, offset](Index first, std::span<float> out) {
          Index const at = offset + first;
          for_elements_of(shard, {at, at + static_cast<Index>(out.size())},
                          [&](Index begin, Index end, Index place) {
                            Kokkos::deep_copy(HostVec<float>(out.data() + (begin - at), end - begin),
                                              kernels::range(flat, place, place + end - begin));
                          });
        },
        mine);
  }
}

void copy_in(kernels::Vec<float> const& to, Index first, std::span<float const> in) {
  auto const count = static_cast<Index>(in.size());
  Kokkos::deep_copy(kernels::range(to, first, first + count), HostVec<float const>(in.data(), count));
}

/// A parameter, its first rows alone, or more rows than it has.
void read_rows(io::CheckpointReader const& reader, char const* group, std::string const& name,
               io::Shape const& stored, kernels::Vec<float> const& to) {
  auto const size = static_cast<Index>(to.extent(0));
  reader.array(group, name, stored, [&](Index first, std::span<float const> in) {
    Index const count = std::clamp<Index>(size - first, 0, static_cast<Index>(in.size()));
    if (count > 0) copy_in(to, first, in.first(static_cast<std::size_t>(count)));
  });
}

void expect_no_other(io::CheckpointReader const& reader, char const* group,
                     std::vector<model::ParameterInfo> const& wanted) {
  std::vector<std::string> const names = reader.names(group);
  if (names.size() == wanted.size()) return;
  for (std::string const& name : names) {
    auto const known = [&](model::ParameterInfo const& info) { return info.name == name; };
    if (std::none_of(wanted.begin(), wanted.end(), known))
      throw core::InputError(reader.path() + ": the model has no parameter called " + name);
  }
}

void read_group(io::CheckpointReader const& reader, char const* group,
                std::vector<model::ParameterInfo> const& stored,
                model::ParameterStore<float> const& parameters, kernels::Vec<float> const& flat) {
  std::vector<model::ParameterInfo> const& wanted = parameters.all();
  for (std::size_t p = 0; p < wanted.size(); ++p) {
    model::ParameterInfo const& info = wanted[p];
    kernels::Vec<float> const to = part(flat, info.place);
    read_rows(reader, group, info.name, stored[p].shape, to);
  }
  expect_no_other(reader, group, wanted);
}

/// Of each array only what a shard has, into a buffer of these elements.
void read_shard(io::CheckpointReader const& reader, char const* group,
                model::ParameterStore<float> const& parameters, std::vector<model::FlatRange> const& shard,
                kernels::Vec<float> const& to) {
  for (model::ParameterInfo const& info : parameters.all())
    reader.array(group, info.name, info.shape, [&](Index first, std::span<float const> in) {
      Index const at = info.place.offset + first;
      for_elements_of(shard, {at, at + static_cast<Index>(in.size())},
                      [&](Index begin, Index end, Index place) {
                        Kokkos::deep_copy(kernels::range(to, place, place + end - begin),
                                          HostVec<float const>(in.data() + (begin - at), end - begin));
                      });
    });
  expect_no_other(reader, group, parameters.all());
}

void write_progress(io::CheckpointWriter& writer, Progress const& progress) {
  auto const number = [&](char const* key, std::int64_t value) { writer.number("progress", key, value); };
  number("step", progress.step);
  number("total_steps", progress.total_steps);
  number("bytes_seen", progress.bytes_seen);
  number("samples_seen", progress.samples_seen);
  number("next_epoch", progress.next.epoch);
  number("next_index", progress.next.index);
  number("seed", static_cast<std::int64_t>(progress.seed));
  number("global_batch", progress.global_batch);
  number("dataset_bytes", progress.dataset_bytes);
  writer.text("progress", "dataset", progress.dataset);
  if (progress.validation_loss) writer.number("progress", "validation_loss", *progress.validation_loss);
}

}  // namespace

void write_provenance(io::CheckpointWriter& writer) {
  core::Provenance const made = core::provenance();
  writer.text("provenance", "version", made.version);
  writer.text("provenance", "commit", made.commit);
  writer.text("provenance", "kokkos_version", made.kokkos_version);
  writer.text("provenance", "backend", made.backend);
  writer.text("provenance", "blas", made.blas);
  writer.number("provenance", "ranks", std::int64_t{made.ranks});
  writer.number("provenance", "threads", std::int64_t{made.threads});
}

std::string checkpoint_file(std::string const& path) {
  namespace fs = std::filesystem;
  fs::path file = path;
  std::error_code error;
  if (fs::is_directory(file, error)) {
    file /= "latest.h5";
    if (!fs::exists(file, error))
      throw core::InputError("the folder " + path +
                             " holds no latest.h5; name a checkpoint or the folder of a run");
  }
  if (io::looks_like_tensor_file(file.string()))
    throw core::InputError(file.string() +
                           " is no checkpoint of this program; make one of it with `strata convert --from " +
                           file.string() + " --output model.h5`");
  return file.string();
}

void save_checkpoint(std::string const& path, Deck const& deck,
                     model::ParameterStore<float> const& parameters, Optimizer const& optimizer,
                     Progress const& progress, parallel::Communicator const& ranks) {
  Kokkos::fence();  // the host reads what kernels wrote
  io::CheckpointWriter writer(path, ranks);
  bool const alone = ranks.size() == 1;
  write_group(writer, "parameters", parameters, parameters.values(), alone);
  for (auto const& [group, moment] : {std::pair(first_group, optimizer.first_moment()),
                                      std::pair(second_group, optimizer.second_moment())}) {
    if (optimizer.is_shared()) {
      write_shard(writer, group, parameters, optimizer.ranges(), moment);
    } else {
      write_group(writer, group, parameters, moment, alone);
    }
  }
  write_progress(writer, progress);
  write_provenance(writer);
  writer.text("config", deck.text());
  writer.close();
}

Progress read_progress(io::CheckpointReader const& reader) {
  auto const number = [&](char const* key) { return reader.integer("progress", key); };
  Progress progress;
  progress.step = number("step");
  progress.total_steps = number("total_steps");
  progress.bytes_seen = number("bytes_seen");
  progress.samples_seen = number("samples_seen");
  progress.next = {number("next_epoch"), number("next_index")};
  progress.seed = static_cast<std::uint64_t>(number("seed"));
  progress.global_batch = number("global_batch");
  progress.dataset_bytes = number("dataset_bytes");
  progress.dataset = reader.text("progress", "dataset");
  if (reader.has("progress", "validation_loss"))
    progress.validation_loss = reader.real("progress", "validation_loss");
  if (progress.step < 0 || progress.next.epoch < 0 || progress.next.index < 0)
    throw core::InputError(reader.path() + ": group /progress holds a negative counter");
  return progress;
}

void load_parameters(io::CheckpointReader const& reader, model::ParameterStore<float>& parameters) {
  load_parameters(reader, parameters.all(), parameters);
}

void load_parameters(io::CheckpointReader const& reader, std::vector<model::ParameterInfo> const& stored,
                     model::ParameterStore<float>& parameters) {
  read_group(reader, "parameters", stored, parameters, parameters.values());
}

void load_optimizer(io::CheckpointReader const& reader, model::ParameterStore<float> const& parameters,
                    Optimizer& optimizer) {
  for (auto const& [group, moment] : {std::pair(first_group, optimizer.first_moment()),
                                      std::pair(second_group, optimizer.second_moment())}) {
    if (optimizer.is_shared()) {
      read_shard(reader, group, parameters, optimizer.ranges(), moment);
    } else {
      read_group(reader, group, parameters.all(), parameters, moment);
    }
  }
}

namespace {

LoadedModel load_model(io::CheckpointReader const& reader, bool with_gradients) {
  LoadedModel loaded;
  loaded.path = reader.path();
  loaded.deck = parse_deck(reader.text("config"), loaded.path + ":/config");
  loaded.hierarchy =
      std::make_unique<model::Hierarchy<float>>(loaded.deck.params, chunking(loaded.deck), with_gradients);
  load_parameters(reader, loaded.hierarchy->parameters());
  // A checkpoint converted from another package holds parameters only.
  if (reader.has("progress", "step")) loaded.step = reader.integer("progress", "step");
  if (reader.has("progress", "validation_loss"))
    loaded.validation_loss = reader.real("progress", "validation_loss");
  return loaded;
}

}  // namespace

LoadedModel load_model(std::string const& path, bool with_gradients) {
  return load_model(io::CheckpointReader(checkpoint_file(path)), with_gradients);
}

LoadedModel load_model(std::string const& path, parallel::Communicator const& ranks) {
  return load_model(io::CheckpointReader(checkpoint_file(path), ranks), false);
}

model::Chunking chunking(Deck const& deck) {
  model::Chunking result;
  result.outer_positions = deck.train.outer_chunk;
  result.inner_rows = deck.train.inner_rows;
  result.outer_tapes = deck.train.outer_tapes.value_or(model::OuterTapes::keep);
  result.border_interval = deck.train.border_interval;
  result.checkpoint_chunks = deck.train_checkpoint_chunks;
  return result;
}

}  // namespace strata::train
