#include "tools/convert/calibration.h"

#include <array>
#include <atomic>
#include <cstring>
#include <utility>

#include "common/json.h"
#include "engine/kv_cache/kv_cache.h"
#include "engine/model/layers/layers.h"
#include "engine/model/model.h"
#include "engine/parallel/local_exchange.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/paged_attention.h"
#include "tools/convert/noise.h"

namespace flotilla::convert {
namespace {

// A question, the answer to it, a second question.
constexpr std::array<std::array<const char*, 3>, 4> kConversations = {{
    {"What is the capital of Italy, and what is it known for?",
     "The capital of Italy is Rome. It is known for the Colosseum, the Pantheon, the Vatican and a "
     "history of almost three thousand years.",
     "How many days should I stay to see the most important places?"},
    {"Write a short note to my neighbour: I am away next week, could she water the plants?",
     "Dear Anna, I will be away from Monday to Friday next week. Could you please water my plants "
     "on Wednesday? The key is under the blue pot. Thank you very much!",
     "Make it a little more formal."},
    {"A train leaves at 9:40 and arrives at 12:05. How long does the journey take?",
     "From 9:40 to 12:05 it takes 2 hours and 25 minutes: 2 hours until 11:40, then 25 minutes "
     "until 12:05.",
     "And if it is 15 minutes late?"},
    {"Explain in one sentence what a compiler does.",
     "A compiler translates a program that people can read into instructions that a computer's "
     "processor can execute, and reports errors that it finds on the way.",
     "Give me an example in Python:\n\ndef add(a, b):\n    return a + b\n"},
}};
constexpr std::array<const char*, 2> kTexts = {
    "The harbour was quiet that morning. Two fishing boats had come in before sunrise, and their "
    "crews were already asleep. On the pier an old man mended nets, slowly, the way he had done it "
    "for sixty years, while his granddaughter counted the gulls and wrote the numbers in a small "
    "green notebook.",
    "1. Heat the oven to 180 °C.\n2. Mix 250 g of flour, 3 eggs and a pinch of salt.\n3. Add the "
    "milk and stir until the dough is smooth.\n4. Bake for 35 minutes; let it cool before you cut "
    "it.\n",
};

constexpr int64_t kRandomPrompts = 4;
constexpr int64_t kRandomTokens = 64;
constexpr int64_t kMaxPromptTokens = 512;
constexpr int32_t kBlockTokens = 64;

std::string messages_json(const std::array<const char*, 3>& conversation) {
  std::string json;
  JsonWriter w(&json);
  w.begin_array();
  for (size_t i = 0; i < conversation.size(); ++i) {
    w.begin_object();
    w.field("role", i % 2 == 0 ? "user" : "assistant");
    w.field("content", conversation[i]);
    w.end_object();
  }
  w.end_array();
  return json;
}

// The model's layers, run by hand: the engine's own forward pass does not show what is inside.
class Forward {
 public:
  static StatusOr<std::unique_ptr<Forward>> create(const std::string& model_dir, int threads);

  // Appends one row per token to each layer's activations.
  void run(const std::vector<TokenId>& tokens, std::vector<FfnActivations>* out);

  size_t num_layers() const { return layers_.size(); }

 private:
  struct Layer {
    RmsNorm input_norm;
    Attention attention;
    RmsNorm post_norm;
    DenseMlp mlp;
  };

  Status load(int threads);

