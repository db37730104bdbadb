#include "api_server/http/http_server.h"

#include "api_server/http/http_core.h"
#include "api_server/http/io_loop.h"
#include "api_server/http/listen_socket.h"
#include "common/log.h"

namespace flotilla {

HttpCore::HttpCore(HttpServerOptions o)
    : options(std::move(o)),
      bridge(options, counters),
      pool({.name = options.name,
            .reserved_threads = options.reserved_threads,
            .max_threads = options.max_threads,
            .max_queued = options.max_queued_requests},
           [this](const std::shared_ptr<HttpJob>& job) {
             bridge.run(*job);
             job->mailbox->post({.kind = IoCommand::Kind::kAnswered, .job = job});
           }) {}

void HttpCore::request_begins() {
  HttpCounterCells::bump(counters.requests);
  HttpCounterCells::bump(counters.requests_in_flight);
}

void HttpCore::request_ends() {
  if (counters.requests_in_flight.fetch_sub(1) != 1 || !waiting_for_idle_.load()) return;
  MutexLock lock(idle_mutex_);  // so that the waiter is either before its test or in its wait
  idle_.notify_all();
}

bool HttpCore::wait_until_no_requests(std::chrono::steady_clock::time_point deadline) {
  waiting_for_idle_.store(true);
  MutexLock lock(idle_mutex_);
  return idle_.wait_until(lock, deadline, [&] { return counters.requests_in_flight.load() == 0; });
}

std::string_view to_string(HttpRefusal refusal) {
  switch (refusal) {
    case HttpRefusal::kMalformed:
      return "malformed";
    case HttpRefusal::kBodyTooLarge:
      return "body_too_large";
    case HttpRefusal::kUnsupportedCoding:
      return "unsupported_coding";
    case HttpRefusal::kHeadTimeout:
      return "head_timeout";
    case HttpRefusal::kBodyTimeout:
      return "body_timeout";
    case HttpRefusal::kNoSuchRoute:
      return "no_such_route";
    case HttpRefusal::kMethodNotAllowed:
      return "method_not_allowed";
    case HttpRefusal::kOverloaded:
      return "overloaded";
    case HttpRefusal::kTooManyConnections:
      return "too_many_connections";
    case HttpRefusal::kCheckedHead:
      return "checked_head";
    case HttpRefusal::kHandlerFailed:
      return "handler_failed";
    case HttpRefusal::kStalledReader:
      return "stalled_reader";
    case HttpRefusal::kCount:
      break;
  }
  return "unknown";
}

struct HttpServer::Impl {
  explicit Impl(HttpServerOptions options) : core(std::move(options)) {}

  HttpCore core;
  uint16_t port = 0;
  Mutex mutex;
  enum class State { kNew, kRunning, kStopped } state GUARDED_BY(mutex) = State::kNew;
  bool cut_nothing GUARDED_BY(mutex) = true;

  void tell_all(IoCommand::Kind kind) {
    for (const auto& loop : core.loops) loop->mailbox()->post({.kind = kind});
  }
};

HttpServer::HttpServer(HttpServerOptions options)
    : impl_(std::make_unique<Impl>(std::move(options))) {}

HttpServer::~HttpServer() { stop(std::chrono::steady_clock::now()); }

void HttpServer::route(std::string_view method,
                       std::string_view path,
                       HttpHandler handler,
                       RouteKind kind) {
  MutexLock lock(impl_->mutex);
  check(impl_->state == Impl::State::kNew, "routes are added before start()");
  impl_->core.router.add(method, path, std::move(handler), kind);
}

Status HttpServer::start(UniqueFd listening_socket) {
  MutexLock lock(impl_->mutex);
  check(impl_->state == Impl::State::kNew, "start() is called once");
  FLOTILLA_RETURN_IF_ERROR(
      prepare_listening_socket(listening_socket.get(), impl_->core.options.limits.stall_timeout));
  auto port = local_port(listening_socket.get());
  if (!port.ok()) return port.status();
  impl_->port = *port;

  HttpCore& core = impl_->core;
  for (int i = 0; i < core.options.io_threads; ++i) {
    core.loops.push_back(std::make_unique<HttpIoLoop>(core));
  }
  core.loops.front()->listen_on(std::move(listening_socket));
  core.pool.start();
  for (const auto& loop : core.loops) loop->start();
  impl_->state = Impl::State::kRunning;
  log_info("http_listening", {{"server", core.options.name}, {"port", *port}});
  return ok_status();
}

uint16_t HttpServer::port() const { return impl_->port; }

void HttpServer::begin_drain() {
  impl_->core.draining.store(true);
  MutexLock lock(impl_->mutex);
  if (impl_->state == Impl::State::kRunning) impl_->tell_all(IoCommand::Kind::kDrain);
}

bool HttpServer::stop(std::chrono::steady_clock::time_point deadline) {
  begin_drain();
  MutexLock lock(impl_->mutex);
  if (impl_->state == Impl::State::kRunning) {
    HttpCore& core = impl_->core;
    core.loops.front()->mailbox()->post({.kind = IoCommand::Kind::kStopListening});
    impl_->cut_nothing = core.wait_until_no_requests(deadline);
    core.pool.stop();  // first: what its last handlers detach still finds an I/O thread to be told
                       // it is over
    impl_->tell_all(IoCommand::Kind::kStop);
    for (const auto& loop : core.loops) loop->join();
    impl_->state = Impl::State::kStopped;
  }
  return impl_->cut_nothing;
}

HttpCounters HttpServer::counters() const {
  const HttpCounterCells& cells = impl_->core.counters;
  const auto get = [](const HttpCounterCells::Cell& cell) {
    return cell.load(std::memory_order_relaxed);
  };
  HttpCounters out{.connections_open = get(cells.connections_open),
                   .requests_in_flight = get(cells.requests_in_flight),
                   .streams_open = get(cells.streams_open),
                   .handler_threads = impl_->core.pool.num_threads(),
                   .body_bytes_in_memory = get(cells.body_bytes_in_memory),
                   .connections_accepted = get(cells.connections_accepted),
                   .requests = get(cells.requests),
                   .bytes_received = get(cells.bytes_received),
                   .bytes_sent = get(cells.bytes_sent),
                   .clients_gone = get(cells.clients_gone),
                   .accept_pauses = get(cells.accept_pauses)};
  for (size_t i = 0; i < out.refused.size(); ++i) out.refused[i] = get(cells.refused[i]);
  return out;
}

}  // namespace flotilla
