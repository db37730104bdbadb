#include "engine/rank_loop.h"

#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>

#include "common/crypto.h"
#include "common/log.h"
#include "engine/runner/cpu_runner.h"

namespace flotilla {
namespace {

BatcherOptions batcher_options(const RankEngineOptions& o, const RankSetup& plan) {
  BatcherOptions b{.limits = {.max_num_seqs = o.max_num_seqs,
                              .max_num_batched_tokens = o.max_num_batched_tokens,
                              .block_size = o.block_size},
                   .num_blocks = static_cast<int32_t>(plan.layout.num_blocks),
                   .max_model_len = plan.limits.max_model_len,
                   .prefix_caching = o.prefix_caching,
                   .eos_token_ids = plan.files.config.eos_token_ids};
  for (const TokenId id : o.eos_token_ids) {
    if (id < 0 || id >= plan.limits.vocab_size) continue;  // the tokenizer may know ids that the model does not
    if (std::find(b.eos_token_ids.begin(), b.eos_token_ids.end(), id) == b.eos_token_ids.end())
      b.eos_token_ids.push_back(id);
  }
  return b;
}

}  // namespace

RankLoop::RankLoop(RankEngineOptions options,
                   RankSetup setup,
                   std::unique_ptr<MeshExchange> mesh,
                   std::unique_ptr<ClockClient> clock,
                   EngineMetrics* metrics)
    : options_(std::move(options)),
      setup_(std::move(setup)),
      mesh_(std::move(mesh)),
      clock_(std::move(clock)),
      metrics_(metrics),
      inbox_(options_.max_waiting),
      batcher_(batcher_options(options_, setup_), metrics),
      last_progress_(Clock::now().time_since_epoch().count()) {
  if (setup_.in_group) {
    session_ = std::make_unique<GroupSession>(options_.group.rank,
                                              [this](const wire::ToClock& m) { send(m); });
  }
}

RankLoop::~RankLoop() {
  if (loading_.thread.joinable()) loading_.thread.join();
}

void RankLoop::send(const wire::ToClock& message) {
  if (!clock_) return;
  const Status status = clock_->send(message);
  if (status.ok()) return;
  // What it said last explains why it hung up.
  if (const auto last = clock_->receive(); last.ok()) {
    for (const wire::FromClock& m : *last) {
      if (m.has_refused()) return fail(failed_precondition(m.refused().reason()));
    }
  }
  fail(status);
}

void RankLoop::say_hello() {
  if (!clock_) return;
  wire::ToClock message;
  wire::Hello& hello = *message.mutable_hello();
  const ModelConfig& c = setup_.files.config;
  hello.set_rank(options_.group.rank.value);
  hello.set_instance_id(to_hex(random_bytes(8)));
  hello.set_role("mixed");
  hello.set_pid(::getpid());
  if (mesh_) hello.set_mesh_address(mesh_->address());
  hello.set_expert_parallel(in_group());
  hello.set_num_experts(static_cast<int32_t>(c.moe.num_experts));
  const double expert_elements =
      3.0 * static_cast<double>(c.hidden_size * c.moe.intermediate_size * c.num_moe_layers());
  hello.set_expert_bytes(
      static_cast<uint64_t>(expert_elements * (options_.activation == DType::kBf16 ? 2 : 4)));
  const auto must_match = [&](const std::string& name, const std::string& value) {
    wire::Setting& s = *hello.add_must_match();
    s.set_name(name);
    s.set_value(value);
  };
  must_match("version", FLOTILLA_VERSION);
  must_match("model digest", setup_.files.digest);
  must_match("--activation-dtype", std::string(dtype_name(options_.activation)));
  must_match("--cpu-isa", std::string(cpu_isa_name(options_.cpu.isa)));
  for (const auto& [name, value] : options_.group.must_match) must_match(name, value);
  send(message);
}

void RankLoop::start_loading() {
  auto files = std::make_shared<ModelFiles>(std::move(setup_.files));
  loading_.thread = std::thread([this, files] {
    pthread_setname_np(pthread_self(), "loader");
    auto outcome =
        load_rank(options_, setup_, std::move(*files), mesh_.get(), [this](double fraction) {
          const int percent = static_cast<int>(fraction * 100);
          if (percent > loading_.percent.exchange(percent)) inbox_.wake();
        });
    {
      MutexLock lock(loading_.mutex);
      loading_.outcome.emplace(std::move(outcome));
    }
    loading_.done = true;
    inbox_.wake();
  });
}

void RankLoop::run() {
  pthread_setname_np(pthread_self(), "engine");
  say_hello();
  start_loading();
  while (!stopping_) {
    wait_for_events();
    read_clock();
    take_inbox();
    if (!parts_ && state_ != EngineState::kFailed) take_loaded();
    if (parts_) {
      collect();
      if (in_group()) {
        leave_epoch();
        finish_join();
        begin_join();
        session_->on_deadline(Clock::now());
      }
      if (Clock::now() >= next_expiry_) next_expiry_ = batcher_.expire(Clock::now());
      advance();
    }
    deliver();
    announce();
    progress_drain();
    heartbeat();
  }
  if (mesh_) mesh_->cancel_before(Epoch(UINT64_MAX));
  batcher_.cancel_all("the engine stops");
  deliver();
  if (parts_) parts_->runner.reset();
  if (loading_.thread.joinable()) loading_.thread.join();
  ended_ = true;
  notify();
}

void RankLoop::wait_for_events() {
  pollfd fds[3] = {{inbox_.wake_fd(), POLLIN, 0}, {-1, POLLIN, 0}, {-1, POLLIN, 0}};
  if (parts_) fds[1].fd = parts_->runner->ready_fd();
  if (clock_) fds[2].fd = clock_->fd();
  Clock::time_point until = next_expiry_;
  if (clock_) until = std::min(until, next_heartbeat_);
  if (in_group()) until = std::min(until, session_->deadline());
  int timeout = -1;
  if (until != Clock::time_point::max()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now());
    timeout = static_cast<int>(std::clamp<int64_t>(left.count(), 0, 3'600'000));
  }
  ::poll(fds, 3, timeout);
}

