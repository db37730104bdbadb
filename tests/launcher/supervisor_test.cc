#include "launcher/supervisor.h"

#include <dirent.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cstring>
#include <filesystem>

#include "common/exit_codes.h"
#include "launcher/cluster_secret.h"
#include "tests/launcher/fleet_fixture.h"

using namespace flotilla;

namespace {

size_t open_descriptors() {
  size_t n = 0;
  DIR* dir = opendir("/proc/self/fd");
  while (readdir(dir) != nullptr) ++n;
  closedir(dir);
  return n;
}

bool has_children() {
  siginfo_t info{};
  return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 || errno != ECHILD;
}

}  // namespace

// fastdeploy.md §2.7: "SIGTERM kills the parent only, children survive".
TEST_CASE("Supervisor.ADrainEndsEveryRankAndThenTheFleetWithCode0") {
  Fleet fleet({Args{}, Args{}, Args{}});
  const int code = fleet.run([&] {
    CHECK(fleet.out->wait_for("3 ranks ready:"));
    fleet.supervisor->drain();
  });
  CHECK(code == kExitOk);
  CHECK(fleet.clock.drains() == 1);
  CHECK(fleet.clock.exits().size() == 3);
  CHECK_FALSE(has_children());
}

TEST_CASE("Supervisor.SignalsOfTheProcessDrainTheFleet") {
  for (const int number : {SIGTERM, SIGINT}) {
    Fleet fleet({Args{}, Args{}});
    fleet.options.handle_signals = true;
    const int code = fleet.run([&] {
      CHECK(fleet.out->wait_for("2 ranks ready:"));
      kill(getpid(), number);
    });
    CHECK(code == kExitOk);
    CHECK(fleet.clock.exits().size() == 2);
  }
}

// fastdeploy.md §2.7: "Children are never polled: a dead child is not noticed, not restarted".
// ecosystem.md §4.1 row 5.
TEST_CASE("Supervisor.AKilledRankIsReportedReapedAndStartedAgainAtOnce") {
  Fleet fleet({Args{}, Args{"--say", "hello from the rank", "--err", "a last word"}});
  const int code = fleet.run([&] {
    CHECK(fleet.out->wait_for("2 ranks ready:"));
    CHECK(fleet.err->wait_for("[rank 1] a last word"));
    fleet.clock.signal(1, SIGKILL);
    CHECK(fleet.clock.wait_for_start(1, 2));
    CHECK(fleet.out->wait_for("2 ranks ready:", 2));
    CHECK(fleet.clock.exits() == std::vector<std::string>{"rank 1 signal 9 (Killed)"});
    CHECK(fleet.err->wait_for("event=rank_died rank=1"));
    CHECK(fleet.err->wait_for("how=\"signal 9 (Killed)\""));
    CHECK(fleet.err->wait_for("event=rank_last_line rank=1 line=\"a last word\""));
    CHECK(fleet.out->count("rank 1: ended (signal 9 (Killed)), starting again") == 1);
    fleet.supervisor->drain();
  });
  CHECK(code == kExitOk);
  CHECK(fleet.clock.starts(0) == 1);
  CHECK_FALSE(has_children());
}

// fastdeploy.md §2.5: there, the workers of every rank die with child 0.
TEST_CASE("Supervisor.TheDeathOfRankZeroLeavesTheOthersRunning") {
  Fleet fleet({Args{}, Args{}, Args{}});
  fleet.run([&] {
    CHECK(fleet.out->wait_for("3 ranks ready:"));
    const pid_t one = fleet.clock.pid(1);
    fleet.clock.signal(0, SIGKILL);
    CHECK(fleet.clock.wait_for_start(0, 2));
    CHECK(fleet.clock.pid(1) == one);
    CHECK(fleet.clock.starts(2) == 1);
    fleet.supervisor->drain();
  });
}

// fastdeploy.md §2.7: "the parent never exits by itself".
TEST_CASE("Supervisor.FiveEarlyDeathsInARowEndTheFleetLoudly") {
  Fleet fleet({Args{}, Args{"--err", "no such device", "--exit", "1"}});
  fleet.clock.serves = Serves::kNever;
  const int code = fleet.run([] {});
  CHECK(code == kExitGaveUp);
  CHECK(fleet.clock.starts(1) == 5);
  CHECK_FALSE(has_children());
}

