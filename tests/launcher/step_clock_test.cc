#include "launcher/step_clock.h"

#include <doctest/doctest.h>

#include "common/placement.h"

using namespace flotilla;

namespace {

using Clock = StepClock::Clock;
using std::chrono::seconds;

// A fleet without processes: rank r speaks on connection 100 + r.
struct Fleet final : StepClockOutput {
  explicit Fleet(int32_t n, OnRankLoss on_loss = OnRankLoss::kContinue)
      : size(n),
        clock({.num_ranks = n, .on_rank_loss = on_loss, .rank_timeout = seconds(20)}, *this) {}

  void send(ConnectionId connection, const wire::FromClock& message) override {
    sent[connection].push_back(message);
  }
  void close(ConnectionId connection) override { closed.push_back(connection); }
  void progress(Rank, int64_t, const std::string& stage, double) override {
    stages.push_back(stage);
  }
  void serving(Rank rank, int64_t, double) override { served.push_back(rank); }
  void hung(Rank rank, int64_t, const std::string& reason) override {
    hung_ranks.push_back(rank);
    reasons.push_back(reason);
  }
  void refused(Rank rank, int64_t, const std::string& reason) override {
    refused_ranks.push_back(rank);
    reasons.push_back(reason);
  }

  ConnectionId connection(int32_t r) const {
    return 100 + static_cast<ConnectionId>(r) + generation[static_cast<size_t>(r)] * 1000;
  }
  void say(int32_t r, const wire::ToClock& message) {
    clock.on_message(connection(r), message, now);
  }
  void hello(int32_t r, std::string version = "1", uint64_t spare = 1 << 20) {
    wire::ToClock m;
    wire::Hello& h = *m.mutable_hello();
    h.set_rank(r);
    h.set_instance_id("i" + std::to_string(r));
    h.set_pid(1000 + r);
    h.set_mesh_address("unix:/r" + std::to_string(r));
    h.set_expert_parallel(expert_parallel);
    h.set_num_experts(8);
    h.set_expert_bytes(100);
    wire::Setting& s = *h.add_must_match();
    s.set_name("version");
    s.set_value(std::move(version));
    say(r, m);
    spare_bytes = spare;
  }
  void loaded(int32_t r) {
    wire::ToClock m;
    m.mutable_loaded()->set_spare_bytes(spare_bytes);
    say(r, m);
  }
  void joined(int32_t r) {
    wire::ToClock m;
    m.mutable_joined()->set_epoch(clock.epoch().value);
    say(r, m);
  }
  void want(int32_t r, uint64_t step, uint32_t prefill, uint32_t decode) {
    wire::ToClock m;
    m.mutable_want()->set_epoch(clock.epoch().value);
    m.mutable_want()->set_step(step);
    m.mutable_want()->set_prefill_tokens(prefill);
    m.mutable_want()->set_decode_tokens(decode);
    say(r, m);
  }
  void drained(int32_t r) {
    wire::ToClock m;
    m.mutable_draining()->set_finished(true);
    say(r, m);
  }
  void lose(int32_t r) {
    clock.on_disconnect(connection(r));
    ++generation[static_cast<size_t>(r)];
  }
  void bring_up() {
    for (int32_t r = 0; r < size; ++r) hello(r);
    for (int32_t r = 0; r < size; ++r) loaded(r);
    for (int32_t r = 0; r < size; ++r) joined(r);
    REQUIRE(clock.running());
  }
  // The messages to rank r since the last call.
  std::vector<wire::FromClock> take(int32_t r) { return std::exchange(sent[connection(r)], {}); }

  int32_t size;
  bool expert_parallel = true;
  uint64_t spare_bytes = 1 << 20;
  std::map<ConnectionId, std::vector<wire::FromClock>> sent;
  std::vector<ConnectionId> closed;
  std::vector<std::string> stages, reasons;
  std::vector<Rank> served, hung_ranks, refused_ranks;
  std::vector<uint64_t> generation = std::vector<uint64_t>(16, 0);
  Clock::time_point now{seconds(1000)};
  StepClock clock;
};

wire::FromClock last(const std::vector<wire::FromClock>& messages) {
  REQUIRE_FALSE(messages.empty());
  return messages.back();
}

}  // namespace

TEST_CASE("StepClock.FormsTheFirstGroupWhenAllRanksHaveLoaded") {
  Fleet f(2);
  f.hello(0);
  f.loaded(0);
  f.hello(1);
  CHECK(f.clock.epoch() == Epoch(0));
  f.loaded(1);
  const wire::FromClock group = last(f.take(0));
  REQUIRE(group.has_group());
  CHECK(group.group().epoch() == 1);
  CHECK(group.group().members_size() == 2);
  CHECK(group.group().experts_size() == 8);
  CHECK(group.group().experts(7).replicas(0).rank() == 1);
  f.joined(0);
  CHECK_FALSE(f.clock.running());
  f.joined(1);
  CHECK(f.clock.running());
}