void RankLoop::read_clock() {
  if (!clock_) return;
  StatusOr<std::vector<wire::FromClock>> messages = clock_->receive();
  if (!messages.ok()) return fail(messages.status());
  for (const wire::FromClock& message : *messages) on_clock_message(message);
}

void RankLoop::on_clock_message(const wire::FromClock& message) {
  const auto now = Clock::now();
  switch (message.message_case()) {
    case wire::FromClock::kWelcome:
      heartbeat_every_ =
          std::chrono::milliseconds(std::max(100u, message.welcome().heartbeat_ms()));
      next_heartbeat_ = std::min(next_heartbeat_, now + heartbeat_every_);
      return;
    case wire::FromClock::kRefused:
      return fail(failed_precondition(message.refused().reason()));
    case wire::FromClock::kGroup:
      if (!in_group()) return;
      session_->on_group(message.group(), now);
      return mesh_->cancel_before(session_->valid_from());
    case wire::FromClock::kSuspend:
      if (!in_group()) return;
      session_->on_suspend(message.suspend(), now);
      return mesh_->cancel_before(session_->valid_from());
    case wire::FromClock::kGo: {
      if (!in_group()) return;
      std::optional<StepGrant> grant = session_->on_go(message.go());
      if (!grant) return;
      if (const auto wait = session_->take_clock_wait(); wait && metrics_)
        metrics_->clock_waited(*wait);
      StepPlan plan;
      if (grant->tokens[session_->self_index()] > 0) {
        check(pending_.has_value(), "the clock grants what was wanted");
        plan = std::move(*pending_);
        pending_.reset();
      }
      return submit(std::move(plan), std::move(*grant));
    }
    case wire::FromClock::kLeaveGranted:
      drained_ = true;
      return notify();
    case wire::FromClock::kFleetDraining:
      return inbox_.refuse_new();
    case wire::FromClock::MESSAGE_NOT_SET:
      return;
  }
}

