// What the HTTP transport costs per streamed token: CPU of the server's process, with clients in a
// process of their own.
//
//   http_stream_bench [--streams 512] [--rate 20] [--seconds 5] [--mode steps|apart] [--io-threads
//   2]
//
//   steps  all streams get a token at the same moment, as from one engine step: wake_many(), one
//   call a step apart  every token comes alone, evenly spread over time: wake(), nothing to share.
//   The worst case.
//
// The pacing thread's own CPU is told apart: in the server it is the engine's.
#include <netinet/in.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

#include "api_server/http/http_server.h"
#include "api_server/http/listen_socket.h"
#include "common/log.h"
#include "common/mutex.h"

using namespace flotilla;

namespace {

constexpr std::string_view kEvent =
    "data: "
    "{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":"
    "1795500000,"
    "\"model\":\"default\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},"
    "\"logprobs\":null,\"finish_reason\":null}]}\n\n";

struct Options {
  int streams = 512;
  int rate = 20;  // tokens per second and stream
  int seconds = 5;
  int io_threads = 2;
  bool apart = false;
};

class TokenProducer final : public ResponseProducer {
 public:
  explicit TokenProducer(ResponseStreamHandle stream) : stream_(std::move(stream)) {}

  void produce(ResponseWriter& out) override {
    if (!out.started()) out.start_events();
    for (int n = tokens_.exchange(0); n > 0; --n) out.body() += kEvent;
  }
  void on_client_gone() override {}

  void add_token() { tokens_.fetch_add(1); }
  const ResponseStreamHandle& stream() const { return stream_; }

 private:
  const ResponseStreamHandle stream_;
  std::atomic<int> tokens_{0};
};

double cpu_seconds(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// Opens the streams and reads them until killed.
[[noreturn]] void run_clients(uint16_t port, int streams) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  constexpr std::string_view kRequest =
      "POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
  for (int i = 0; i < streams; ++i) {
    UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const bool connected =
        ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    if (!connected || !write_fully(fd.get(), std::as_bytes(std::span(kRequest))).ok()) _exit(1);
    epoll_event event{.events = EPOLLIN, .data = {.fd = fd.get()}};
    ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.release(), &event);
  }
  std::vector<epoll_event> events(1024);
  std::vector<char> buffer(64 << 10);
  for (;;) {
    const int n = ::epoll_wait(epoll.get(), events.data(), 1024, -1);
    for (int i = 0; i < n; ++i) {
      const int fd = events[static_cast<size_t>(i)].data.fd;
      if (::recv(fd, buffer.data(), buffer.size(), 0) <= 0) _exit(0);
    }
  }
}

void measure(const Options& options,
             const std::vector<std::shared_ptr<TokenProducer>>& producers,
             const HttpServer& server) {
  std::vector<ResponseStreamHandle> streams;
  for (const auto& producer : producers) streams.push_back(producer->stream());
  const int steps = options.rate * options.seconds;
  const auto gap = std::chrono::nanoseconds(1'000'000'000LL / options.rate);
  const double cpu_before = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID);
  const double pacing_before = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
  const uint64_t sent_before = server.counters().bytes_sent;
  const auto start = std::chrono::steady_clock::now();
  for (int step = 0; step < steps; ++step) {
    for (size_t i = 0; i < producers.size(); ++i) {
      producers[i]->add_token();
      if (!options.apart) continue;
      std::this_thread::sleep_until(start + gap * step + gap * i / producers.size());
      wake(streams[i]);
    }
    if (options.apart) continue;
    wake_many(streams);
    std::this_thread::sleep_until(start + gap * (step + 1));
  }
  const double wall =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double tokens = static_cast<double>(producers.size()) * steps;
  const double pacing = cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - pacing_before;
  const double cpu = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_before;
  // A token is an event, its chunk line and the line's end: fewer bytes mean coalesced tokens.
  const double uncoalesced = static_cast<double>(server.counters().bytes_sent - sent_before) /
                             (tokens * static_cast<double>(kEvent.size() + 6));
  std::printf(
      "mode=%s streams=%zu rate=%d/s io_threads=%d wall_s=%.2f tokens=%.0f cpu_us_per_token=%.2f "
      "of_which_pacing=%.2f transport=%.2f bytes_of_uncoalesced=%.4f\n",
      options.apart ? "apart" : "steps",
      producers.size(),
      options.rate,
      options.io_threads,
      wall,
      tokens,
      cpu / tokens * 1e6,
      pacing / tokens * 1e6,
      (cpu - pacing) / tokens * 1e6,
      uncoalesced);
}

bool parse(int argc, char** argv, Options* options) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view flag = argv[i];
    const int value = std::atoi(argv[i + 1]);
    if (flag == "--streams") {
      options->streams = value;
    } else if (flag == "--rate") {
      options->rate = value;
    } else if (flag == "--seconds") {
      options->seconds = value;
    } else if (flag == "--io-threads") {
      options->io_threads = value;
    } else if (flag == "--mode") {
      options->apart = std::strcmp(argv[i + 1], "apart") == 0;
    } else {
      return false;
    }
  }
  return argc % 2 == 1 && options->streams > 0 && options->rate > 0 && options->seconds > 0 &&
         options->io_threads > 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!parse(argc, argv, &options)) {
    std::fprintf(stderr,
                 "usage: %s [--streams N] [--rate TOKENS_PER_S] [--seconds S] [--mode steps|apart] "
                 "[--io-threads N]\n",
                 argv[0]);
    return 2;
  }
  configure_logging({.level = LogLevel::kWarn});
  auto socket = listen_on("127.0.0.1", 0);
  check(socket.ok(), socket.status().message());
  const uint16_t port = *local_port(socket->get());
  const pid_t clients = ::fork();  // before there are threads
  if (clients == 0) {
    socket->reset();
    run_clients(port, options.streams);
  }

  Mutex mutex;
  CondVar changed;
  std::vector<std::shared_ptr<TokenProducer>> producers;
  HttpServer server({.name = "bench", .io_threads = options.io_threads});
  server.route("POST", "/stream", [&](const HttpRequest&, HttpExchange& exchange) {
    auto producer = std::make_shared<TokenProducer>(exchange.stream());
    exchange.detach(producer);
    MutexLock lock(mutex);
    producers.push_back(std::move(producer));
    changed.notify_all();
  });
  const Status started = server.start(std::move(socket).value());
  check(started.ok(), started.message());
  {
    MutexLock lock(mutex);
    const bool all =
        changed.wait_until(lock, std::chrono::steady_clock::now() + std::chrono::seconds(30), [&] {
          return producers.size() == static_cast<size_t>(options.streams);
        });
    check(all, "the clients did not open all streams within 30 s");
  }
  measure(options, producers, server);
  ::kill(clients, SIGKILL);
  ::waitpid(clients, nullptr, 0);
  return 0;
}
