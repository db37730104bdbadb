#include "launcher/step_clock.h"

#include <algorithm>

#include "common/log.h"
#include "common/placement.h"

namespace flotilla {
namespace {

std::string names(const std::vector<Rank>& ranks) {
  std::string text;
  for (const Rank rank : ranks) text += (text.empty() ? "" : ",") + std::to_string(rank.value);
  return text;
}

}  // namespace

StepClock::StepClock(const StepClockOptions& options, StepClockOutput& output)
    : options_(options), output_(output) {}

StepClock::RankState* StepClock::find(ConnectionId connection) {
  for (auto& [rank, state] : ranks_) {
    if (state.connection == connection) return &state;
  }
  return nullptr;
}

bool StepClock::member(int32_t rank) const {
  return std::find(members_.begin(), members_.end(), Rank(rank)) != members_.end();
}

// Without expert parallelism nobody needs anybody: the clock only watches.
bool StepClock::has_steps() const {
  return !ranks_.empty() && ranks_.begin()->second.hello.expert_parallel();
}

void StepClock::send(int32_t rank, const wire::FromClock& message) {
  output_.send(ranks_.at(rank).connection, message);
}

void StepClock::on_message(ConnectionId connection,
                           const wire::ToClock& message,
                           Clock::time_point now) {
  if (message.has_hello()) return on_hello(connection, message.hello(), now);
  RankState* rank = find(connection);
  if (rank == nullptr) {
    output_.close(connection);  // speaks before its hello was accepted
    return;
  }
  rank->last_heard = now;
  const Rank id(rank->hello.rank());
  switch (message.message_case()) {
    case wire::ToClock::kLoadProgress:
      rank->last_progress = now;
      output_.progress(id,
                       rank->hello.pid(),
                       message.load_progress().stage(),
                       message.load_progress().fraction());
      return;
    case wire::ToClock::kLoaded:
      rank->last_progress = now;
      rank->loaded = true;
      rank->spare_bytes = message.loaded().spare_bytes();
      return regroup(true);
    case wire::ToClock::kJoined:
      rank->last_progress = now;
      if (message.joined().epoch() != epoch_.value) return;
      rank->joined = epoch_;
      return maybe_run();
    case wire::ToClock::kServing:
      output_.serving(id, rank->hello.pid(), message.serving().seconds());
      return;
    case wire::ToClock::kWant: {
      rank->last_progress = now;
      const wire::Want& want = message.want();
      if (want.epoch() != epoch_.value || want.step() != step_.value || !member(id.value)) return;
      rank->want = Wants{want.prefill_tokens(), want.decode_tokens()};
      return maybe_grant();
    }
    case wire::ToClock::kHeartbeat: {
      const wire::Heartbeat& beat = message.heartbeat();
      if (beat.progress() != rank->progress || beat.state() != wire::Heartbeat::BUSY)
        rank->last_progress = now;
      rank->progress = beat.progress();
      rank->state = beat.state();
      return;
    }
    case wire::ToClock::kBroken:
      return on_broken(*rank, message.broken());
    case wire::ToClock::kDraining:
      return on_draining(*rank, message.draining().finished());
    case wire::ToClock::kHello:
    case wire::ToClock::MESSAGE_NOT_SET:
      return;
  }
}

std::optional<std::string> StepClock::difference(const wire::Hello& hello) const {
  const auto value_of = [](const auto& settings, const std::string& name) -> std::string {
    for (const wire::Setting& s : settings) {
      if (s.name() == name) return s.value();
    }
    return "(not given)";
  };
  std::vector<std::string> all;
  for (const wire::Setting& s : must_match_) all.push_back(s.name());
  for (const wire::Setting& s : hello.must_match()) all.push_back(s.name());
  for (const std::string& name : all) {
    const std::string theirs = value_of(must_match_, name);
    const std::string mine = value_of(hello.must_match(), name);
    if (theirs == mine) continue;
    return name + " is '" + mine + "' here and '" + theirs +
           "' on the ranks that run: all ranks of a fleet must be equal in it";
  }
  return std::nullopt;
}

void StepClock::on_hello(ConnectionId connection, const wire::Hello& hello, Clock::time_point now) {
  const int32_t id = hello.rank();
  std::optional<std::string> refusal;
  if (id < 0 || id >= options_.num_ranks) {
    refusal = "rank " + std::to_string(id) + " of a fleet of " +
              std::to_string(options_.num_ranks) + " ranks";
  } else if (find(connection) != nullptr) {
    refusal = "a second hello on one connection";
  } else if (ranks_.size() > ranks_.count(id)) {  // others are there to be equal to
    refusal = difference(hello);
  }
  if (refusal) {
    wire::FromClock out;
    out.mutable_refused()->set_reason(*refusal);
    // Told first: the process ends as soon as it hears.
    output_.refused(Rank(id), hello.pid(), *refusal);
    output_.send(connection, out);
    output_.close(connection);
    return;
  }
  // A restarted rank may be quicker than the news of its predecessor's death.
  if (ranks_.contains(id)) remove(id);
  if (ranks_.empty()) must_match_.assign(hello.must_match().begin(), hello.must_match().end());
  RankState& rank = ranks_[id];
  rank.connection = connection;
  rank.hello = hello;
  rank.last_heard = rank.last_progress = now;
  wire::FromClock out;
  out.mutable_welcome()->set_num_ranks(static_cast<uint32_t>(options_.num_ranks));
  out.mutable_welcome()->set_heartbeat_ms(static_cast<uint32_t>(options_.rank_timeout.count() / 4));
  output_.send(connection, out);
  if (fleet_draining_) {
    wire::FromClock drain;
    drain.mutable_fleet_draining();
    output_.send(connection, drain);
  }
}

void StepClock::on_disconnect(ConnectionId connection) {
  if (const RankState* rank = find(connection)) remove(rank->hello.rank());
}

void StepClock::on_process_exit(Rank rank, int64_t pid) {
  const auto it = ranks_.find(rank.value);
  if (it != ranks_.end() && it->second.hello.pid() == pid) remove(rank.value);
}

void StepClock::remove(int32_t rank) {
  const auto it = ranks_.find(rank);
  output_.close(it->second.connection);
  ranks_.erase(it);
  if (member(rank)) {
    regroup(false);
  } else {
    maybe_release_leavers();
  }
}

void StepClock::on_broken(RankState& rank, const wire::Broken& broken) {
  if (broken.epoch() != epoch_.value || !member(rank.hello.rank())) return;
  log_warn("epoch broken",
           {{"epoch", epoch_.value},
            {"step", broken.step()},
            {"by", rank.hello.rank()},
            {"suspect", broken.suspect()},
            {"reason", broken.reason()}});
  start_epoch(members_, false);
}

void StepClock::on_draining(RankState& rank, bool finished) {
  rank.draining = true;
  rank.finished = rank.finished || finished;
  if (!finished) return;
  if (fleet_draining_ || !has_steps()) return maybe_release_leavers();
  rank.leaving = true;
  regroup(true);
  maybe_release_leavers();
}

void StepClock::on_fleet_draining() {
  if (fleet_draining_) return;
  fleet_draining_ = true;
  wire::FromClock out;
  out.mutable_fleet_draining();
  for (const auto& [rank, state] : ranks_) output_.send(state.connection, out);
  maybe_release_leavers();
}

// A drained rank may go when nobody needs it: alone, when the epoch without it runs; with the whole
// fleet, when all are drained.
void StepClock::maybe_release_leavers() {
  const auto release = [&](RankState& rank) {
    wire::FromClock out;
    out.mutable_leave_granted();
    output_.send(rank.connection, out);
    rank.released = true;
  };
  const bool all_finished = std::all_of(ranks_.begin(), ranks_.end(), [](const auto& entry) {
    return entry.second.finished || !entry.second.loaded;
  });
  for (auto& [id, rank] : ranks_) {
    if (!rank.finished || rank.released) continue;
    const bool next_epoch_runs =
        rank.leaving && !member(id) && (phase_ == Phase::kRunning || members_.empty());
    if ((fleet_draining_ && all_finished) || next_epoch_runs || !has_steps()) release(rank);
  }
}

void StepClock::regroup(bool orderly) {
  if (!has_steps() && members_.empty()) return;
  std::vector<Rank> candidates;
  for (const auto& [id, rank] : ranks_) {
    if (rank.loaded && !rank.leaving) candidates.push_back(Rank(id));
  }
  if (candidates == members_ && phase_ != Phase::kSuspended && phase_ != Phase::kWaiting) return;
  const bool complete = static_cast<int32_t>(candidates.size()) == options_.num_ranks;
  if (!formed_once_ && !complete) return;
  if (candidates.empty()) {
    members_.clear();
    phase_ = Phase::kWaiting;
    return;
  }
  if (!complete && options_.on_rank_loss == OnRankLoss::kWait) {
    return suspend("a rank is missing, and --on-rank-loss is wait");
  }
  if (!complete && !memory_allows(candidates)) {
    return suspend("a rank is missing, and the others have no memory for its experts");
  }
  start_epoch(std::move(candidates), orderly);
}

bool StepClock::memory_allows(const std::vector<Rank>& candidates) const {
  const wire::Hello& any = ranks_.begin()->second.hello;
  const auto full =
      place_experts(any.num_experts(), options_.num_ranks, all_ranks(options_.num_ranks));
  const auto now = place_experts(any.num_experts(), options_.num_ranks, candidates);
  return std::all_of(candidates.begin(), candidates.end(), [&](Rank rank) {
    const size_t extra = experts_of(now, rank).size() - experts_of(full, rank).size();
    const RankState& state = ranks_.at(rank.value);
    return extra * state.hello.expert_bytes() <= state.spare_bytes;
  });
}

void StepClock::start_epoch(std::vector<Rank> members, bool orderly) {
  // Orderly only if every member of a running epoch is still there to finish its steps.
  const bool all_there = std::all_of(
      members_.begin(), members_.end(), [&](Rank r) { return ranks_.contains(r.value); });
  orderly = orderly && all_there && (phase_ == Phase::kRunning || members_.empty());
  members_ = std::move(members);
  ++epoch_.value;
  step_ = StepIndex(0);
  phase_ = Phase::kForming;
  formed_once_ = true;

  wire::FromClock out;
  wire::Group& group = *out.mutable_group();
  group.set_epoch(epoch_.value);
  group.set_num_ranks(static_cast<uint32_t>(options_.num_ranks));
  group.set_orderly(orderly);
  for (const Rank rank : members_) {
    const wire::Hello& hello = ranks_.at(rank.value).hello;
    wire::Member& m = *group.add_members();
    m.set_rank(rank.value);
    m.set_instance_id(hello.instance_id());
    m.set_mesh_address(hello.mesh_address());
  }
  const int32_t num_experts = ranks_.at(members_.front().value).hello.num_experts();
  for (const auto& replicas : place_experts(num_experts, options_.num_ranks, members_)) {
    wire::ExpertPlace& place = *group.add_experts();
    for (const ExpertReplica& replica : replicas) {
      wire::Replica& r = *place.add_replicas();
      r.set_rank(replica.rank.value);
      r.set_slot(replica.slot);
    }
  }
  for (auto& [id, rank] : ranks_) rank.want.reset();
  for (const Rank rank : members_) send(rank.value, out);
  log_info("epoch formed",
           {{"epoch", epoch_.value},
            {"members", names(members_)},
            {"of", options_.num_ranks},
            {"orderly", orderly}});
}

void StepClock::suspend(const std::string& reason) {
  wire::FromClock out;
  out.mutable_suspend()->set_epoch(epoch_.value);
  out.mutable_suspend()->set_reason(reason);
  for (const auto& [id, rank] : ranks_) {
    if (member(id)) output_.send(rank.connection, out);
  }
  log_warn("fleet suspended", {{"epoch", epoch_.value}, {"reason", reason}});
  phase_ = Phase::kSuspended;
  members_.clear();
  ++epoch_.value;  // late messages of the ended epoch mean nothing any more
}

void StepClock::maybe_run() {
  if (phase_ != Phase::kForming) return;
  for (const Rank rank : members_) {
    if (ranks_.at(rank.value).joined != epoch_) return;
  }
  phase_ = Phase::kRunning;
  log_info("epoch runs", {{"epoch", epoch_.value}});
  maybe_release_leavers();
  maybe_grant();
}

void StepClock::maybe_grant() {
  if (phase_ != Phase::kRunning) return;
  bool anything = false;
  for (const Rank rank : members_) {
    const std::optional<Wants>& want = ranks_.at(rank.value).want;
    if (!want) return;
    anything |= want->prefill + want->decode > 0;
  }
  if (!anything) return;
  wire::FromClock out;
  wire::Go& go = *out.mutable_go();
  go.set_epoch(epoch_.value);
  go.set_step(step_.value);
  for (const Rank rank : members_) {
    RankState& state = ranks_.at(rank.value);
    wire::Grant& grant = *go.add_grants();
    grant.set_prefill_tokens(state.want->prefill);
    grant.set_decode_tokens(state.want->decode);
    state.want.reset();
  }
  ++step_.value;
  for (const Rank rank : members_) send(rank.value, out);
}

void StepClock::on_timer(Clock::time_point now) {
  std::vector<int32_t> dead;
  for (const auto& [id, rank] : ranks_) {
    const auto seconds = [&](Clock::time_point since) {
      return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(now - since).count()) +
             " s";
    };
    if (now - rank.last_heard >= options_.rank_timeout) {
      output_.hung(Rank(id), rank.hello.pid(), "not heard of for " + seconds(rank.last_heard));
      dead.push_back(id);
    } else if (now - rank.last_progress >= options_.rank_timeout) {
      output_.hung(
          Rank(id), rank.hello.pid(), "busy without progress for " + seconds(rank.last_progress));
      dead.push_back(id);
    }
  }
  for (const int32_t id : dead) remove(id);
}

std::optional<StepClock::Clock::time_point> StepClock::next_deadline() const {
  std::optional<Clock::time_point> first;
  for (const auto& [id, rank] : ranks_) {
    const Clock::time_point due =
        std::min(rank.last_heard, rank.last_progress) + options_.rank_timeout;
    if (!first || due < *first) first = due;
  }
  return first;
}

}  // namespace flotilla
