// SPDX-License-Identifier: Apache-2.0
// parity_check FILE.h5 ...: rebuilds the model of each fixture and compares logits, loss and gradients, in
// double and in float. One line per file; exits non-zero when a file is above its bound or cannot be read.

#include <cstdio>
#include <exception>

#include "core/error.hpp"
#include "core/runtime.hpp"
#include "unit_tests/parity/fixture.hpp"

namespace {

using strata::parity::Report;

template <class T>
Report check(strata::io::File const& file) {
  std::string const kind = file.text_attribute("/", "model");
  if (kind == "stage_block") return strata::parity::check_stage_block<T>(file);
  if (kind == "mblm" || kind == "mblm_encoder" || kind == "megabyte")
    return strata::parity::check_model<T>(file, kind);
  throw strata::core::InputError(file.path() + ": a fixture of kind '" + kind + "' is not known");
}

void print(char const* precision, Report const& report) {
  std::printf("  %s logits %.1e loss %.1e gradients %.1e", precision, report.logits.relative,
              report.loss.relative, report.gradients.relative);
}

void explain(char const* precision, Report const& report) {
  for (auto const* worst : {&report.logits, &report.loss, &report.gradients})
    if (!(worst->bound <= 1))
      std::printf("    %s: %s is %.3g times its bound away\n", precision, worst->where.c_str(), worst->bound);
  if (!report.dependencies_equal) std::printf("    %s: the dependency matrices differ\n", precision);
}

int run(int argc, char** argv) {
  if (argc < 2) throw strata::core::InputError("parity_check: name at least one fixture file");
  int failed = 0;
  for (int i = 1; i < argc; ++i) {
    try {
      strata::io::File const file = strata::io::File::open(argv[i]);
      Report const in_double = check<double>(file);
      Report const in_float = check<float>(file);
      bool const ok = in_double.ok() && in_float.ok();
      failed += ok ? 0 : 1;
      std::printf("%s  %s", ok ? "ok  " : "FAIL", argv[i]);
      print("double:", in_double);
      print("float:", in_float);
      std::printf("\n");
      explain("double", in_double);
      explain("float", in_float);
    } catch (std::exception const& error) {
      ++failed;
      std::printf("FAIL  %s  %s\n", argv[i], error.what());
    }
  }
  std::printf("%d of %d files within their bounds\n", argc - 1 - failed, argc - 1);
  return failed == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) { return strata::core::run_main(argc, argv, run); }
