#include "engine/parallel/group_session.h"

#include <doctest/doctest.h>

using namespace flotilla;

namespace {

using Clock = GroupSession::Clock;
using std::chrono::milliseconds;

struct Rig {
  Rig() : session(Rank(1), [this](const wire::ToClock& m) { sent.push_back(m); }) {}

  void group(uint64_t epoch, bool orderly = false, std::vector<int32_t> members = {0, 1}) {
    wire::Group g;
    g.set_epoch(epoch);
    g.set_num_ranks(2);
    g.set_orderly(orderly);
    for (const int32_t r : members) g.add_members()->set_rank(r);
    session.on_group(g, now);
  }
  void run(uint64_t epoch) {
    group(epoch);
    session.begin_join();
    session.on_joined(ok_status(), now);
    REQUIRE(session.running());
  }
  wire::Go go(uint64_t epoch, uint64_t step, uint32_t others, uint32_t mine) {
    wire::Go g;
    g.set_epoch(epoch);
    g.set_step(step);
    g.add_grants()->set_decode_tokens(others);
    g.add_grants()->set_decode_tokens(mine);
    return g;
  }
  std::vector<wire::ToClock> sent;
  Clock::time_point now{milliseconds(1'000'000)};
  GroupSession session;
};

}  // namespace

TEST_CASE("GroupSession.JoinsAGroupAndRunsItsStepsInOrder") {
  Rig r;
  r.group(5);
  CHECK(r.session.wants_to_join());
  const ExchangeGroup joined = r.session.begin_join();
  CHECK(joined.epoch == Epoch(5));
  CHECK(joined.members.size() == 2);
  CHECK(r.session.self_index() == 1);
  r.session.on_joined(ok_status(), r.now);
  CHECK(r.sent.back().joined().epoch() == 5);
  CHECK_FALSE(r.session.on_go(r.go(4, 0, 1, 1)).has_value());
  CHECK_FALSE(r.session.on_go(r.go(5, 1, 1, 1)).has_value());
  const auto grant = r.session.on_go(r.go(5, 0, 3, 2));
  REQUIRE(grant.has_value());
  CHECK(grant->tokens == std::vector<int32_t>{3, 2});
  CHECK(r.session.on_go(r.go(5, 1, 1, 1)).has_value());
}

TEST_CASE("GroupSession.WantsOnceAndAmendsWhenThereIsMoreToSay") {
  Rig r;
  r.run(1);
  r.sent.clear();
  r.session.want(0, 0, r.now);
  r.session.want(0, 0, r.now);
  CHECK(r.sent.size() == 1);
  r.session.want(17, 0, r.now);
  REQUIRE(r.sent.size() == 2);
  CHECK(r.sent.back().want().step() == 0);
  CHECK(r.sent.back().want().prefill_tokens() == 17);
  r.session.on_go(r.go(1, 0, 0, 17));
  CHECK(r.session.take_clock_wait().has_value());
  r.session.want(0, 1, r.now);
  CHECK(r.sent.back().want().step() == 1);
}

TEST_CASE("GroupSession.ANewGroupStopsStepsAndVoidsThemUnlessItIsOrderly") {
  Rig r;
  r.run(1);
  r.group(2, true);
  CHECK(r.session.stopped());
  CHECK(r.session.valid_from() == Epoch(1));  // steps of epoch 1 may finish
  r.group(3, false);
  CHECK(r.session.valid_from() == Epoch(3));
  CHECK(r.session.begin_join().epoch == Epoch(3));  // the newest, not each in turn
  r.group(2);                                       // late
  CHECK_FALSE(r.session.wants_to_join());
}

TEST_CASE("GroupSession.AGroupThatComesWhileOneIsJoinedIsJoinedNext") {
  Rig r;
  r.group(1);
  r.session.begin_join();
  r.group(2);
  CHECK(r.session.joining());
  CHECK(r.session.valid_from() == Epoch(2));
  r.session.on_joined(aborted("epoch 1 is over"), r.now);
  CHECK(r.session.wants_to_join());
  CHECK(r.sent.empty());
}

TEST_CASE("GroupSession.ReportsAFailedStepOnlyIfNoNewGroupComesSoon") {
  Rig r;
  r.run(1);
  r.sent.clear();
  r.session.on_step_failed(unavailable("rank 0: closed its connection"), r.now);
  CHECK(r.session.stopped());
  r.session.on_deadline(r.now + milliseconds(100));
  CHECK(r.sent.empty());
  SUBCASE("a group comes") {
    r.group(2);
    r.session.on_deadline(r.now + milliseconds(5000));
    CHECK(r.sent.empty());
  }
  SUBCASE("none comes") {
    r.session.on_deadline(r.session.deadline());
    REQUIRE(r.sent.size() == 1);
    CHECK(r.sent[0].broken().epoch() == 1);
    CHECK(r.sent[0].broken().reason() == "rank 0: closed its connection");
  }
}

TEST_CASE("GroupSession.ReportsAGroupThatCannotBeJoined") {
  Rig r;
  r.group(1);
  r.session.begin_join();
  r.session.on_joined(deadline_exceeded("rank 0: does not accept connections"), r.now);
  r.session.on_deadline(r.session.deadline());
  CHECK(r.sent.back().broken().epoch() == 1);
}

TEST_CASE("GroupSession.StandsStillWhileSuspendedAndMeasuresThePause") {
  Rig r;
  r.run(1);
  wire::Suspend suspend;
  suspend.set_epoch(1);
  r.session.on_suspend(suspend, r.now);
  CHECK(r.session.suspended());
  CHECK(r.session.valid_from() == Epoch(2));
  CHECK_FALSE(r.session.wants_to_join());
  r.now += milliseconds(700);
  r.run(3);
  CHECK(r.session.pause() == milliseconds(700));
}