TEST_CASE("Supervisor.GivingUpNamesRankAndCause") {
  Fleet fleet({Args{"--die", "11"}});
  fleet.clock.serves = Serves::kNever;
  std::vector<std::string> lines;
  fleet.run([&] {
    CHECK(fleet.err->wait_for("event=fleet_ends"));
    lines = fleet.err->lines();
  });
  REQUIRE_FALSE(lines.empty());
  CHECK(fleet.clock.starts(0) == 5);
  bool said = false;
  for (const std::string& line : lines) {
    said |= line.find("rank 0 ended early 5 times in a row, the last time with signal 11") !=
            std::string::npos;
  }
  CHECK(said);
}

TEST_CASE("Supervisor.ExitCode0BeforeReadyIsAnEarlyDeathToo") {
  Fleet fleet({Args{"--exit", "0"}});
  fleet.clock.serves = Serves::kNever;
  CHECK(fleet.run([] {}) == kExitGaveUp);
  CHECK(fleet.clock.starts(0) == 5);
}

TEST_CASE("Supervisor.AProgramThatCannotBeStartedEndsTheFleet") {
  Fleet fleet({Args{}});
  fleet.specs[0].command.program = "/nonexistent/api_server";
  CHECK(fleet.run([&] {
    CHECK(fleet.err->wait_for("cannot start /nonexistent/api_server: No such file", 5));
  }) == kExitGaveUp);
  CHECK_FALSE(has_children());
}

TEST_CASE("Supervisor.ABadModelOrFlagEndsTheFleetAtOnce") {
  Fleet fleet({Args{}, Args{"--exit", std::to_string(kExitConfig)}});
  fleet.clock.serves = Serves::kNever;
  CHECK(fleet.run([] {}) == kExitConfig);
  CHECK(fleet.clock.starts(1) == 1);
}

TEST_CASE("Supervisor.ARankThatDrainedAloneIsStartedAgain") {
  Fleet fleet({Args{}, Args{}});
  const int code = fleet.run([&] {
    CHECK(fleet.out->wait_for("2 ranks ready:"));
    fleet.clock.signal(1, SIGTERM);
    CHECK(fleet.clock.wait_for_start(1, 2));
    CHECK(fleet.err->wait_for("event=rank_left rank=1"));
    CHECK(fleet.err->count("event=rank_died") == 0);
    fleet.supervisor->drain();
  });
  CHECK(code == kExitOk);
}

TEST_CASE("Supervisor.ADrainingFleetStartsNobodyAgain") {
  Fleet fleet({Args{}, Args{"--on-term", "streams"}});
  const int code = fleet.run([&] {
    CHECK(fleet.out->wait_for("2 ranks ready:"));
    fleet.supervisor->drain();
    CHECK(fleet.clock.wait_for_exits(1));
    CHECK(fleet.out->wait_for("[rank 1] got signal 1"));
    fleet.clock.signal(1, SIGKILL);
  });
  CHECK(code == kExitStreamsCut);
  CHECK(fleet.clock.starts(0) == 1);
  CHECK(fleet.clock.starts(1) == 1);
}

TEST_CASE("Supervisor.ARankThatOthersWaitForComesBackDuringADrain") {
  Fleet fleet({Args{"--on-term", "streams"}, Args{"--on-term", "deaf"}});
  fleet.options.restart_while_draining = true;
  const int code = fleet.run([&] {
    CHECK(fleet.out->wait_for("2 ranks ready:"));
    fleet.supervisor->drain();
    CHECK(fleet.out->wait_for("[rank 1] got signal 1"));
    fleet.clock.signal(1, SIGKILL);
    CHECK(fleet.out->wait_for("[rank 1] up", 2));
    // The other one finishes: the one that came back is told to go (it is deaf here, so it takes a
    // kill).
    CHECK(fleet.out->wait_for("[rank 0] got signal 1"));
    fleet.clock.signal(0, SIGTERM);
    CHECK(fleet.clock.wait_for_exits(2));
    CHECK(fleet.out->wait_for("[rank 1] got signal 1", 2));
    fleet.clock.signal(1, SIGKILL);
  });
  CHECK(code == kExitStreamsCut);
}

