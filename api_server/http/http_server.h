// START HERE. The HTTP/1.x server: sockets, limits, threads, streaming. It knows nothing of JSON or
// models: routes are functions that get a complete request and either answer it at once or hand
// over a producer that answers later.
//
// Threads. A few I/O threads (epoll) own all sockets: they read heads and bodies, write responses
// and run producers. Nothing that waits for a client holds a thread. Handler threads run handlers
// and nothing else; they are started on demand and end when idle. Cheap routes (probes) have
// handler threads of their own, so that no load of other requests delays them.
//
// A client that is gone. Once a client has closed its sending side (FIN) or reset the connection, a
// detached response is given up: its producer hears on_client_gone(). A FIN cannot be told from a
// vanished process, and neither openai clients nor proxies half-close; a half-closing client still
// gets answers that its handler gives at once.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "api_server/http/head_parser.h"
#include "api_server/http/http_counters.h"
#include "api_server/http/http_message.h"
#include "api_server/http/response_stream.h"
#include "common/fd.h"
#include "common/status.h"

namespace flotilla {

struct HttpLimits {
  HeadLimits head = {};
  size_t max_body_bytes = 32 << 20;  // --max-body-bytes; larger: 413
  size_t max_body_bytes_in_memory = size_t{1}
                                    << 30;  // bodies of all requests not yet answered; more: 503
  size_t max_connections = 8192;  // more: the longest idle one is closed, or the new one gets 503
  std::chrono::milliseconds head_timeout{
      10'000};  // from the first byte (or from accept) to the end of the head: 408
  std::chrono::milliseconds idle_timeout{75'000};  // keep-alive without a request
  std::chrono::milliseconds body_window{30'000};   // in each such window …
  size_t min_body_bytes_per_second = 1 << 10;  // … a body comes at least so fast on average, or 408
  std::chrono::milliseconds stall_timeout{
      60'000};  // output waits and the client takes no byte of it: cut
  // After the last response the client may go on sending for so long and so much before the
  // connection is closed: a close with unread input would be a reset, and the client would lose the
  // answer.
  std::chrono::milliseconds linger_timeout{3'000};
  size_t max_linger_bytes = 64 << 20;
};

// Runs in a handler thread. It calls respond() or detach() once before it returns; one that does
// neither, or throws, is answered with 500.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;

  virtual void respond(HttpResponse response) = 0;
  // The response comes from `producer`, on an I/O thread, whenever the stream is woken (and once
  // now).
  virtual void detach(std::shared_ptr<ResponseProducer> producer) = 0;

  // The handle that wakes the producer, also before detach(): get it, submit the work that will
  // wake it, then detach() or, if the work was refused, respond().
  virtual ResponseStreamHandle stream() = 0;
  // True once the client has closed or half-closed its connection. Any thread.
  virtual bool client_gone() const = 0;
};

using HttpHandler = std::function<void(const HttpRequest&, HttpExchange&)>;

enum class RouteKind {
  kNormal,
  kCheap,  // answers in well under a millisecond and never waits: probes, metrics
};

struct HttpServerOptions {
  std::string name = "http";  // in logs and thread names; at most 8 characters
  int io_threads = 2;
  int reserved_threads = 2;           // handler threads for cheap routes only
  int max_threads = 64;               // handler threads for all routes
  size_t max_queued_requests = 1024;  // complete requests that wait for a handler thread; more: 503
  HttpLimits limits = {};

  HttpErrorBody error_body = openai_error_body;
  // Adds headers (CORS, X-Request-Id, …) to every response of a request whose head could be parsed,
  // also to those of the server itself. Handler and I/O threads; must not wait.
  std::function<void(const HttpRequest&, HttpHeaders*)> decorate = {};
  // Sees the head of each request for a known route before its body is read, on an I/O thread; must
  // not wait. An answer (401, 503 while draining, …) saves reading the body.
  std::function<std::optional<HttpResponse>(const HttpRequest& head)> check_head = {};
  // A response was sent whole, or ended (complete is false) since the client went away or was cut.
  // I/O threads.
  std::function<void(const HttpRequest&, int status, bool complete)> on_finished = {};
};

// Life: construct, route(), start(), begin_drain(), stop(). Members other than route() may be
// called from any thread.
class HttpServer {
 public:
  explicit HttpServer(HttpServerOptions options);
  ~HttpServer();  // stops at once if it still runs

  // Before start(). `path` is exact, or ends with "/*": then anything behind the last '/' matches,
  // and the longest such prefix wins. A GET route answers HEAD too; OPTIONS is answered with 204
  // and Allow unless there is a route for it.
  void route(std::string_view method,
             std::string_view path,
             HttpHandler handler,
             RouteKind kind = RouteKind::kNormal);

  // Serves connections of a bound, listening socket (listen_on(), or the launcher's).
  Status start(UniqueFd listening_socket);
  uint16_t port() const;

  // From now on every response ends its connection and idle connections are closed. New connections
  // are still taken, so that routes can say 503 and probes are answered.
  void begin_drain();
  // Closes the listening socket, lets requests and streams end until `deadline`, then cuts the rest
  // and ends all threads. True if nothing was cut. Idempotent.
  bool stop(std::chrono::steady_clock::time_point deadline);

  HttpCounters counters() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flotilla
