// flotilla bench engine|serve|clock: results as one JSON object on stdout, alone there; progress on
// stderr.
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "common/flags/flags.h"
#include "common/flags/help.h"
#include "common/log.h"
#include "tools/bench/bench_json.h"
#include "tools/bench/engine/clock_bench.h"
#include "tools/bench/engine/engine_bench.h"
#include "tools/bench/serve/serve_bench.h"
#include "tools/cli/commands.h"

namespace flotilla::cli {
namespace {

constexpr char kGroup[] = "Benchmark";

FlagSpec integer(std::string name,
                 std::string value,
                 std::string unit,
                 std::string help,
                 int64_t min,
                 int64_t max = 1 << 24) {
  return {.name = std::move(name),
          .type = FlagType::kInt,
          .group = kGroup,
          .default_value = std::move(value),
          .unit = std::move(unit),
          .help = std::move(help),
          .min = min,
          .max = max};
}

FlagTable table_of(std::string command,
                   std::string about,
                   std::string example,
                   std::vector<FlagSpec> rows) {
  FlagTable table;
  table.program = "flotilla bench " + command;
  table.usage = table.program + " [flags]";
  table.about = std::move(about);
  table.groups = {{kGroup, std::move(example)}};
  table.flags = std::move(rows);
  table.flags.push_back(
      {.name = "json",
       .type = FlagType::kBool,
       .group = kGroup,
       .default_value = "true",
       .help = "JSON on stdout (there is no other form; the flag says so in scripts)."});
  add_common_flags(&table);
  return table;
}

// Parsed flags, or an exit code.
struct Parsed {
  ParsedFlags flags;
  std::optional<int> exit_code;
};
Parsed parse(const FlagTable& table, Args args) {
  const std::vector<std::string> words(args.begin(), args.end());
  if (const std::optional<std::string> info = flags_info(table, words)) {
    std::fputs(info->c_str(), stdout);
    return {{}, kOk};
  }
  StatusOr<ParsedFlags> parsed = parse_flags(table, words, {});
  if (!parsed.ok()) {
    std::fprintf(stderr, "%s: %s\n", table.program.c_str(), parsed.status().message().c_str());
    return {{}, kUsage};
  }
  return {std::move(*parsed), std::nullopt};
}

int failed(const Status& status) {
  std::fprintf(stderr, "flotilla bench: %s\n", status.message().c_str());
  return kFailed;
}

std::vector<int> pinned_cores(int wanted) {
  const auto cpus = static_cast<int>(std::thread::hardware_concurrency());
  std::vector<int> cores;
  for (int i = 0; i < wanted && wanted <= cpus; ++i) cores.push_back(i);
  return cores;
}

int run_engine(Args args) {
  const FlagTable table = table_of(
      "engine",
      "Prefill and decode speed of the engine without HTTP. Figures are totals over the batch.",
      "--model ./model --batch 8 --prompt 512 --gen 128 --num-threads 2",
      {{.name = "model",
        .group = kGroup,
        .metavar = "DIR",
        .help = "Folder with config.json and *.safetensors."},
       {.name = "load-choices",
        .type = FlagType::kChoice,
        .group = kGroup,
        .default_value = "default",
        .help = "dummy: random weights.",
        .choices = {{"default"}, {"dummy"}}},
       {.name = "device",
        .type = FlagType::kChoice,
        .group = kGroup,
        .default_value = "cpu",
        .help = "Where to compute.",
        .choices = {{"cpu"}, {"auto"}, {"cuda", Availability::kLater, "needs the CUDA engine"}}},
       integer("batch", "1", "sequences", "Sequences at once.", 1),
       integer("prompt", "512", "tokens", "Tokens of each prompt.", 1),
       integer("gen", "128", "tokens", "Tokens that each sequence yields.", 1),
       integer("ranks", "1", "ranks", "Ranks that share the experts and the batch.", 1, 256),
       integer("num-threads", "1", "threads", "Computing threads of each rank.", 1, 1024),
       integer("max-num-batched-tokens", "2048", "tokens", "Rows of one step.", 1),
       integer("block-size", "64", "tokens", "Tokens of a KV block.", 1, 4096),
       integer("runs", "5", "runs", "Counted runs, behind one that is not.", 1, 1000),
       {.name = "pin",
        .type = FlagType::kBool,
        .group = kGroup,
        .default_value = "true",
        .help = "Pin threads to the first CPUs.",
        .negatable = true},
       {.name = "activation-dtype",
        .type = FlagType::kChoice,
        .group = kGroup,
        .default_value = "auto",
        .help = "Type of what goes into GEMMs.",
        .choices = {{"auto"}, {"f32"}, {"bf16"}}},
       {.name = "cpu-isa",
        .group = kGroup,
        .default_value = "auto",
        .help = "Instruction set: auto, reference, avx2, avx512, avx512_bf16."}});
  const Parsed parsed = parse(table, args);
  if (parsed.exit_code) return *parsed.exit_code;
  const ParsedFlags& f = parsed.flags;
  if (!f.has("model")) return failed(invalid_argument("--model: none was given"));
  const StatusOr<CpuIsa> isa = parse_cpu_isa(f.text("cpu-isa"));
  if (!isa.ok()) return failed(isa.status());
  configure_logging({.level = LogLevel::kWarn});
  bench::EngineBenchOptions o;
  o.model = f.text("model");
  o.dummy_weights = f.text("load-choices") == "dummy";
  o.batch = static_cast<int32_t>(f.integer("batch"));
  o.prompt = static_cast<int32_t>(f.integer("prompt"));
  o.gen = static_cast<int32_t>(f.integer("gen"));
  o.ranks = static_cast<int32_t>(f.integer("ranks"));
  o.num_threads = static_cast<int>(f.integer("num-threads"));
  if (f.boolean("pin")) o.cores = pinned_cores(o.ranks * o.num_threads);
  o.isa = *isa;
  const std::string dtype = f.text("activation-dtype");
  o.activation = dtype == "bf16" || (dtype == "auto" && *isa == CpuIsa::kAvx512Bf16) ? DType::kBf16
                                                                                     : DType::kF32;
  o.max_num_batched_tokens = static_cast<int32_t>(f.integer("max-num-batched-tokens"));
  o.block_size = static_cast<int32_t>(f.integer("block-size"));
  o.runs = static_cast<int>(f.integer("runs"));
  const StatusOr<bench::EngineBenchResult> result = bench::bench_engine(
      o, [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); });
  if (!result.ok()) return failed(result.status());
  std::string out;
  JsonWriter json(&out);
  json.begin_object();
  json.key("results");
  json.begin_array();
  json.begin_object();
  json.field("batch", o.batch);
  json.field("prompt", o.prompt);
  json.field("gen", o.gen);
  bench::write_runs(&json, "prefill_tok_s", result->prefill_tok_s);
  bench::write_runs(&json, "decode_tok_s", result->decode_tok_s);
  json.end_object();
  json.end_array();
  json.field("ranks", o.ranks);
  json.field("num_threads", o.num_threads);
  json.field("cpu_isa", cpu_isa_name(o.isa));
  json.field("activation_dtype", dtype_name(o.activation));
  bench::write_environment(&json, f.non_default());
  json.end_object();
  std::puts(out.c_str());
  return kOk;
}

void write_percentiles(JsonWriter* json, std::string_view name, const std::vector<double>& sorted) {
  json->key(name);
  json->begin_object();
  for (const auto& [label, p] : {std::pair("p50", 50.0),
                                 std::pair("p90", 90.0),
                                 std::pair("p99", 99.0),
                                 std::pair("max", 100.0)}) {
    json->field(label, bench::percentile(sorted, p));
  }
  json->end_object();
}

int run_clock(Args args) {
  const FlagTable table =
      table_of("clock",
               "Time from a rank's want to its go, with the real step clock and every rank in a "
               "process of its own.",
               "--ranks 8",
               {integer("ranks", "8", "ranks", "Ranks of the fleet.", 1, 1024),
                integer("steps", "20000", "steps", "Counted steps.", 1, 10'000'000)});
  const Parsed parsed = parse(table, args);
  if (parsed.exit_code) return *parsed.exit_code;
  const bench::ClockBenchOptions o{.ranks = static_cast<int32_t>(parsed.flags.integer("ranks")),
                                   .steps = static_cast<int32_t>(parsed.flags.integer("steps"))};
  const StatusOr<std::vector<double>> micros = bench::bench_clock(o);
  if (!micros.ok()) return failed(micros.status());
  std::string out;
  JsonWriter json(&out);
  json.begin_object();
  json.field("ranks", o.ranks);
  json.field("steps", o.steps);
  write_percentiles(&json, "step_us", *micros);
  bench::write_environment(&json, parsed.flags.non_default());
  json.end_object();
  std::puts(out.c_str());
  return kOk;
}

int run_serve(Args args) {
  const FlagTable table = table_of(
      "serve",
      "Load generator for OpenAI-compatible servers: streamed /v1/completions, closed loop, or "
      "open loop with --rate.",
      "--url http://127.0.0.1:8000 --requests 200 --concurrency 32",
      {{.name = "url",
        .group = kGroup,
        .metavar = "URL",
        .help = "Base address; may be repeated, then clients take them in turn.",
        .repeatable = true},
       {.name = "served-model",
        .group = kGroup,
        .metavar = "NAME",
        .default_value = "default",
        .help = "Sent as \"model\"."},
       {.name = "api-key",
        .group = kGroup,
        .metavar = "KEY",
        .help = "Bearer key.",
        .secret = true},
       integer("requests", "100", "requests", "Requests in all.", 1),
       integer("concurrency", "8", "requests", "Requests at once; with --rate: at most.", 1, 4096),
       {.name = "rate",
        .type = FlagType::kFloat,
        .group = kGroup,
        .default_value = "0",
        .unit = "requests/s",
        .help = "Poisson arrivals at this rate; 0: closed loop.",
        .min = 0},
       integer("prompt", "128", "tokens", "Random token ids of each prompt.", 1),
       integer("gen", "128", "tokens", "Tokens asked for.", 1),
       integer("vocab", "1000", "ids", "Random ids are below that.", 1),
       {.name = "prompt-text",
        .group = kGroup,
        .metavar = "TEXT",
        .help = "Prompt in place of random ids."},
       {.name = "temperature",
        .type = FlagType::kFloat,
        .group = kGroup,
        .default_value = "0",
        .help = "Sampling temperature.",
        .min = 0}});
  std::vector<std::string_view> words(args.begin(), args.end());
  if (!words.empty() && !words.front().starts_with("-"))
    words.insert(words.begin(), "--url");  // flotilla bench serve URL
  const Parsed parsed = parse(table, words);
  if (parsed.exit_code) return *parsed.exit_code;
  const ParsedFlags& f = parsed.flags;
  bench::ServeBenchOptions o;
  o.urls = f.list("url");
  if (o.urls.empty()) return failed(invalid_argument("--url: none was given"));
  o.model = f.text("served-model");
  o.api_key = f.text("api-key");
  o.requests = static_cast<int32_t>(f.integer("requests"));
  o.concurrency = static_cast<int32_t>(f.integer("concurrency"));
  o.rate = f.number("rate");
  o.prompt = static_cast<int32_t>(f.integer("prompt"));
  o.gen = static_cast<int32_t>(f.integer("gen"));
  o.vocab = static_cast<int32_t>(f.integer("vocab"));
  o.prompt_text = f.text("prompt-text");
  o.temperature = f.number("temperature");
  const StatusOr<bench::ServeBenchResult> result = bench::bench_serve(o, [&](int32_t done) {
    if (done % std::max(1, o.requests / 10) == 0)
      std::fprintf(stderr, "%d of %d requests\n", done, o.requests);
  });
  if (!result.ok()) return failed(result.status());
  std::string out;
  JsonWriter json(&out);
  json.begin_object();
  json.field("completed", result->completed);
  json.field("failed", result->failed);
  json.key("errors");
  json.begin_array();
  for (const std::string& error : result->errors) json.value(error);
  json.end_array();
  json.field("seconds", result->seconds);
  json.field("requests_per_s", result->completed / result->seconds);
  json.field("prompt_tok_s", static_cast<double>(result->prompt_tokens) / result->seconds);
  json.field("generated_tok_s", static_cast<double>(result->generated_tokens) / result->seconds);
  write_percentiles(&json, "ttft_ms", result->ttft_ms);
  write_percentiles(&json, "itl_ms", result->itl_ms);
  write_percentiles(&json, "tpot_ms", result->tpot_ms);
  write_percentiles(&json, "e2e_ms", result->e2e_ms);
  bench::write_environment(&json, f.non_default());
  json.end_object();
  std::puts(out.c_str());
  return result->failed == 0 ? kOk : kFailed;
}

}  // namespace

int run_bench(Args args) {
  if (!args.empty() && args[0] == "engine") return run_engine(args.subspan(1));
  if (!args.empty() && args[0] == "serve") return run_serve(args.subspan(1));
  if (!args.empty() && args[0] == "clock") return run_clock(args.subspan(1));
  const bool asked = !args.empty() && (args[0] == "--help" || args[0] == "-h");
  std::fputs("usage: flotilla bench engine|serve|clock [flags]; each has --help\n",
             asked ? stdout : stderr);
  return asked ? kOk : kUsage;
}

}  // namespace flotilla::cli
