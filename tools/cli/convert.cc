#include <sched.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>

#include "tools/cli/commands.h"
#include "tools/convert/convert.h"

namespace flotilla::cli {
namespace {

constexpr std::string_view kHelp =
    "usage: flotilla convert MODEL.gguf OUT_DIR [--dtype bf16|f32] [--shards N]\n"
    "       flotilla convert DENSE_DIR OUT_DIR --moe-twin KIND [--experts N] [--shards N]\n\n"
    "From a GGUF file of the architecture llama (F32, F16, BF16, Q8_0, Q4_0, Q4_1; byte-level "
    "BPE)\n"
    "to a folder that the server loads: config.json, generation_config.json, tokenizer.json,\n"
    "tokenizer_config.json, model.safetensors.\n\n"
    "Or from such a folder with a dense Llama model to its Mixture-of-Experts twin, which says "
    "the\n"
    "same in the same words, as long as every token reaches the right experts:\n"
    "  ernie-pairs   ERNIE-4.5: experts in pairs that hold the halves of the dense FFN, a shared\n"
    "                expert, layer 0 dense; a pair of noise that only the router's bias keeps out\n"
    "  ernie-strict  and guard neurons, which spoil the text when a wrong pair is chosen\n"
    "  qwen3-pairs, qwen3-strict   the same for Qwen3-MoE, without shared expert, noise and "
    "bias\n\n"
    "  --dtype TYPE   of the weights: bf16 (default) or f32\n"
    "  --experts N    8 by default; even\n"
    "  --shards N     files that the weights are divided into; 1 by default\n"
    "  --threads N    all CPUs that this process may use by default\n\n"
    "OUT_DIR must not be there yet, or be empty; it appears when it is complete.\n\n"
    "Exit code 0; 1 if it failed (the message says why); 2 for a wrong command line.\n";

struct Options {
  std::string from, to;
  std::optional<std::string> twin;
  std::optional<DType> dtype;
  std::optional<int> experts;
  int shards = 1;
  int threads = 0;
};

int usage(const std::string& message) {
  std::fprintf(stderr, "flotilla convert: %s\n\n%s", message.c_str(), std::string(kHelp).c_str());
  return kUsage;
}

int fail(const Status& status) {
  std::fprintf(stderr, "flotilla convert: %s\n", status.message().c_str());
  return kFailed;
}

int usable_cpus() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
}

bool parse_int(std::string_view text, int low, int high, int* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size() && *value >= low &&
         *value <= high;
}

// Empty if the command line is right.
std::string parse(Args args, Options* options) {
  for (size_t i = 0; i < args.size(); ++i) {
    std::string_view name = args[i];
    if (!name.starts_with("-")) {
      std::string& place = options->from.empty() ? options->from : options->to;
      if (!place.empty()) return "unexpected argument '" + std::string(name) + "'";
      place = name;
      continue;
    }
    std::string_view value;
    if (const size_t equals = name.find('='); equals != name.npos) {
      value = name.substr(equals + 1);
      name = name.substr(0, equals);
    } else if (i + 1 < args.size()) {
      value = args[++i];
    }
    const auto wrong = [&](const char* expected) {
      return std::string(name) + ": got '" + std::string(value) + "', expected " + expected;
    };
    int number = 0;
    if (name == "--moe-twin") {
      options->twin = value;
    } else if (name == "--dtype") {
      if (value != "bf16" && value != "f32") return wrong("bf16 or f32");
      options->dtype = value == "bf16" ? DType::kBf16 : DType::kF32;
    } else if (name == "--experts") {
      if (!parse_int(value, 1, 512, &number)) return wrong("a number from 1 to 512");
      options->experts = number;
    } else if (name == "--shards") {
      if (!parse_int(value, 1, 99'999, &options->shards)) return wrong("a number from 1 to 99999");
    } else if (name == "--threads") {
      if (!parse_int(value, 1, 1024, &options->threads)) return wrong("a number from 1 to 1024");
    } else {
      return "unknown flag '" + std::string(name) + "'";
    }
  }
  if (options->from.empty() || options->to.empty()) return "it needs a model and OUT_DIR";
  if (options->twin && options->dtype) return "--dtype: a twin's weights have its model's type";
  if (!options->twin && options->experts) return "--experts goes with --moe-twin";
  if (options->threads == 0) options->threads = usable_cpus();
  return {};
}

double gigabytes_in(const std::string& dir) {
  double bytes = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(dir, error)) {
    bytes += static_cast<double>(entry.file_size(error));
  }
  return bytes / 1e9;
}

int convert_twin(const Options& options) {
  StatusOr<convert::TwinOptions> twin = convert::parse_twin(*options.twin);
  if (!twin.ok()) return usage("--moe-twin: " + twin.status().message());
  if (options.experts) twin->experts = *options.experts;
  twin->shards = options.shards;
  twin->threads = options.threads;
  const StatusOr<convert::TwinReport> report =
      convert::convert_moe_twin(options.from, options.to, *twin);
  if (!report.ok()) return fail(report.status());
  std::printf("routers, on %lld tokens of built-in texts: an expert gets %.0f to %.0f %% of them\n",
              static_cast<long long>(report->tokens),
              100 * report->least_share,
              100 * report->largest_share);
  if (twin->family == convert::TwinFamily::kErnie45) {
    std::printf("without the router's bias, noise would win %.0f %% of them\n",
                100 * report->poison_wins);
  }
  return kOk;
}

}  // namespace

int run_convert(Args args) {
  if (std::any_of(args.begin(), args.end(), [](std::string_view arg) {
        return arg == "--help" || arg == "-h";
      })) {
    std::fwrite(kHelp.data(), 1, kHelp.size(), stdout);
    return kOk;
  }
  Options options;
  if (const std::string wrong = parse(args, &options); !wrong.empty()) return usage(wrong);
  const auto begin = std::chrono::steady_clock::now();
  if (options.twin) {
    if (const int code = convert_twin(options); code != kOk) return code;
  } else {
    const Status status = convert::convert_gguf(options.from,
                                                options.to,
                                                {.dtype = options.dtype.value_or(DType::kBf16),
                                                 .shards = options.shards,
                                                 .threads = options.threads});
    if (!status.ok()) return fail(status);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::printf(
      "%s: %.2f GB in %.1f s\n", options.to.c_str(), gigabytes_in(options.to), seconds.count());
  return kOk;
}

}  // namespace flotilla::cli
