// SPDX-License-Identifier: Apache-2.0
#include "train/trainer.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>

#include "core/log.hpp"
#include "core/profiler.hpp"
#include "core/runtime.hpp"
#include "data/loader.hpp"
#include "io/atomic_file.hpp"
#include "parallel/together.hpp"
#include "train/checkpoint.hpp"
#include "train/conflicts.hpp"
#include "train/evaluation.hpp"
#include "train/gradient_step.hpp"
#include "train/init_from.hpp"
#include "train/machine.hpp"
#include "train/metrics.hpp"
#include "train/optimizer.hpp"
#include "train/plan.hpp"
#include "train/profile.hpp"
#include "train/progress_line.hpp"
#include "train/run_folder.hpp"
#include "train/schedule.hpp"

namespace strata::train {

using parallel::on_root;

namespace {

using Clock = std::chrono::steady_clock;
constexpr double ln2 = 0.69314718055994530942;

double seconds_between(Clock::time_point a, Clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

OptimizerSettings optimizer_settings(TrainConfig const& config) {
  OptimizerSettings settings;
  settings.beta1 = config.beta1;
  settings.beta2 = config.beta2;
  settings.epsilon = config.epsilon;
  settings.weight_decay = config.weight_decay;
  settings.gradient_clipping = config.gradient_clipping.value_or(0);
  return settings;
}

class Trainer {
 public:
  Trainer(Deck const& deck, parallel::Communicator const& ranks, bool quiet, bool profile);
  TrainingOutcome run();

 private:
  void prepare();
  void resume(std::string const& path);
  void make_loader();
  TrainingOutcome loop();
  void check_finite(StepResult const& result, double norm) const;
  void log_step(double loss);
  void validate();
  void show_progress(double loss);
  void record(std::string const& split, double loss, Meter const& meter);
  void save(bool needed);
  void report(core::Profiler const& profiler) const;
  double exposed_seconds() const { return gradients_.exposed_seconds() + optimizer_.exposed_seconds(); }
  std::string last_good() const;

  Deck const& deck_;
  parallel::Communicator const& ranks_;
  bool root_;
  kernels::ExecSpace space_;
  ProgressLine line_;
  io::DatasetFile file_;
  Index window_length_;
  GlobalBatch global_;
  Schedule schedule_;
  bool profile_;
  Machine machine_;
  double peak_;  // GEMM operations per second of all ranks
  MemoryPlan plan_;
  model::Hierarchy<float> model_;
  Optimizer optimizer_;
  GradientStep gradients_;
  std::unique_ptr<Evaluator> evaluator_;  // null: no validation split
  std::unique_ptr<RunFolder> folder_;     // rank 0
  std::unique_ptr<MetricsFile> metrics_;  // rank 0
  std::unique_ptr<data::Loader> loader_;
  Progress progress_;
  Meter since_log_, all_;
  double learning_rate_ = 0, norm_ = 0;
  double useful_flops_ = 0;  // of this start, on all ranks
  double elapsed_before_ = 0;
  bool metrics_warned_ = false;
  Index first_step_ = 0;
  Clock::time_point start_ = Clock::now();
  std::optional<double> validation_loss_;  // latest of this start
};

Index training_window(io::DatasetFile const& file, Deck const& deck) {
  Index const size = file.info(io::Split::train).size;
  if (size == 0) throw core::InputError(file.path() + ": the split train holds no bytes");
  for (model::BlockConfig const& block : deck.params.block)
    if (!block.causal())
      throw core::InputError(
          "params.block: a transformerEncoder stage sees the bytes it would have to predict; strata train "
          "needs "
          "block_type transformer");
  Index const window = std::min(deck.input_seq_len, size);
  check_fit(deck.params, file, window);
  return window;
}

/// What the run is about to allocate. Throws core::InputError when it does not fit.
MemoryPlan announced_plan(Deck const& deck, io::DatasetFile const& file, parallel::Communicator const& ranks,
                          ProgressLine& line) {
  MemoryLimit const limit = memory_limit(deck, ranks);
  MemoryPlan plan = checked_plan(deck, data_facts(file, ranks.size()), limit);
  line.say(describe(plan, limit));
  return plan;
}

Trainer::Trainer(Deck const& deck, parallel::Communicator const& ranks, bool quiet, bool profile)
    : deck_(deck),
      ranks_(ranks),
      root_(ranks.is_root()),
      line_(quiet || !root_),
      file_(deck.dataset()),
      window_length_(training_window(file_, deck)),
      global_{ranks.size() * deck.train.batch_size * deck.train.gradient_accumulate_every,
              deck.input_seq_len},
      schedule_{deck.train.learning_rate, deck.train.warmup_steps_perc,
                global_.steps(deck.train.target_elements,
                              deck.train.target_elements_strategy == TrainConfig::Strategy::sequence)},
      profile_(profile),
      machine_(measure_machine(ranks)),
      peak_(ranks.sum(machine_.gemm_flops)),
      plan_(announced_plan(deck, file_, ranks, line_)),
      model_(deck.params, plan_.chunking, true),
      optimizer_(model_.parameters(), optimizer_settings(deck.train),
                 deck.train.shard_optimizer ? &ranks : nullptr),
      gradients_(model_, file_, ranks, deck.train, window_length_) {
  if (deck.io.validate_amount > 0 && file_.info(io::Split::validation).size > 0) {
    EvaluationSettings settings;
    settings.split = io::Split::validation;
    settings.window = deck.input_seq_len;
    settings.batch_size = deck.train.eval_batch_size > 0 ? deck.train.eval_batch_size : deck.train.batch_size;
    settings.max_batches = deck.train.max_eval_steps.value_or(0);
    evaluator_ = std::make_unique<Evaluator>(model_, file_, ranks, settings);
  }
}

TrainingOutcome Trainer::run() {
  std::optional<core::Profiler> profiler;
  if (profile_) profiler.emplace();
  prepare();
  TrainingOutcome const outcome = loop();
  if (profiler) {
    profiler->stop();
    report(*profiler);
  }
  return outcome;
}

/// Puts the run where it left off, or at its beginning.
void Trainer::prepare() {
  kernels::Region const region("set up");
  progress_.total_steps = schedule_.steps;
  progress_.seed = deck_.train.seed;
  progress_.global_batch = global_.samples;
  progress_.dataset = file_.source_digest();
  progress_.dataset_bytes = file_.info(io::Split::train).size;

  std::string newest;
  on_root(ranks_, [&] {
    folder_ = std::make_unique<RunFolder>(deck_.run_folder(), deck_.io.num_models_to_save);
    newest = folder_->find_newest([](std::string const& text) { core::log().warn(text); }).value_or("");
  });
  newest = ranks_.broadcast(newest);
  if (!newest.empty()) {
    resume(newest);
  } else {
    model_.parameters().initialise(deck_.train.seed);
    if (std::optional<std::string> const& origin = deck_.train.init_from) {
      start_from(*origin, deck_, model_.parameters(), ranks_);
      line_.say("starting from the weights of " + *origin);
    }
  }
  first_step_ = progress_.step;
  measure_files(machine_, deck_.run_folder().string(), ranks_);
  on_root(ranks_, [&] {
    folder_->write_config(deck_);
    folder_->relink();
    folder_->add_provenance(progress_.step + 1, deck_.dataset(), machine_);
    metrics_ = std::make_unique<MetricsFile>(folder_->metrics(), progress_.step);
    elapsed_before_ = metrics_->elapsed();
  });
  make_loader();
  std::array<char, 200> text{};
  std::snprintf(text.data(), text.size(),
                "%s: %lld parameters, %lld steps of %lld x %lld bytes, GEMM peak %.0f GFLOP/s",
                deck_.run_folder().c_str(), static_cast<long long>(model_.parameters().count()),
                static_cast<long long>(schedule_.steps), static_cast<long long>(global_.samples),
                static_cast<long long>(window_length_), peak_ / 1e9);
  line_.say(text.data());
  if (newest.empty()) {
    save(true);  // so that there is a good checkpoint to name from the first step on
  } else {
    line_.say("continuing from " + newest);
  }
}

void Trainer::resume(std::string const& path) {
  kernels::Region const region("read checkpoint");
  io::CheckpointReader const reader(path, ranks_);
  Progress const stored = read_progress(reader);
  std::string const run = deck_.run_folder().string();
  // Keys that are newer than the file have their defaults there.
  std::string const before = parse_deck(reader.text("config"), path + ":/config").text();
  if (auto const conflict = conflicting_key(before, deck_.text()))
    throw core::InputError("the run in " + run + " cannot be continued with this deck: " + *conflict +
                           "; change it back or choose another io.name_model");
  if (stored.global_batch != global_.samples)
    throw core::InputError(
        "the run in " + run + " takes " + std::to_string(stored.global_batch) + " windows per step, but " +
        std::to_string(ranks_.size()) + " ranks * batch_size " + std::to_string(deck_.train.batch_size) +
        " * gradient_accumulate_every " + std::to_string(deck_.train.gradient_accumulate_every) + " make " +
        std::to_string(global_.samples) + "; adapt batch_size or gradient_accumulate_every");
  if (stored.dataset != progress_.dataset || stored.dataset_bytes != progress_.dataset_bytes)
    throw core::InputError("the run in " + run + " was trained on other data than " + file_.path() +
                           "; name the same dataset or choose another io.name_model");
  load_parameters(reader, model_.parameters());
  load_optimizer(reader, model_.parameters(), optimizer_);
  Index const total = progress_.total_steps;
  progress_ = stored;
  progress_.total_steps = total;
  validation_loss_ = stored.validation_loss;
}

void Trainer::make_loader() {
  data::LoaderOptions options;
  options.split = io::Split::train;
  options.window_length = window_length_;
  options.batch_size = deck_.train.batch_size;
  options.micro_batches = deck_.train.gradient_accumulate_every;
  options.rank = ranks_.rank();
  options.ranks = ranks_.size();
  options.shuffle = deck_.train.shuffle_train;
  options.seed = deck_.train.seed;
  options.start = progress_.next;
  loader_ = std::make_unique<data::Loader>(file_, options);
}

std::string Trainer::last_good() const {
  std::string const path = ranks_.broadcast(root_ ? folder_->latest() : std::string());
  return path.empty() ? "no checkpoint has been saved" : "the last good checkpoint is " + path;
}

void Trainer::check_finite(StepResult const& result, double norm) const {
  if (result.counted > 0 && std::isfinite(result.nats) && std::isfinite(norm)) return;
  std::string const step = "step " + std::to_string(progress_.step + 1);
  std::string const good = last_good();
  if (result.counted <= 0)
    throw std::runtime_error("no byte of " + step + " counts: all are the pad token; " + good);
  throw std::runtime_error(std::string(std::isfinite(result.nats) ? "the gradient" : "the loss") + " of " +
                           step + " is not finite and was not applied; " + good +
                           " (try a lower learning_rate or gradient_clipping)");
}

TrainingOutcome Trainer::loop() {
  Index const total = schedule_.steps;
  IoConfig const& io = deck_.io;
  optimizer_.zero_gradients(space_);
  bool stop = false;
  while (progress_.step < total && !stop) {
    Clock::time_point const begin = Clock::now();
    double const exposed = exposed_seconds(), hidden = gradients_.hidden_seconds();
    StepResult const result = gradients_.run(*loader_);  // waits for the device
    Clock::time_point const gradients_done = Clock::now();
    norm_ = optimizer_.gradient_norm(space_, result.counted > 0 ? result.counted : 1);
    check_finite(result, norm_);
    learning_rate_ = schedule_.rate(progress_.step);
    optimizer_.step(space_, progress_.step + 1, learning_rate_, result.counted, norm_);
    space_.fence();
    if (optimizer_.is_shared()) gradients_.gather_parameters();
    progress_.step += 1;
    progress_.bytes_seen += result.bytes;
    progress_.samples_seen += global_.samples;
    progress_.next = result.next;
    progress_.validation_loss.reset();
    stop = result.stop;
    double const loss = result.nats / result.counted;
    Clock::time_point const end = Clock::now();
    double const flops = gradients_.flops(result.bytes);
    useful_flops_ += flops;
    since_log_.add(seconds_between(begin, end), flops, result.bytes);
    since_log_.optimizer_seconds += seconds_between(gradients_done, end);
    since_log_.exposed_seconds += exposed_seconds() - exposed;
    since_log_.hidden_seconds += gradients_.hidden_seconds() - hidden;
    since_log_.steps += 1;

    Index const step = progress_.step;
    bool const last = step == total;
    show_progress(loss);
    if (step == 1 || last || is_due(step, total, io.log_train_loss_amount)) log_step(loss);
    bool const validates = evaluator_ && (last || is_due(step, total, io.validate_amount));
    if (validates) validate();
    bool const periodic = io.checkpoint_every > 0 && step % io.checkpoint_every == 0;
    if (validates || periodic || stop || last) save(stop || last);
  }
  line_.end();
  TrainingOutcome outcome;
  outcome.step = progress_.step;
  outcome.validation_loss = validation_loss_;
  if (progress_.step < total) {
    outcome.status = core::ExitStatus::interrupted;
    core::log().warn("stopped by a signal after step {} of {}; run the same command again to continue",
                     progress_.step, total);
    return outcome;
  }
  on_root(ranks_, [&] {
    std::string summary =
        "trained " + std::to_string(total) + " steps, " + std::to_string(progress_.bytes_seen) + " bytes";
    std::array<char, 120> text{};
    if (validation_loss_) {
      std::snprintf(text.data(), text.size(), ", validation %.4f bits per byte", *validation_loss_ / ln2);
      summary += text.data();
    }
    if (auto const best = folder_->best()) {
      std::snprintf(text.data(), text.size(), ", best %.4f at step %lld", best->loss / ln2,
                    static_cast<long long>(best->step));
      summary += text.data();
    }
    folder_->mark_done(summary);
    line_.say(summary);
    if (ranks_.size() > 1 && total > first_step_)
      line_.say(communication_text(exposed_seconds(), gradients_.hidden_seconds(),
                                   static_cast<double>(total - first_step_), ranks_.size()));
  });
  return outcome;
}

void Trainer::log_step(double loss) {
  record("train", loss, since_log_);
  all_.add(since_log_.seconds, since_log_.flops, static_cast<Index>(since_log_.bytes));
  since_log_ = {};
}

void Trainer::validate() {
  Evaluation const result = evaluator_->run();
  double const loss = result.total.loss();
  if (!std::isfinite(loss))
    throw std::runtime_error("the validation loss after step " + std::to_string(progress_.step) +
                             " is not finite; " + last_good());
  progress_.validation_loss = validation_loss_ = loss;
  Meter meter;
  meter.add(result.seconds, result.flops, result.total.bytes);
  useful_flops_ += result.flops;
  record("validation", loss, meter);
  std::array<char, 100> text{};
  std::snprintf(text.data(), text.size(), "step %lld  validation %.4f bits per byte",
                static_cast<long long>(progress_.step), loss / ln2);
  line_.say(text.data());
}

void Trainer::record(std::string const& split, double loss, Meter const& meter) {
  if (!root_) return;
  kernels::Region const region("log");
  MetricsRecord entry;
  entry.step = progress_.step;
  entry.split = split;
  entry.loss = loss;
  entry.learning_rate = learning_rate_;
  entry.gradient_norm = norm_;
  entry.bytes_seen = progress_.bytes_seen;
  meter.describe(entry, peak_);
  entry.epoch = progress_.next.epoch;
  entry.elapsed = elapsed_before_ + seconds_between(start_, Clock::now());
  entry.peak_memory = core::peak_resident_bytes();
  if (!metrics_->write(entry) && !metrics_warned_) {
    metrics_warned_ = true;
    line_.end();
    core::log().warn("{} cannot grow; its records are kept in memory and written when there is room",
                     folder_->metrics());
  }
}

void Trainer::show_progress(double loss) {
  if (!line_.wants()) return;
  kernels::Region const region("log");
  Clock::time_point const now = Clock::now();
  Meter const recent = since_log_.seconds > 0 ? since_log_ : all_;
  double const per_step = seconds_between(start_, now) / static_cast<double>(progress_.step - first_step_);
  double const left = per_step * static_cast<double>(schedule_.steps - progress_.step);
  std::array<char, 200> text{};
  std::snprintf(text.data(), text.size(),
                "step %lld/%lld  %.4f bits per byte  %s  %.0f %% of GEMM peak  %s left",
                static_cast<long long>(progress_.step), static_cast<long long>(schedule_.steps), loss / ln2,
                rate_text(recent.bytes / recent.seconds).c_str(), 100 * recent.flops / recent.seconds / peak_,
                duration_text(left).c_str());
  line_.show(text.data());
}

/// needed: the run cannot go on without it. A checkpoint that fails otherwise leaves the one before in place,
/// and a remark.
void Trainer::save(bool needed) {
  kernels::Region const region("checkpoint");
  std::string const path = ranks_.broadcast(root_ ? folder_->checkpoint(progress_.step) : std::string());
  std::string const problem = parallel::problem_of([&] {
    save_checkpoint(path, deck_, model_.parameters(), optimizer_, progress_, ranks_);
    on_root(ranks_, [&] { folder_->saved(progress_.step, progress_.validation_loss); });
  });
  if (problem.empty()) return;
  std::string const text =
      "no checkpoint of step " + std::to_string(progress_.step) + ": " + problem + "; " + last_good();
  line_.end();
  if (needed) throw std::runtime_error(text);
  core::log().warn(text);
}

void Trainer::report(core::Profiler const& profiler) const {
  Profile const profile = summarise(profiler, machine_);
  ProfiledRun run;
  run.what = "strata train";
  run.steps = progress_.step - first_step_;
  run.ranks = ranks_.size();
  run.limits = machine_;
  run.flops = useful_flops_;
  run.peak_memory = core::peak_resident_bytes();
  run.memory = plan_.uses;
  run.over_ranks = spread_over_ranks(profile, ranks_);
  if (ranks_.size() > 1)
    run.communication = {spread_over_ranks("exposed", exposed_seconds(), ranks_),
                         spread_over_ranks("hidden", gradients_.hidden_seconds(), ranks_)};
  on_root(ranks_, [&] {
    std::printf("%s", profile_table(profile, run).c_str());
    std::fflush(stdout);
    io::write_text_file((folder_->path() / "profile.json").string(), profile_json(profile, run));
  });
}

}  // namespace

TrainingOutcome run_training(Deck const& deck, parallel::Communicator const& ranks, bool quiet,
                             bool profile) {
  std::string summary;
  on_root(ranks, [&] {
    std::filesystem::path const folder = deck.run_folder();
    std::error_code error;
    if (std::filesystem::exists(folder / "DONE", error)) summary = folder.string() + " is done already";
  });
  summary = ranks.broadcast(summary);
  if (!summary.empty()) {
    ProgressLine(quiet || !ranks.is_root()).say(summary);
    return {};
  }
  // A file-size limit shall be an error like a full disk, not the end of the process.
  std::signal(SIGXFSZ, SIG_IGN);
  return Trainer(deck, ranks, quiet, profile).run();
}

}  // namespace strata::train
