// Times the CPU's ops at the shapes of SmolLM2-135M, and a synthetic model of them end to end.
//   kernel_bench [--isa auto] [--threads 1,2] [--activation bf16] [--only ops|model] [--repeats 9]
// Weights of a step are read once, so an op runs over copies that do not fit the caches together.
// Figures are medians.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_device.h"
#include "tools/bench/kernels/peak.h"
#include "tools/bench/kernels/synthetic_model.h"

namespace flotilla {
namespace {

struct Options {
  CpuIsa isa = best_cpu_isa();
  std::vector<int> threads{1, 2};
  DType activation = DType::kBf16;
  std::string only;
  int repeats = 9;
};

double median_seconds(int repeats, const std::function<void()>& f) {
  f();
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + repeats / 2, seconds.end());
  return seconds[static_cast<size_t>(repeats / 2)];
}

// Memory of one bench, filled with small numbers.
class Arena {
 public:
  explicit Arena(Device& device) : device_(device) {}
  TensorView tensor(DType type, std::initializer_list<int64_t> dims) {
    TensorView view(nullptr, type, dims);
    const size_t bytes = static_cast<size_t>(view.elements()) * dtype_bytes(type);
    view.data = allocate(bytes);
    if (type == DType::kF32) {
      for (int64_t i = 0; i < view.elements(); ++i) view.as<float>()[i] = small(i);
    } else if (type == DType::kBf16) {
      for (int64_t i = 0; i < view.elements(); ++i) view.as<uint16_t>()[i] = f32_to_bf16(small(i));
    }
    return view;
  }
  void* allocate(size_t bytes) {
    StatusOr<DeviceBuffer> buffer = device_.allocate(bytes);
    check(buffer.ok(), buffer.status().message());
    buffers_.push_back(std::move(*buffer));
    return buffers_.back().data();
  }

 private:
  static float small(int64_t i) { return static_cast<float>(i * 7919 % 1021 - 510) / 512.0f; }
  Device& device_;
  std::vector<DeviceBuffer> buffers_;
};

class Bench {
 public:
  Bench(const Options& options, int threads, double peak)
      : o_(options),
        threads_(threads),
        peak_(peak * threads),
        device_(make_cpu_device({.num_threads = threads, .cores = {}, .isa = options.isa})),
        stream_(device_->create_stream()) {}

  void ops() {
    std::printf(
        "\n%s, activations %s\n", device_->description().c_str(), name_of(o_.activation).c_str());
    std::printf("%-28s %5s %10s %9s %8s %7s\n", "op", "T", "us", "GFLOP/s", "GB/s", "% peak");
    for (const auto& [name, n, k] : std::vector<std::tuple<const char*, int64_t, int64_t>>{
             {"linear qkv 960x576", 960, 576},
             {"linear o 576x576", 576, 576},
             {"linear gate_up 3072x576", 3072, 576},
             {"linear down 576x1536", 576, 1536},
             {"linear lm_head 49152x576", 49152, 576}}) {
      for (const int64_t t : {1, 2, 8, 64, 512}) {
        if (n < 49152 || t <= 64) bench_linear(name, t, n, k);
      }
    }
    for (const auto& [sequences, rows, context] : std::vector<std::array<int64_t, 3>>{
             {1, 512, 512}, {1, 1, 128}, {1, 1, 1024}, {1, 1, 8192}, {8, 1, 128}, {8, 1, 1024}}) {
      bench_attention(sequences, rows, context);
    }
    for (const int64_t t : {1, 8, 512}) bench_rows(t);
    for (const int64_t t : {1, 8}) bench_sampler(t);
    bench_region();
  }

