#include "launcher/rank_process.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>

#include "launcher/line_splitter.h"

namespace flotilla {
namespace {

namespace asio = boost::asio;

constexpr size_t kLastLines = 10;
constexpr size_t kLastLineBytes = 1024;
constexpr size_t kReadBytes = 1u << 16;
// After the process's end; something that it started could hold the pipe open and write for ever.
constexpr size_t kMaxRestBytes = 4u << 20;

}  // namespace

struct RankProcess::Session : std::enable_shared_from_this<Session> {
  struct Output {
    asio::posix::stream_descriptor pipe;
    OutputStream stream;
    LineSplitter lines;
    std::array<char, kReadBytes> buffer;
  };

  Session(asio::io_context& io, ChildProcess child, Rank r, Console* c, LogFile* l, OnExit exit)
      : pid(child.pid),
        pidfd(io, child.pidfd.release()),
        out{asio::posix::stream_descriptor(io, child.out.release()), OutputStream::kOut, {}, {}},
        err{asio::posix::stream_descriptor(io, child.err.release()), OutputStream::kErr, {}, {}},
        tag("[rank " + std::to_string(r.value) + "] "),
        console(c),
        log(l),
        on_exit(std::move(exit)) {}

  void watch() {
    pidfd.async_wait(asio::posix::stream_descriptor::wait_read,
                     [self = shared_from_this()](const boost::system::error_code& error) {
                       if (!error) self->ended();
                     });
    read(out);
    read(err);
  }

  void read(Output& output) {
    output.pipe.async_read_some(
        asio::buffer(output.buffer),
        [self = shared_from_this(), &output](const boost::system::error_code& error, size_t n) {
          if (error || self->over) return;
          self->pass_on(output, {output.buffer.data(), n});
          self->read(output);
        });
  }

  void pass_on(Output& output, std::string_view bytes) {
    std::string tagged;
    output.lines.feed(bytes, [&](std::string_view line) { take(line, &tagged); });
    deliver(output.stream, std::move(tagged));
  }

  void take(std::string_view line, std::string* tagged) {
    *tagged += tag;
    *tagged += line;
    *tagged += '\n';
    if (log != nullptr) log->append(line);
    if (last_lines.size() == kLastLines) last_lines.pop_front();
    last_lines.emplace_back(line.substr(0, kLastLineBytes));
  }

  void deliver(OutputStream stream, std::string tagged) {
    if (tagged.empty()) return;
    if (log != nullptr) log->flush();
    console->write(stream, std::move(tagged));
  }

  void drain(Output& output) {
    size_t left = kMaxRestBytes;
    while (left > 0) {
      const ssize_t n =
          ::read(output.pipe.native_handle(), output.buffer.data(), std::min(left, kReadBytes));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      left -= static_cast<size_t>(n);
      pass_on(output, {output.buffer.data(), static_cast<size_t>(n)});
    }
    std::string tagged;
    output.lines.finish([&](std::string_view line) { take(line, &tagged); });
    deliver(output.stream, std::move(tagged));
  }

  void close() {
    over = true;
    boost::system::error_code ignored;
    pidfd.close(ignored);
    out.pipe.close(ignored);
    err.pipe.close(ignored);
  }

  void ended() {
    if (over) return;
    const int status = reap_child(pid);
    drain(out);
    drain(err);
    close();
    // The callback may destroy the RankProcess; this session lives until the handler returns.
    const OnExit callback = std::move(on_exit);
    callback(status);
  }

  const pid_t pid;
  asio::posix::stream_descriptor pidfd;
  Output out;
  Output err;
  const std::string tag;
  Console* console;
  LogFile* log;
  OnExit on_exit;
  std::deque<std::string> last_lines;
  bool over = false;
};

StatusOr<std::unique_ptr<RankProcess>> RankProcess::start(asio::io_context& io,
                                                          Rank rank,
                                                          const ChildCommand& command,
                                                          const std::vector<int>& inherited,
                                                          Console* console,
                                                          LogFile* log,
                                                          OnExit on_exit) {
  StatusOr<ChildProcess> child = start_child(command, inherited);
  if (!child.ok()) return child.status();
  auto session =
      std::make_shared<Session>(io, *std::move(child), rank, console, log, std::move(on_exit));
  session->watch();
  return std::unique_ptr<RankProcess>(new RankProcess(std::move(session)));
}

RankProcess::RankProcess(std::shared_ptr<Session> session) : session_(std::move(session)) {}

RankProcess::~RankProcess() {
  if (session_->over) return;
  signal(SIGKILL);
  reap_child(session_->pid);
  session_->close();
}

pid_t RankProcess::pid() const { return session_->pid; }

void RankProcess::signal(int number) {
  if (!session_->over) signal_child(session_->pidfd.native_handle(), number);
}

const std::deque<std::string>& RankProcess::last_lines() const { return session_->last_lines; }

}  // namespace flotilla