TEST_CASE("Supervisor.ASecondRequestEndsNowAndSaysWhetherStreamsWereCut") {
  Fleet fleet({Args{"--on-term", "streams"}, Args{"--on-term", "streams"}});
  const int code = fleet.run([&] {
    CHECK(fleet.out->wait_for("2 ranks ready:"));
    fleet.supervisor->drain();
    CHECK(fleet.out->wait_for("got signal 1", 2));
    fleet.supervisor->drain();
  });
  CHECK(code == kExitStreamsCut);
}

TEST_CASE("Supervisor.ASecondRequestWithoutRunningStreamsIsCode0") {
  Fleet fleet({Args{}, Args{}});
  const int code = fleet.run([&] {
    CHECK(fleet.out->wait_for("2 ranks ready:"));
    fleet.supervisor->drain();
    fleet.supervisor->drain();
  });
  CHECK(code == kExitOk);
}

TEST_CASE("Supervisor.RanksThatIgnoreTheEndAreKilledAfterTheGrace") {
  Fleet fleet({Args{"--on-term", "deaf"}});
  fleet.options.kill_grace = std::chrono::milliseconds(50);
  const int code = fleet.run([&] {
    CHECK(fleet.out->wait_for("1 rank ready:"));
    fleet.supervisor->drain();
    fleet.supervisor->drain();
  });
  CHECK(code == kExitStreamsCut);
  CHECK(fleet.clock.exits() == std::vector<std::string>{"rank 0 signal 9 (Killed)"});
}

TEST_CASE("Supervisor.AThirdRequestKillsAtOnce") {
  Fleet fleet({Args{"--on-term", "deaf"}});
  fleet.options.kill_grace = std::chrono::hours(1);
  CHECK(fleet.run([&] {
    CHECK(fleet.out->wait_for("1 rank ready:"));
    for (int i = 0; i < 3; ++i) fleet.supervisor->drain();
  }) == kExitStreamsCut);
}

TEST_CASE("Supervisor.TheDrainLimitCutsStreams") {
  Fleet fleet({Args{"--on-term", "streams"}});
  fleet.options.drain_limit = std::chrono::seconds(1);
  CHECK(fleet.run([&] {
    CHECK(fleet.out->wait_for("1 rank ready:"));
    fleet.supervisor->drain();
  }) == kExitStreamsCut);
}

TEST_CASE("Supervisor.ARankThatCrashesWhileDrainingIsNotCalledClean") {
  Fleet fleet({Args{"--on-term", "crash"}, Args{}});
  CHECK(fleet.run([&] {
    CHECK(fleet.out->wait_for("2 ranks ready:"));
    fleet.supervisor->drain();
  }) == kExitStreamsCut);
}

TEST_CASE("Supervisor.AHungRankIsKilledAndStartedAgain") {
  Fleet fleet({Args{}});
  fleet.run([&] {
    CHECK(fleet.out->wait_for("1 rank ready:"));
    const pid_t pid = fleet.clock.pid(0);
    fleet.supervisor->on_hung(Rank(0), pid, "no progress for 20 s");
    CHECK(fleet.clock.wait_for_start(0, 2));
    CHECK(fleet.err->wait_for("event=rank_hung rank=0"));
    fleet.supervisor->on_hung(Rank(0), pid, "late news of a process that is gone");
    fleet.supervisor->on_hung(Rank(9), pid, "no such rank");
    fleet.supervisor->drain();
  });
  CHECK(fleet.clock.starts(0) == 2);
}

// ecosystem.md §4.1 row 7, the launcher's part.
TEST_CASE("Supervisor.ARefusedRankEndsTheFleetThatNeverWasComplete") {
  Fleet fleet({Args{}, Args{"--on-term", "streams"}});
  fleet.clock.serves = Serves::kNever;
  fleet.clock.started = [&](Rank rank, pid_t pid) {
    if (rank.value == 1)
      fleet.supervisor->on_refused(rank, pid, "--block-size is 64 here and 32 on rank 0");
  };
  CHECK(fleet.run([&] {
    CHECK(fleet.err->wait_for("--block-size is 64 here and 32 on rank 0", 2));
  }) == kExitRefused);
}

