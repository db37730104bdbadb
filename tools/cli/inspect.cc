// flotilla inspect DIR: what the model is, what a rank of it needs, whether it fits here.
#include <algorithm>
#include <cstdio>
#include <string>

#include "common/placement.h"
#include "engine/model/model.h"
#include "engine/rank_parts.h"
#include "tools/cli/commands.h"

namespace flotilla::cli {
namespace {

struct Parameters {
  int64_t attention = 0, dense = 0, shared = 0, router = 0, norms = 0, embedding = 0, head = 0;
  int64_t expert = 0;  // one expert over all MoE layers

  int64_t replicated() const {
    return attention + dense + shared + router + norms + embedding + head;
  }
};

Parameters count(const ModelConfig& c) {
  Parameters p;
  const int64_t q = c.num_heads * c.head_dim, kv = c.num_kv_heads * c.head_dim;
  p.attention = c.num_layers * c.hidden_size * (2 * q + 2 * kv);
  p.dense = (c.num_layers - c.num_moe_layers()) * 3 * c.hidden_size * c.intermediate_size;
  p.shared = c.num_moe_layers() * 3 * c.hidden_size * c.moe.shared_intermediate_size;
  p.router = c.num_moe_layers() * c.moe.num_experts * c.hidden_size;
  p.norms = (2 * c.num_layers + 1) * c.hidden_size;
  p.embedding = c.vocab_size * c.hidden_size;
  p.head = c.tie_word_embeddings ? 0 : c.vocab_size * c.hidden_size;
  p.expert = c.num_moe_layers() * 3 * c.hidden_size * c.moe.intermediate_size;
  return p;
}

std::string shown_bytes(double bytes) {
  char text[32];
  if (bytes >= 1e9) {
    std::snprintf(text, sizeof text, "%.2f GB", bytes / 1e9);
  } else {
    std::snprintf(text, sizeof text, "%.1f MB", bytes / 1e6);
  }
  return text;
}

std::string shown_count(int64_t n) {
  char text[32];
  if (n >= 1'000'000'000) {
    std::snprintf(text, sizeof text, "%.3f B", static_cast<double>(n) / 1e9);
  } else {
    std::snprintf(text, sizeof text, "%.2f M", static_cast<double>(n) / 1e6);
  }
  return text;
}

void row(const char* name, const std::string& value) {
  std::printf("%-22s %s\n", name, value.c_str());
}

void print_ranks(const ModelConfig& c, const Parameters& p, int32_t ranks) {
  // Weights are kept in bf16; a tied head has its own packed copy beside the lookup table.
  const int64_t tied_copy = c.tie_word_embeddings ? p.embedding : 0;
  const double replicated = 2.0 * static_cast<double>(p.replicated() + tied_copy);
  const auto experts = static_cast<int32_t>(c.moe.num_experts);
  std::printf(
      "\n%-8s %-10s %-14s %s\n", "ranks", "experts", "weights/rank", "all ranks on this machine");
  const auto available = static_cast<double>(available_memory());
  for (int32_t n = 1; n <= ranks; n *= 2) {
    int64_t most = 0;
    if (experts > 0) {
      const ExpertPlacement placement = place_experts(experts, n, all_ranks(n));
      for (const Rank r : all_ranks(n))
        most = std::max<int64_t>(most, static_cast<int64_t>(experts_of(placement, r).size()));
    }
    const double bytes = replicated + 2.0 * static_cast<double>(most * p.expert);
    const double all = replicated * n + 2.0 * static_cast<double>(c.moe.num_experts * p.expert);
    std::printf("%-8d %-10lld %-14s %s, %s\n",
                n,
                static_cast<long long>(most),
                shown_bytes(bytes).c_str(),
                shown_bytes(all).c_str(),
                all < available
                    ? "fits"
                    : ("does not fit in the " + shown_bytes(available) + " that are free").c_str());
  }
}

}  // namespace

int run_inspect(Args args) {
  const bool asked = !args.empty() && (args[0] == "--help" || args[0] == "-h");
  if (asked || args.size() != 1) {
    std::fputs(
        "usage: flotilla inspect DIR\n\nThe model in DIR (config.json, *.safetensors): family, "
        "shapes, parameters, memory per rank and per token.\n",
        asked ? stdout : stderr);
    return asked ? kOk : kUsage;
  }
  const StatusOr<ModelFiles> files = open_model({.dir = std::string(args[0])});
  if (!files.ok()) {
    std::fprintf(stderr, "flotilla inspect: %s\n", files.status().message().c_str());
    return kFailed;
  }
  const ModelConfig& c = files->config;
  const Parameters p = count(c);
  const int64_t total = p.replicated() + c.moe.num_experts * p.expert;
  const int64_t active = total - p.embedding + (c.tie_word_embeddings ? p.embedding : 0) -
                         (c.moe.num_experts - c.moe.experts_per_token) * p.expert;
  row("architecture", c.architecture);
  row("layers",
      std::to_string(c.num_layers) +
          (c.has_moe() ? " (" + std::to_string(c.num_moe_layers()) + " with experts)" : ""));
  row("hidden size", std::to_string(c.hidden_size));
  row("attention",
      std::to_string(c.num_heads) + " heads, " + std::to_string(c.num_kv_heads) + " KV heads of " +
          std::to_string(c.head_dim) + (c.qk_norm ? ", q/k norm" : "") +
          (c.rope_style == RopeStyle::kInterleaved ? ", interleaved rotation"
                                                   : ", half-split rotation"));
  if (c.num_moe_layers() < c.num_layers) row("dense FFN", std::to_string(c.intermediate_size));
  if (c.has_moe()) {
    row("experts",
        std::to_string(c.moe.num_experts) + " of width " + std::to_string(c.moe.intermediate_size) +
            ", " + std::to_string(c.moe.experts_per_token) + " per token" +
            (c.moe.shared_intermediate_size > 0
                 ? ", shared width " + std::to_string(c.moe.shared_intermediate_size)
                 : ""));
  }
  row("vocabulary", std::to_string(c.vocab_size) + (c.tie_word_embeddings ? " (tied)" : ""));
  row("positions", std::to_string(c.max_position));
  row("weights in files",
      c.fp8_block > 0
          ? "block FP8, " + std::to_string(c.fp8_block) + " × " + std::to_string(c.fp8_block)
          : "unquantised");
  row("parameters",
      shown_count(total) + (c.has_moe() ? ", " + shown_count(active) + " active per token" : ""));
  row("KV cache per token",
      shown_bytes(static_cast<double>(c.kv_bytes_per_token(DType::kBf16))) + " bf16, " +
          shown_bytes(static_cast<double>(c.kv_bytes_per_token(DType::kF32))) + " f32");
  row("digest", files->digest);
  for (const std::string& note : c.notes) row("note", note);
  print_ranks(c, p, c.has_moe() ? 8 : 1);
  return kOk;
}

}  // namespace flotilla::cli
