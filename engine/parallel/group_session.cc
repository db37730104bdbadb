#include "engine/parallel/group_session.h"

#include "common/log.h"

namespace flotilla {
namespace {

// A peer that died breaks links before the clock can tell: only what lasts longer is worth a report.
constexpr std::chrono::milliseconds kBrokenGrace{500};

}  // namespace

void GroupSession::stop(Clock::time_point now) {
  if (phase_ == Phase::kRunning) stopped_at_ = now;
  // A join under way ends by itself, and a newer target follows it.
  if (phase_ != Phase::kJoining) phase_ = Phase::kStopping;
  wanted_.reset();
  broken_at_.reset();
}

void GroupSession::on_group(const wire::Group& group, Clock::time_point now) {
  if (group.epoch() <= epoch_.value) return;
  stop(now);
  target_ = group;
  if (!group.orderly()) valid_from_ = Epoch(group.epoch());
}

void GroupSession::on_suspend(const wire::Suspend& suspend, Clock::time_point now) {
  if (suspend.epoch() < epoch_.value) return;
  stop(now);
  target_.reset();
  valid_from_ = Epoch(suspend.epoch() + 1);
  if (phase_ != Phase::kJoining) phase_ = Phase::kSuspended;
  log_warn("suspended", {{"epoch", suspend.epoch()}, {"reason", suspend.reason()}});
}

std::optional<StepGrant> GroupSession::on_go(const wire::Go& go) {
  if (phase_ != Phase::kRunning || go.epoch() != epoch_.value || go.step() != next_step_.value) return std::nullopt;
  StepGrant grant{.epoch = epoch_, .step = next_step_, .tokens = {}};
  for (const wire::Grant& g : go.grants()) {
    grant.tokens.push_back(static_cast<int32_t>(g.prefill_tokens() + g.decode_tokens()));
  }
  if (grant.tokens.size() != num_members_) return std::nullopt;
  if (wanted_ && wanted_->prefill + wanted_->decode > 0) clock_wait_ = Clock::now() - wanted_->since;
  wanted_.reset();
  ++next_step_.value;
  return grant;
}

void GroupSession::want(uint32_t prefill_tokens, uint32_t decode_tokens, Clock::time_point now) {
  if (wanted_ && wanted_->prefill == prefill_tokens && wanted_->decode == decode_tokens) return;
  wire::ToClock message;
  wire::Want& want = *message.mutable_want();
  want.set_epoch(epoch_.value);
  want.set_step(next_step_.value);
  want.set_prefill_tokens(prefill_tokens);
  want.set_decode_tokens(decode_tokens);
  wanted_ = Wanted{prefill_tokens, decode_tokens, now};
  send_(message);
}

void GroupSession::on_step_failed(const Status& status, Clock::time_point now) {
  if (phase_ != Phase::kRunning || broken_at_) return;
  stopped_at_ = now;
  phase_ = Phase::kStopping;
  wanted_.reset();
  broken_at_ = now + kBrokenGrace;
  broken_reason_ = status.message();
}

GroupSession::Clock::time_point GroupSession::deadline() const {
  return broken_at_.value_or(Clock::time_point::max());
}

void GroupSession::on_deadline(Clock::time_point now) {
  if (!broken_at_ || now < *broken_at_) return;
  broken_at_.reset();
  send_broken(broken_reason_);
}

void GroupSession::send_broken(const std::string& reason) {
  log_warn("step broken", {{"epoch", epoch_.value}, {"reason", reason}});
  wire::ToClock message;
  message.mutable_broken()->set_epoch(epoch_.value);
  message.mutable_broken()->set_step(next_step_.value);
  message.mutable_broken()->set_suspect(-1);
  message.mutable_broken()->set_reason(reason);
  send_(message);
}

ExchangeGroup GroupSession::begin_join() {
  joining_ = std::move(*target_);
  target_.reset();
  phase_ = Phase::kJoining;
  epoch_ = Epoch(joining_.epoch());
  ExchangeGroup group{.epoch = epoch_, .members = {}, .placement = {}};
  for (const wire::Member& m : joining_.members()) {
    if (m.rank() == self_.value) self_index_ = group.members.size();
    group.members.push_back({Rank(m.rank()), m.mesh_address()});
  }
  for (const wire::ExpertPlace& place : joining_.experts()) {
    std::vector<ExpertReplica>& replicas = group.placement.emplace_back();
    for (const wire::Replica& r : place.replicas()) replicas.push_back({Rank(r.rank()), r.slot()});
  }
  num_members_ = static_cast<uint32_t>(group.members.size());
  num_ranks_ = joining_.num_ranks();
  return group;
}

void GroupSession::on_joined(const Status& status, Clock::time_point now) {
  if (target_) {  // a newer group came meanwhile
    phase_ = Phase::kStopping;
    return;
  }
  if (valid_from_ > epoch_) {  // suspended meanwhile
    phase_ = Phase::kSuspended;
    return;
  }
  if (!status.ok()) {
    phase_ = Phase::kStopping;
    broken_at_ = now + kBrokenGrace;
    broken_reason_ = status.message();
    return;
  }
  phase_ = Phase::kRunning;
  next_step_ = StepIndex(0);
  pause_ = stopped_at_ ? now - *stopped_at_ : std::chrono::nanoseconds(0);
  stopped_at_.reset();
  wire::ToClock message;
  message.mutable_joined()->set_epoch(epoch_.value);
  send_(message);
}

}  // namespace flotilla
