#include "api_server/rank.h"

#include <sched.h>

#include <filesystem>

#include "api_server/http/listen_socket.h"
#include "api_server/null_model.h"
#include "common/crypto.h"
#include "common/json.h"
#include "common/log.h"
#include "engine/null_engine.h"

namespace flotilla {
namespace {

constexpr int kQueueBacklog = 128;

int usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

StatusOr<DType> activation_type(ActivationDtype wanted, CpuIsa isa) {
  switch (wanted) {
    case ActivationDtype::kF32: return DType::kF32;
    case ActivationDtype::kBf16: return DType::kBf16;
    case ActivationDtype::kAuto: break;
  }
  return isa == CpuIsa::kAvx512Bf16 ? DType::kBf16 : DType::kF32;
}

StatusOr<std::unique_ptr<Engine>> make_model_engine(const ServerFlags& flags,
                                                    const TextTools& text,
                                                    const std::string& cluster_secret,
                                                    EngineMetrics* metrics,
                                                    std::chrono::steady_clock::time_point process_start) {
  const StatusOr<CpuIsa> isa = parse_cpu_isa(flags.cpu_isa);
  if (!isa.ok()) return Status(isa.status().code(), "--cpu-isa: " + isa.status().message());
  RankEngineOptions o;
  o.model = {.dir = flags.model, .dummy_weights = flags.load_choice == LoadChoice::kDummy, .dummy_seed = flags.seed.value_or(0)};
  o.cpu = {.num_threads = flags.num_threads > 0 ? flags.num_threads : usable_cpus(), .cores = flags.cpu_cores, .isa = *isa};
  o.activation = activation_type(flags.activation_dtype, *isa).value();
  o.max_model_len = flags.max_model_len;
  o.max_num_seqs = flags.max_num_seqs;
  o.max_num_batched_tokens = flags.max_num_batched_tokens;
  o.block_size = flags.block_size;
  o.num_blocks = flags.num_gpu_blocks_override;
  o.kv_cache_bytes = flags.kv_cache_memory;
  o.prefix_caching = flags.enable_prefix_caching;
  o.max_waiting = static_cast<uint32_t>(flags.max_queue_length);
  o.eos_token_ids = text.eos_token_ids;
  o.process_start = process_start;
  o.group.rank = Rank(flags.local_data_parallel_id);
  o.group.num_ranks = flags.data_parallel_size;
  o.group.expert_parallel = flags.enable_expert_parallel;
  o.group.clock_socket = unix_path(flags.clock_address);
  o.group.mesh_directory = flags.mesh_transport == MeshTransport::kUnix ? flags.run_dir : "";
  o.group.cluster_secret = cluster_secret;
  o.group.mesh_deadline = std::max<std::chrono::milliseconds>(std::chrono::seconds(60), 3 * flags.rank_timeout);
  o.group.must_match = {{"--data-parallel-size", std::to_string(flags.data_parallel_size)},
                        {"--enable-expert-parallel", flags.enable_expert_parallel ? "true" : "false"},
                        {"--max-model-len", flags.max_model_len ? std::to_string(*flags.max_model_len) : "auto"},
                        {"--mesh-transport", flags.mesh_transport == MeshTransport::kUnix ? "unix" : "tcp"},
                        {"--load-choices", flags.load_choice == LoadChoice::kDummy ? "dummy" : "default"}};
  log_info("engine",
           {{"model", flags.model},
            {"threads", o.cpu.num_threads},
            {"cpu_isa", cpu_isa_name(*isa)},
            {"activation_dtype", dtype_name(o.activation)}});
  StatusOr<std::unique_ptr<RankEngine>> engine = RankEngine::create(std::move(o), metrics);
  if (!engine.ok()) return engine.status();
  return std::unique_ptr<Engine>(std::move(*engine));
}

}  // namespace

std::string unix_path(const std::string& address) {
  constexpr std::string_view kPrefix = "unix:";
  return address.starts_with(kPrefix) ? address.substr(kPrefix.size()) : address;
}

StatusOr<TextTools> load_text_tools(const ServerFlags& flags) {
  TextTools text;
  const std::string dir = flags.tokenizer.empty() ? flags.model : flags.tokenizer;
  if (dir.empty()) {  // --engine null
    StatusOr<std::unique_ptr<Tokenizer>> bytes = Tokenizer::from_json(byte_tokenizer_json());
    if (!bytes.ok()) return bytes.status();
    StatusOr<std::unique_ptr<ChatTemplate>> chat = ChatTemplate::from_text(plain_chat_template(), (*bytes)->config());
    if (!chat.ok()) return chat.status();
    text.tokenizer = std::move(*bytes);
    text.chat_template = std::move(*chat);
    return text;
  }
  StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::load(dir);
  if (tokenizer.status().code() == StatusCode::kNotFound) {
    log_warn("no tokenizer: prompts must be token ids, answers come as ids", {{"why", tokenizer.status().message()}});
    tokenizer = Tokenizer::from_json(R"({"model":{"type":"BPE","vocab":{},"merges":[]}})");
  }
  if (!tokenizer.ok()) return tokenizer.status();
  text.tokenizer = std::move(*tokenizer);
  StatusOr<std::unique_ptr<ChatTemplate>> chat = ChatTemplate::load(dir, text.tokenizer->config(), flags.chat_template);
  if (!chat.ok()) return Status(chat.status().code(), "chat template: " + chat.status().message());
  text.chat_template = std::move(*chat);
  StatusOr<GenerationDefaults> defaults = read_generation_defaults(flags.model.empty() ? dir : flags.model);
  if (!defaults.ok()) return defaults.status();
  text.defaults = *defaults;
  StatusOr<std::vector<TokenId>> eos =
      read_eos_token_ids(flags.model.empty() ? dir : flags.model, [&](std::string_view token) { return text.tokenizer->token_id(token); });
  if (!eos.ok()) return eos.status();
  text.eos_token_ids = std::move(*eos);
  if (const std::optional<TokenId> id = text.tokenizer->eos_id()) text.eos_token_ids.push_back(*id);
  return text;
}

StatusOr<std::unique_ptr<Engine>> make_engine(const ServerFlags& flags,
                                              const TextTools& text,
                                              const std::string& cluster_secret,
                                              EngineMetrics* metrics,
                                              std::chrono::steady_clock::time_point process_start) {
  if (flags.engine == EngineKind::kModel) return make_model_engine(flags, text, cluster_secret, metrics, process_start);
  NullEngineOptions o{.text = text.tokenizer->encode(null_engine_text()).value(),
                      .tokens_per_second = flags.null_rate,
                      .max_waiting = static_cast<uint32_t>(flags.max_queue_length),
                      .limits = {}};
  if (o.text.empty()) return invalid_argument("--engine null needs a tokenizer that knows English letters");
  o.limits.max_model_len = flags.max_model_len.value_or(2048);
  o.limits.max_prompt_tokens = o.limits.max_model_len - 1;
  o.limits.vocab_size = text.tokenizer->vocab_size();
  return make_null_engine(std::move(o));
}

StatusOr<std::unique_ptr<QueueServer>> start_queue_port(const ServerFlags& flags,
                                                        UniqueFd inherited,
                                                        const std::string& cluster_secret,
                                                        Engine& engine) {
  if (inherited) {
    FLOTILLA_RETURN_IF_ERROR(start_listening(inherited.get(), kQueueBacklog));
  } else if (flags.engine_worker_queue_ports.empty()) {
    return std::unique_ptr<QueueServer>();
  } else {
    const int port = queue_port_of(flags, flags.local_data_parallel_id);
    StatusOr<UniqueFd> bound = listen_on(flags.queue_host, static_cast<uint16_t>(port));
    if (!bound.ok()) return Status(bound.status().code(), "--engine-worker-queue-port: " + bound.status().message());
    inherited = std::move(*bound);
  }
  std::string digest;
  if (const auto* rank = dynamic_cast<const RankEngine*>(&engine)) digest = rank->model_digest();
  return QueueServer::start(std::move(inherited),
                            {.rank = Rank(flags.local_data_parallel_id),
                             .instance_id = to_hex(random_bytes(8)),
                             .model_digest = digest,
                             .secret = cluster_secret},
                            engine);
}

MetricLabels metric_labels(const ServerFlags& flags) {
  std::string name = "null";
  if (!flags.served_model_names.empty()) {
    name = flags.served_model_names.front();
  } else if (!flags.model.empty()) {
    name = std::filesystem::path(flags.model).lexically_normal().filename();
    if (name.empty()) name = flags.model;
  }
  return {{"model_name", name}, {"dp_rank", std::to_string(flags.local_data_parallel_id)}};
}

std::string config_info(const ServerFlags& flags) {
  std::string out;
  JsonWriter json(&out);
  json.begin_object();
  json.field("version", FLOTILLA_VERSION);
  json.field("flags", flags.non_default);
  json.field("model", flags.model);
  json.field("engine", flags.engine == EngineKind::kNull ? "null" : "model");
  json.field("device", "cpu");
  json.field("data_parallel_size", flags.data_parallel_size);
  json.field("data_parallel_rank", flags.local_data_parallel_id);
  json.field("expert_parallel", flags.enable_expert_parallel);
  json.field("max_num_seqs", flags.max_num_seqs);
  json.field("block_size", flags.block_size);
  json.field("prefix_caching", flags.enable_prefix_caching);
  json.field("kv_cache_memory", flags.kv_cache_memory);
  json.field("on_rank_loss", flags.on_rank_loss == OnRankLoss::kWait ? "wait" : "continue");
  json.end_object();
  return out;
}

}  // namespace flotilla
