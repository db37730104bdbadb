#include "launcher/console.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include "common/fd.h"
#include "launcher/line_splitter.h"
#include "launcher/log_file.h"
#include "launcher/notify.h"
#include "launcher/progress.h"

using namespace flotilla;

namespace {

namespace fs = std::filesystem;

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
  Pipe() {
    int fds[2];
    REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
    read_end.reset(fds[0]);
    write_end.reset(fds[1]);
  }
};

// What has been written so far; the writer is done.
std::string rest_of(int fd) {
  std::string text;
  char buffer[1 << 16];
  pollfd p{fd, POLLIN, 0};
  while (poll(&p, 1, 0) == 1 && (p.revents & POLLIN) != 0) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n <= 0) break;
    text.append(buffer, static_cast<size_t>(n));
  }
  return text;
}

// A pseudo-terminal of 20 columns.
struct Terminal {
  UniqueFd master;
  UniqueFd slave;
  Terminal() : master(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)) {
    REQUIRE(grantpt(master.get()) == 0);
    REQUIRE(unlockpt(master.get()) == 0);
    slave.reset(::open(ptsname(master.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
    REQUIRE(slave.get() >= 0);
    termios raw{};
    tcgetattr(slave.get(), &raw);
    cfmakeraw(&raw);
    tcsetattr(slave.get(), TCSANOW, &raw);
    winsize size{};
    size.ws_col = 20;
    ioctl(slave.get(), TIOCSWINSZ, &size);
  }
  // Reads until `text` has come.
  std::string until(const std::string& text) {
    std::string all;
    char buffer[4096];
    pollfd p{master.get(), POLLIN, 0};
    while (all.find(text) == std::string::npos && poll(&p, 1, 10'000) == 1) {
      const ssize_t n = ::read(master.get(), buffer, sizeof buffer);
      if (n <= 0) break;
      all.append(buffer, static_cast<size_t>(n));
    }
    return all;
  }
};

std::vector<std::string> lines_of(LineSplitter* splitter, std::string_view bytes) {
  std::vector<std::string> lines;
  splitter->feed(bytes, [&](std::string_view line) { lines.emplace_back(line); });
  return lines;
}

}  // namespace

TEST_CASE("Console.WritesEachStreamInOrder") {
  Pipe out;
  Pipe err;
  {
    Console console({.out_fd = out.write_end.get(), .err_fd = err.write_end.get()});
    CHECK_FALSE(console.is_terminal());
    console.set_status({"ignored where there is no terminal"});
    for (int i = 0; i < 100; ++i) {
      console.write(OutputStream::kOut, "o" + std::to_string(i) + "\n");
      console.write(OutputStream::kErr, "e" + std::to_string(i) + "\n");
    }
  }
  std::string expected_out;
  std::string expected_err;
  for (int i = 0; i < 100; ++i) {
    expected_out += "o" + std::to_string(i) + "\n";
    expected_err += "e" + std::to_string(i) + "\n";
  }
  CHECK(rest_of(out.read_end.get()) == expected_out);
  CHECK(rest_of(err.read_end.get()) == expected_err);
}

TEST_CASE("Console.AnOutputThatNobodyReadsHoldsUpNobody") {
  Pipe out;
  Pipe err;
  std::string all;
  std::thread late_reader;
  {
    Console console({.out_fd = out.write_end.get(),
                     .err_fd = err.write_end.get(),
                     .max_queued_bytes = 1 << 20});
    const std::string line(1000, 'x');
    for (int i = 0; i < 10'000; ++i)
      console.write(OutputStream::kOut, line + "\n");  // 10 MB, the pipe holds 64 KiB
    late_reader = std::thread([&] {
      char buffer[1 << 16];
      for (ssize_t n; (n = ::read(out.read_end.get(), buffer, sizeof buffer)) > 0;) {
        all.append(buffer, static_cast<size_t>(n));
      }
    });
  }
  out.write_end.reset();
  late_reader.join();
  CHECK(all.size() >= 1'000'000);
  CHECK(all.size() < 3u << 20);
  CHECK(rest_of(err.read_end.get()).find("lines were dropped here") != std::string::npos);
}

TEST_CASE("Console.AClosedOutputEndsNothing") {
  Pipe out;
  Pipe err;
  out.read_end.reset();
  {
    Console console({.out_fd = out.write_end.get(), .err_fd = err.write_end.get()});
    console.write(OutputStream::kOut, "into the void\n");
    console.write(OutputStream::kErr, "still heard\n");
  }
  CHECK(rest_of(err.read_end.get()) == "still heard\n");
}

TEST_CASE("Console.OnATerminalStatusLinesAreRewrittenBelowTheLog") {
  Terminal terminal;
  {
    Console console({.out_fd = terminal.slave.get(), .err_fd = terminal.slave.get()});
    CHECK(console.is_terminal());
    console.set_status({"rank 0: loading 37 %", "rank 1: a line that is wider than the terminal"});
    CHECK(terminal.until("that\n") == "rank 0: loading 37 \nrank 1: a line that\n");
    console.write(OutputStream::kErr, "a log line\n");
    // Up two lines, clear, the log line, then the block again.
    const std::string text = terminal.until("that\n");
    CHECK(text.find("\x1b[2A\x1b[Ja log line\nrank 0: loading 37") != std::string::npos);
  }
  CHECK(terminal.until("\x1b[J").find("\x1b[2A\x1b[J") != std::string::npos);  // gone at the end
}

TEST_CASE("LineSplitter.CutsWholeLinesWhateverThePieces") {
  LineSplitter splitter;
  CHECK(lines_of(&splitter, "one\ntw").size() == 1);
  CHECK(lines_of(&splitter, "").empty());
  CHECK(lines_of(&splitter, "o\r\n\nfour") == std::vector<std::string>{"two", ""});
  std::vector<std::string> last;
  splitter.finish([&](std::string_view line) { last.emplace_back(line); });
  CHECK(last == std::vector<std::string>{"four"});
  splitter.finish([&](std::string_view line) { last.emplace_back(line); });
  CHECK(last.size() == 1);
}

TEST_CASE("LineSplitter.ALineWithoutEndIsBounded") {
  LineSplitter splitter;
  size_t bytes = 0;
  for (int i = 0; i < 100; ++i) {
    for (const std::string& line : lines_of(&splitter, std::string(10'000, 'x'))) {
      CHECK(line.size() <= LineSplitter::kMaxLine);
      bytes += line.size();
    }
  }
  CHECK(bytes >= 1'000'000 - LineSplitter::kMaxLine);
  CHECK(lines_of(&splitter, std::string(200'000, 'y') + "\n").size() >= 3);
}

TEST_CASE("DescribeStage.GivesPercentWhereThereIsAMeasure") {
  CHECK(describe_stage("loading", 0.379) == "loading 37 %");
  CHECK(describe_stage("loading", 0.0) == "loading 0 %");
  CHECK(describe_stage("loading", 7.0) == "loading 100 %");
  CHECK(describe_stage("loading", std::strtod("nan", nullptr)) == "loading 0 %");
  CHECK(describe_stage("warming up", 0.0) == "warming up");
  CHECK(describe_stage("warming up", 0.5) == "warming up 50 %");
}

TEST_CASE("FleetProgress.PlainLinesAreLimitedToOnePerTwoSeconds") {
  Pipe out;
  Pipe err;
  {
    Console console({.out_fd = out.write_end.get(), .err_fd = err.write_end.get()});
    FleetProgress progress(&console, 2);
    const auto start = std::chrono::steady_clock::time_point(std::chrono::hours(1));
    for (int i = 0; i <= 50; ++i) {
      progress.stage(Rank(1), "loading", i / 50.0, start + std::chrono::milliseconds(100 * i));
    }
    progress.ready(Rank(1), 5.04);
    progress.note(Rank(0), "down");
    progress.all_ready({"http://a", "http://b"});
  }
  CHECK(rest_of(out.read_end.get()) ==
        "rank 1: loading 0 %\nrank 1: loading 40 %\nrank 1: loading 80 %\nrank 1: ready in 5.0 "
        "s\nrank 0: down\n"
        "2 ranks ready: http://a http://b\n");
}

TEST_CASE("FleetProgress.OnATerminalOnlyRanksThatAreNotReadyHaveALine") {
  Terminal terminal;
  Console console({.out_fd = terminal.slave.get(), .err_fd = terminal.slave.get()});
  FleetProgress progress(&console, 2);
  progress.stage(Rank(0), "loading", 0.1, {});
  progress.stage(Rank(1), "loading", 0.2, {});
  CHECK(terminal.until("rank 1: loading 20").find("rank 0: loading 10") != std::string::npos);
  progress.ready(Rank(0), 1.0);
  const std::string text = terminal.until("rank 0: ready in 1.");
  CHECK(text.find("rank 0: ready") != std::string::npos);
}

TEST_CASE("LogFile.AppendsAndRotates") {
  const std::string dir =
      fs::temp_directory_path() / ("flotilla-rotate-" + std::to_string(getpid()));
  const std::string path = dir + "/log_3/api_server.log";
  {
    auto log = LogFile::open({.path = path, .rotate_bytes = 1000, .backup_count = 2});
    REQUIRE_MESSAGE(log.ok(), log.status().message());
    for (int i = 0; i < 100; ++i) log->append("line " + std::to_string(i) + std::string(90, '.'));
    log->flush();
  }
  CHECK(fs::file_size(path) <= 1000);
  CHECK(fs::exists(dir + "/log_3/api_server.1.log"));
  CHECK(fs::exists(dir + "/log_3/api_server.2.log"));
  CHECK_FALSE(fs::exists(dir + "/log_3/api_server.3.log"));
  {
    auto log = LogFile::open({.path = path});
    log->append("appended");
  }
  CHECK(read_file(path, 1 << 20).value().ends_with("appended\n"));
  CHECK(read_file(path, 1 << 20).value().starts_with("line "));
  fs::remove_all(dir);
  CHECK(LogFile::open({.path = "/proc/x/y"})
            .status()
            .message()
            .find("cannot write the log file /proc/x/y") == 0);
}

TEST_CASE("Notifier.SendsToAnAbstractSocketAndIgnoresNonsense") {
  const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string name = "flotilla-test-" + std::to_string(getpid());
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  REQUIRE(bind(socket.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
  Notifier(Environment{{"NOTIFY_SOCKET", "@" + name}}).send("READY=1");
  char buffer[64];
  CHECK(std::string(buffer, static_cast<size_t>(recv(socket.get(), buffer, sizeof buffer, 0))) ==
        "READY=1");
  Notifier(Environment{}).send("READY=1");
  Notifier(Environment{{"NOTIFY_SOCKET", "relative"}}).send("READY=1");
  Notifier(Environment{{"NOTIFY_SOCKET", "/" + std::string(200, 'x')}}).send("READY=1");
}
