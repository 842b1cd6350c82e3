// SPDX-License-Identifier: Apache-2.0
#include "train/metrics.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "io/atomic_file.hpp"

namespace strata::train {

void Meter::describe(MetricsRecord& record, double peak) const {
  record.bytes_per_second = bytes / seconds;
  record.gemm_fraction = flops / seconds / peak;
  if (steps == 0) return;
  record.step_seconds = seconds / steps;
  record.optimizer_seconds = optimizer_seconds / steps;
  record.communication_exposed_seconds = exposed_seconds / steps;
  record.communication_hidden_seconds = hidden_seconds / steps;
}

std::string to_json(MetricsRecord const& record) {
  constexpr double ln2 = 0.69314718055994530942;
  nlohmann::ordered_json line;
  line["step"] = record.step;
  line["split"] = record.split;
  line["loss"] = record.loss;
  line["bits_per_byte"] = record.loss / ln2;
  line["learning_rate"] = record.learning_rate;
  line["gradient_norm"] = record.gradient_norm;
  line["bytes_seen"] = record.bytes_seen;
  line["bytes_per_second"] = record.bytes_per_second;
  line["step_seconds"] = record.step_seconds;
  line["optimizer_seconds"] = record.optimizer_seconds;
  line["communication_exposed_seconds"] = record.communication_exposed_seconds;
  line["communication_hidden_seconds"] = record.communication_hidden_seconds;
  line["gemm_fraction"] = record.gemm_fraction;
  line["epoch"] = record.epoch;
  line["elapsed_seconds"] = record.elapsed;
  line["peak_memory"] = record.peak_memory;
  return line.dump();
}

MetricsFile::MetricsFile(std::string const& path, Index last_step) {
  std::string kept;
  bool dropped = false;
  if (std::ifstream in(path, std::ios::binary); in) {
    for (std::string line; std::getline(in, line);) {
      bool const whole = !in.eof();  // the last line of a killed run may lack its end
      auto const record = nlohmann::json::parse(line, nullptr, false);
      bool const good =
          whole && record.is_object() && record.contains("step") && record["step"].is_number_integer();
      if (!good || record["step"].get<Index>() > last_step) {
        dropped = true;
        continue;
      }
      if (record.contains("elapsed_seconds") && record["elapsed_seconds"].is_number())
        elapsed_ = record["elapsed_seconds"].get<double>();
      kept += line + '\n';
    }
  }
  if (dropped) io::write_text_file(path, kept);
  file_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file_ < 0) throw core::InputError(io::describe_errno("cannot write", path, errno));
  size_ = static_cast<std::int64_t>(kept.size());
}

MetricsFile::~MetricsFile() {
  flush();
  ::close(file_);
}

bool MetricsFile::write(MetricsRecord const& record) {
  pending_ += to_json(record) + '\n';
  return flush();
}

bool MetricsFile::flush() {
  while (!pending_.empty()) {
    ssize_t const written = ::write(file_, pending_.data(), pending_.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < static_cast<ssize_t>(pending_.size())) {
      if (::ftruncate(file_, size_) != 0) return false;  // half a line would spoil the next one
      return false;
    }
    size_ += written;
    pending_.clear();
  }
  return true;
}

}  // namespace strata::train