  ModelFiles files_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<ModelLoader> loader_;
  Embedding embedding_;
  std::vector<Layer> layers_;
  KvCache cache_;
  std::unique_ptr<Workspace> workspace_;
  std::unique_ptr<Stream> stream_;
};

StatusOr<std::unique_ptr<Forward>> Forward::create(const std::string& model_dir, int threads) {
  StatusOr<ModelFiles> files = open_model({.dir = model_dir});
  if (!files.ok()) return files.status();
  auto forward = std::make_unique<Forward>();
  forward->files_ = std::move(*files);
  // AVX2 even where there is better: its sums are the same everywhere.
  const CpuIsa isa = cpu_has(CpuIsa::kAvx2) ? CpuIsa::kAvx2 : CpuIsa::kReference;
  forward->device_ = make_cpu_device({.num_threads = threads, .cores = {}, .isa = isa});
  FLOTILLA_RETURN_IF_ERROR(forward->load(threads));
  return forward;
}

Status Forward::load(int threads) {
  const ModelConfig& c = files_.config;
  stream_ = device_->create_stream();
  loader_ = std::make_unique<ModelLoader>(c,
                                          *files_.source,
                                          *device_,
                                          ModelLoader::Options{.activation = DType::kF32,
                                                               .max_positions = kMaxPromptTokens,
                                                               .threads = threads,
                                                               .progress = {}});
  const StatusOr<TensorView> table =
      loader_->table("model.embed_tokens.weight", c.vocab_size, c.hidden_size);
  if (!table.ok()) return table.status();
  embedding_.table = *table;
  const StatusOr<RotaryTables> rotary = make_rotary_tables(*loader_);
  if (!rotary.ok()) return rotary.status();
  for (int64_t i = 0; i < c.num_layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i);
    auto input_norm = load_rms_norm(*loader_, prefix + ".input_layernorm", c.hidden_size);
    if (!input_norm.ok()) return input_norm.status();
    auto attention = load_attention(*loader_, prefix + ".self_attn", *rotary);
    if (!attention.ok()) return attention.status();
    auto post_norm = load_rms_norm(*loader_, prefix + ".post_attention_layernorm", c.hidden_size);
    if (!post_norm.ok()) return post_norm.status();
    auto mlp = load_dense_mlp(*loader_, prefix + ".mlp", c.intermediate_size);
    if (!mlp.ok()) return mlp.status();
    layers_.push_back({*input_norm, *attention, *post_norm, *mlp});
  }
  loader_->run();
  StatusOr<KvCache> cache = KvCache::create({.num_layers = c.num_layers,
                                             .num_blocks = kMaxPromptTokens / kBlockTokens,
                                             .block_size = kBlockTokens,
                                             .num_kv_heads = c.num_kv_heads,
                                             .head_dim = c.head_dim,
                                             .dtype = DType::kF32},
                                            *device_);
  if (!cache.ok()) return cache.status();
  cache_ = std::move(*cache);
  const size_t scratch =
      Workspace::round_up(static_cast<size_t>(kMaxPromptTokens * c.hidden_size) * sizeof(float)) +
      paged_attention_workspace_bytes(
          kMaxPromptTokens, c.num_heads, kMaxPromptTokens, cache_.layout(), *stream_);
  StatusOr<DeviceBuffer> memory =
      device_->allocate(forward_workspace_bytes(c, kMaxPromptTokens, 0) + scratch);
  if (!memory.ok()) return memory.status();
  workspace_ = std::make_unique<Workspace>(std::move(*memory));
  return ok_status();
}

void append_rows(const TensorView& rows, std::vector<float>* out) {
  out->insert(out->end(), rows.as<float>(), rows.as<float>() + rows.elements());
}

void Forward::run(const std::vector<TokenId>& tokens, std::vector<FfnActivations>* out) {
  const auto n = static_cast<int64_t>(tokens.size());
  std::vector<TokenId> ids = tokens;
  std::vector<int32_t> positions, table, offsets = {0, static_cast<int32_t>(n)};
  std::vector<int32_t> context = {static_cast<int32_t>(n)};
  for (int32_t i = 0; i < n; ++i) positions.push_back(i);
  for (int32_t b = 0; b < kMaxPromptTokens / kBlockTokens; ++b) table.push_back(b);
  const StepInputs in{
      .tokens = {ids.data(), DType::kI32, {n}},
      .positions = {positions.data(), DType::kI32, {n}},
      .slots = {positions.data(), DType::kI32, {n}},
      .q_offsets = {offsets.data(), DType::kI32, {2}},
      .context = {context.data(), DType::kI32, {1}},
      .block_table = {table.data(), DType::kI32, {1, static_cast<int64_t>(table.size())}},
      .max_context = n};
  std::atomic<uint64_t> progress = 0;
  LocalExchange exchange(0, files_.config.hidden_size);
  ForwardContext ctx{.stream = *stream_,
                     .workspace = *workspace_,
                     .in = in,
                     .kv_cache = cache_.data(),
                     .layout = cache_.layout(),
                     .exchange = exchange,
                     .activation = DType::kF32,
                     .progress = progress};
  Workspace::Scope scope(*workspace_);
  const int64_t hidden = files_.config.hidden_size;
  const TensorView residual = workspace_->take(DType::kF32, {n, hidden});
  const TensorView x = workspace_->take(DType::kF32, {n, hidden});
  const TensorView delta = workspace_->take(DType::kF32, {n, hidden});
  embedding_.forward(in.tokens, residual, ctx);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    layer.input_norm.forward(i == 0 ? residual : delta, i == 0 ? TensorView() : residual, x, ctx);
    layer.attention.forward(x, delta, static_cast<int64_t>(i), ctx);
    layer.post_norm.forward(delta, residual, x, ctx);
    layer.mlp.forward(x, delta, ctx);
    stream_->synchronize();
    append_rows(x, &(*out)[i].in);
    append_rows(delta, &(*out)[i].out);
  }
}

}  // namespace