void RankLoop::take_inbox() {
  RankInbox::Content content = inbox_.take();
  for (RankInbox::Submission& s : content.submissions) batcher_.add(std::move(s.request), s.sink);
  for (const RankInbox::Cancellation& c : content.cancellations) batcher_.cancel(c.sink, c.id);
  if (!content.submissions.empty()) next_expiry_ = batcher_.expire(Clock::now());
  front_is_up_ |= content.front_is_up;
  may_leave_unloaded_ |= content.drain;
  stopping_ = content.stop;
}

void RankLoop::take_loaded() {
  const int percent = loading_.percent.load();
  if (percent != percent_told_) {
    percent_told_ = percent;
    wire::ToClock message;
    message.mutable_load_progress()->set_stage("loading");
    message.mutable_load_progress()->set_fraction(percent / 100.0);
    send(message);
    MutexLock lock(mutex_);
    detail_ = "loading " + std::to_string(percent) + " %";
  }
  if (!loading_.done) return;
  loading_.thread.join();
  StatusOr<RankParts> outcome = [&] {
    MutexLock lock(loading_.mutex);
    return std::move(*loading_.outcome);
  }();
  if (!outcome.ok()) return fail(outcome.status());
  parts_.emplace(std::move(*outcome));
  parts_->runner = make_cpu_runner(*parts_->model,
                                   parts_->cache,
                                   *parts_->device,
                                   parts_->exchange(),
                                   {.max_num_seqs = options_.max_num_seqs,
                                    .max_num_batched_tokens = options_.max_num_batched_tokens,
                                    .max_model_len = setup_.limits.max_model_len,
                                    .activation = options_.activation});
  if (metrics_) {
    metrics_->configured({.max_num_seqs = options_.max_num_seqs,
                          .block_size = options_.block_size,
                          .num_blocks = setup_.layout.num_blocks,
                          .kv_dtype = std::string(dtype_name(setup_.layout.dtype)),
                          .prefix_caching = options_.prefix_caching,
                          .max_num_batched_tokens = options_.max_num_batched_tokens,
                          .max_model_len = setup_.limits.max_model_len});
  }
  wire::ToClock warming;
  warming.mutable_load_progress()->set_stage("warming up");
  warming.mutable_load_progress()->set_fraction(1.0);
  send(warming);
  wire::ToClock loaded;
  loaded.mutable_loaded()->set_spare_bytes(available_memory() /
                                           static_cast<uint64_t>(options_.group.num_ranks));
  send(loaded);
  if (!in_group()) state_ = EngineState::kServing;
  MutexLock lock(mutex_);
  detail_ = in_group() ? "waiting for the other ranks" : "";
}

void RankLoop::collect() {
  while (std::optional<StepResult> result = parts_->runner->collect()) {
    const Submitted step = submitted_.front();
    submitted_.pop_front();
    const auto now = Clock::now();
    last_progress_ = now.time_since_epoch().count();
    if (!result->status.ok()) {
      step_failed_ = true;
      if (in_group() && result->status.code() != StatusCode::kAborted)
        session_->on_step_failed(result->status, now);
      continue;
    }
    if (step_failed_) continue;
    if (step.has_work) batcher_.commit(*result);
    if (!metrics_) continue;
    metrics_->step_finished(result->finished - result->started,
                            {.prefill_tokens = step.prefill,
                             .decode_tokens = step.decode,
                             .sequences = step.sequences});
    if (in_group()) metrics_->exchange_finished(result->exchange_wait);
  }
}

// The old epoch's steps are over, one way or the other: its sequences go on from their last
// collected token.
void RankLoop::leave_epoch() {
  if (!session_->stopped() || !submitted_.empty()) return;
  if (!pending_ && !step_failed_) return;
  pending_.reset();
  step_failed_ = false;
  batcher_.rollback();
}

