// SPDX-License-Identifier: Apache-2.0
#include "core/log.hpp"

#include <spdlog/sinks/stdout_sinks.h>

#include <memory>

namespace strata::core {

spdlog::logger& log() {
  static spdlog::logger logger = [] {
    spdlog::logger result("strata", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    result.set_pattern("%H:%M:%S %l: %v");
    return result;
  }();
  return logger;
}

void silence_log() { log().set_level(spdlog::level::off); }

}  // namespace strata::core
