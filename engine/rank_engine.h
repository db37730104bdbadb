// The engine of a rank with a model: loads it, joins the group, runs steps, gives tokens.
//
// One engine thread with one place to wait: new requests, results of the device and messages of the
// step clock all wake it there. The device thread (ModelRunner) computes; a loader thread brings
// the weights up while the engine thread already answers the clock.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/ids.h"
#include "common/status.h"
#include "engine/engine.h"
#include "engine/model/model.h"
#include "kernels/cpu/cpu_device.h"

namespace flotilla {

class EngineMetrics;

// How a rank takes part in a fleet.
struct GroupOptions {
  Rank rank;
  int32_t num_ranks = 1;
  bool expert_parallel = false;
  std::string clock_socket;    // path of the step clock's Unix socket; empty: there is none, and
                               // num_ranks is 1
  std::string mesh_directory;  // private folder for the mesh's Unix sockets; empty: TCP on loopback
  std::string cluster_secret;
  std::chrono::milliseconds mesh_deadline{60'000};  // of one wait for another rank's rows
  std::vector<std::pair<std::string, std::string>>
      must_match;  // flags that all ranks need alike, besides model, types and version
};

struct RankEngineOptions {
  ModelOptions model;
  CpuDeviceOptions cpu;
  DType activation = DType::kF32;
  std::optional<int64_t> max_model_len;  // absent: 2048 or less, as model and cache allow
  int32_t max_num_seqs = 64;
  int32_t max_num_batched_tokens = 2048;
  int32_t block_size = 64;
  std::optional<int64_t> num_blocks;  // wins over kv_cache_bytes
  int64_t kv_cache_bytes = int64_t{2} << 30;
  bool prefix_caching = true;
  uint32_t max_waiting = 2048;         // requests; beyond: kResourceExhausted
  std::vector<TokenId> eos_token_ids;  // besides config.json's
  GroupOptions group;
  std::chrono::steady_clock::time_point process_start = std::chrono::steady_clock::now();
};

class RankEngine final : public Engine {
 public:
  // Reads configuration and headers, checks that everything fits, and begins to load. Errors name
  // the flag to change. `metrics` may be null and outlives the engine.
  static StatusOr<std::unique_ptr<RankEngine>> create(RankEngineOptions options,
                                                      EngineMetrics* metrics);
  ~RankEngine() override;

  Status submit(GenerationRequest request, TokenSink* sink) override;
  void cancel(TokenSink* sink, uint64_t id) override;
  EngineLoad load() const override;
  EngineHealth health() const override;
  EngineLimits limits() const override;
  void begin_drain() override;
  bool drained() const override;
  bool wait_drained(std::chrono::steady_clock::time_point deadline) override;
  void stop() override;

  const ModelConfig& config() const;
  // SHA-256 of what the model is (not of its weights' bytes): hex.
  const std::string& model_digest() const;
  // Waits until the engine serves or has failed. False at the deadline.
  bool wait_started(std::chrono::steady_clock::time_point deadline);
  // Waits until the engine is drained, has failed or was stopped. False at the deadline.
  bool wait_ended(std::chrono::steady_clock::time_point deadline);
  // Why it failed, else ok. kFailedPrecondition: the step clock refused this rank; kInvalidArgument,
  // kNotFound: the model is wrong.
  Status failure() const;
  // Once, when the front can take requests: the fleet is told that this rank serves as soon as the
  // engine does.
  void front_is_up();

 private:
  class Impl;
  explicit RankEngine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace flotilla
