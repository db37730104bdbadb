#include "launcher/server_flags.h"

#include <doctest/doctest.h>

#include <set>

#include "common/flags/help.h"
#include "launcher/launcher_flags.h"

using namespace flotilla;

namespace {

std::string error_of(std::vector<std::string> args, const Environment& environment = {}) {
  args.insert(args.begin(), {"--model", "M"});
  const auto flags = parse_server_flags(args, environment);
  return flags.ok() ? "(no error)" : flags.status().message();
}

ServerFlags flags_of(std::vector<std::string> args, const Environment& environment = {}) {
  args.insert(args.begin(), {"--model", "M"});
  auto flags = parse_server_flags(args, environment);
  REQUIRE_MESSAGE(flags.ok(), flags.status().message());
  return *flags;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("ServerFlags.DefaultsAreThoseOfTheStruct") {
  const ServerFlags parsed = flags_of({});
  const ServerFlags plain;
  CHECK(parsed.host == plain.host);
  CHECK(parsed.port == plain.port);
  CHECK_FALSE(parsed.metrics_port.has_value());
  CHECK(parsed.max_concurrency == plain.max_concurrency);
  CHECK(parsed.max_queue_length == plain.max_queue_length);
  CHECK(parsed.max_queue_wait == plain.max_queue_wait);
  CHECK(parsed.timeout_graceful_shutdown == plain.timeout_graceful_shutdown);
  CHECK(parsed.max_body_bytes == plain.max_body_bytes);
  CHECK(parsed.max_n == plain.max_n);
  CHECK(parsed.tokenizer == "M");
  CHECK_FALSE(parsed.max_model_len.has_value());
  CHECK(parsed.load_choice == plain.load_choice);
  CHECK_FALSE(parsed.seed.has_value());
  CHECK(parsed.engine == plain.engine);
  CHECK(parsed.null_rate == plain.null_rate);
  CHECK(parsed.max_logprobs == plain.max_logprobs);
  CHECK(parsed.device == plain.device);
  CHECK(parsed.num_threads == plain.num_threads);
  CHECK(parsed.cpu_cores.empty());
  CHECK(parsed.cpu_isa == plain.cpu_isa);
  CHECK(parsed.activation_dtype == plain.activation_dtype);
  CHECK(parsed.kv_cache_memory == plain.kv_cache_memory);
  CHECK_FALSE(parsed.num_gpu_blocks_override.has_value());
  CHECK(parsed.block_size == plain.block_size);
  CHECK(parsed.max_num_seqs == plain.max_num_seqs);
  CHECK(parsed.max_num_batched_tokens == plain.max_num_batched_tokens);
  CHECK(parsed.enable_prefix_caching == plain.enable_prefix_caching);
  CHECK(parsed.data_parallel_size == plain.data_parallel_size);
  CHECK(parsed.on_rank_loss == plain.on_rank_loss);
  CHECK(parsed.rank_timeout == plain.rank_timeout);
  CHECK(parsed.mesh_transport == plain.mesh_transport);
  CHECK(parsed.queue_host == plain.queue_host);
  CHECK(parsed.log_level == plain.log_level);
  CHECK(parsed.non_default == "--model=M");
}

TEST_CASE("ServerFlags.EveryFieldIsSetByItsFlag") {
  const ServerFlags f = flags_of({"--host=h",
                                  "--port=1",
                                  "--metrics-port=2",
                                  "--headless",
                                  "--max-concurrency=3",
                                  "--max-queue-length=4",
                                  "--max-queue-wait=5",
                                  "--timeout-graceful-shutdown=6",
                                  "--max-body-bytes=1M",
                                  "--max-n=7",
                                  "--api-key=k",
                                  "--allowed-origins=a,b",
                                  "--served-model-name=x",
                                  "--served-model-name=y",
                                  "--tokenizer=T",
                                  "--max-model-len=99",
                                  "--load-choices=dummy",
                                  "--seed=8",
                                  "--engine=null",
                                  "--null-rate=1.5",
                                  "--chat-template=c",
                                  "--reasoning-parser=qwen3",
                                  "--max-logprobs=9",
                                  "--device=cpu",
                                  "--num-threads=10",
                                  "--cpu-cores=0-1,3",
                                  "--cpu-isa=avx2",
                                  "--activation-dtype=bf16",
                                  "--kv-cache-memory=1GiB",
                                  "--num-gpu-blocks-override=11",
                                  "--block-size=32",
                                  "--max-num-seqs=12",
                                  "--max-num-batched-tokens=13",
                                  "--no-enable-prefix-caching",
                                  "--data-parallel-size=14",
                                  "--local-data-parallel-id=2",
                                  "--enable-expert-parallel",
                                  "--engine-worker-queue-port=15",
                                  "--queue-host=q",
                                  "--on-rank-loss=wait",
                                  "--rank-timeout=16",
                                  "--mesh-transport=tcp",
                                  "--cluster-secret-file=s",
                                  "--clock-address=unix:/c",
                                  "--run-dir=/r",
                                  "--log-level=warn",
                                  "--log-json"});
  CHECK(f.host == "h");
  CHECK(f.port == 1);
  CHECK(f.metrics_port == 2);
  CHECK(f.headless);
  CHECK(f.max_concurrency == 3);
  CHECK(f.max_queue_length == 4);
  CHECK(f.max_queue_wait.count() == 5);
  CHECK(f.timeout_graceful_shutdown.count() == 6);
  CHECK(f.max_body_bytes == 1 << 20);
  CHECK(f.max_n == 7);
  CHECK(f.api_keys == std::vector<std::string>{"k"});
  CHECK(f.allowed_origins == std::vector<std::string>{"a", "b"});
  CHECK(f.served_model_names == std::vector<std::string>{"x", "y"});
  CHECK(f.tokenizer == "T");
  CHECK(f.max_model_len == 99);
  CHECK(f.load_choice == LoadChoice::kDummy);
  CHECK(f.seed == 8);
  CHECK(f.engine == EngineKind::kNull);
  CHECK(f.null_rate == 1.5);
  CHECK(f.chat_template == "c");
  CHECK(f.reasoning_parser == "qwen3");
  CHECK(f.max_logprobs == 9);
  CHECK(f.device == "cpu");
  CHECK(f.num_threads == 10);
  CHECK(f.cpu_cores == std::vector<int>{0, 1, 3});
  CHECK(f.cpu_isa == "avx2");
  CHECK(f.activation_dtype == ActivationDtype::kBf16);
  CHECK(f.kv_cache_memory == 1 << 30);
  CHECK(f.num_gpu_blocks_override == 11);
  CHECK(f.block_size == 32);
  CHECK(f.max_num_seqs == 12);
  CHECK(f.max_num_batched_tokens == 13);
  CHECK_FALSE(f.enable_prefix_caching);
  CHECK(f.data_parallel_size == 14);
  CHECK(f.local_data_parallel_id == 2);
  CHECK(f.enable_expert_parallel);
  CHECK(f.engine_worker_queue_ports == std::vector<int>{15});
  CHECK(f.queue_host == "q");
  CHECK(f.on_rank_loss == OnRankLoss::kWait);
  CHECK(f.rank_timeout.count() == 16);
  CHECK(f.mesh_transport == MeshTransport::kTcp);
  CHECK(f.cluster_secret_file == "s");
  CHECK(f.clock_address == "unix:/c");
  CHECK(f.run_dir == "/r");
  CHECK(f.log_level == LogLevel::kWarn);
  CHECK(f.log_json);
  CHECK_FALSE(contains(f.non_default, "--api-key=k"));
}

TEST_CASE("ServerFlags.TheModelMustBeNamedUnlessTheEngineIsNull") {
  CHECK(contains(parse_server_flags({}, {}).status().message(), "--model is missing"));
  CHECK(parse_server_flags({"--engine", "null"}, {}).ok());
}

TEST_CASE("ServerFlags.FastDeploysNamesOfTheQueueBoundsAreTakenToo") {
  const ServerFlags f = flags_of({"--scheduler-max-size", "7", "--max-waiting-time", "9"});
  CHECK(f.max_queue_length == 7);
  CHECK(f.max_queue_wait.count() == 9);
  CHECK(flags_of({"--scheduler-max-size", "-1", "--max-waiting-time", "-1"}).max_queue_length ==
        2048);
  CHECK(contains(error_of({"--scheduler-max-size", "7", "--max-queue-length", "8"}),
                 "they mean the same, give one"));
}

TEST_CASE("ServerFlags.FastDeploysVariablesMeanWhatTheyMeanThere") {
  CHECK(flags_of({}, {{"FD_API_KEY", "a,b"}}).api_keys == std::vector<std::string>{"a", "b"});
  CHECK(flags_of({"--api-key", "c"}, {{"FD_API_KEY", "a,b"}}).api_keys ==
        std::vector<std::string>{"c"});
  CHECK(flags_of({}, {{"FD_ENABLE_MULTI_API_SERVER", "1"}}).max_concurrency == 512);
  CHECK(
      flags_of({"--max-concurrency", "9"}, {{"FD_ENABLE_MULTI_API_SERVER", "1"}}).max_concurrency ==
      9);
  CHECK(flags_of({}, {{"FD_ENABLE_MULTI_API_SERVER", "0"}}).max_concurrency == 2048);
}

TEST_CASE("ServerFlags.KeysWithCommasAreRefusedWithoutShowingThem") {
  const std::string error = error_of({"--api-key", "hunter2,x"});
  CHECK(contains(error, "--api-key: got an empty key or one with a comma"));
  CHECK_FALSE(contains(error, "hunter2"));
}

TEST_CASE("ServerFlags.TheSameMetricsPortMeansTheMainPort") {
  CHECK_FALSE(flags_of({"--port", "9000", "--metrics-port", "9000"}).metrics_port.has_value());
}

TEST_CASE("ServerFlags.ContradictionsNameBothFlags") {
  CHECK(contains(error_of({"--max-num-seqs", "64", "--max-num-batched-tokens", "32"}),
                 "--max-num-batched-tokens: got 32, expected at least --max-num-seqs 64"));
  CHECK(contains(error_of({"--local-data-parallel-id", "3"}),
                 "expected less than --data-parallel-size 1"));
  CHECK(contains(error_of({"--cpu-cores", "x"}),
                 "--cpu-cores: got 'x', expected CPUs such as 0-3,8"));
  CHECK(
      contains(error_of({"--clock-address", "x"}), "--clock-address: got 'x', expected unix:PATH"));
}

TEST_CASE("ServerFlags.SeveralRanksWithoutALauncherAreNotInThisVersion") {
  const std::string error = error_of({"--data-parallel-size", "8"});
  CHECK(contains(error, "not in this version"));
  CHECK(contains(error, "multi_api_server --num-servers 8"));
}

TEST_CASE("ServerFlags.WhatTheLauncherSetsCannotStandBehindArgs") {
  for (const char* flag : {"--port=1",
                           "--metrics-port=1",
                           "--local-data-parallel-id=0",
                           "--cpu-cores=0",
                           "--run-dir=/x",
                           "--clock-address=unix:/x"}) {
    const auto flags = parse_server_flags({"--model=M", flag}, {}, ServerFlagsUse::kLauncher);
    CHECK(contains(flags.status().message(), "cannot stand behind --args"));
  }
  CHECK(
      parse_server_flags({"--model=M"}, {{"FLOTILLA_PORT", "1"}}, ServerFlagsUse::kLauncher).ok());
}

// fastdeploy.md §1.2-1.3: every flag of the original is known by name.
TEST_CASE("ServerFlags.EveryFlagOfFastDeployIsKnown") {
  for (const char* name : {"port",
                           "host",
                           "workers",
                           "metrics-port",
                           "controller-port",
                           "max-waiting-time",
                           "max-concurrency",
                           "enable-mm-output",
                           "timeout-graceful-shutdown",
                           "timeout",
                           "api-key",
                           "model",
                           "served-model-name",
                           "revision",
                           "model-config-name",
                           "tokenizer",
                           "tokenizer-base-url",
                           "max-model-len",
                           "block-size",
                           "task",
                           "runner",
                           "convert",
                           "override-pooler-config",
                           "model-impl",
                           "use-warmup",
                           "limit-mm-per-prompt",
                           "mm-processor-kwargs",
                           "max-encoder-cache",
                           "max-processor-cache",
                           "enable-mm",
                           "reasoning-parser",
                           "tool-call-parser",
                           "tool-parser-plugin",
                           "chat-template",
                           "speculative-config",
                           "dynamic-load-weight",
                           "load-strategy",
                           "rsync-config",
                           "engine-worker-queue-port",
                           "quantization",
                           "graph-optimization-config",
                           "use-cudagraph",
                           "plas-attention-config",
                           "guided-decoding-backend",
                           "guided-decoding-disable-any-whitespace",
                           "enable-logprob",
                           "max-logprobs",
                           "logprobs-mode",
                           "enable-keep-sampling-mask",
                           "enable-entropy",
                           "seed",
                           "enable-early-stop",
                           "early-stop-config",
                           "lm_head-fp32",
                           "logits-processors",
                           "tensor-parallel-size",
                           "data-parallel-size",
                           "local-data-parallel-id",
                           "enable-expert-parallel",
                           "enable-eplb",
                           "eplb-config",
                           "max-num-seqs",
                           "num-gpu-blocks-override",
                           "max-num-batched-tokens",
                           "gpu-memory-utilization",
                           "disable-custom-all-reduce",
                           "enable-flashinfer-allreduce-fusion",
                           "use-internode-ll-two-stage",
                           "disable-sequence-parallel-moe",
                           "enable-chunked-moe",
                           "chunked-moe-size",
                           "shutdown-comm-group-if-worker-idle",
                           "routing-replay-config",
                           "kv-cache-ratio",
                           "swap-space",
                           "prealloc-dec-block-slot-num-threshold",
                           "cache-queue-port",
                           "static-decode-blocks",
                           "kvcache-storage-backend",
                           "write-policy",
                           "enable-prefix-caching",
                           "enable-output-caching",
                           "enable-chunked-prefill",
                           "max-num-partial-prefills",
                           "max-long-partial-prefills",
                           "long-prefill-token-threshold",
                           "disable-chunked-mm-input",
                           "ips",
                           "load-choices",
                           "benchmark-metrics-config",
                           "splitwise-role",
                           "cache-transfer-protocol",
                           "pd-comm-port",
                           "rdma-comm-ports",
                           "router",
                           "innode-prefill-ports",
                           "scheduler-name",
                           "scheduler-max-size",
                           "scheduler-ttl",
                           "scheduler-host",
                           "scheduler-port",
                           "scheduler-db",
                           "scheduler-password",
                           "scheduler-topic",
                           "scheduler-min-load-score",
                           "scheduler-load-shards-num",
                           "scheduler-sync-period",
                           "scheduler-expire-period",
                           "scheduler-release-load-expire-period",
                           "scheduler-reader-parallel",
                           "scheduler-writer-parallel",
                           "scheduler-reader-batch-size",
                           "scheduler-writer-batch-size",
                           "enable-overlap-schedule"}) {
    CAPTURE(name);
    CHECK(server_flag_table().find(name) != nullptr);
  }
}

TEST_CASE("ServerFlags.LaterFlagsStopAndSayWhatTheyNeed") {
  CHECK(error_of({"--device", "cuda"}) ==
        "--device cuda is not in this version: needs the CUDA kernels and an NVIDIA GPU");
  for (const char* flag : {"--splitwise-role=prefill",
                           "--speculative-config={}",
                           "--router=h:1",
                           "--scheduler-name=splitwise",
                           "--scheduler-host=h",
                           "--tensor-parallel-size=2",
                           "-tp=2",
                           "--controller-port=9",
                           "--gpu-memory-utilization=0.9",
                           "--cache-queue-port=1",
                           "--pd-comm-port=2334",
                           "--rdma-comm-ports=1,2",
                           "--enable-eplb",
                           "--quantization=wint8"}) {
    CAPTURE(flag);
    CHECK(contains(error_of({flag}), "is not in this version: "));
  }
  for (const char* flag : {"--splitwise-role=mixed",
                           "--scheduler-name=local",
                           "--tensor-parallel-size=1",
                           "-tp=1",
                           "--controller-port=-1",
                           "--timeout=0",
                           "--enable-logprob",
                           "--enable-chunked-prefill",
                           "--enable-output-caching",
                           "--load-strategy=normal"}) {
    CAPTURE(flag);
    CHECK(error_of({flag}) == "(no error)");
  }
  CHECK(contains(error_of({"--no-enable-output-caching"}), "is not in this version"));
}

TEST_CASE("ServerFlags.TheTableIsSound") {
  for (const FlagTable* table : {&server_flag_table(), &launcher_flag_table()}) {
    std::set<std::string> names;
    std::set<std::string> groups;
    for (const FlagGroup& group : table->groups) {
      groups.insert(group.name);
      CHECK_FALSE(group.example.empty());
    }
    for (const FlagSpec& flag : table->flags) {
      CAPTURE(flag.name);
      CHECK(names.insert(normalise_flag_name(flag.name)).second);
      CHECK(groups.count(flag.group) == 1);
      if (flag.availability == Availability::kWorks) CHECK_FALSE(flag.help.empty());
      if (flag.availability != Availability::kWorks) CHECK_FALSE(flag.note.empty());
    }
  }
}

TEST_CASE("ServerFlags.ALaunchersFlagIsNamedAsSuch") {
  CHECK(error_of({"--num-servers", "2"}) ==
        "--num-servers is a flag of multi_api_server: put it before --args");
}

TEST_CASE("ServerFlags.InfoFlagsWin") {
  CHECK(server_flags_info({"--help"}).value().starts_with("Usage: api_server"));
  CHECK(server_flags_info({"--version"}).value().starts_with("api_server "));
  CHECK_FALSE(server_flags_info({"--model", "M"}).has_value());
}

TEST_CASE("QueuePortOf.FollowsTheListRules") {
  ServerFlags flags;
  CHECK(queue_port_of(flags, 3) == 0);
  flags.engine_worker_queue_ports = {25611};
  CHECK(queue_port_of(flags, 3) == 25614);
  flags.engine_worker_queue_ports = {25611, 25621, 25631};
  CHECK(queue_port_of(flags, 1) == 25621);
}