TEST_CASE("Supervisor.ARefusedRankOfAServingFleetDrainsIt") {
  Fleet fleet({Args{}, Args{"--on-term", "streams"}});
  const int code = fleet.run([&] {
    CHECK(fleet.out->wait_for("2 ranks ready:"));
    fleet.supervisor->on_refused(Rank(0), fleet.clock.pid(0), "the model differs");
    CHECK(fleet.out->wait_for("[rank 1] got signal 1"));  // it may finish its streams
    CHECK(fleet.clock.wait_for_exits(1));
    CHECK(fleet.clock.exits() == std::vector<std::string>{"rank 0 exit code 0"});
    fleet.clock.signal(1, SIGTERM);
  });
  CHECK(code == kExitRefused);
}

TEST_CASE("Supervisor.ProgressIsOnePlainLinePerStageWithoutATerminal") {
  Fleet fleet({Args{}});
  fleet.clock.serves = Serves::kNever;
  fleet.specs[0].url = "http://127.0.0.1:1811";
  fleet.clock.started = [&](Rank rank, pid_t pid) {
    FleetEvents& events = *fleet.supervisor;
    events.on_progress(rank, pid, "loading", 0.37);
    events.on_progress(rank, pid, "loading", 0.38);
    events.on_progress(rank, pid, "warming up", 0.0);
    events.on_serving(rank, pid, 4.12);
  };
  std::vector<std::string> lines;
  fleet.run([&] {
    CHECK(fleet.out->wait_for("1 rank ready: http://127.0.0.1:1811"));
    for (const std::string& line : fleet.out->lines()) {
      if (!line.starts_with("[")) lines.push_back(line);
    }
    fleet.supervisor->drain();
  });
  CHECK(lines == std::vector<std::string>{"rank 0: starting",
                                          "rank 0: loading 37 %",
                                          "rank 0: warming up",
                                          "rank 0: ready in 4.1 s",
                                          "1 rank ready: http://127.0.0.1:1811"});
}

TEST_CASE("Supervisor.OutputIsTaggedLineByLineAndNeverMixed") {
  std::vector<std::vector<std::string>> ranks;
  for (int i = 0; i < 8; ++i) {
    std::string text;
    for (int line = 0; line < 200; ++line)
      text += std::string(100, static_cast<char>('a' + i)) + "\\n";
    ranks.push_back({"--quiet", "--say", text + "half a line\\c"});
  }
  Fleet fleet(ranks);
  std::vector<std::string> lines;
  fleet.run([&] {
    for (int i = 0; i < 8; ++i) {
      CHECK(fleet.out->wait_for(
          "[rank " + std::to_string(i) + "] " + std::string(100, static_cast<char>('a' + i)), 200));
    }
    fleet.supervisor->drain();
    CHECK(fleet.out->wait_for("half a line", 8));
    lines = fleet.out->lines();
  });
  size_t tagged = 0;
  for (const std::string& line : lines) {
    if (!line.starts_with("[rank ")) continue;
    ++tagged;
    const char letter = static_cast<char>('a' + (line[6] - '0'));
    const std::string text = line.substr(9);
    CHECK((text == std::string(100, letter) || text == "half a line"));
  }
  CHECK(tagged == 8 * 201);
}

TEST_CASE("Supervisor.OutputGoesToTheRanksLogFileUntagged") {
  const std::string dir =
      std::filesystem::temp_directory_path() / ("flotilla-logs-" + std::to_string(getpid()));
  Fleet fleet({Args{}, Args{"--quiet", "--say", "to stdout", "--err", "to stderr"}});
  fleet.options.log_dir = dir;
  fleet.run([&] {
    CHECK(fleet.err->wait_for("[rank 1] to stderr"));
    CHECK(fleet.out->wait_for("[rank 1] to stdout"));
    fleet.supervisor->drain();
  });
  const auto content = read_file(dir + "/log_1/api_server.log", 1 << 16);
  REQUIRE(content.ok());
  CHECK((*content == "to stdout\nto stderr\n" || *content == "to stderr\nto stdout\n"));
  CHECK(read_file(dir + "/log_0/api_server.log", 1 << 16).ok());
  std::filesystem::remove_all(dir);
}

TEST_CASE("Supervisor.AnUnwritableLogFolderIsAWarning") {
  Fleet fleet({Args{}});
  fleet.options.log_dir = "/proc/nothing";
  CHECK(fleet.run([&] {
    CHECK(fleet.err->wait_for("event=no_log_file rank=0"));
    fleet.supervisor->drain();
  }) == kExitOk);
}