  void model() {
    SyntheticModel model({}, o_.activation, *device_, *stream_);
    std::printf("\nmodel, %s, activations %s: %.0f MB packed in %.2f s by one thread\n",
                device_->description().c_str(),
                name_of(o_.activation).c_str(),
                model.weight_bytes() * 1e-6,
                model.pack_seconds());
    const double prefill = median_seconds(o_.repeats, [&] { model.step(1, 0, 512); });
    std::printf("  prefill 512           %8.1f tok/s\n", 512 / prefill);
    for (const int64_t sequences : {1, 2, 4, 8}) {
      for (const int64_t begin : {128, 1024}) {
        constexpr int64_t kSteps = 16;
        const double seconds = median_seconds(o_.repeats, [&] {
          for (int64_t i = 0; i < kSteps; ++i) model.step(sequences, begin + i, 1);
        });
        std::printf(
            "  decode %d x 1 at %-4d   %8.1f tok/s  (%.2f ms a step, weights at %.1f GB/s)\n",
            static_cast<int>(sequences),
            static_cast<int>(begin),
            static_cast<double>(sequences * kSteps) / seconds,
            seconds / kSteps * 1e3,
            model.weight_bytes() * kSteps / seconds * 1e-9);
      }
    }
  }

 private:
  static std::string name_of(DType t) { return std::string(dtype_name(t)); }

  void report(
      const std::string& name, int64_t t, double seconds, double flops, double bytes) const {
    std::printf("%-28s %5d %10.1f", name.c_str(), static_cast<int>(t), seconds * 1e6);
    if (flops > 0) {
      std::printf(" %9.1f", flops / seconds * 1e-9);
    } else {
      std::printf(" %9s", "");
    }
    std::printf(" %8.1f", bytes / seconds * 1e-9);
    if (flops > 0) std::printf(" %6.1f%%", flops / seconds * 1e-9 / peak_ * 100);
    std::printf("\n");
  }

  void bench_linear(const char* name, int64_t t, int64_t n, int64_t k) {
    Arena arena(*device_);
    const size_t bytes = packed_linear_bytes(n, k, DType::kBf16, *stream_);
    const int copies = std::max<int>(static_cast<int>((size_t{128} << 20) / bytes), 1);
    const TensorView source = arena.tensor(DType::kBf16, {n, k});
    std::vector<PackedWeight> weights;
    for (int i = 0; i < copies; ++i) {
      weights.push_back({arena.allocate(bytes), n, k, DType::kBf16});
      pack_linear({.src = source, .dst = weights.back()}, *stream_);
    }
    const TensorView x = arena.tensor(o_.activation, {t, k}), y = arena.tensor(DType::kF32, {t, n});
    const int used = t >= 64 ? std::max(copies / 16, 1) : copies;
    const double seconds =
        median_seconds(o_.repeats,
                       [&] {
                         for (int i = 0; i < used; ++i) {
                           linear({.x = x, .w = weights[static_cast<size_t>(i)], .y = y}, *stream_);
                         }
                       }) /
        used;
    report(name, t, seconds, 2.0 * static_cast<double>(t * n * k), static_cast<double>(bytes));
  }

  void bench_attention(int64_t sequences, int64_t rows, int64_t context) {
    Arena arena(*device_);
    const KvLayout layout{.num_layers = 8,
                          .num_blocks = sequences * ((context + 63) / 64),
                          .block_size = 64,
                          .num_kv_heads = 3,
                          .head_dim = 64,
                          .dtype = o_.activation};
    const int64_t blocks = layout.num_blocks / sequences, t = sequences * rows;
    const TensorView cache = arena.tensor(
        o_.activation, {static_cast<int64_t>(layout.bytes() / dtype_bytes(o_.activation))});
    const TensorView q = arena.tensor(o_.activation, {t, 9, 64}),
                     out = arena.tensor(o_.activation, {t, 9, 64});
    const TensorView offsets = arena.tensor(DType::kI32, {sequences + 1});
    const TensorView contexts = arena.tensor(DType::kI32, {sequences});
    const TensorView table = arena.tensor(DType::kI32, {sequences, blocks});
    for (int64_t i = 0; i < sequences; ++i) {
      offsets.as<int32_t>()[i + 1] = static_cast<int32_t>((i + 1) * rows);
      contexts.as<int32_t>()[i] = static_cast<int32_t>(context);
    }
    for (int64_t i = 0; i < layout.num_blocks; ++i)
      table.as<int32_t>()[i] = static_cast<int32_t>(i);
    void* const workspace =
        arena.allocate(paged_attention_workspace_bytes(t, 9, context, layout, *stream_));
    const double seconds =
        median_seconds(o_.repeats,
                       [&] {
                         for (int64_t layer = 0; layer < layout.num_layers; ++layer) {
                           paged_attention({.q = q,
                                            .out = out,
                                            .q_offsets = offsets,
                                            .context = contexts,
                                            .block_table = table,
                                            .scale = 0.125f,
                                            .cache = cache.data,
                                            .layout = layout,
                                            .layer = layer,
                                            .workspace = workspace},
                                           *stream_);
                         }
                       }) /
        static_cast<double>(layout.num_layers);
    double keys = 0.0;
    for (int64_t j = 0; j < rows; ++j) keys += static_cast<double>(context - rows + j + 1);
    const double bytes =
        static_cast<double>(layout.bytes()) / static_cast<double>(layout.num_layers);
    report("attention " + std::to_string(sequences) + " x context " + std::to_string(context),
           t,
           seconds,
           static_cast<double>(sequences) * keys * 9 * 64 * 4,
           bytes);
  }

