// SPDX-License-Identifier: Apache-2.0
// `strata info`: what a deck, a dataset or a checkpoint holds.
#include "info.hpp"

#include <fmt/format.h>

#include <memory>

#include "commands.hpp"
#include "core/error.hpp"
#include "parallel/communicator.hpp"
#include "train/deck.hpp"
#include "train/scalars.hpp"

namespace {

struct Arguments {
  std::string file;
  std::vector<std::string> overrides;
  std::optional<std::string> memory;
  bool json = false;
  bool keys = false;
  bool dependencies = false;
};

std::string grouped(std::string digits) {
  std::size_t const first = digits[0] == '-' ? 1 : 0;
  for (std::size_t at = digits.size(); at > first + 3;) digits.insert(at -= 3, 1, ' ');
  return digits;
}

std::string scalar(nlohmann::ordered_json const& value, bool is_size) {
  if (is_size && value.is_number_integer() && value.get<std::int64_t>() >= 1000)
    return fmt::format("{} ({})", strata::train::size_text(value.get<double>()), grouped(value.dump()));
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer()) return grouped(value.dump());
  if (value.is_number_float()) {
    auto const number = value.get<double>();
    return number >= 1e4 && number < 1e15 ? grouped(fmt::format("{:.0f}", number))
                                          : fmt::format("{:.6g}", number);
  }
  return value.dump();
}

void print(std::string const& text) {
  bool const written = std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0;
  if (!written) throw strata::core::InputError("standard output cannot be written to");
}

void show(Arguments const& arguments) {
  if (!strata::parallel::Communicator().is_root()) return;
  if (arguments.keys) return print(strata::train::key_reference());
  if (arguments.file.empty())
    throw strata::core::InputError(
        "name a deck, a dataset or a checkpoint, for example: strata info inputs/quickstart.yaml");
  bool const hdf5 = is_hdf5(arguments.file);
  if (hdf5 && !arguments.overrides.empty())
    throw strata::core::InputError(
        fmt::format("{} is an HDF5 file; section.key=value changes decks only", arguments.file));
  if (hdf5 && arguments.dependencies)
    throw strata::core::InputError(
        fmt::format("{} is an HDF5 file; --dependencies looks at decks", arguments.file));
  std::optional<std::int64_t> memory;
  if (arguments.memory) {
    auto const size = strata::train::parse_byte_size(*arguments.memory);
    if (!size || size->bytes < 1)
      throw strata::core::InputError(
          fmt::format("--memory must be a number of bytes, such as 600M, 80G or 1.5GiB; it is {}",
                      strata::train::in_quotes(*arguments.memory)));
    if (hdf5 || arguments.dependencies)
      throw strata::core::InputError("--memory asks what a deck's training takes; it goes with a deck alone");
    memory = size->bytes;
  }
  auto const content = hdf5                     ? describe_hdf5(arguments.file)
                       : arguments.dependencies ? describe_dependencies(arguments.file, arguments.overrides)
                                                : describe_deck(arguments.file, arguments.overrides, memory);
  print(arguments.json ? content.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n"
                       : as_text(content));
}

}  // namespace

std::string as_text(nlohmann::ordered_json const& value, int indent, bool sizes) {
  std::string out;
  std::string const margin(static_cast<std::size_t>(indent), ' ');
  for (auto const& [key, entry] : value.items()) {
    if (entry.is_structured() && entry.empty()) continue;
    bool const text_block =
        entry.is_string() && entry.get_ref<std::string const&>().find('\n') != std::string::npos;
    bool const numbers = entry.is_array() && (entry.empty() || !entry[0].is_structured());
    std::string const name = value.is_array() ? "-" : key + ":";
    bool const is_size = sizes || (!value.is_array() && key.ends_with("_bytes"));
    if (text_block) {
      out += margin + name + "\n" + entry.get<std::string>();
    } else if (numbers) {
      out += margin + name;
      for (auto const& item : entry)
        out += (item.is_string() ? "\n" + margin + "  - " : " ") + scalar(item, is_size);
      out += '\n';
    } else if (entry.is_structured()) {
      out += margin + name + "\n" + as_text(entry, indent + 2, is_size);
    } else {
      out += margin + name + " " + scalar(entry, is_size) + "\n";
    }
  }
  return out;
}

void add_info(CLI::App& program) {
  auto const arguments = std::make_shared<Arguments>();
  CLI::App* const command = program.add_subcommand(
      "info", "Parameters, FLOPs and memory of a deck; contents of a dataset or a checkpoint");
  command->add_option("file", arguments->file, "Deck (YAML), dataset or checkpoint (HDF5)");
  command->add_option("overrides", arguments->overrides, "Changes to the deck: section.key=value ...");
  command->add_option(
      "--memory", arguments->memory,
      "Memory to plan a deck with, such as 80G (default: train.memory, or what is free here)");
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->add_flag("--dependencies", arguments->dependencies,
                    "Change one byte at a time and report which earlier bytes each prediction sees");
  command->add_flag("--keys", arguments->keys, "Print every key of a deck with its default and meaning");
  command->callback([arguments] { show(*arguments); });
}
