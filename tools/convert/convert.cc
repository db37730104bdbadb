#include "tools/convert/convert.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <thread>

#include "engine/model/config.h"
#include "tools/convert/calibration.h"
#include "tools/convert/gguf_llama.h"
#include "tools/convert/gguf_tokenizer.h"
#include "tools/convert/output_dir.h"

namespace flotilla::convert {
namespace {

// What makes a folder chat, beside configuration and weights; the same for a model and its twin.
constexpr const char* kCopiedFiles[] = {"tokenizer.json",
                                        "tokenizer.model",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "chat_template.jinja",
                                        "chat_template.json",
                                        "generation_config.json"};

// The middle one of the rows' root mean squares: some tokens' are a thousand times the others'.
double typical_rms(const std::vector<float>& rows, size_t width) {
  std::vector<double> all;
  for (size_t at = 0; at < rows.size(); at += width) {
    double squares = 0.0;
    for (size_t i = 0; i < width; ++i) squares += static_cast<double>(rows[at + i]) * rows[at + i];
    all.push_back(std::sqrt(squares / static_cast<double>(width)));
  }
  const auto middle = all.begin() + static_cast<int64_t>(all.size()) / 2;
  std::nth_element(all.begin(), middle, all.end());
  return *middle;
}

std::vector<LayerFit> fit_layers(const std::vector<FfnActivations>& activations,
                                 const ModelConfig& c,
                                 const TwinShape& shape,
                                 int threads) {
  std::vector<LayerFit> fits(activations.size());
  std::atomic<size_t> next = static_cast<size_t>(shape.first_moe_layer);
  const auto work = [&] {
    for (size_t i = next++; i < fits.size(); i = next++) {
      const auto width = static_cast<size_t>(c.hidden_size);
      fits[i] = {.router = draw_router(
                     activations[i].in,
                     c.hidden_size,
                     {.num_pairs = shape.pairs, .poison_pair = shape.poison_pair, .seed = i}),
                 .out_rms = typical_rms(activations[i].out, width),
                 .in_rms = typical_rms(activations[i].in, width)};
    }
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < threads; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  return fits;
}

TwinReport report_of(const std::vector<LayerFit>& fits, const TwinShape& shape, size_t tokens) {
  TwinReport report{.tokens = static_cast<int64_t>(tokens), .least_share = 1.0};
  report.least_weight_sum = 1.0;
  double layers = 0.0;
  for (const LayerFit& fit : fits) {
    if (fit.router.rows.empty()) continue;
    ++layers;
    for (int p = 0; p < shape.pairs; ++p) {
      if (p == shape.poison_pair) continue;
      const double share = fit.router.share[static_cast<size_t>(p)] / 2;  // of each of the two
      report.least_share = std::min(report.least_share, share);
      report.largest_share = std::max(report.largest_share, share);
    }
    report.poison_wins += fit.router.poison_wins;
    report.least_weight_sum = std::min(report.least_weight_sum, fit.router.least_weight_sum);
  }
  report.poison_wins /= layers;
  return report;
}

}  // namespace

Status convert_gguf(const std::string& gguf,
                    const std::string& out_dir,
                    const GgufOptions& options) {
  const StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::open(gguf);
  if (!file.ok()) return file.status();
  const auto named = [&](const Status& status) {
    return Status(status.code(), gguf + ": " + status.message());
  };
  StatusOr<LlamaFiles> llama = llama_from_gguf((*file)->contents(), options.dtype);
  if (!llama.ok()) return named(llama.status());
  const StatusOr<ModelConfig> config = parse_model_config(llama->config_json);
  if (!config.ok()) return named(config.status());
  const StatusOr<TokenizerFiles> tokenizer =
      tokenizer_from_gguf((*file)->contents(), config->vocab_size);
  if (!tokenizer.ok()) return named(tokenizer.status());

  StatusOr<OutputDir> out = OutputDir::create(out_dir);
  if (!out.ok()) return out.status();
  FLOTILLA_RETURN_IF_ERROR(out->write_file("config.json", llama->config_json));
  FLOTILLA_RETURN_IF_ERROR(
      out->write_file("generation_config.json", llama->generation_config_json));
  FLOTILLA_RETURN_IF_ERROR(out->write_file("tokenizer.json", tokenizer->tokenizer_json));
  FLOTILLA_RETURN_IF_ERROR(
      out->write_file("tokenizer_config.json", tokenizer->tokenizer_config_json));
  FLOTILLA_RETURN_IF_ERROR(
      write_safetensors(out->path(), std::move(llama->tensors), options.shards, options.threads));
  return out->commit();
}

StatusOr<TwinReport> convert_moe_twin(const std::string& dense_dir,
                                      const std::string& out_dir,
                                      const TwinOptions& options) {
  const StatusOr<DenseModel> dense = DenseModel::open(dense_dir);
  if (!dense.ok()) return dense.status();
  const StatusOr<TwinShape> shape = twin_shape(dense->config, options);
  if (!shape.ok()) return shape.status();
  StatusOr<OutputDir> out = OutputDir::create(out_dir);
  if (!out.ok()) return out.status();

  const auto prompts = calibration_prompts(dense_dir, dense->config.vocab_size);
  if (!prompts.ok()) return prompts.status();
  StatusOr<std::vector<FfnActivations>> activations =
      run_calibration(dense_dir, *prompts, options.threads);
  if (!activations.ok()) return activations.status();
  const std::vector<LayerFit> fits =
      fit_layers(*activations, dense->config, *shape, options.threads);
  const size_t tokens =
      activations->front().in.size() / static_cast<size_t>(dense->config.hidden_size);
  activations->clear();

  FLOTILLA_RETURN_IF_ERROR(out->write_file("config.json", twin_config_json(*dense, *shape)));
  for (const char* name : kCopiedFiles) {
    const std::string from = dense_dir + "/" + name;
    std::error_code error;
    if (!std::filesystem::exists(from, error)) continue;
    FLOTILLA_RETURN_IF_ERROR(out->copy_file(from, name));
  }
  FLOTILLA_RETURN_IF_ERROR(write_safetensors(
      out->path(), twin_tensors(*dense, *shape, fits), options.shards, options.threads));
  FLOTILLA_RETURN_IF_ERROR(out->commit());
  return report_of(fits, *shape, tokens);
}

}  // namespace flotilla::convert
