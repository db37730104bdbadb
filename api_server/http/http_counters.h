// What the server counts, for metrics.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>

namespace flotilla {

// Why the server itself answered, or cut, in place of a route.
enum class HttpRefusal {
  kMalformed,           // 400, 414, 417, 431: head or chunks
  kBodyTooLarge,        // 413
  kUnsupportedCoding,   // 415: a compressed body
  kHeadTimeout,         // 408
  kBodyTimeout,         // 408
  kNoSuchRoute,         // 404
  kMethodNotAllowed,    // 405
  kOverloaded,          // 503: no room in the handlers' queue, or for the body in memory
  kTooManyConnections,  // 503
  kCheckedHead,         // HttpServerOptions::check_head answered
  kHandlerFailed,       // 500: threw, or gave no answer
  kStalledReader,       // cut: took no byte for stall_timeout
  kCount,
};
// "malformed", "body_too_large", …: a label's value.
std::string_view to_string(HttpRefusal refusal);

struct HttpCounters {
  // Now.
  uint64_t connections_open = 0;
  uint64_t requests_in_flight = 0;  // read whole, response not yet sent whole; streams included
  uint64_t streams_open = 0;        // detached responses
  uint64_t handler_threads = 0;
  uint64_t body_bytes_in_memory = 0;
  // Since the start.
  uint64_t connections_accepted = 0;
  uint64_t requests = 0;  // read whole
  uint64_t bytes_received = 0;
  uint64_t bytes_sent = 0;
  uint64_t clients_gone = 0;   // while a response was due
  uint64_t accept_pauses = 0;  // out of descriptors or memory
  std::array<uint64_t, static_cast<size_t>(HttpRefusal::kCount)> refused{};

  uint64_t refusals(HttpRefusal reason) const { return refused[static_cast<size_t>(reason)]; }
};

// The live ones, shared by all threads of a server.
struct HttpCounterCells {
  using Cell = std::atomic<uint64_t>;
  Cell connections_open{0}, requests_in_flight{0}, streams_open{0}, body_bytes_in_memory{0};
  Cell connections_accepted{0}, requests{0}, bytes_received{0}, bytes_sent{0}, clients_gone{0};
  Cell accept_pauses{0};
  std::array<Cell, static_cast<size_t>(HttpRefusal::kCount)> refused{};

  void refuse(HttpRefusal reason) { bump(refused[static_cast<size_t>(reason)]); }
  static void bump(Cell& cell, uint64_t n = 1) { cell.fetch_add(n, std::memory_order_relaxed); }
  static void drop(Cell& cell, uint64_t n = 1) { cell.fetch_sub(n, std::memory_order_relaxed); }
};

}  // namespace flotilla
