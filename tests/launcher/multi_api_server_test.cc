// The program itself, with fake ranks in the place of api_server.
#include <doctest/doctest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <set>

#include "common/exit_codes.h"
#include "tests/launcher/fleet_fixture.h"

using namespace flotilla;

namespace {

namespace fs = std::filesystem;

// A folder with multi_api_server and, as api_server, the fake rank. Logs and private folders go
// there too.
class Folder {
 public:
  Folder() {
    char name[] = "/tmp/flotilla-mas-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path = name;
    fs::copy_file(FLOTILLA_MULTI_API_SERVER, path + "/multi_api_server");
    fs::copy_file(FLOTILLA_FAKE_RANK, path + "/api_server");
    fs::create_directory(path + "/run");
    fs::create_directory(path + "/model");
  }
  ~Folder() { fs::remove_all(path); }

  size_t run_folders() const {
    size_t n = 0;
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator(path + "/run")) ++n;
    return n;
  }

  std::string path;
};

// One multi_api_server. Killed (by pidfd) if it still runs at the end of the test.
class Launcher {
 public:
  Launcher(const Folder& folder, std::vector<std::string> args, Environment more = {}) {
    ChildCommand command;
    command.program = folder.path + "/multi_api_server";
    command.args = std::move(args);
    command.environment = current_environment();
    for (const char* name : {"FD_LOG_DIR", "FD_API_KEY", "NOTIFY_SOCKET"})
      command.environment.erase(name);
    command.environment["XDG_RUNTIME_DIR"] = folder.path + "/run";
    command.environment["FD_LOG_DIR"] = folder.path + "/log";
    for (const auto& [name, value] : more) command.environment[name] = value;
    StatusOr<ChildProcess> child = start_child(command, {});
    REQUIRE_MESSAGE(child.ok(), child.status().message());
    REQUIRE(set_nonblocking(child->out.get(), false).ok());
    REQUIRE(set_nonblocking(child->err.get(), false).ok());
    pid = child->pid;
    pidfd_ = std::move(child->pidfd);
    out = std::make_unique<LineReader>(child->out.release());
    err = std::make_unique<LineReader>(child->err.release());
  }
  ~Launcher() {
    if (!reaped_) {
      signal(SIGKILL);
      reap_child(pid);
    }
  }

