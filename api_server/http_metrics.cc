#include <array>
#include <memory>

#include "api_server/app.h"

namespace flotilla {

void export_http_counters(MetricsRegistry* registry,
                          const HttpServer* server,
                          const std::string& name) {
  const MetricLabels labels = {{"server", name}};
  struct Series {
    Gauge connections, requests, streams, threads, body_bytes;
    Counter accepted, received, sent, clients_gone, pauses;
    std::array<Counter, static_cast<size_t>(HttpRefusal::kCount)> refused;
  };
  const auto series = std::make_shared<Series>();
  Series& s = *series;
  s.connections = registry->gauge({"flotilla_http_connections", "Open connections."}, labels);
  s.requests = registry->gauge(
      {"flotilla_http_requests_in_flight", "Requests read whole and not yet answered whole."},
      labels);
  s.streams = registry->gauge(
      {"flotilla_http_streams", "Answers that are being made while the client waits."}, labels);
  s.threads =
      registry->gauge({"flotilla_http_handler_threads", "Threads that run handlers."}, labels);
  s.body_bytes = registry->gauge(
      {"flotilla_http_body_bytes", "Bytes of request bodies held in memory."}, labels);
  s.accepted =
      registry->counter({"flotilla_http_connections_accepted_total", "Connections taken."}, labels);
  s.received = registry->counter({"flotilla_http_received_bytes_total", "Bytes read."}, labels);
  s.sent = registry->counter({"flotilla_http_sent_bytes_total", "Bytes written."}, labels);
  s.clients_gone = registry->counter(
      {"flotilla_http_clients_gone_total", "Connections that ended while an answer was due."},
      labels);
  s.pauses = registry->counter(
      {"flotilla_http_accept_pauses_total",
       "Times that no connection could be taken for want of descriptors or memory."},
      labels);
  for (size_t i = 0; i < s.refused.size(); ++i) {
    MetricLabels with_reason = labels;
    with_reason.emplace_back("reason", to_string(static_cast<HttpRefusal>(i)));
    s.refused[i] =
        registry->counter({"flotilla_http_refused_total",
                           "Requests that the server itself answered or cut, by reason."},
                          with_reason);
  }
  registry->on_export([series, server] {
    const HttpCounters now = server->counters();
    const Series& s = *series;
    s.connections.set(static_cast<double>(now.connections_open));
    s.requests.set(static_cast<double>(now.requests_in_flight));
    s.streams.set(static_cast<double>(now.streams_open));
    s.threads.set(static_cast<double>(now.handler_threads));
    s.body_bytes.set(static_cast<double>(now.body_bytes_in_memory));
    const auto catch_up = [](const Counter& counter, uint64_t total) {
      counter.add(static_cast<double>(total) - counter.value());
    };
    catch_up(s.accepted, now.connections_accepted);
    catch_up(s.received, now.bytes_received);
    catch_up(s.sent, now.bytes_sent);
    catch_up(s.clients_gone, now.clients_gone);
    catch_up(s.pauses, now.accept_pauses);
    for (size_t i = 0; i < s.refused.size(); ++i) catch_up(s.refused[i], now.refused[i]);
  });
}

}  // namespace flotilla
