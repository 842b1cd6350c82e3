// SPDX-License-Identifier: Apache-2.0
#include "generate/compression.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "generate/arithmetic_coder.hpp"
#include "generate/byte_model.hpp"
#include "io/digest.hpp"
#include "parallel/block.hpp"

namespace strata::generate {

using parallel::Block;
using parallel::block_of;

namespace {

/// Lanes for `work` windows or streams. On a device the bits of a product may depend on its number of rows,
/// so there it is one lane, compressing and decompressing.
Index lanes_for(Index wanted, Index work) {
  Index const most = kernels::on_device ? 1 : Generator<float>::most_lanes();
  return std::clamp<Index>(wanted > 0 ? std::min(wanted, most) : most, 1, std::max<Index>(work, 1));
}

void check_vocabulary(model::ModelConfig const& config) {
  if (config.num_tokens < 256)
    throw core::InputError("the model's vocabulary of " + std::to_string(config.num_tokens) +
                           " tokens lacks some of the 256 bytes, so it cannot compress every file");
}

void set_model(ByteModel& bytes, std::span<float const> logits) {
  if (!bytes.set(logits))
    throw core::InputError("the model's predictions are not finite numbers, so it cannot compress");
}

/// Puts windows, which arrive in order, into streams.
class StreamWriter {
 public:
  void add(std::span<Share const> window) {
    for (Share const share : window) encoder_.encode(share);
    ++windows_;
    if (encoder_.size() >= stream_size) end();
  }
  std::vector<io::CodedStream> finish() {
    if (windows_ > 0) end();
    return std::move(streams_);
  }

 private:
  void end() {
    streams_.push_back({windows_, encoder_.finish()});
    windows_ = 0;
  }

  ArithmeticEncoder encoder_;
  Index windows_ = 0;
  std::vector<io::CodedStream> streams_;
};

}  // namespace

std::optional<io::CompressedFile> compress(model::Hierarchy<float> const& model, std::string const& digest,
                                           std::span<std::uint8_t const> content,
                                           CodingSettings const& settings,
                                           parallel::Communicator const& ranks, Follow const& follow) {
  model::ModelConfig const& config = model.config();
  check_vocabulary(config);
  io::CompressedFile file;
  file.digest = digest.substr(0, io::stored_digits);
  file.content_crc = io::crc32(content);
  file.length = static_cast<Index>(content.size());
  file.window = std::clamp<Index>(settings.window > 0 ? settings.window : config.context(), 1,
                                  std::max<Index>(file.length, 1));
  check_window(config, file.window);

  // Windows go through the lanes of all ranks in rounds of about equal size. What the coder needs of them,
  // eight bytes a byte, is collected by rank 0 after each.
  Index const windows = file.windows();
  Index const lanes = lanes_for(settings.lanes, (windows + ranks.size() - 1) / ranks.size());
  Index const most = lanes * ranks.size();
  Index const rounds = (windows + most - 1) / most;
  Generator<float> generator(model, lanes, file.window);
  Watch watch(ranks, follow);
  ByteModel bytes;
  StreamWriter writer;
  for (Index round = 0; round < rounds; ++round) {
    Index const first = windows * round / rounds, last = windows * (round + 1) / rounds;
    auto const part = [&](int rank) {
      Block const block = block_of(last - first, rank, ranks.size());
      return Block{first + block.first, first + block.last};
    };
    auto const span_of = [&](Block const& block) {
      Index const begin = block.first * file.window;
      return Block{begin, std::max(begin, std::min(block.last * file.window, file.length))};
    };
    Block const mine = part(ranks.rank()), my_bytes = span_of(mine);
    std::vector<Index> lengths;
    for (Index w = mine.first; w < mine.last; ++w) lengths.push_back(span_of({w, w + 1}).size());
    std::vector<Share> shares(static_cast<std::size_t>(my_bytes.size()));
    read_in_lanes(
        generator, file.window, lengths,
        [&](std::size_t window, Index place, std::span<float const> logits) {
          auto const i = static_cast<std::size_t>(static_cast<Index>(window) * file.window + place);
          std::uint8_t const byte = content[static_cast<std::size_t>(my_bytes.first) + i];
          set_model(bytes, logits);
          shares[i] = bytes.share(byte);
          return byte;
        },
        watch);
    if (watch.stopped()) return std::nullopt;
    for (int rank = 0; rank < ranks.size(); ++rank) {
      Block const block = part(rank);
      std::vector<Share> received;
      std::vector<Share>& coded = rank == ranks.rank() ? shares : received;
      coded.resize(static_cast<std::size_t>(span_of(block).size()));
      ranks.broadcast(coded.data(), coded.size() * sizeof(Share), rank);
      if (!ranks.is_root()) continue;
      std::span<Share const> left = coded;
      for (Index w = block.first; w < block.last; ++w) {
        auto const length = static_cast<std::size_t>(span_of({w, w + 1}).size());
        writer.add(left.first(length));
        left = left.subspan(length);
      }
    }
  }
  file.streams = writer.finish();
  return file;
}

std::optional<std::vector<std::uint8_t>> decompress(model::Hierarchy<float> const& model,
                                                    std::string const& digest, io::CompressedFile const& file,
                                                    std::string const& name, Index lanes,
                                                    parallel::Communicator const& ranks,
                                                    Follow const& follow) {
  model::ModelConfig const& config = model.config();
  check_vocabulary(config);
  if (file.digest != digest.substr(0, io::stored_digits))
    throw core::InputError(name + " was compressed by another model: the digest of its model begins with " +
                           file.digest.substr(0, 8) + ", that of this one with " + digest.substr(0, 8));
  check_window(config, file.window);

  auto const streams = static_cast<Index>(file.streams.size());
  std::vector<Index> starts{0};  // of the streams' content
  for (io::CodedStream const& stream : file.streams)
    starts.push_back(std::min(starts.back() + stream.windows * file.window, file.length));
  auto const start = [&](Index stream) { return starts[static_cast<std::size_t>(stream)]; };

  Block const mine = block_of(streams, ranks.rank(), ranks.size());
  std::vector<Index> lengths;
  std::vector<ArithmeticDecoder> decoders;
  for (Index s = mine.first; s < mine.last; ++s) {
    lengths.push_back(start(s + 1) - start(s));
    decoders.emplace_back(file.streams[static_cast<std::size_t>(s)].bytes);
  }
  std::vector<std::uint8_t> content(static_cast<std::size_t>(file.length));
  Generator<float> generator(model, lanes_for(lanes, mine.size()), file.window);
  Watch watch(ranks, follow);
  ByteModel bytes;
  read_in_lanes(
      generator, file.window, lengths,
      [&](std::size_t stream, Index place, std::span<float const> logits) {
        set_model(bytes, logits);
        ArithmeticDecoder& decoder = decoders[stream];
        std::uint8_t const byte = bytes.find(decoder.target());
        decoder.consume(bytes.share(byte));
        content[static_cast<std::size_t>(start(mine.first + static_cast<Index>(stream)) + place)] = byte;
        return byte;
      },
      watch);
  if (watch.stopped()) return std::nullopt;
  for (int rank = 0; rank < ranks.size(); ++rank) {
    Block const block = block_of(streams, rank, ranks.size());
    ranks.broadcast(content.data() + start(block.first),
                    static_cast<std::size_t>(start(block.last) - start(block.first)), rank);
  }
  if (io::crc32(content) != file.content_crc)
    throw core::InputError(name +
                           " does not come out as it was: the model predicts differently here; "
                           "decompress with the build and on the machine that compressed it");
  return content;
}

}  // namespace strata::generate
