// What all running requests of this process share: the way to the engine, the text tools, the
// counters and the limits.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api_server/generation/admission.h"
#include "api_server/generation/server_metrics.h"
#include "api_server/generation/token_hub.h"
#include "api_server/openai/schema.h"
#include "common/metrics.h"
#include "engine/dispatch/dispatcher.h"
#include "engine/text/chat_template.h"
#include "engine/text/generation_config.h"
#include "engine/text/tokenizer.h"

namespace flotilla {

struct ServingOptions {
  std::string model;  // the --model value
  std::vector<std::string>
      served_model_names;  // --served-model-name; empty: `model` and its last path part
  int64_t max_n = 16;
  int64_t max_logprobs = 20;
  int64_t max_concurrency = 2048;            // generation requests at once
  std::chrono::seconds max_waiting_time{0};  // longest wait for a place in the engine; 0: no limit
  std::chrono::seconds health_timeout{
      30};  // /health fails when the engine had work and did not move for so long
  std::string reasoning_parser = {};  // "", "qwen3", "ernie-x1"
  std::optional<uint64_t> seed = {};  // of the seeds drawn for requests without one; absent: random
  std::string config_info = {};       // a JSON object for /config-info; no secrets
};

// What it stands on; all of it outlives the Serving.
struct ServingParts {
  Dispatcher& dispatcher;
  const Tokenizer* tokenizer = nullptr;         // null: only the probes can be served (--headless)
  const ChatTemplate* chat_template = nullptr;  // null: the model has none, chats are refused
  GenerationDefaults defaults = {};
  MetricsRegistry& registry;
};

// Threads: every member may be called from any thread.
class Serving {
 public:
  Serving(ServingParts parts, ServingOptions options);

  // From now on new generations get 503 and /ready says "draining"; running ones go on. Idempotent.
  void begin_drain() { draining_.store(true); }
  bool draining() const { return draining_.load() || dispatcher.load().draining; }

  bool knows_model(std::string_view name) const;
  // The name that answers show for what a request said.
  const std::string& shown_model(const std::string& asked) const;
  // In /v1/models; the first is the main one.
  const std::vector<std::string>& listed_models() const { return listed_; }

  openai::SchemaLimits schema_limits() const;
  // The seed of a request that brings none.
  uint64_t draw_seed();

  Dispatcher& dispatcher;
  const Tokenizer* const tokenizer;
  const ChatTemplate* const chat_template;
  const GenerationDefaults defaults;
  const ServingOptions options;
  MetricsRegistry& registry;
  ServerMetrics metrics;
  TokenHub hub;
  Admission admission;
  const int64_t started_at;  // seconds since 1970

 private:
  std::vector<std::string> accepted_;  // besides "default"
  std::vector<std::string> listed_;
  std::atomic<bool> draining_{false};
  std::atomic<uint64_t> drawn_{0};
};

}  // namespace flotilla
