#include "engine/model/model.h"

#include "common/crypto.h"
#include "common/fd.h"
#include "engine/model/registry.h"

namespace flotilla {
namespace {

constexpr size_t kMaxTextFile = 256u << 20;
constexpr const char* kTextFiles[] = {"tokenizer.json",
                                      "tokenizer.model",
                                      "tokenizer_config.json",
                                      "special_tokens_map.json",
                                      "added_tokens.json",
                                      "chat_template.jinja",
                                      "generation_config.json"};

StatusOr<std::string> model_digest(const ModelOptions& options, const TensorSource& source) {
  Sha256 hash;
  const auto add = [&](std::string_view name, std::string_view content) {
    hash.update(name);
    hash.update(std::string_view("\0", 1));
    hash.update(std::to_string(content.size()));
    hash.update(std::string_view("\0", 1));
    hash.update(content);
  };
  const StatusOr<std::string> config =
      read_file(options.dir + "/" + options.config_file, kMaxTextFile);
  if (!config.ok()) return config.status();
  add("config", *config);
  for (const char* name : kTextFiles) {
    const StatusOr<std::string> content = read_file(options.dir + "/" + name, kMaxTextFile);
    if (content.ok()) {
      add(name, *content);
    } else if (content.status().code() != StatusCode::kNotFound) {
      return content.status();
    }
  }
  add("weights", source.digest_material());
  const Sha256Digest digest = hash.finish();
  return to_hex(as_bytes(digest));
}

}  // namespace

StatusOr<ModelFiles> open_model(const ModelOptions& options) {
  StatusOr<ModelConfig> config = load_model_config(options.dir, options.config_file);
  if (!config.ok()) return config.status();
  ModelFiles files{.config = std::move(*config), .source = nullptr, .digest = {}};
  if (options.dummy_weights) {
    files.source = make_dummy_source(options.dummy_seed);
  } else {
    StatusOr<std::unique_ptr<TensorSource>> source = open_checkpoint(options.dir);
    if (!source.ok()) return source.status();
    files.source = std::move(*source);
  }
  StatusOr<std::string> digest = model_digest(options, *files.source);
  if (!digest.ok()) return digest.status();
  files.digest = std::move(*digest);
  return files;
}

StatusOr<std::unique_ptr<Model>> Model::load(ModelFiles files,
                                             Device& device,
                                             ModelLoader::Options options) {
  std::unique_ptr<Model> model(new Model);
  model->files_ = std::move(files);
  model->loader_ = std::make_unique<ModelLoader>(
      model->files_.config, *model->files_.source, device, std::move(options));
  const Architecture* architecture = find_architecture(model->files_.config.architecture);
  check(architecture != nullptr, "parse_model_config lets no unknown architecture through");
  StatusOr<std::unique_ptr<CausalLm>> lm = make_causal_lm(architecture->family, *model->loader_);
  if (!lm.ok()) return lm.status();
  FLOTILLA_RETURN_IF_ERROR(model->files_.source->check_all_claimed());
  model->loader_->run();
  model->lm_ = std::move(*lm);
  model->memory_ = model->loader_->take_memory();
  return model;
}

}  // namespace flotilla