TEST_CASE("StepClock.RefusesADifferenceNamingItAndBothValues") {
  Fleet f(2);
  f.hello(0, "1");
  f.hello(1, "2");
  REQUIRE(f.refused_ranks == std::vector{Rank(1)});
  CHECK(f.reasons[0] ==
        "version is '2' here and '1' on the ranks that run: all ranks of a fleet must be equal in "
        "it");
  CHECK(last(f.take(1)).refused().reason() == f.reasons[0]);
  CHECK(f.closed == std::vector{f.connection(1)});
}

TEST_CASE("StepClock.RefusesARankOutsideOfTheFleet") {
  Fleet f(2);
  f.hello(5);
  CHECK(f.reasons[0] == "rank 5 of a fleet of 2 ranks");
}

TEST_CASE("StepClock.GrantsAStepWhenAllHaveSpokenAndOneWantsSomething") {
  Fleet f(2);
  f.bring_up();
  f.take(0);
  f.want(0, 0, 0, 3);
  CHECK(f.take(0).empty());
  f.want(1, 0, 0, 0);
  const wire::FromClock go = last(f.take(0));
  REQUIRE(go.has_go());
  CHECK(go.go().step() == 0);
  CHECK(go.go().grants(0).decode_tokens() == 3);
  CHECK(go.go().grants(1).decode_tokens() == 0);
  CHECK(last(f.take(1)).go().step() == 0);
}

TEST_CASE("StepClock.NobodyMovesWhileNobodyWantsAndAnAmendedWantMovesAll") {
  Fleet f(2);
  f.bring_up();
  f.want(0, 0, 0, 0);
  f.want(1, 0, 0, 0);
  f.take(0);
  f.take(1);
  f.want(1, 0, 17, 0);
  CHECK(last(f.take(0)).go().grants(1).prefill_tokens() == 17);
}

TEST_CASE("StepClock.DropsMessagesOfAnOldEpochAndOfAnotherStep") {
  Fleet f(2);
  f.bring_up();
  f.take(0);
  wire::ToClock old;
  old.mutable_want()->set_epoch(f.clock.epoch().value - 1);
  old.mutable_want()->set_decode_tokens(1);
  f.say(0, old);
  f.want(1, 0, 0, 1);
  f.want(0, 5, 0, 1);  // a step that is not the next
  CHECK(f.take(0).empty());
}

TEST_CASE("StepClock.ALostRankBeginsANewEpochWhoseSurvivorsHoldItsExperts") {
  Fleet f(3);
  f.bring_up();
  f.lose(1);
  const wire::Group group = last(f.take(0)).group();
  CHECK(group.epoch() == 2);
  CHECK(group.members_size() == 2);
  CHECK(group.num_ranks() == 3);
  CHECK_FALSE(group.orderly());
  for (const wire::ExpertPlace& place : group.experts()) CHECK(place.replicas(0).rank() != 1);
  f.joined(0);
  f.joined(2);
  CHECK(f.clock.running());
  CHECK(f.clock.step() == StepIndex(0));
}

TEST_CASE("StepClock.ARestartedRankJoinsAtTheNextEpochAndTheStepsUnderWayFinishFirst") {
  Fleet f(2);
  f.bring_up();
  f.lose(1);
  f.joined(0);
  f.want(0, 0, 0, 1);
  f.hello(1);
  CHECK(f.clock.members() == std::vector{Rank(0)});  // loading holds nobody up
  f.want(0, 1, 0, 1);
  CHECK(last(f.take(0)).go().step() == 1);
  f.loaded(1);
  const wire::Group group = last(f.take(0)).group();
  CHECK(group.orderly());
  CHECK(group.members_size() == 2);
}

TEST_CASE("StepClock.TwoDeathsAtOnceAndTheDeathWhileAGroupForms") {
  Fleet f(4);
  f.bring_up();
  f.lose(1);
  f.lose(0);  // nobody has joined epoch 2 yet
  CHECK(f.clock.epoch() == Epoch(3));
  CHECK(f.clock.members() == std::vector{Rank(2), Rank(3)});
  f.joined(2);
  f.joined(3);
  CHECK(f.clock.running());
}

TEST_CASE("StepClock.WaitsForALostRankIfToldTo") {
  Fleet f(2, OnRankLoss::kWait);
  f.bring_up();
  f.take(0);
  f.lose(1);
  CHECK(last(f.take(0)).has_suspend());
  CHECK_FALSE(f.clock.running());
  f.hello(1);
  f.loaded(1);
  CHECK(last(f.take(0)).group().members_size() == 2);
}