  void bench_rows(int64_t t) {
    Arena arena(*device_);
    const TensorView x = arena.tensor(DType::kF32, {t, 576}),
                     residual = arena.tensor(DType::kF32, {t, 576});
    const TensorView w = arena.tensor(DType::kF32, {576}),
                     y = arena.tensor(o_.activation, {t, 576});
    report(
        "rms_norm 576",
        t,
        median_seconds(o_.repeats * 20,
                       [&] { rms_norm({.y = y, .x = x, .w = w, .residual = residual}, *stream_); }),
        0,
        static_cast<double>(t) * 576 * 14);
    const TensorView gate_up = arena.tensor(DType::kF32, {t, 3072}),
                     h = arena.tensor(o_.activation, {t, 1536});
    report("swiglu 1536",
           t,
           median_seconds(o_.repeats * 20, [&] { swiglu({.gate_up = gate_up, .y = h}, *stream_); }),
           0,
           static_cast<double>(t) * 1536 * 10);
    const KvLayout layout{.num_layers = 1,
                          .num_blocks = t,
                          .block_size = 1,
                          .num_kv_heads = 3,
                          .head_dim = 64,
                          .dtype = o_.activation};
    const TensorView qkv = arena.tensor(DType::kF32, {t, 960}),
                     angles = arena.tensor(DType::kF32, {t, 32});
    const TensorView index = arena.tensor(DType::kI32, {t}),
                     q = arena.tensor(o_.activation, {t, 9, 64});
    for (int64_t i = 0; i < t; ++i) index.as<int32_t>()[i] = static_cast<int32_t>(i);
    void* const cache = arena.allocate(layout.bytes());
    for (const RopeStyle style : {RopeStyle::kHalf, RopeStyle::kInterleaved}) {
      report(style == RopeStyle::kHalf ? "rope_cache half" : "rope_cache interleaved",
             t,
             median_seconds(o_.repeats * 20,
                            [&] {
                              rope_cache({.qkv = qkv,
                                          .style = style,
                                          .cos = angles,
                                          .sin = angles,
                                          .positions = index,
                                          .slots = index,
                                          .q = q,
                                          .cache = cache,
                                          .layout = layout},
                                         *stream_);
                            }),
             0,
             static_cast<double>(t) * 960 * 6);
    }
  }

