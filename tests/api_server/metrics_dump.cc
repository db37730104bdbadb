// Prints /metrics of a process that has every metric, each with something counted: food for
// promtool_check.
#include <cstdio>

#include "api_server/app.h"
#include "engine/metrics.h"
#include "tests/fakes/fake_dispatcher.h"

int main() {
  using namespace flotilla;
  using std::chrono::milliseconds;
  MetricsRegistry registry({{"model_name", "test-model"}, {"dp_rank", "0"}});

  EngineMetrics engine(&registry);
  engine.configured({.max_num_seqs = 64, .block_size = 64, .num_blocks = 200, .kv_dtype = "bf16"});
  engine.show_load({.running = 1, .blocks_used = 3, .blocks_total = 200}, {});
  engine.step_finished(milliseconds(3), {.prefill_tokens = 8, .decode_tokens = 1, .sequences = 2});
  engine.step_finished(milliseconds(3), {});
  engine.clock_waited(milliseconds(1));
  engine.exchange_finished(milliseconds(1));
  engine.tokens_sampled(3);
  engine.prompt_admitted(10, 5);
  engine.preempted();
  engine.resumed();
  engine.cancelled();
  engine.refused();
  engine.epoch_started(2, 3, 4, milliseconds(20));
  engine.ranks_lost(1);
  engine.drain_started();
  engine.drain_finished(milliseconds(5));

  FakeDispatcher dispatcher([](const GenerationRequest&) { return FakeScript{}; });
  App app({.dispatcher = dispatcher, .registry = registry}, {});
  ServerMetrics& server = app.serving.metrics;
  server.request_accepted(2, 100);
  server.request_refused(429);
  server.first_token(milliseconds(100));
  server.next_token(milliseconds(10));
  server.sequence_finished(FinishReason::kStop, 10, 5, {});
  server.client_lost();
  server.http_finished("POST", "/v1/completions", 200, milliseconds(100));
  server.in_flight(1);
  HttpServer http(app_http_options(&app));
  export_http_counters(&registry, &http, "api");

  const std::string text = registry.text();
  std::fwrite(text.data(), 1, text.size(), stdout);
}
