// A rank as api_server's flags describe it: engine, text tools and queue port, ready to be put behind HTTP.
#pragma once

#include <memory>
#include <string>

#include "common/metrics.h"
#include "common/status.h"
#include "engine/dispatch/local_dispatcher.h"
#include "engine/dispatch/queue_server.h"
#include "engine/metrics.h"
#include "engine/rank_engine.h"
#include "engine/text/chat_template.h"
#include "engine/text/generation_config.h"
#include "engine/text/tokenizer.h"
#include "launcher/inherited.h"
#include "launcher/server_flags.h"

namespace flotilla {

struct TextTools {
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;  // null: the model has none
  GenerationDefaults defaults;
  std::vector<TokenId> eos_token_ids;
};
StatusOr<TextTools> load_text_tools(const ServerFlags& flags);

// The path in --clock-address.
std::string unix_path(const std::string& address);

// The engine that the flags ask for; it begins to load. `metrics` outlives it.
StatusOr<std::unique_ptr<Engine>> make_engine(const ServerFlags& flags,
                                              const TextTools& text,
                                              const std::string& cluster_secret,
                                              EngineMetrics* metrics,
                                              std::chrono::steady_clock::time_point process_start);

// The queue port: the launcher's socket, or one bound here if the flags name a port, else nullptr. The engine outlives it.
StatusOr<std::unique_ptr<QueueServer>> start_queue_port(const ServerFlags& flags,
                                                        UniqueFd inherited,
                                                        const std::string& cluster_secret,
                                                        Engine& engine);

// Labels of every metric: model_name, dp_rank.
MetricLabels metric_labels(const ServerFlags& flags);
// A JSON object of what is set, without secrets, for /config-info.
std::string config_info(const ServerFlags& flags);

}  // namespace flotilla