void RankLoop::begin_join() {
  if (!session_->wants_to_join() || !submitted_.empty()) return;
  const uint32_t before = session_->num_members();
  ExchangeGroup group = session_->begin_join();
  if (session_->num_members() < before && metrics_)
    metrics_->ranks_lost(before - session_->num_members());
  const std::vector<ExpertId> mine = experts_of(group.placement, options_.group.rank);
  parts_->runner->post([this, group = std::move(group), mine] {
    // Links first: whoever waits for this rank's experts learns early that it lives.
    Status status = parts_->mesh->join(group);
    if (status.ok()) {
      status = parts_->model->lm().experts()->place(
          mine, options_.cpu.num_threads, [this](double) { ++join_.progress; });
    }
    MutexLock lock(join_.mutex);
    join_.outcome = std::move(status);
  });
}

void RankLoop::finish_join() {
  if (!session_->joining()) return;
  std::optional<Status> outcome;
  {
    MutexLock lock(join_.mutex);
    outcome = std::exchange(join_.outcome, std::nullopt);
  }
  if (!outcome) return;
  session_->on_joined(*outcome, Clock::now());
  if (!session_->running()) return;
  if (metrics_) {
    metrics_->epoch_started(
        session_->epoch().value, session_->num_members(), session_->num_ranks(), session_->pause());
  }
  const bool degraded = session_->num_members() < session_->num_ranks();
  degraded_ = degraded;
  log_info("epoch joined",
           {{"epoch", session_->epoch().value},
            {"members", session_->num_members()},
            {"of", session_->num_ranks()},
            {"experts", parts_->model->lm().experts()->placed().size()},
            {"pause_seconds", std::chrono::duration<double>(session_->pause()).count()}});
}

void RankLoop::submit(StepPlan plan, StepGrant grant) {
  submitted_.push_back({.has_work = !plan.sequences.empty(),
                        .prefill = static_cast<uint32_t>(plan.prefill_tokens),
                        .decode = static_cast<uint32_t>(plan.decode_tokens),
                        .sequences = static_cast<uint32_t>(plan.sequences.size())});
  plan.grant = std::move(grant);
  parts_->runner->submit(std::move(plan));
}

void RankLoop::advance() {
  const auto depth = static_cast<size_t>(parts_->runner->depth());
  if (!in_group()) {
    while (submitted_.size() < depth) {
      StepPlan plan = batcher_.plan(Clock::now());
      if (plan.sequences.empty()) return;
      StepGrant grant{.epoch = {}, .step = local_step_, .tokens = {plan.num_tokens()}};
      ++local_step_.value;
      submit(std::move(plan), std::move(grant));
    }
    return;
  }
  if (!session_->running() || submitted_.size() >= depth) return;
  if (!pending_) {
    StepPlan plan = batcher_.plan(Clock::now());
    if (!plan.sequences.empty()) pending_ = std::move(plan);
  }
  session_->want(pending_ ? static_cast<uint32_t>(pending_->prefill_tokens) : 0,
                 pending_ ? static_cast<uint32_t>(pending_->decode_tokens) : 0,
                 Clock::now());
}

void RankLoop::deliver() {
  EngineLoad load = batcher_.load();
  load.draining = inbox_.draining();
  inbox_.set_waiting(load.waiting);
  if (!has_work()) last_progress_ = Clock::now().time_since_epoch().count();
  busy_ = has_work();
  {
    MutexLock lock(mutex_);
    load_ = load;
  }
  std::vector<Batcher::Emission> emissions = batcher_.take_emissions();
  std::stable_sort(emissions.begin(), emissions.end(), [](const auto& a, const auto& b) {
    return a.sink < b.sink;
  });
  std::vector<TokenBatch> batches;
  for (size_t i = 0; i < emissions.size();) {
    TokenSink* const sink = emissions[i].sink;
    batches.clear();
    for (; i < emissions.size() && emissions[i].sink == sink; ++i)
      batches.push_back(std::move(emissions[i].batch));
    sink->on_tokens(batches);
  }
}