TEST_CASE("Supervisor.ARankInheritsItsSocketsAndNothingElse") {
  const UniqueFd leaked(
      ::open("/dev/null", O_RDONLY));  // not close-on-exec, as from a careless shell
  const UniqueFd secret = make_secret_memfd(std::string(32, 's')).value();
  Fleet fleet({Args{"--report"}});
  fleet.bind_http();
  fleet.options.secret_fd = secret.get();
  fleet.specs[0].command.environment = {{"PATH", "/bin"}};
  fleet.specs[0].command.affinity = {0};
  const pid_t me = getpid();
  fleet.run([&] {
    CHECK(fleet.out->wait_for("[rank 0] secret 32"));
    CHECK(fleet.out->wait_for("[rank 0] fds 0 1 2"));
    CHECK(fleet.out->wait_for("[rank 0] env "));  // FLOTILLA_FDS was taken
    CHECK(fleet.out->wait_for("[rank 0] env PATH=/bin"));
    CHECK(fleet.out->wait_for("[rank 0] cpus 1 first 0"));
    CHECK(fleet.out->wait_for(
        "[rank 0] group own"));  // Ctrl-C reaches ranks once, by way of the launcher
    CHECK(fleet.out->wait_for("[rank 0] parent " + std::to_string(me)));
    fleet.supervisor->drain();
  });
}

TEST_CASE("Supervisor.TheSecretIsOnNoCommandLineAndInNoEnvironment") {
  const std::string secret(32, 'Q');
  const UniqueFd memfd = make_secret_memfd(secret).value();
  Fleet fleet({Args{}});
  fleet.options.secret_fd = memfd.get();
  fleet.run([&] {
    CHECK(fleet.out->wait_for("1 rank ready:"));
    const std::string proc = "/proc/" + std::to_string(fleet.clock.pid(0));
    CHECK(read_file(proc + "/cmdline", 1 << 20).value().find("QQQQ") == std::string::npos);
    CHECK(read_file(proc + "/environ", 1 << 20).value().find("QQQQ") == std::string::npos);
    fleet.supervisor->drain();
  });
}

TEST_CASE("Supervisor.ADeadRanksPortRefusesAndItsSuccessorServesIt") {
  Fleet fleet({Args{"--listen"}});
  fleet.bind_http();
  fleet.run([&] {
    CHECK(fleet.out->wait_for("[rank 0] listening"));
    const int port = fleet.port(0);
    // Connections that are open when the rank dies must not keep the port from its successor.
    std::vector<UniqueFd> open;
    for (int i = 0; i < 4; ++i) {
      open.push_back(connect_to(port));
      CHECK(read_line_from(open.back().get()) == "rank 0");
    }
    fleet.clock.signal(0, SIGKILL);
    CHECK(fleet.out->wait_for("[rank 0] listening", 2));
    const UniqueFd again = connect_to(port);
    CHECK(read_line_from(again.get()) == "rank 0");
    CHECK(fleet.err->count("rank_waits_for_port") == 0);
    fleet.supervisor->drain();
  });
}

TEST_CASE("Supervisor.TheLauncherHoldsNoPortOfARunningRank") {
  Fleet fleet({Args{}});  // it never listens
  fleet.bind_http();
  fleet.run([&] {
    CHECK(fleet.out->wait_for("1 rank ready:"));
    CHECK_FALSE(connect_to(fleet.port(0)));
    fleet.supervisor->drain();
  });
}

TEST_CASE("Supervisor.ARestartWaitsForAPortThatSomebodyTook") {
  Fleet fleet({Args{"--listen"}});
  fleet.bind_http();
  UniqueFd thief;
  fleet.clock.exited = [&](Rank) {
    if (fleet.clock.starts(0) > 1) return;
    thief = bind_port({.host = "127.0.0.1", .port = fleet.port(0), .flag = "test"}).value();
    REQUIRE(::listen(thief.get(), 1) == 0);
  };
  fleet.run([&] {
    CHECK(fleet.out->wait_for("[rank 0] listening"));
    fleet.clock.signal(0, SIGKILL);
    CHECK(fleet.err->wait_for("event=rank_waits_for_port rank=0"));
    CHECK(fleet.err->count("(pid " + std::to_string(getpid()) + ") listens there") == 1);
    CHECK(fleet.clock.starts(0) == 1);
    thief.reset();
    CHECK(fleet.clock.wait_for_start(0, 2));
    fleet.supervisor->drain();
  });
}