StatusOr<std::vector<std::vector<TokenId>>> calibration_prompts(const std::string& model_dir,
                                                                int64_t vocab_size) {
  std::vector<std::vector<TokenId>> prompts;
  const auto tokenizer = Tokenizer::load(model_dir);
  if (!tokenizer.ok()) {
    if (tokenizer.status().code() != StatusCode::kNotFound) return tokenizer.status();
    Noise noise({0xCA11B7A7E});
    for (int64_t p = 0; p < kRandomPrompts; ++p) {
      std::vector<TokenId>& ids = prompts.emplace_back();
      for (int64_t i = 0; i < kRandomTokens; ++i) {
        ids.push_back(static_cast<TokenId>(noise.below(static_cast<uint64_t>(vocab_size))));
      }
    }
    return prompts;
  }
  std::vector<std::string> texts(kTexts.begin(), kTexts.end());
  const auto chat = ChatTemplate::load(model_dir, (*tokenizer)->config());
  if (!chat.ok()) return chat.status();
  for (const auto& conversation : kConversations) {
    if (*chat == nullptr) {
      texts.push_back(std::string(conversation[0]) + "\n\n" + conversation[1]);
      continue;
    }
    StatusOr<std::string> text = (*chat)->render({.messages_json = messages_json(conversation)});
    if (!text.ok()) return text.status();
    texts.push_back(std::move(*text));
  }
  for (const std::string& text : texts) {
    StatusOr<std::vector<TokenId>> ids = (*tokenizer)->encode(text);
    if (!ids.ok()) return ids.status();
    if (ids->size() > static_cast<size_t>(kMaxPromptTokens)) ids->resize(kMaxPromptTokens);
    for (const TokenId id : *ids) {
      if (id >= vocab_size) {
        return invalid_argument(model_dir + ": the tokenizer gives id " + std::to_string(id) +
                                ", config.json has vocab_size " + std::to_string(vocab_size));
      }
    }
    prompts.push_back(std::move(*ids));
  }
  return prompts;
}

StatusOr<std::vector<FfnActivations>> run_calibration(
    const std::string& model_dir, const std::vector<std::vector<TokenId>>& prompts, int threads) {
  StatusOr<std::unique_ptr<Forward>> forward = Forward::create(model_dir, threads);
  if (!forward.ok()) return forward.status();
  std::vector<FfnActivations> activations((*forward)->num_layers());
  for (const std::vector<TokenId>& prompt : prompts) (*forward)->run(prompt, &activations);
  return activations;
}

}  // namespace flotilla::convert