void RankLoop::announce() {
  if (in_group() && parts_ && state_ != EngineState::kFailed) {
    const bool paused = session_->suspended();
    if (session_->running()) state_ = EngineState::kServing;
    if (paused) state_ = EngineState::kPaused;
    MutexLock lock(mutex_);
    detail_ = paused ? "waiting for a lost rank" : session_->running() ? "" : detail_;
  }
  if (state_ != EngineState::kStarting) notify();
  if (announced_ || !front_is_up_ || state_ != EngineState::kServing) return;
  announced_ = true;
  wire::ToClock message;
  const std::chrono::duration<double> seconds = Clock::now() - options_.process_start;
  message.mutable_serving()->set_seconds(seconds.count());
  send(message);
  log_info("serving", {{"seconds", seconds.count()}});
}

void RankLoop::progress_drain() {
  if (!inbox_.draining()) return;
  if (!drain_begun_) {
    drain_begun_ = Clock::now();
    if (metrics_) metrics_->drain_started();
  }
  if (!drain_told_) {
    drain_told_ = true;
    wire::ToClock message;
    message.mutable_draining()->set_finished(false);
    send(message);
  }
  if (drain_finished_told_ || has_work() || inbox_.pending() > 0) return;
  // Started again while the fleet drains, it was missed: it joins before it leaves.
  if (clock_ && !parts_ && !may_leave_unloaded_) return;
  drain_finished_told_ = true;
  if (metrics_) metrics_->drain_finished(Clock::now() - *drain_begun_);
  if (clock_ && parts_) {
    wire::ToClock message;
    message.mutable_draining()->set_finished(true);
    send(message);
  } else {
    drained_ = true;  // nobody else to ask
    notify();
  }
}

void RankLoop::heartbeat() {
  if (!clock_ || Clock::now() < next_heartbeat_) return;
  next_heartbeat_ = Clock::now() + heartbeat_every_;
  wire::ToClock message;
  wire::Heartbeat& beat = *message.mutable_heartbeat();
  beat.set_progress((parts_ ? parts_->runner->progress() : 0) +
                    static_cast<uint64_t>(loading_.percent.load()) + join_.progress);
  const bool device_busy = !parts_ || !submitted_.empty() || (in_group() && session_->joining());
  const bool waiting = mesh_ && mesh_->waiting();
  beat.set_state(!device_busy ? wire::Heartbeat::IDLE
                 : waiting    ? wire::Heartbeat::WAITING
                              : wire::Heartbeat::BUSY);
  send(message);
}

void RankLoop::fail(const Status& status) {
  if (state_ == EngineState::kFailed) return;
  log_error("engine failed", {{"why", status.message()}});
  {
    MutexLock lock(mutex_);
    detail_ = status.message();
    failure_ = status;
  }
  state_ = EngineState::kFailed;
  clock_.reset();
  inbox_.stop();
  notify();
}

void RankLoop::notify() {
  { MutexLock lock(mutex_); }  // whoever looks just now will wait before the notification
  changed_.notify_all();
}

Status RankLoop::failure() const {
  MutexLock lock(mutex_);
  return failure_;
}

EngineLoad RankLoop::load() const {
  MutexLock lock(mutex_);
  EngineLoad load = load_;
  load.draining = inbox_.draining();
  return load;
}

EngineHealth RankLoop::health() const {
  EngineHealth health;
  health.state = state_;
  health.degraded = degraded_;
  if (busy_) {
    const auto since = Clock::now().time_since_epoch() - Clock::duration(last_progress_.load());
    health.seconds_without_progress = std::chrono::duration<double>(since).count();
  }
  MutexLock lock(mutex_);
  health.detail = detail_;
  return health;
}

bool RankLoop::wait_until(Clock::time_point deadline, bool (*reached)(const RankLoop&)) {
  MutexLock lock(mutex_);
  return changed_.wait_until(lock, deadline, [&] { return reached(*this); });
}

}  // namespace flotilla
