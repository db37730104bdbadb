#include "api_server/generation/serving.h"

#include <algorithm>
#include <ctime>

#include "common/crypto.h"

namespace flotilla {
namespace {

std::string last_path_part(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path.substr(path.rfind('/') + 1);
}

uint64_t random_seed() {
  uint64_t seed = 0;
  for (const char c : random_bytes(sizeof seed)) seed = seed << 8 | static_cast<unsigned char>(c);
  return seed;
}

// SplitMix64: neighbouring numbers give unrelated seeds.
uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

}  // namespace

Serving::Serving(ServingParts parts, ServingOptions serving_options)
    : dispatcher(parts.dispatcher),
      tokenizer(parts.tokenizer),
      chat_template(parts.chat_template),
      defaults(parts.defaults),
      options(std::move(serving_options)),
      registry(parts.registry),
      metrics(&parts.registry, std::max<int64_t>(1, parts.dispatcher.limits().max_model_len)),
      admission(options.max_concurrency),
      started_at(std::time(nullptr)),
      accepted_(options.served_model_names),
      listed_(options.served_model_names) {
  if (listed_.empty()) {
    listed_ = {options.model};
    accepted_ = {options.model, last_path_part(options.model)};
  }
}

bool Serving::knows_model(std::string_view name) const {
  return name == "default" ||
         std::find(accepted_.begin(), accepted_.end(), name) != accepted_.end();
}

const std::string& Serving::shown_model(const std::string& asked) const {
  return asked == "default" ? listed_.front() : asked;
}

openai::SchemaLimits Serving::schema_limits() const {
  return {.vocab_size = dispatcher.limits().vocab_size,
          .max_n = options.max_n,
          .max_logprobs = options.max_logprobs};
}

uint64_t Serving::draw_seed() {
  return options.seed ? mix(*options.seed + drawn_.fetch_add(1)) : random_seed();
}

}  // namespace flotilla
