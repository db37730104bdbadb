#include "engine/rank_parts.h"

#include <algorithm>
#include <cstdio>

#include "common/fd.h"
#include "common/log.h"
#include "common/placement.h"
#include "engine/runner/cpu_runner.h"

namespace flotilla {
namespace {

constexpr int64_t kDefaultMaxModelLen = 2048;

std::string mib(double bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f MiB", bytes / (1 << 20));
  return text;
}

}  // namespace

StatusOr<RankSetup> set_up_rank(const RankEngineOptions& o) {
  StatusOr<ModelFiles> files = open_model(o.model);
  if (!files.ok()) return files.status();
  RankSetup setup{.files = std::move(*files), .layout = {}, .limits = {}, .in_group = false};
  const ModelConfig& c = setup.files.config;
  setup.layout = {.num_layers = c.num_layers,
                 .num_blocks = 0,
                 .block_size = o.block_size,
                 .num_kv_heads = c.num_kv_heads,
                 .head_dim = c.head_dim,
                 .dtype = o.activation};
  setup.layout.num_blocks = 1;
  const auto block_bytes = static_cast<int64_t>(setup.layout.block_bytes_all_layers());
  const int64_t blocks = o.num_blocks.value_or(o.kv_cache_bytes / block_bytes);
  if (blocks < 1 || blocks > INT32_MAX) {
    return invalid_argument("--kv-cache-memory of " + mib(static_cast<double>(o.kv_cache_bytes)) +
                            " gives " + std::to_string(blocks) + " KV blocks; one block of " +
                            std::to_string(o.block_size) + " tokens of this model needs " +
                            mib(static_cast<double>(block_bytes)));
  }
  setup.layout.num_blocks = blocks;
  const int64_t capacity = blocks * o.block_size;
  if (o.max_model_len && *o.max_model_len > capacity) {
    return invalid_argument(
        "--max-model-len " + std::to_string(*o.max_model_len) + " needs " +
        std::to_string((*o.max_model_len + o.block_size - 1) / o.block_size) + " KV blocks of " +
        std::to_string(o.block_size) + " tokens, there are " + std::to_string(blocks) +
        ": raise --num-gpu-blocks-override or --kv-cache-memory (one block is " +
        mib(static_cast<double>(block_bytes)) + ")");
  }
  setup.limits.max_model_len =
      o.max_model_len.value_or(std::min({kDefaultMaxModelLen, c.max_position, capacity}));
  setup.limits.vocab_size = c.vocab_size;
  setup.limits.max_prompt_tokens = setup.limits.max_model_len - 1;
  if (o.max_num_batched_tokens < o.max_num_seqs) {
    return invalid_argument("--max-num-batched-tokens " + std::to_string(o.max_num_batched_tokens) +
                            " is less than --max-num-seqs " + std::to_string(o.max_num_seqs) +
                            ": every running sequence needs room for one token in a step");
  }
  setup.in_group = o.group.expert_parallel && c.has_moe() && !o.group.clock_socket.empty();
  for (const std::string& note : c.notes) log_info("model", {{"note", note}});
  if (setup.limits.max_model_len > c.max_position) {
    log_warn("max_model_len_beyond_training",
             {{"max_model_len", setup.limits.max_model_len},
              {"max_position_embeddings", c.max_position},
              {"note", "the model was not trained on such positions; text there may be poor"}});
  }
  if (o.group.expert_parallel && !c.has_moe()) {
    log_info("model", {{"note", "no experts: --enable-expert-parallel changes nothing"}});
  }
  if (c.fp8_block > 0) {
    log_info("model",
             {{"note", "FP8 weights are dequantised at load"},
              {"to", dtype_name(o.activation == DType::kBf16 ? DType::kBf16 : DType::kF32)}});
  }
  return setup;
}

StatusOr<RankParts> load_rank(const RankEngineOptions& o,
                              const RankSetup& setup,
                              ModelFiles files,
                              MeshExchange* mesh,
                              const std::function<void(double)>& progress) {
  RankParts parts;
  parts.device = make_cpu_device(o.cpu);
  const ModelConfig config = files.config;
  const KvLayout layout = setup.layout;
  const bool moe = config.has_moe();
  // Experts are the larger part of what they are in.
  const double dense_share = moe ? 0.3 : 1.0;
  StatusOr<std::unique_ptr<Model>> model =
      Model::load(std::move(files),
                  *parts.device,
                  {.activation = o.activation,
                   .max_positions = setup.limits.max_model_len,
                   .threads = o.cpu.num_threads,
                   .progress = [&](double fraction) { progress(fraction * dense_share); }});
  if (!model.ok()) return model.status();
  parts.model = std::move(*model);
  if (moe) {
    const auto num_experts = static_cast<int32_t>(config.moe.num_experts);
    const int32_t ranks = setup.in_group ? o.group.num_ranks : 1;
    const Rank self = setup.in_group ? o.group.rank : Rank(0);
    const std::vector<ExpertId> mine =
        experts_of(place_experts(num_experts, ranks, all_ranks(ranks)), self);
    FLOTILLA_RETURN_IF_ERROR(
        parts.model->lm().experts()->place(mine, o.cpu.num_threads, [&](double fraction) {
          progress(dense_share + fraction * (1 - dense_share));
        }));
    if (!setup.in_group)
      parts.local = std::make_unique<LocalExchange>(num_experts, config.hidden_size);
  } else {
    parts.local = std::make_unique<LocalExchange>(0, config.hidden_size);
  }
  parts.mesh = mesh;
  StatusOr<KvCache> cache = KvCache::create(layout, *parts.device);
  if (!cache.ok()) return cache.status();
  parts.cache = std::move(*cache);
  return parts;
}

uint64_t available_memory() {
  uint64_t available = UINT64_MAX;
  if (const StatusOr<std::string> info = read_file("/proc/meminfo", 1 << 16); info.ok()) {
    const size_t at = info->find("MemAvailable:");
    unsigned long long kib = 0;
    if (at != info->npos && std::sscanf(info->c_str() + at, "MemAvailable: %llu", &kib) == 1)
      available = kib * 1024;
  }
  const StatusOr<std::string> limit = read_file("/sys/fs/cgroup/memory.max", 64);
  const StatusOr<std::string> used = read_file("/sys/fs/cgroup/memory.current", 64);
  unsigned long long limit_bytes = 0, used_bytes = 0;
  if (limit.ok() && used.ok() && std::sscanf(limit->c_str(), "%llu", &limit_bytes) == 1 &&
      std::sscanf(used->c_str(), "%llu", &used_bytes) == 1) {
    available =
        std::min<uint64_t>(available, limit_bytes > used_bytes ? limit_bytes - used_bytes : 0);
  }
  return available;
}

}  // namespace flotilla
