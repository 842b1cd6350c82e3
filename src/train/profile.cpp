// SPDX-License-Identifier: Apache-2.0
#include "train/profile.hpp"

#include <algorithm>
#include <map>
#include <string_view>

namespace strata::train {

using core::ProfileNode;
using kernels::ScopeKind;

namespace {

enum Part { in_kernels, in_mpi, reading, checkpoints, between, unaccounted };

/// What the regions around a scope say about it.
struct Place {
  std::string regions;  // without passes and layers: "evaluate, stage 1"
  std::string pass;     // the innermost one
  Index layer = 0;
  Part part = between;

  std::string section() const {
    if (regions.empty()) return pass;
    return pass.empty() ? regions : regions + " " + pass;
  }
};

bool is_pass(std::string_view name) { return name == "forward" || name == "backward" || name == "rebuild"; }

Place inside(Place place, ProfileNode const& region) {
  std::string_view const name = region.name;
  if (name == "layer") {
    place.layer = region.number;
  } else if (is_pass(name)) {
    place.pass = name;
  } else {
    if (!place.regions.empty()) place.regions += ", ";
    place.regions += name;
    if (region.number > 0) place.regions += " " + std::to_string(region.number);
    if (name == "read data") place.part = reading;
    if (name == "checkpoint" || name == "read checkpoint") place.part = checkpoints;
  }
  return place;
}

class Summary {
 public:
  Summary(std::vector<ProfileNode> const& nodes, Machine const& limits) : nodes_(nodes), limits_(limits) {
    for (std::string const& name : profile_parts()) {
      profile_.parts.emplace_back();
      profile_.parts.back().name = name;
    }
    add(0, {});
  }

  Profile take(double seconds) {
    profile_.seconds = seconds;
    profile_.kernels = by_time(kernels_);
    profile_.mpi = by_time(mpi_);
    for (auto const& [name, row] : sections_) profile_.sections.push_back(row);
    if (outside_.seconds > 0) profile_.sections.push_back(outside_);
    for (auto const& [name, row] : layers_) profile_.layers.push_back(row);
    return std::move(profile_);
  }

 private:
  using Rows = std::map<std::string, ProfileRow>;

  static std::vector<ProfileRow> by_time(Rows const& rows) {
    std::vector<ProfileRow> sorted;
    sorted.reserve(rows.size());
    for (auto const& [name, row] : rows) sorted.push_back(row);
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](ProfileRow const& a, ProfileRow const& b) { return a.seconds > b.seconds; });
    return sorted;
  }

  static ProfileRow& row(Rows& rows, std::string const& name) {
    ProfileRow& result = rows[name];
    result.name = name;
    return result;
  }

  void charge(ProfileRow& row, ProfileNode const& node, bool counts_calls) const {
    row.seconds += node.seconds();
    if (counts_calls) row.calls += node.calls;
    if (node.kind == ScopeKind::communication) return;
    row.cost += node.cost;
    row.shortest += std::max(node.cost.flops / limits_.gemm_flops, node.cost.bytes() / limits_.bandwidth);
  }

  void add(std::size_t at, Place const& place) {
    ProfileNode const& node = nodes_[at];
    bool const is_region = node.kind == ScopeKind::region;
    Part part = at == 0 ? unaccounted : place.part;
    if (node.kind == ScopeKind::kernel) part = in_kernels;
    if (node.kind == ScopeKind::communication) part = in_mpi;
    charge(profile_.parts[part], node, !is_region);
    std::string const section = place.section();
    if (section.empty()) {
      charge(outside_, node, false);
    } else {
      charge(row(sections_, section), node, is_region);
      if (place.layer > 0)
        charge(row(layers_, section + ", layer " + std::to_string(place.layer)), node, is_region);
    }
    if (node.kind == ScopeKind::kernel) {
      charge(row(kernels_, node.name), node, true);
      if (place.pass != "rebuild") profile_.model_flops += node.cost.model_flops;
    }
    if (node.kind == ScopeKind::communication) {
      ProfileRow& call = row(mpi_, node.name);
      charge(call, node, true);
      call.cost += node.cost;
    }
    for (std::size_t const child : node.children)
      add(child, nodes_[child].kind == ScopeKind::region ? inside(place, nodes_[child]) : place);
  }

  std::vector<ProfileNode> const& nodes_;
  Machine limits_;
  Profile profile_;
  Rows kernels_, mpi_, sections_, layers_;
  ProfileRow outside_{"outside all regions", 0, 0, {}, 0};
};

}  // namespace

std::vector<std::string> const& profile_parts() {
  static std::vector<std::string> const names = {
      "kernels", "MPI", "reading data", "checkpoints", "between kernels", "unaccounted"};
  return names;
}

Profile summarise(core::Profiler const& profiler, Machine const& limits) {
  return Summary(profiler.nodes(), limits).take(profiler.seconds());
}

RankSpread spread_over_ranks(std::string const& name, double seconds, parallel::Communicator const& ranks) {
  return {name, ranks.min(seconds), ranks.sum(seconds) / ranks.size(), ranks.max(seconds)};
}

std::vector<RankSpread> spread_over_ranks(Profile const& profile, parallel::Communicator const& ranks) {
  std::vector<RankSpread> result;
  result.reserve(profile.parts.size() + 1);
  for (ProfileRow const& part : profile.parts)
    result.push_back(spread_over_ranks(part.name, part.seconds, ranks));
  result.push_back(spread_over_ranks("all", profile.seconds, ranks));
  return result;
}

}  // namespace strata::train
