// SPDX-License-Identifier: Apache-2.0
#include "train/convert.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "core/error.hpp"
#include "io/checkpoint_file.hpp"
#include "io/safetensors.hpp"
#include "model/hierarchy.hpp"
#include "train/checkpoint.hpp"
#include "train/foreign_deck.hpp"

namespace strata::train {

namespace {

using core::InputError;
using model::BlockConfig;
using model::BlockType;
using model::ParameterInfo;

bool is_transformer(BlockConfig const& block) {
  return block.block_type == BlockType::transformer || block.block_type == BlockType::transformer_encoder;
}

/// Frequency c of d / 2 for heads of width d, as the packages make their tables: in single precision.
float rotary_frequency(Index c, Index d) {
  return 1.0F / std::pow(10000.0F, static_cast<float>(2 * c) / static_cast<float>(d));
}

/// Names and shapes of the model's parameters, in the order of a state_dict's stages.
model::Hierarchy<float> plan_of(Deck const& deck) {
  return model::Hierarchy<float>::plan(deck.params, chunking(deck));
}

Index elements(std::vector<ParameterInfo> const& parameters) {
  return std::accumulate(parameters.begin(), parameters.end(), Index{0},
                         [](Index sum, ParameterInfo const& info) { return sum + info.place.size(); });
}

/// The only row of zeros of a table, if there is one.
std::optional<Index> zero_row(io::InputFile const& file, io::StoredTensor const& table) {
  if (table.shape.size() != 2 || !io::is_real(table.type) || table.shape[0] > 65536 ||
      table.shape[1] > (Index{1} << 20))
    return {};
  io::TensorReader reader(file, table);
  std::vector<float> row(static_cast<std::size_t>(table.shape[1]));
  std::optional<Index> found;
  for (Index r = 0; r < table.shape[0]; ++r) {
    reader.read(r * table.shape[1], row);
    if (!std::all_of(row.begin(), row.end(), [](float x) { return x == 0; })) continue;
    if (found) return {};
    found = r;
  }
  return found;
}

/// What a file holds, by our names. Two names for one parameter are refused.
TensorShapes survey(io::TensorFile const& file) {
  TensorShapes result;
  std::map<std::string, std::string> first;
  io::StoredTensor const* table = nullptr;
  for (io::StoredTensor const& tensor : file.tensors) {
    ForeignName const name = read_foreign_name(tensor.name);
    if (auto const [at, fresh] = first.emplace(name.ours, tensor.name); !fresh)
      throw InputError(fmt::format("{}: the tensors {} and {} are both the parameter {}", file.file.path(),
                                   io::quote(at->second), io::quote(tensor.name), io::quote(name.ours)));
    result.shapes[name.ours] = tensor.shape;
    if (name.style != NameStyle::mblm) result.style = name.style;
    result.encoder = result.encoder || name.encoder;
    if (name.ours == "token_embs_rev.0.weight") table = &tensor;
  }
  // In MEGABYTE the row of the pad token is an ordinary one.
  if (table != nullptr && result.style != NameStyle::megabyte) result.pad_row = zero_row(file.file, *table);
  return result;
}

/// Nothing when a table of rotary frequencies is the one that the deck's model computes; else what is wrong.
std::optional<std::string> rotary_problem(io::TensorFile const& file, io::StoredTensor const& tensor,
                                          std::string const& ours, model::ModelConfig const& config) {
  for (std::size_t s = 0; s < config.stages(); ++s) {
    if (ours != rotary_buffer(s)) continue;
    BlockConfig const& block = config.block[s];
    if (!is_transformer(block) || !block.attn_use_rot_embs)
      return fmt::format("{} is there, but params.block.{} has no rotary positions", tensor.name, s);
    Index const count = block.attn_head_dims / 2;
    if (tensor.shape != io::Shape{count})
      return fmt::format("{} has the shape {}, but attn_head_dims {} needs [{}]", tensor.name,
                         io::shape_text(tensor.shape), block.attn_head_dims, count);
    if (!io::is_real(tensor.type)) return fmt::format("{} holds {}", tensor.name, to_string(tensor.type));
    std::vector<float> stored(static_cast<std::size_t>(count));
    io::TensorReader(file.file, tensor).read(0, stored);
    for (Index c = 0; c < count; ++c) {
      float const wanted = rotary_frequency(c, block.attn_head_dims);
      float const is = stored[static_cast<std::size_t>(c)];
      if (!(std::abs(is - wanted) <= 0.01F * wanted))  // also of a table rounded to 16 bits
        return fmt::format("{} says {} at place {} where base 10000 gives {}; other bases are not supported",
                           tensor.name, is, c, wanted);
    }
    return {};
  }
  return fmt::format("{} belongs to no stage of the deck", tensor.name);
}

Mapping map_tensors(io::TensorFile const& file, Deck const& deck, bool ignore_extra) {
  // Names are declared one by one, so a deck of absurdly many layers is refused first.
  double layers = 0;
  for (Index const count : deck.params.num_layers) layers += static_cast<double>(count);
  if (layers > static_cast<double>(file.tensors.size()))
    throw InputError(fmt::format("{}: it has {} tensors, too few for the {} layers of params.num_layers",
                                 file.file.path(), file.tensors.size(), layers));
  auto const model = plan_of(deck);
  std::vector<ParameterInfo> const& wanted = model.parameters().all();
  std::map<std::string, std::size_t> numbers;
  for (std::size_t p = 0; p < wanted.size(); ++p) numbers[wanted[p].name] = p;

  Mapping result;
  for (std::size_t t = 0; t < file.tensors.size(); ++t) {
    io::StoredTensor const& tensor = file.tensors[t];
    std::string const ours = read_foreign_name(tensor.name).ours;
    if (is_rotary_buffer(ours)) {
      if (auto problem = rotary_problem(file, tensor, ours, deck.params)) {
        result.wrong.push_back(std::move(*problem));
      } else {
        result.ignored.emplace_back(tensor.name, "rotary frequencies, which are computed");
      }
      continue;
    }
    auto const found = numbers.find(ours);
    if (found == numbers.end()) {
      if (ignore_extra) {
        result.ignored.emplace_back(tensor.name, "the deck's model has no place for it");
      } else {
        result.unknown.push_back(tensor.name);
      }
      continue;
    }
    ParameterInfo const& info = wanted[found->second];
    if (tensor.shape != info.shape) {
      result.wrong.push_back(fmt::format("{} has the shape {} where the deck needs {}", tensor.name,
                                         io::shape_text(tensor.shape), io::shape_text(info.shape)));
    } else if (!io::is_real(tensor.type)) {
      result.wrong.push_back(
          fmt::format("{} holds {} where real numbers are needed", tensor.name, to_string(tensor.type)));
    } else {
      result.mapped.push_back({t, found->second, info.name});
    }
    numbers.erase(found);
  }
  for (ParameterInfo const& info : wanted)
    if (numbers.count(info.name) > 0) result.missing.push_back(info.name);
  for (std::string const& name : file.others) result.ignored.emplace_back(name, "no tensor");
  return result;
}

std::string first_of(std::vector<std::string> const& list) {
  return list.size() == 1 ? list[0] : fmt::format("{} (and {} more)", list[0], list.size() - 1);
}

}  // namespace

Import::Import(std::string const& path, std::optional<std::string> const& deck_path,
               std::vector<std::string> const& overrides, bool ignore_extra)
    : file(io::open_tensor_file(path)) {
  TensorShapes const tensors = survey(file);
  style = tensors.style;
  encoder = tensors.encoder;
  deck = foreign_deck(file, tensors, deck_path, overrides, warnings);
  mapping = map_tensors(file, deck, ignore_extra);
  parameters = elements(plan_of(deck).parameters().all());
}

void Import::refuse_misfits() const {
  std::vector<std::string> parts;
  if (!mapping.wrong.empty()) parts.push_back(first_of(mapping.wrong));
  if (!mapping.missing.empty()) parts.push_back("there is no tensor for " + first_of(mapping.missing));
  if (!mapping.unknown.empty())
    parts.push_back("the deck's model has no place for " + first_of(mapping.unknown) +
                    " (--ignore-extra leaves such tensors out)");
  if (parts.empty()) return;
  throw InputError(fmt::format("{}: {}", file.file.path(), fmt::join(parts, "; ")));
}

void Import::write(std::string const& path) const {
  refuse_misfits();
  auto const model = plan_of(deck);
  io::CheckpointWriter writer(path);
  // In the model's order, so that the order of a file's tensors does not show.
  std::vector<ParameterInfo> const& wanted = model.parameters().all();
  std::vector<std::size_t> source(wanted.size());
  for (Mapping::Mapped const& mapped : mapping.mapped) source[mapped.parameter] = mapped.tensor;
  for (std::size_t p = 0; p < wanted.size(); ++p) {
    io::TensorReader reader(file.file, file.tensors[source[p]]);
    writer.array("parameters", wanted[p].name, wanted[p].shape,
                 [&](Index first, std::span<float> out) { reader.read(first, out); });
  }
  write_provenance(writer);
  writer.text("config", deck.text());
  writer.close();
}

Export export_safetensors(std::string const& checkpoint, std::string const& output, NameStyle style,
                          bool overwrite) {
  io::CheckpointReader const reader(checkpoint_file(checkpoint));
  Deck const deck = parse_deck(reader.text("config"), reader.path() + ":/config");
  auto const model = plan_of(deck);
  std::vector<ParameterInfo> const& parameters = model.parameters().all();
  std::vector<BlockConfig> const& blocks = deck.params.block;
  Export result;
  result.parameters = elements(parameters);
  if (style == NameStyle::megabyte && std::any_of(blocks.begin(), blocks.end(), [](BlockConfig const& block) {
        return block.block_type != BlockType::transformer || block.pos_emb_type == model::Position::rope;
      }))
    throw InputError(reader.path() +
                     ": MEGABYTE has causal Transformer blocks without rope positions only; use "
                     "the names of mblm");
  if (deck.params.patch_encoder == model::PatchEncoder::convolution)
    throw InputError(reader.path() +
                     ": the model has patch_encoder convolution, which the Python packages do not have");
  if (deck.params.head == model::Head::complete)
    result.warnings.push_back(
        reader.path() +
        ": the model has head complete, which the Python packages do not have; they read these "
        "weights, but predict something else with them");
  if (std::any_of(blocks.begin(), blocks.end(),
                  [](BlockConfig const& block) { return block.cross_patch_attention > 0; }))
    result.warnings.push_back(
        reader.path() +
        ": the model has cross_patch_attention, which the Python packages do not have; with these weights "
        "their attention will not see the patch before");
  bool const encoder =
      std::none_of(blocks.begin(), blocks.end(), [](BlockConfig const& block) { return block.causal(); });

  std::vector<io::SafetensorsWriter::Tensor> tensors;
  for (ParameterInfo const& info : parameters) {
    tensors.push_back({foreign_name(info.name, style, encoder), info.shape});
    result.tensors.emplace_back(info.name, tensors.back().name);
  }
  std::vector<std::vector<float>> tables;
  for (std::size_t s = 0; s < blocks.size(); ++s) {
    if (!is_transformer(blocks[s]) || !blocks[s].attn_use_rot_embs) continue;
    std::vector<float>& table = tables.emplace_back();
    for (Index c = 0; c < blocks[s].attn_head_dims / 2; ++c)
      table.push_back(rotary_frequency(c, blocks[s].attn_head_dims));
    tensors.push_back({foreign_name(rotary_buffer(s), style, encoder), {static_cast<Index>(table.size())}});
    result.buffers.push_back(tensors.back().name);
  }
  io::SafetensorsWriter writer(output, overwrite, tensors,
                               {{"format", "pt"}, {deck_metadata, reader.text("config")}});
  for (ParameterInfo const& info : parameters)
    reader.array("parameters", info.name, info.shape,
                 [&](Index, std::span<float const> part) { writer.append(part); });
  for (std::vector<float> const& table : tables) writer.append(table);
  writer.close();
  return result;
}

}  // namespace strata::train