TEST_CASE("StepClock.WaitsWhereTheSurvivorsHaveNoMemoryForTheExperts") {
  Fleet f(2);
  for (int32_t r = 0; r < 2; ++r)
    f.hello(r, "1", 399);  // four experts of 100 bytes would have to move
  for (int32_t r = 0; r < 2; ++r) f.loaded(r);
  f.lose(1);
  CHECK(last(f.take(0)).has_suspend());
}

TEST_CASE("StepClock.ABrokenStepBeginsANewEpochWithTheSameMembers") {
  Fleet f(2);
  f.bring_up();
  wire::ToClock broken;
  broken.mutable_broken()->set_epoch(1);
  f.say(0, broken);
  CHECK(last(f.take(1)).group().epoch() == 2);
  f.say(0, broken);  // late, of epoch 1
  CHECK(f.clock.epoch() == Epoch(2));
}

TEST_CASE("StepClock.TakesASilentRankOutAndHasItKilled") {
  Fleet f(2);
  f.bring_up();
  f.now += seconds(19);
  wire::ToClock beat;
  beat.mutable_heartbeat()->set_state(wire::Heartbeat::IDLE);
  f.say(0, beat);
  f.now += seconds(1);
  f.clock.on_timer(f.now);
  CHECK(f.hung_ranks == std::vector{Rank(1)});
  CHECK(f.reasons[0] == "not heard of for 20 s");
  CHECK(f.clock.members() == std::vector{Rank(0)});
  CHECK(*f.clock.next_deadline() == f.now + seconds(19));
}

TEST_CASE("StepClock.ARankIsKilledForStandingStillButNotForWorkingOrWaiting") {
  Fleet f(3);
  f.bring_up();
  for (int i = 0; i < 5; ++i) {
    f.now += seconds(5);
    wire::ToClock stuck, working, waiting;
    stuck.mutable_heartbeat()->set_progress(7);
    stuck.mutable_heartbeat()->set_state(wire::Heartbeat::BUSY);
    working.mutable_heartbeat()->set_progress(static_cast<uint64_t>(i));
    working.mutable_heartbeat()->set_state(wire::Heartbeat::BUSY);
    waiting.mutable_heartbeat()->set_progress(7);
    waiting.mutable_heartbeat()->set_state(wire::Heartbeat::WAITING);
    f.say(0, stuck);
    f.say(1, working);
    f.say(2, waiting);
    f.clock.on_timer(f.now);
  }
  CHECK(f.hung_ranks == std::vector{Rank(0)});
  CHECK(f.reasons[0] == "busy without progress for 20 s");
}

TEST_CASE("StepClock.ADrainedRankGoesWhenTheOthersRunWithoutIt") {
  Fleet f(2);
  f.bring_up();
  f.take(1);
  f.drained(1);
  CHECK(f.take(1).empty());  // it still steps for what was granted
  CHECK(last(f.take(0)).group().orderly());
  f.joined(0);
  CHECK(last(f.take(1)).has_leave_granted());
}

TEST_CASE("StepClock.ADrainingFleetIsLetGoTogether") {
  Fleet f(2);
  f.bring_up();
  f.clock.on_fleet_draining();
  CHECK(last(f.take(0)).has_fleet_draining());
  f.drained(0);
  CHECK(f.take(0).empty());
  f.drained(1);
  CHECK(last(f.take(0)).has_leave_granted());
  CHECK(last(f.take(1)).has_leave_granted());
}

TEST_CASE("StepClock.TheLastRankMayLeaveAtOnce") {
  Fleet f(1);
  f.bring_up();
  f.drained(0);
  CHECK(last(f.take(0)).has_leave_granted());
}

TEST_CASE("StepClock.WithoutExpertParallelismThereAreNoGroupsAndNoWaiting") {
  Fleet f(2);
  f.expert_parallel = false;
  f.hello(0);
  f.hello(1);
  f.loaded(0);
  f.loaded(1);
  f.take(0);
  f.lose(1);
  CHECK(f.take(0).empty());
  f.drained(0);
  CHECK(last(f.take(0)).has_leave_granted());
}

TEST_CASE("StepClock.ASecondHelloOnOneConnectionAndWordsBeforeHelloAreRefused") {
  Fleet f(2);
  f.joined(0);
  CHECK(f.closed == std::vector{f.connection(0)});
  f.hello(1);
  f.hello(1);
  CHECK(f.reasons.back() == "a second hello on one connection");
}

TEST_CASE("StepClock.ARankThatRestartsFasterThanTheNewsOfItsDeathReplacesItself") {
  Fleet f(2);
  f.bring_up();
  ++f.generation[1];
  f.hello(1);
  CHECK(f.clock.members() == std::vector{Rank(0)});
  f.clock.on_process_exit(Rank(1), 1001);  // of the same pid: the new one
  CHECK(f.clock.members() == std::vector{Rank(0)});
}