  void bench_sampler(int64_t t) {
    Arena arena(*device_);
    const TensorView logits = arena.tensor(DType::kF32, {t, 49152}),
                     tokens = arena.tensor(DType::kI32, {t});
    for (int64_t i = 0; i < logits.elements(); ++i) logits.as<float>()[i] *= 8.0f;
    const TensorView logprobs = arena.tensor(DType::kF32, {t}),
                     ranks = arena.tensor(DType::kI32, {t});
    const TensorView ids = arena.tensor(DType::kI32, {t, 20}),
                     tops = arena.tensor(DType::kF32, {t, 20});
    void* const workspace = arena.allocate(sample_workspace_bytes(t, 49152, *stream_));
    const auto time =
        [&](const char* name, float temperature, float top_p, int32_t top_k, int32_t num_logprobs) {
          SamplerRow row;
          row.temperature = temperature;
          row.top_p = top_p;
          row.top_k = top_k;
          row.num_logprobs = num_logprobs;
          const std::vector<SamplerRow> rows(static_cast<size_t>(t), row);
          report(name,
                 t,
                 median_seconds(o_.repeats * 5,
                                [&] {
                                  sample({.logits = logits,
                                          .rows = rows.data(),
                                          .tokens = tokens,
                                          .logprobs = logprobs,
                                          .ranks = ranks,
                                          .top_ids = ids,
                                          .top_logprobs = tops,
                                          .workspace = workspace},
                                         *stream_);
                                }),
                 0,
                 static_cast<double>(logits.elements()) * 4);
        };
    time("sample greedy", 0.0f, 1.0f, 0, -1);
    time("sample T 1", 1.0f, 1.0f, 0, -1);
    time("sample T 0.7 top_k 50", 0.7f, 1.0f, 50, -1);
    time("sample T 0.7 top_p 0.9", 0.7f, 0.9f, 0, -1);
    time("sample greedy, 20 logprobs", 0.0f, 1.0f, 0, 20);
  }

  // What a parallel region costs by itself.
  void bench_region() {
    Arena arena(*device_);
    const TensorView x = arena.tensor(DType::kF32, {1, 64}),
                     y = arena.tensor(DType::kF32, {1, 3136});
    const PackedWeight w{arena.allocate(packed_linear_bytes(3136, 64, DType::kF32, *stream_)),
                         3136,
                         64,
                         DType::kF32};
    const double seconds = median_seconds(o_.repeats,
                                          [&] {
                                            for (int i = 0; i < 1000; ++i)
                                              linear({.x = x, .w = w, .y = y}, *stream_);
                                          }) /
                           1000;
    report("linear 3136x64 F32, cached", 1, seconds, 2.0 * 3136 * 64, 3136 * 64 * 4);
  }

  const Options& o_;
  const int threads_;
  const double peak_;
  const std::unique_ptr<Device> device_;
  const std::unique_ptr<Stream> stream_;
};

[[noreturn]] void usage(const char* wrong) {
  std::fprintf(stderr,
               "kernel_bench: %s\nusage: kernel_bench [--isa "
               "auto|avx2|avx512|avx512_bf16|reference] [--threads 1,2] "
               "[--activation bf16|f32] [--only ops|model] [--repeats N]\n",
               wrong);
  std::exit(2);
}

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (i + 1 == argc) usage(("missing value or unknown flag: " + flag).c_str());
    const std::string value = argv[++i];
    if (flag == "--isa") {
      const auto isa = parse_cpu_isa(value);
      if (!isa.ok()) usage(isa.status().message().c_str());
      o.isa = *isa;
    } else if (flag == "--threads") {
      o.threads.clear();
      for (const char* p = value.c_str(); *p != '\0'; p += *p == ',') {
        char* end = nullptr;
        o.threads.push_back(static_cast<int>(std::strtol(p, &end, 10)));
        if (end == p || o.threads.back() < 1)
          usage("--threads takes numbers from 1 on, with commas");
        p = end;
      }
    } else if (flag == "--activation" && (value == "bf16" || value == "f32")) {
      o.activation = value == "bf16" ? DType::kBf16 : DType::kF32;
    } else if (flag == "--only" && (value == "ops" || value == "model")) {
      o.only = value;
    } else if (flag == "--repeats" && std::atoi(value.c_str()) > 0) {
      o.repeats = std::atoi(value.c_str());
    } else {
      usage((flag + " " + value + " is not understood").c_str());
    }
  }
  return o;
}

int run(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const Options options = parse(argc, argv);
  const double peak = peak_gflops(options.isa, options.activation == DType::kBf16);
  std::printf(
      "%s: %.0f GFLOP/s a core at most\n", std::string(cpu_isa_name(options.isa)).c_str(), peak);
  for (const int threads : options.threads) {
    Bench bench(options, threads, peak);
    if (options.only != "model") bench.ops();
    if (options.only != "ops") bench.model();
  }
  return 0;
}

}  // namespace
}  // namespace flotilla

int main(int argc, char** argv) { return flotilla::run(argc, argv); }