TEST_CASE("Supervisor.SaysReadyAndStoppingToSystemd") {
  const std::string path =
      std::filesystem::temp_directory_path() / ("flotilla-notify-" + std::to_string(getpid()));
  const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  REQUIRE(bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  Fleet fleet({Args{}, Args{}});
  fleet.options.environment = {{"NOTIFY_SOCKET", path}};
  fleet.run([&] {
    CHECK(fleet.out->wait_for("2 ranks ready:"));
    fleet.supervisor->drain();
  });
  std::string all;
  char buffer[512];
  for (ssize_t n; (n = recv(socket.get(), buffer, sizeof buffer, MSG_DONTWAIT)) > 0;) {
    all += std::string(buffer, static_cast<size_t>(n)) + ";";
  }
  std::filesystem::remove(path);
  CHECK(all ==
        "STATUS=1 of 2 ranks ready;READY=1;STATUS=2 of 2 ranks ready;STOPPING=1\nSTATUS=draining;");
}

TEST_CASE("Supervisor.AThousandRestartsLeaveNoDescriptorAndNoZombie") {
  size_t before = 0;
  size_t after = 0;
  Fleet fleet({Args{"--exit", "1"}});
  fleet.bind_http();
  fleet.clock.serves = Serves::kAtStart;
  fleet.clock.started = [&](Rank, pid_t) {
    const int starts = fleet.clock.starts(0);
    if (starts == 10) before = open_descriptors();
    if (starts == 1010) after = open_descriptors();
  };
  fleet.run([&] {
    CHECK(fleet.clock.wait_for_start(0, 1011));
    fleet.supervisor->drain();
  });
  CHECK(after == before);
  CHECK_FALSE(has_children());
}

TEST_CASE("Supervisor.SleepsWhileNothingHappens") {
  Fleet fleet({Args{}, Args{}});
  long switches = -1;
  fleet.run([&] {
    CHECK(fleet.out->wait_for("2 ranks ready:"));
    const auto voluntary = [] {
      const std::string status = read_file("/proc/" + std::to_string(getpid()) + "/task/" +
                                               std::to_string(getpid()) + "/status",
                                           1 << 16)
                                     .value();
      return std::atol(status.c_str() + status.find("voluntary_ctxt_switches:") + 24);
    };
    const long first = voluntary();
    std::this_thread::sleep_for(std::chrono::seconds(1));  // measured is what happens meanwhile
    switches = voluntary() - first;
    fleet.supervisor->drain();
  });
  CHECK(switches <= 2);  // it may just have been falling asleep
}

TEST_CASE("SignalChild.ReachesTheChildAndNobodyOnceItIsGone") {
  ChildCommand command;
  command.program = FLOTILLA_FAKE_RANK;
  command.args = {"--on-term", "deaf"};
  const auto child = start_child(command, {});
  REQUIRE(child.ok());
  signal_child(child->pidfd.get(), SIGKILL);
  CHECK(describe_wait_status(reap_child(child->pid)) == "signal 9 (Killed)");
  signal_child(child->pidfd.get(), SIGKILL);
  CHECK_FALSE(has_children());
}

TEST_CASE("RestartPolicy.BacksOffFromOneSecondToThirtyAndGivesUpAtFive") {
  using std::chrono::milliseconds;
  RestartPolicy policy{RestartOptions{}};
  for (const int seconds : {1, 2, 4, 8})
    CHECK(policy.after_death(std::nullopt) == milliseconds(seconds * 1000));
  CHECK_FALSE(policy.after_death(std::nullopt).has_value());
  RestartPolicy patient{RestartOptions{.early_death_limit = 100}};
  for (int i = 0; i < 50; ++i)
    CHECK(patient.after_death(milliseconds(1999)).value() <= milliseconds(30'000));
  CHECK(patient.after_death(std::nullopt) == milliseconds(30'000));
}

TEST_CASE("RestartPolicy.StayingReadyLongerResetsBackOffAndCount") {
  using std::chrono::milliseconds;
  RestartPolicy policy{RestartOptions{}};
  for (int round = 0; round < 20; ++round) {
    for (int i = 0; i < 4; ++i) CHECK(policy.after_death(milliseconds(100)).has_value());
    CHECK(policy.after_death(milliseconds(2000)) == milliseconds(0));
    CHECK(policy.early_deaths() == 0);
  }
}
