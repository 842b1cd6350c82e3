// SPDX-License-Identifier: Apache-2.0
// The two forms of a profile: tables and JSON.

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "train/profile.hpp"

namespace strata::train {

namespace {

/// A rate in units of 10^9, or a dash where nothing was counted.
std::string giga(double amount, double seconds) {
  return amount > 0 && seconds > 0 ? fmt::format("{:.1f}", 1e-9 * amount / seconds) : "-";
}

/// The fraction of the limit, and of which one; a part of the program has kernels under both.
std::string limit_text(ProfileRow const& row, Machine const& limits, bool is_kernel) {
  if (row.shortest <= 0 || row.seconds <= 0) return "-";
  bool const by_memory = row.cost.bytes() / limits.bandwidth > row.cost.flops / limits.gemm_flops;
  return fmt::format("{:.0f} %{}", 100 * row.fraction_of_limit(),
                     !is_kernel  ? ""
                     : by_memory ? " memory"
                                 : " GEMM  ");
}

std::string rows_text(char const* title, std::vector<ProfileRow> const& rows, double whole,
                      Machine const& limits, bool are_kernels) {
  std::string text = fmt::format("\n{:<34} {:>9} {:>10} {:>7} {:>9} {:>8} {:>13}\n", title, "calls", "time s",
                                 "share", "GFLOP/s", "GB/s", "of the limit");
  for (ProfileRow const& row : rows)
    text += fmt::format("{:<34} {:>9} {:>10.4f} {:>5.1f} % {:>9} {:>8} {:>13}\n", row.name, row.calls,
                        row.seconds, 100 * row.seconds / whole, giga(row.cost.flops, row.seconds),
                        giga(row.cost.bytes(), row.seconds), limit_text(row, limits, are_kernels));
  return text;
}

std::string mpi_text(std::vector<ProfileRow> const& rows, double whole) {
  if (rows.empty()) return {};
  std::string text =
      fmt::format("\n{:<34} {:>9} {:>10} {:>7} {:>9}\n", "MPI", "calls", "time s", "share", "MB sent");
  for (ProfileRow const& row : rows)
    text += fmt::format("{:<34} {:>9} {:>10.4f} {:>5.1f} % {:>9.1f}\n", row.name, row.calls, row.seconds,
                        100 * row.seconds / whole, 1e-6 * row.cost.bytes());
  return text;
}

std::string parts_text(Profile const& profile, ProfiledRun const& run) {
  bool const several = run.ranks > 1;
  std::string text = fmt::format("\n{:<34} {:>10} {:>7}", "all time", "time s", "share");
  if (several) text += fmt::format("   over ranks: {:>9} {:>9} {:>9}", "least", "mean", "most");
  text += '\n';
  for (std::size_t i = 0; i < run.over_ranks.size(); ++i) {
    bool const is_part = i < profile.parts.size();
    double const seconds = is_part ? profile.parts[i].seconds : profile.seconds;
    RankSpread const& spread = run.over_ranks[i];
    text += fmt::format("{:<34} {:>10.4f} {:>5.1f} %", spread.name, seconds, 100 * seconds / profile.seconds);
    if (several)
      text += fmt::format("{:14} {:>9.4f} {:>9.4f} {:>9.4f}", "", spread.least, spread.mean, spread.most);
    text += '\n';
  }
  return text;
}

std::string communication_table(ProfiledRun const& run) {
  if (run.communication.empty()) return {};
  std::string text = fmt::format("\n{:<37} {:>10} {:>10} {:>10}\n", "communication in steps, s, over ranks",
                                 "least", "mean", "most");
  for (RankSpread const& spread : run.communication)
    text += fmt::format("{:<37} {:>10.4f} {:>10.4f} {:>10.4f}\n", spread.name, spread.least, spread.mean,
                        spread.most);
  return text;
}

nlohmann::ordered_json to_json(ProfileRow const& row, double whole) {
  auto const rate = [&](double amount) { return row.seconds > 0 ? amount / row.seconds : 0; };
  nlohmann::ordered_json json;
  json["name"] = row.name;
  json["calls"] = row.calls;
  json["seconds"] = row.seconds;
  json["share"] = whole > 0 ? row.seconds / whole : 0;
  json["flops"] = row.cost.flops;
  json["model_flops"] = row.cost.model_flops;
  json["bytes"] = row.cost.bytes();
  json["flops_per_second"] = rate(row.cost.flops);
  json["bytes_per_second"] = rate(row.cost.bytes());
  json["fraction_of_limit"] = row.fraction_of_limit();
  return json;
}

}  // namespace

std::string profile_table(Profile const& profile, ProfiledRun const& run) {
  std::string text = fmt::format(
      "profile of {}: {:.3f} s{}, rank 0 of {}; its limits: GEMM {:.1f} GFLOP/s, memory {:.1f} GB/s\n",
      run.what, profile.seconds, run.steps > 0 ? fmt::format(", {} steps", run.steps) : "", run.ranks,
      1e-9 * run.limits.gemm_flops, 1e-9 * run.limits.bandwidth);
  text += rows_text("kernel", profile.kernels, profile.seconds, run.limits, true);
  text += mpi_text(profile.mpi, profile.seconds);
  text += rows_text("part of the program", profile.sections, profile.seconds, run.limits, false);
  text += parts_text(profile, run);
  text += communication_table(run);
  text +=
      fmt::format("\nuseful operations: {:.3f} GFLOP counted on this rank, {:.3f} by formula on all ranks\n",
                  1e-9 * profile.model_flops, 1e-9 * run.flops);
  text += fmt::format("\n{:<60} {:>12}\n", "memory of a rank at its peak, planned", "MB");
  double planned = 0;
  for (MemoryUse const& use : run.memory) {
    planned += use.bytes;
    text += fmt::format("{:<60} {:>12.3f}\n", use.what, 1e-6 * use.bytes);
  }
  text += fmt::format("{:<60} {:>12.3f}\n", "all of these", 1e-6 * planned);
  text += fmt::format("{:<60} {:>12.3f}\n", "resident in main memory, the program included, measured",
                      1e-6 * run.peak_memory);
  return text;
}

std::string profile_json(Profile const& profile, ProfiledRun const& run) {
  using Json = nlohmann::ordered_json;
  Json json;
  json["what"] = run.what;
  json.update(origin_json());
  json["steps"] = run.steps;
  json["seconds"] = profile.seconds;
  json["limits"] = limits_json(run.limits);
  json["model_flops"] = {{"counted_on_this_rank", profile.model_flops},
                         {"by_formula_on_all_ranks", run.flops}};
  auto const list = [&](char const* key, std::vector<ProfileRow> const& rows) {
    json[key] = Json::array();
    for (ProfileRow const& row : rows) json[key].push_back(to_json(row, profile.seconds));
  };
  list("kernels", profile.kernels);
  list("sections", profile.sections);
  list("layers", profile.layers);
  json["mpi"] = Json::array();
  for (ProfileRow const& row : profile.mpi)
    json["mpi"].push_back(
        {{"name", row.name}, {"calls", row.calls}, {"seconds", row.seconds}, {"bytes", row.cost.bytes()}});
  json["parts"] = Json::object();
  for (ProfileRow const& row : profile.parts) json["parts"][row.name] = row.seconds;
  json["over_ranks"] = Json::object();
  for (RankSpread const& spread : run.over_ranks)
    json["over_ranks"][spread.name] = {{"least", spread.least}, {"mean", spread.mean}, {"most", spread.most}};
  json["communication"] = Json::object();
  for (RankSpread const& spread : run.communication)
    json["communication"][spread.name] = {
        {"least", spread.least}, {"mean", spread.mean}, {"most", spread.most}};
  json["memory"] = {{"peak_resident", run.peak_memory}, {"planned", Json::array()}};
  for (MemoryUse const& use : run.memory)
    json["memory"]["planned"].push_back({{"what", use.what}, {"bytes", use.bytes}, {"on_host", use.on_host}});
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace strata::train
