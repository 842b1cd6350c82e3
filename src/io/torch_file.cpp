// SPDX-License-Identifier: Apache-2.0
#include "io/torch_file.hpp"

#include <map>
#include <set>
#include <utility>

#include "io/torch_pickle.hpp"
#include "io/zip_archive.hpp"

namespace strata::io {

namespace {

constexpr std::uint64_t largest_pickle = std::uint64_t{1} << 26;

/// The folder that all entries lie in, with its slash.
std::string folder_of(InputFile const& file, std::map<std::string, ZipEntry> const& entries) {
  std::string const wanted = "/data.pkl";
  std::string folder;
  for (auto const& [name, entry] : entries) {
    if (!name.ends_with(wanted) || name.find('/') != name.size() - wanted.size()) continue;
    if (!folder.empty()) file.fail("holds two data.pkl, so it is no file of torch.save");
    folder = name.substr(0, name.size() - wanted.size() + 1);
  }
  if (folder.empty()) file.fail("is a ZIP archive without data.pkl, so it is no file of torch.save");
  return folder;
}

}  // namespace

TensorFile read_torch_file(InputFile file) {
  std::map<std::string, ZipEntry> entries;
  for (ZipEntry& entry : read_zip_directory(file)) {
    std::string name = entry.name;
    entries.emplace(std::move(name), std::move(entry));
  }
  std::string const folder = folder_of(file, entries);
  if (auto const order = entries.find(folder + "byteorder"); order != entries.end()) {
    if (order->second.size > 16 || file.bytes(order->second.offset, order->second.size) != "little")
      file.fail("was written on a machine of other byte order, which is not read");
  }
  ZipEntry const& pickle = entries.at(folder + "data.pkl");
  if (pickle.size > largest_pickle)
    file.fail("has a pickle of " + std::to_string(pickle.size) +
              " bytes, too large for a dictionary of tensors");
  check_zip_entry(file, pickle);
  PickledState state =
      read_torch_pickle(file.bytes(pickle.offset, pickle.size), file.path() + ": " + pickle.name);

  TensorFile result{std::move(file), {}, {}, std::move(state.others)};
  std::set<std::string> checked;
  for (PickledTensor& tensor : state.tensors) {
    auto const storage = entries.find(folder + "data/" + tensor.storage);
    if (storage == entries.end())
      result.file.fail("lacks the entry " + quote("data/" + tensor.storage) + " that the tensor " +
                       quote(tensor.name) + " lies in");
    std::uint64_t const width = element_size(tensor.type);
    ZipEntry const& entry = storage->second;
    if (entry.size % width != 0 || entry.size / width != tensor.storage_elements)
      result.file.fail("says that the entry " + quote("data/" + tensor.storage) + " holds " +
                       std::to_string(tensor.storage_elements) + " numbers of " + to_string(tensor.type) +
                       ", but it has " + std::to_string(entry.size) + " bytes");
    if (checked.insert(entry.name).second) check_zip_entry(result.file, entry);
    std::uint64_t const count = reach(tensor.shape, tensor.strides).value_or(UINT64_MAX);
    if (tensor.first > tensor.storage_elements || count > tensor.storage_elements - tensor.first)
      result.file.fail("has the tensor " + quote(tensor.name) + " of shape " + shape_text(tensor.shape) +
                       ", strides " + shape_text(tensor.strides) + " and offset " +
                       std::to_string(tensor.first) + ", which reaches beyond its " +
                       std::to_string(tensor.storage_elements) + " numbers");
    result.tensors.push_back({std::move(tensor.name), tensor.type, std::move(tensor.shape),
                              std::move(tensor.strides), entry.offset + tensor.first * width});
  }
  return result;
}

}  // namespace strata::io
