// SPDX-License-Identifier: Apache-2.0
// A Kokkos Tools library for test_profile.py: counts the regions it is shown, by path, and the kernels, and
// writes them at the end into the file that STRATA_TEST_TOOL_OUTPUT names.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

namespace {

std::vector<std::string> open_regions;
std::map<std::string, long> counts;
long surplus_pops = 0;

}  // namespace

extern "C" {

void kokkosp_init_library(int, std::uint64_t, std::uint32_t, void*) {}

void kokkosp_push_profile_region(char const* name) {
  open_regions.push_back(open_regions.empty() ? name : open_regions.back() + "/" + name);
  ++counts[open_regions.back()];
}

void kokkosp_pop_profile_region() {
  if (open_regions.empty()) {
    ++surplus_pops;
  } else {
    open_regions.pop_back();
  }
}

void kokkosp_begin_parallel_for(char const* name, std::uint32_t, std::uint64_t*) {
  ++counts[std::string("kernel ") + name];
}

void kokkosp_finalize_library() {
  char const* const path = std::getenv("STRATA_TEST_TOOL_OUTPUT");
  std::FILE* const file = path == nullptr ? nullptr : std::fopen(path, "w");
  if (file == nullptr) return;
  std::fprintf(file, "%zu regions open, %ld closed too often\n", open_regions.size(), surplus_pops);
  for (auto const& [name, count] : counts) std::fprintf(file, "%ld %s\n", count, name.c_str());
  std::fclose(file);
}
}
