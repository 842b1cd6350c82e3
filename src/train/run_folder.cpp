// SPDX-License-Identifier: Apache-2.0
#include "train/run_folder.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "io/atomic_file.hpp"

namespace strata::train {

namespace fs = std::filesystem;

RunFolder::RunFolder(fs::path folder, Index keep_best) : folder_(std::move(folder)), keep_best_(keep_best) {
  std::error_code error;
  fs::create_directories(folder_ / "checkpoints", error);
  if (error)
    throw core::InputError("cannot make the run's folder " + folder_.string() + ": " + error.message());
}

std::string RunFolder::checkpoint(Index step) const {
  std::array<char, 40> name{};
  std::snprintf(name.data(), name.size(), "step_%010lld.h5", static_cast<long long>(step));
  return (folder_ / "checkpoints" / name.data()).string();
}

bool RunFolder::is_done() const {
  std::error_code error;
  return fs::exists(folder_ / "DONE", error);
}

void RunFolder::mark_done(std::string const& summary) const {
  io::write_text_file((folder_ / "DONE").string(), summary + "\n");
}

std::vector<Index> RunFolder::steps_on_disk() const {
  std::vector<Index> steps;
  for (fs::directory_entry const& entry : fs::directory_iterator(folder_ / "checkpoints")) {
    std::string const name = entry.path().filename().string();
    long long step = 0;
    int used = 0;
    if (std::sscanf(name.c_str(), "step_%lld.h5%n", &step, &used) == 1 &&
        static_cast<std::size_t>(used) == name.size())
      steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::optional<std::string> RunFolder::find_newest(Warn const& warn) {
  stored_.clear();
  for (fs::path const& place : {folder_, folder_ / "checkpoints"}) {
    for (fs::directory_entry const& entry : fs::directory_iterator(place)) {
      std::error_code error;
      if (entry.path().extension() == ".partial") fs::remove(entry.path(), error);
    }
  }
  std::vector<Index> const steps = steps_on_disk();
  std::string damaged, reason;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    try {
      io::CheckpointReader const reader(checkpoint(*step));
      if (stored_.empty()) reader.verify();  // older ones only count for their validation loss
      Progress const progress = read_progress(reader);
      stored_.push_back({*step, progress.validation_loss});
    } catch (core::InputError const& error) {
      if (!stored_.empty()) continue;
      damaged += (damaged.empty() ? "" : ", ") + checkpoint(*step);
      reason = error.what();
    }
  }
  std::reverse(stored_.begin(), stored_.end());
  if (steps.empty()) return {};
  if (stored_.empty())
    throw core::InputError("no checkpoint of the run can be read (" + reason + "); remove " +
                           folder_.string() + " to start again");
  if (!damaged.empty())
    warn("the checkpoint " + damaged + " is damaged and was skipped, the run continues from " + latest() +
         " (" + reason + ")");
  return latest();
}

void RunFolder::write_config(Deck const& deck) const {
  io::write_text_file((folder_ / "config.yaml").string(), deck.text());
}

void RunFolder::add_provenance(Index first_step, std::string const& dataset, Machine const& limits) const {
  std::string const path = (folder_ / "provenance.json").string();
  nlohmann::ordered_json starts = nlohmann::ordered_json::array();
  std::error_code error;
  if (fs::exists(path, error)) {
    auto before = nlohmann::ordered_json::parse(io::read_text_file(path), nullptr, false);
    if (before.is_array()) starts = std::move(before);
  }
  nlohmann::ordered_json start = origin_json();
  start["first_step"] = first_step;
  start["dataset"] = dataset;
  start["limits"] = limits_json(limits);
  starts.push_back(std::move(start));
  io::write_text_file(path, starts.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

std::optional<RunFolder::Best> RunFolder::best() const {
  std::optional<Best> best;
  for (Stored const& s : stored_) {
    if (s.validation_loss && (!best || *s.validation_loss < best->loss))
      best = Best{s.step, *s.validation_loss};
  }
  return best;
}

void RunFolder::saved(Index step, std::optional<double> validation_loss) {
  std::erase_if(stored_, [&](Stored const& s) { return s.step >= step; });
  stored_.push_back({step, validation_loss});
  // Of equal losses the earlier checkpoint stays, as in the MBLM package.
  std::vector<Stored> ranking;
  std::copy_if(stored_.begin(), stored_.end(), std::back_inserter(ranking),
               [](Stored const& s) { return s.validation_loss.has_value(); });
  std::stable_sort(ranking.begin(), ranking.end(),
                   [](Stored const& a, Stored const& b) { return *a.validation_loss < *b.validation_loss; });
  if (static_cast<Index>(ranking.size()) > keep_best_) ranking.resize(static_cast<std::size_t>(keep_best_));
  std::vector<Index> kept;
  kept.reserve(ranking.size() + 2);
  for (Stored const& s : ranking) kept.push_back(s.step);
  for (std::size_t back = 1; back <= std::min<std::size_t>(2, stored_.size()); ++back)
    kept.push_back(stored_[stored_.size() - back].step);
  auto const is_kept = [&](Index s) { return std::find(kept.begin(), kept.end(), s) != kept.end(); };
  std::erase_if(stored_, [&](Stored const& s) { return !is_kept(s.step); });
  relink();  // before what the links pointed at goes away
  for (Index const s : steps_on_disk()) {
    std::error_code error;
    if (!is_kept(s)) fs::remove(checkpoint(s), error);
  }
}

void RunFolder::relink() const {
  if (!stored_.empty()) link("latest.h5", stored_.back().step);
  std::error_code error;
  if (auto const b = best()) {
    link("best.h5", b->step);
  } else {
    fs::remove(folder_ / "best.h5", error);
  }
}

void RunFolder::link(char const* name, Index step) const {
  fs::path const target = fs::path("checkpoints") / fs::path(checkpoint(step)).filename();
  fs::path const fresh = folder_ / (std::string(name) + "." + std::to_string(::getpid()) + ".partial");
  std::error_code error;
  fs::remove(fresh, error);
  fs::create_symlink(target, fresh, error);
  if (!error) fs::rename(fresh, folder_ / name, error);
  if (error)
    throw core::InputError("cannot make the link " + (folder_ / name).string() + ": " + error.message());
}

}  // namespace strata::train
