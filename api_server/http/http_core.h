// What the threads of one server share.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "api_server/http/handler_pool.h"
#include "api_server/http/http_counters.h"
#include "api_server/http/http_server.h"
#include "api_server/http/httplib_bridge.h"
#include "api_server/http/router.h"
#include "common/mutex.h"

namespace flotilla {

class HttpIoLoop;

struct HttpCore {
  explicit HttpCore(HttpServerOptions o);

  const HttpServerOptions options;
  HttpRouter router;  // complete before the first thread starts
  HttpCounterCells counters;
  HttplibBridge bridge;
  HandlerPool pool;
  std::vector<std::unique_ptr<HttpIoLoop>> loops;  // made once, before the first thread starts
  std::atomic<bool> draining{false};

  // A request was read whole; its response is due.
  void request_begins();
  void request_ends();
  // False if the deadline came first.
  bool wait_until_no_requests(std::chrono::steady_clock::time_point deadline);

 private:
  Mutex idle_mutex_;
  CondVar idle_;
  std::atomic<bool> waiting_for_idle_{false};
};

}  // namespace flotilla