  void signal(int number) { signal_child(pidfd_.get(), number); }
  int wait() {
    reaped_ = true;
    return reap_child(pid);
  }
  int exit_code() {
    const int status = wait();
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  // "[rank 3] up 4711"
  pid_t rank_pid(int rank) {
    // The clock may say that it serves before its output has come.
    REQUIRE(out->wait_for("[rank " + std::to_string(rank) + "] up "));
    int found = 0;
    for (const std::string& line : out->lines()) {
      int r = -1;
      int p = -1;
      if (std::sscanf(line.c_str(), "[rank %d] up %d", &r, &p) == 2 && r == rank) found = p;
    }
    REQUIRE(found > 1);
    return found;
  }
  bool said(const std::string& part) { return out->count(part) + err->count(part) > 0; }

  pid_t pid = -1;
  std::unique_ptr<LineReader> out;
  std::unique_ptr<LineReader> err;

 private:
  UniqueFd pidfd_;
  bool reaped_ = false;
};

std::vector<std::string> command(const Folder& folder,
                                 std::vector<std::string> launcher,
                                 std::vector<std::string> server = {}) {
  launcher.insert(launcher.end(), {"--args", "--model", folder.path + "/model"});
  launcher.insert(launcher.end(), server.begin(), server.end());
  return launcher;
}

// Waits until the process behind the pidfd is gone.
bool ends(const UniqueFd& pidfd) {
  pollfd p{pidfd.get(), POLLIN, 0};
  return poll(&p, 1, 30'000) == 1;
}

// A port that nobody uses; it could be taken before it is used, as any could.
int free_port() {
  const UniqueFd fd = bind_port({.host = "127.0.0.1", .port = 0, .flag = "test"}).value();
  return bound_port(fd.get()).value();
}

}  // namespace

TEST_CASE("MultiApiServer.StartsServesOnFreePortsAndDrainsOnSigterm") {
  const Folder folder;
  Launcher launcher(
      folder, command(folder, {"--num-servers", "3"}), {{"FAKE_RANK_ARGS", "--listen"}});
  REQUIRE(launcher.out->wait_for("3 ranks ready: http://127.0.0.1:"));
  REQUIRE(launcher.out->wait_for("] listening on ", 3));
  CHECK(launcher.said("rank 2: loading 37 %"));
  CHECK(launcher.said("rank 2: ready in 0.5 s"));
  for (const std::string& line : launcher.out->lines()) {
    int rank = -1;
    int port = -1;
    if (std::sscanf(line.c_str(), "[rank %d] listening on %d", &rank, &port) != 2) continue;
    CHECK(read_line_from(connect_to(port).get()) == "rank " + std::to_string(rank));
  }
  CHECK(folder.run_folders() == 1);
  launcher.signal(SIGTERM);
  CHECK(launcher.exit_code() == kExitOk);
  CHECK(folder.run_folders() == 0);
  CHECK(fs::exists(folder.path + "/log/log_2/api_server.log"));
}

// fastdeploy.md §2.2: there, a busy port leaves a parent that sleeps for ever with no children.
// ecosystem.md §4.1 row 6.
TEST_CASE("MultiApiServer.AnOccupiedPortIsAClearErrorBeforeAnyRankStarts") {
  const Folder folder;
  const UniqueFd holder = bind_port({.host = "0.0.0.0", .port = 0, .flag = "test"}).value();
  REQUIRE(::listen(holder.get(), 1) == 0);
  const std::string busy = std::to_string(bound_port(holder.get()).value());
  Launcher launcher(
      folder,
      command(folder, {"--ports", std::to_string(free_port()) + "," + busy, "--num-servers", "2"}));
  CHECK(launcher.exit_code() == kExitPortBusy);
  CHECK(launcher.err->wait_for("port " + busy + " (--ports, rank 1) is busy: "));
  CHECK(launcher.err->count("(pid " + std::to_string(getpid()) +
                            ") listens there; stop that or choose another port") == 1);
  CHECK_FALSE(launcher.said("[rank"));
  CHECK_FALSE(fs::exists(folder.path + "/log"));
  CHECK(folder.run_folders() == 0);
}

TEST_CASE("MultiApiServer.EveryKindOfPortIsChecked") {
  const Folder folder;
  const UniqueFd holder = bind_port({.host = "127.0.0.1", .port = 0, .flag = "test"}).value();
  const std::string busy =
      std::to_string(bound_port(holder.get()).value());  // bound, not even listening
  Launcher metrics(folder, command(folder, {"--num-servers", "1", "--metrics-ports", busy}));
  CHECK(metrics.exit_code() == kExitPortBusy);
  CHECK(metrics.err->wait_for("(--metrics-ports, rank 0) is busy"));
  Launcher queue(folder,
                 command(folder, {"--num-servers", "1"}, {"--engine-worker-queue-port", busy}));
  CHECK(queue.exit_code() == kExitPortBusy);
  CHECK(queue.err->wait_for("(--engine-worker-queue-port, rank 0) is busy"));
}

// ecosystem.md §4.1 row 6: ports are chosen by binding and handed over, so groups that start
// together never meet.
TEST_CASE("MultiApiServer.TwentyGroupsStartedAtOnceNeverShareAPort") {
  const Folder folder;
  std::vector<std::unique_ptr<Launcher>> groups;
  for (int i = 0; i < 20; ++i) {
    groups.push_back(
        std::make_unique<Launcher>(folder,
                                   command(folder, {"--num-servers", "2", "--metrics-ports", "0"}),
                                   Environment{{"FAKE_RANK_ARGS", "--listen"}}));
  }
  std::set<int> ports;
  for (const auto& group : groups) {
    REQUIRE(group->out->wait_for("2 ranks ready:"));
    REQUIRE(group->out->wait_for("] listening on ", 2));
    for (const std::string& line : group->out->lines()) {
      int rank = -1;
      int port = -1;
      if (std::sscanf(line.c_str(), "[rank %d] listening on %d", &rank, &port) == 2)
        CHECK(ports.insert(port).second);
    }
  }
  CHECK(ports.size() == 40);
  for (const auto& group : groups) group->signal(SIGTERM);
  for (const auto& group : groups) CHECK(group->exit_code() == kExitOk);
}

TEST_CASE("MultiApiServer.ASecondLauncherOnTheSamePortsIsRefusedWhileTheFirstLoads") {
  const Folder folder;
  const std::string port = std::to_string(free_port());
  Launcher first(
      folder, command(folder, {"--ports", port, "--num-servers", "1"}));  // its rank never listens
  REQUIRE(first.out->wait_for("1 rank ready:"));
  Launcher second(folder, command(folder, {"--ports", port, "--num-servers", "1"}));
  CHECK(second.exit_code() == kExitPortBusy);
  first.signal(SIGINT);
  CHECK(first.exit_code() == kExitOk);
}

// fastdeploy.md §2.7: there, children outlive their parent.
TEST_CASE("MultiApiServer.RanksDieWithTheLauncherEvenWhenItIsKilled") {
  const Folder folder;
  Launcher launcher(
      folder, command(folder, {"--num-servers", "2"}), {{"FAKE_RANK_ARGS", "--on-term deaf"}});
  REQUIRE(launcher.out->wait_for("2 ranks ready:"));
  const UniqueFd zero = open_pidfd(launcher.rank_pid(0)).value();
  const UniqueFd one = open_pidfd(launcher.rank_pid(1)).value();
  launcher.signal(SIGKILL);
  CHECK(ends(zero));
  CHECK(ends(one));
  launcher.wait();
  CHECK(folder.run_folders() == 1);
  // The next start clears away what the killed one left.
  Launcher next(folder, command(folder, {"--num-servers", "1"}));
  REQUIRE(next.out->wait_for("1 rank ready:"));
  CHECK(folder.run_folders() == 1);
  next.signal(SIGTERM);
  CHECK(next.exit_code() == kExitOk);
  CHECK(folder.run_folders() == 0);
}

// ecosystem.md §4.1 row 5: a child that dies is noticed; one that keeps dying ends the launcher
// with a code ≠ 0, no orphans.
TEST_CASE("MultiApiServer.ADeadRankComesBackOnItsPort") {
  const Folder folder;
  Launcher launcher(
      folder, command(folder, {"--num-servers", "2"}), {{"FAKE_RANK_ARGS", "--listen"}});
  REQUIRE(launcher.out->wait_for("2 ranks ready:"));
  const pid_t other = launcher.rank_pid(1);
  signal_child(open_pidfd(launcher.rank_pid(0)).value().get(), SIGKILL);
  REQUIRE(launcher.out->wait_for("2 ranks ready:", 2));
  REQUIRE(launcher.out->wait_for("[rank 0] listening on ", 2));
  CHECK(launcher.err->wait_for("event=rank_died rank=0"));
  CHECK(launcher.rank_pid(1) == other);
  std::set<std::string> places;
  for (const std::string& line : launcher.out->lines()) {
    if (line.starts_with("[rank 0] listening on")) places.insert(line);
  }
  CHECK(places.size() == 1);
  launcher.signal(SIGTERM);
  CHECK(launcher.exit_code() == kExitOk);
}

TEST_CASE("MultiApiServer.ARankThatRefusesItsModelEndsTheLauncher") {
  const Folder folder;
  Launcher launcher(folder,
                    command(folder, {"--num-servers", "2"}),
                    {{"FAKE_RANK_ARGS", "--err bad-model --exit 2"}});
  CHECK(launcher.exit_code() == kExitConfig);
  CHECK(launcher.err->wait_for("event=fleet_ends"));
  CHECK(launcher.err->wait_for("bad-model"));
}

TEST_CASE("MultiApiServer.TheSecretAndKeysAreOnNoCommandLine") {
  const Folder folder;
  Launcher launcher(
      folder,
      command(
          folder, {"--num-servers", "1"}, {"--api-key", "hunter2hunter2", "--api_key=swordfish"}),
      {{"FLOTILLA_CLUSTER_SECRET", "correct horse battery staple"},
       {"FAKE_RANK_ARGS", "--report"}});
  REQUIRE(launcher.out->wait_for("1 rank ready:"));
  const std::string proc = "/proc/" + std::to_string(launcher.rank_pid(0));
  CHECK(read_file(proc + "/cmdline", 1 << 20).value().find("hunter2") == std::string::npos);
  CHECK(read_file(proc + "/environ", 1 << 20).value().find("battery") == std::string::npos);
  CHECK(launcher.said("[rank 0] secret 32"));
  CHECK(launcher.said("[rank 0] env FLOTILLA_API_KEY=hunter2hunter2,swordfish"));
  // The report above is the test's own; nothing of the launcher's says it.
  CHECK(launcher.err->count("hunter2") == 0);
  CHECK(launcher.said("[rank 0] env FD_ENABLE_MULTI_API_SERVER=1"));
  CHECK(launcher.said("[rank 0] env FD_LOG_DIR=" + folder.path + "/log/log_0"));
  launcher.signal(SIGTERM);
  CHECK(launcher.exit_code() == kExitOk);
}

TEST_CASE("MultiApiServer.DryRunPrintsThePlanAndStartsNothing") {
  const Folder folder;
  Launcher table(folder, command(folder, {"--num-servers", "2", "--ports", "1811", "--dry-run"}));
  CHECK(table.exit_code() == kExitOk);
  CHECK(table.out->wait_for("RANK  HTTP  METRICS  QUEUE  DEVICE  THREADS"));
  CHECK(table.out->wait_for("--local-data-parallel-id 1"));
  Launcher warned(
      folder, command(folder, {"--num-servers", "2", "--dry-run"}), {{"FLOTILLA_MODLE", "x"}});
  CHECK(warned.exit_code() == kExitOk);
  CHECK(warned.out->wait_for("warning: the environment variable FLOTILLA_MODLE is no flag"));
  Launcher json(folder,
                command(folder, {"--num-servers", "2", "--ports", "1811", "--dry-run", "--json"}));
  CHECK(json.exit_code() == kExitOk);
  CHECK(json.out->wait_for("\"http_port\":1812"));
  CHECK(folder.run_folders() == 0);
}

TEST_CASE("MultiApiServer.MistakesEndWithCode2AndOneLineEach") {
  const Folder folder;
  Launcher typo(folder, {"--num-server", "2"});
  CHECK(typo.exit_code() == kExitConfig);
  CHECK(typo.err->wait_for(
      "multi_api_server: unknown flag --num-server; did you mean --num-servers?"));
  Launcher lists(
      folder,
      command(folder, {"--num-servers", "4", "--ports", "1,2,3", "--metrics-ports", "5,6"}));
  CHECK(lists.exit_code() == kExitConfig);
  CHECK(lists.err->wait_for("multi_api_server: --ports: got 3 ports, needed 4"));
  CHECK(lists.err->wait_for("multi_api_server: --metrics-ports: got 2 ports, needed 4"));
  Launcher model(folder, {"--args", "--model", "/nonexistent"});
  CHECK(model.exit_code() == kExitConfig);
  CHECK(model.err->wait_for("--model: /nonexistent is no folder here"));
  Launcher cuda(folder, command(folder, {}, {"--device", "cuda"}));
  CHECK(cuda.exit_code() == kExitConfig);
  CHECK(cuda.err->wait_for("--device cuda is not in this version"));
}

TEST_CASE("MultiApiServer.WithoutApiServerNextToItSaysSo") {
  const Folder folder;
  fs::remove(folder.path + "/api_server");
  Launcher launcher(folder, command(folder, {"--num-servers", "1"}));
  CHECK(launcher.exit_code() == kExitConfig);
  CHECK(launcher.err->wait_for("cannot find api_server next to multi_api_server"));
}

TEST_CASE("MultiApiServer.HelpAndVersionArePrinted") {
  const Folder folder;
  Launcher help(folder, {"--help"});
  CHECK(help.exit_code() == kExitOk);
  CHECK(help.out->wait_for("Usage: multi_api_server"));
  Launcher version(folder, {"--version"});
  CHECK(version.exit_code() == kExitOk);
  CHECK(version.out->wait_for("multi_api_server "));
}
