// SPDX-License-Identifier: Apache-2.0
#pragma once
// Arithmetic coding with integers: a range coder in the manner of G. N. N. Martin ("Range encoding", 1979).
// The encoder narrows an interval of 64-bit numbers by each symbol's share of it and puts out the leading
// bytes once they can only change by a carry; the decoder follows. Every operation is exact, so both always
// agree.
//
// A symbol costs log2(total / frequency) bits and at most 2^-23 bits more; the end of a stream costs at most
// 8 bytes, and less than two on average.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace strata::generate {

/// What a symbol has of the range of cumulative frequencies [0, coder_total).
struct Share {
  std::uint32_t start = 0;      ///< sum of the frequencies of the symbols before it
  std::uint32_t frequency = 1;  ///< at least 1; start + frequency <= coder_total
};

constexpr std::uint64_t coder_total = std::uint64_t{1} << 32;

class ArithmeticEncoder {
 public:
  void encode(Share share);
  /// Bytes that are out so far.
  std::size_t size() const { return bytes_.size(); }
  /// Ends the stream and returns it; the encoder is then new. The decoder takes bytes beyond the end for
  /// zeros.
  std::vector<std::uint8_t> finish();

 private:
  void carry();

  std::uint64_t low_ = 0, range_ = ~std::uint64_t{0};
  std::vector<std::uint8_t> bytes_;
};

/// Whatever the stream holds, the decoder yields symbols and reads nothing beyond its end.
class ArithmeticDecoder {
 public:
  ArithmeticDecoder() = default;
  /// The stream must live as long as the decoder.
  explicit ArithmeticDecoder(std::span<std::uint8_t const> stream);

  /// A cumulative frequency that lies in the next symbol's share.
  std::uint32_t target() const;
  /// Goes on behind a symbol: the one whose share holds target().
  void consume(Share share);

 private:
  std::uint64_t next_byte() { return place_ < stream_.size() ? stream_[place_++] : 0; }

  std::span<std::uint8_t const> stream_;
  std::size_t place_ = 0;
  std::uint64_t value_ = 0,
                range_ = ~std::uint64_t{0};  // value_: the stream's number less the interval's start
};

}  // namespace strata::generate
