// A server with the routes that the transport's tests need, and producers that a test drives by
// hand.
#pragma once

#include <dirent.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "api_server/http/http_server.h"
#include "api_server/http/listen_socket.h"
#include "common/mutex.h"

namespace flotilla {

// Polls: for what other threads bring about and nobody announces (counters, descriptors).
inline bool eventually(const std::function<bool()>& condition,
                       std::chrono::milliseconds timeout = std::chrono::seconds(20)) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

inline size_t num_open_fds() {
  size_t n = 0;
  DIR* fds = ::opendir("/proc/self/fd");
  while (::readdir(fds) != nullptr) ++n;
  ::closedir(fds);
  return n;
}

// Sanitizers keep shadow memory and freed blocks: there, no bound on resident memory holds.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr bool kMemoryIsMeasurable = false;
#else
constexpr bool kMemoryIsMeasurable = true;
#endif

inline size_t resident_bytes() {
  size_t total = 0, resident = 0;
  FILE* file = std::fopen("/proc/self/statm", "r");
  if (std::fscanf(file, "%zu %zu", &total, &resident) != 2) resident = 0;
  std::fclose(file);
  return resident * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
}

// A producer that gives what the test pushes into it.
class HandProducer final : public ResponseProducer {
 public:
  explicit HandProducer(bool events = true) : events_(events) {}

  void produce(ResponseWriter& out) override {
    MutexLock lock(mutex_);
    ++calls_;
    if (whole_) {
      out.respond(*whole_);
      return;
    }
    if (pending_.empty() && !finish_) return;
    if (!out.started()) {
      if (events_) {
        out.start_events();
      } else {
        out.start(200, {{"Content-Type", "text/plain"}});
      }
    }
    out.body() += pending_;
    pending_.clear();
    if (finish_) out.finish();
  }
  void on_client_gone() override {
    MutexLock lock(mutex_);
    ++gone_;
    changed_.notify_all();
  }

  void push(std::string_view text) {
    set([&] { pending_ += text; });
  }
  void finish() {
    set([&] { finish_ = true; });
  }
  void respond(HttpResponse response) {
    set([&] { whole_ = std::move(response); });
  }
  void set_stream(ResponseStreamHandle stream) { stream_ = std::move(stream); }
  const ResponseStreamHandle& stream() const { return stream_; }

  // Changes what the next produce() gives without waking.
  void put(std::string_view text) {
    MutexLock lock(mutex_);
    pending_ += text;
  }
  int calls() {
    MutexLock lock(mutex_);
    return calls_;
  }
  int gone() {
    MutexLock lock(mutex_);
    return gone_;
  }
  bool wait_gone() {
    MutexLock lock(mutex_);
    return changed_.wait_until(lock,
                               std::chrono::steady_clock::now() + std::chrono::seconds(20),
                               [&] { return gone_ > 0; });
  }

 private:
  void set(const auto& change) {
    {
      MutexLock lock(mutex_);
      change();
    }
    wake(stream_);
  }

  const bool events_;
  ResponseStreamHandle stream_;
  Mutex mutex_;
  CondVar changed_;
  std::string pending_ GUARDED_BY(mutex_);
  bool finish_ GUARDED_BY(mutex_) = false;
  std::optional<HttpResponse> whole_ GUARDED_BY(mutex_);
  int calls_ GUARDED_BY(mutex_) = 0;
  int gone_ GUARDED_BY(mutex_) = 0;
};

// Blocks a handler until the test lets it go on.
class Gate {
 public:
  void open() {
    MutexLock lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void pass() {
    MutexLock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait_until(
        lock, std::chrono::steady_clock::now() + std::chrono::seconds(60), [&] { return open_; });
  }
  void wait_for_waiters(int n) {
    MutexLock lock(mutex_);
    changed_.wait_until(lock, std::chrono::steady_clock::now() + std::chrono::seconds(20), [&] {
      return waiting_ >= n;
    });
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool open_ GUARDED_BY(mutex_) = false;
  int waiting_ GUARDED_BY(mutex_) = 0;
};

class TestServer {
 public:
  explicit TestServer(HttpServerOptions options = {},
                      const std::function<void(HttpServer&)>& more_routes = {})
      : server_(with_name(std::move(options))) {
    server_.route(
        "GET",
        "/health",
        [](const HttpRequest&, HttpExchange& exchange) {
          exchange.respond(
              {.status = 200, .headers = {{"Content-Type", "text/plain"}}, .body = "ok"});
        },
        RouteKind::kCheap);
    // "POST /echo?x=1" + body, as the handler saw them.
    server_.route("POST", "/echo", [this](const HttpRequest& request, HttpExchange& exchange) {
      ++echoes_;
      exchange.respond({.status = 200,
                        .headers = {{"Content-Type", "text/plain"}},
                        .body = request.query + "|" + request.body});
    });
    // A stream of events, and an answer as a whole: both from a HandProducer that take_producer()
    // gives.
    server_.route("POST", "/stream", [this](const HttpRequest&, HttpExchange& exchange) {
      detach(exchange, std::make_shared<HandProducer>());
    });
    server_.route("GET", "/stream", [this](const HttpRequest&, HttpExchange& exchange) {
      detach(exchange, std::make_shared<HandProducer>(false));
    });
    if (more_routes) more_routes(server_);
    auto socket = listen_on("127.0.0.1", 0);
    check(socket.ok() && server_.start(std::move(socket).value()).ok(), "test server");
  }

  HttpServer& operator*() { return server_; }
  HttpServer* operator->() { return &server_; }
  uint16_t port() const { return server_.port(); }
  int echoes() const { return echoes_; }

  // The producer of the next detached request.
  std::shared_ptr<HandProducer> take_producer() {
    MutexLock lock(mutex_);
    const bool there =
        changed_.wait_until(lock, std::chrono::steady_clock::now() + std::chrono::seconds(20), [&] {
          return !producers_.empty();
        });
    check(there, "no request was detached within 20 s");
    auto producer = producers_.front();
    producers_.erase(producers_.begin());
    return producer;
  }

  void detach(HttpExchange& exchange, std::shared_ptr<HandProducer> producer) {
    producer->set_stream(exchange.stream());
    exchange.detach(producer);
    MutexLock lock(mutex_);
    producers_.push_back(std::move(producer));
    changed_.notify_all();
  }

 private:
  static HttpServerOptions with_name(HttpServerOptions options) {
    options.name = "test";
    return options;
  }

  std::atomic<int> echoes_{0};
  Mutex mutex_;
  CondVar changed_;
  std::vector<std::shared_ptr<HandProducer>> producers_ GUARDED_BY(mutex_);
  HttpServer server_;  // last: its threads end before what their handlers use
};

inline std::string get(std::string_view path) {
  return "GET " + std::string(path) + " HTTP/1.1\r\nHost: x\r\n\r\n";
}
inline std::string post(std::string_view path, std::string_view body) {
  return "POST " + std::string(path) +
         " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         std::string(body);
}

}  // namespace flotilla
