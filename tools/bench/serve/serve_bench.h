// A load generator for any OpenAI-compatible server: streaming completions, closed loop (a fixed
// number at once) or open loop (Poisson arrivals at a rate). TTFT: client send to first token
// chunk. ITL: every gap between token chunks, pooled. TPOT: (end − first) / (tokens − 1) of one
// request. Same definitions as vLLM's benchmarks/serve.py.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/status.h"

namespace flotilla::bench {

struct ServeBenchOptions {
  std::vector<std::string> urls;  // "http://host:port", several are taken in turn
  std::string model = "default";
  std::string api_key;
  int32_t requests = 100;
  int32_t concurrency = 8;  // closed loop: requests at once; open loop: at most
  double rate = 0.0;        // requests per second; 0: closed loop
  int32_t prompt = 128;     // tokens, random ids below `vocab`
  int32_t gen = 128;        // max_tokens, with ignore_eos
  int32_t vocab = 1000;
  std::string prompt_text;  // sent in place of random ids, if not empty
  double temperature = 0.0;
  uint64_t seed = 1;
};

struct ServeBenchResult {
  int32_t completed = 0;
  int32_t failed = 0;
  std::vector<std::string> errors;  // the first few
  double seconds = 0.0;
  int64_t prompt_tokens = 0;  // by the servers' usage
  int64_t generated_tokens = 0;
  std::vector<double> ttft_ms, itl_ms, tpot_ms, e2e_ms;  // sorted
};

StatusOr<ServeBenchResult> bench_serve(const ServeBenchOptions& options,
                                       const std::function<void(int32_t done)>& progress);

// Of sorted values; 0 if there are none.
double percentile(const std::vector<double>& sorted, double p);

}  // namespace flotilla::bench
