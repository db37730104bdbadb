#include "tools/convert/gguf_tokenizer.h"

#include <algorithm>
#include <array>
#include <optional>
#include <set>

#include "common/json.h"
#include "common/utf8.h"
#include "engine/text/tokenizer.h"
#include "tools/convert/gguf_fields.h"

namespace flotilla::convert {
namespace {

// tokenizer.ggml.token_type. Source: gguf-py constants.py, TokenType.
enum TokenType : int64_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

// tokenizer.ggml.pre, and what it stands for in tokenizer.json. Source: llama.cpp llama-vocab.cpp
// and the tokenizer.json of SmolLM2, GPT-2 and Llama 3.
struct PreTokenizer {
  std::string_view name;
  std::string_view json;
  bool ignore_merges;  // a whole piece that is a token is taken as it is
};
constexpr std::array kPreTokenizers = {
    PreTokenizer{
        "smollm",
        R"({"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},)"
        R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,)"
        R"("use_regex":true}]})",
        false},
    PreTokenizer{"gpt-2",
                 R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,)"
                 R"("use_regex":true})",
                 false},
    PreTokenizer{"llama-bpe",
                 R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":)"
                 R"("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|)"
                 R"( ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},)"
                 R"("behavior":"Isolated","invert":false},{"type":"ByteLevel",)"
                 R"("add_prefix_space":false,"trim_offsets":true,"use_regex":false}]})",
                 true},
};
constexpr std::string_view kByteLevel =
    R"({"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true})";

struct Vocabulary {
  const std::vector<std::string_view>* tokens = nullptr;
  const GgufIntegers* types = nullptr;
  const std::vector<std::string_view>* merges = nullptr;
  const PreTokenizer* pre = nullptr;
  std::optional<std::string_view> chat_template;
  std::optional<int64_t> bos, eos, unk, pad;
  bool add_bos = false, add_eos = false;
  int64_t context = 0;

  std::string_view text(int64_t id) const { return (*tokens)[static_cast<size_t>(id)]; }
};

StatusOr<const PreTokenizer*> find_pre_tokenizer(std::string_view name) {
  std::string known;
  for (const PreTokenizer& pre : kPreTokenizers) {
    if (pre.name == name) return &pre;
    known += (known.empty() ? "" : ", ") + std::string(pre.name);
  }
  return unimplemented("tokenizer.ggml.pre " + shown_name(name) + "; converted are " + known);
}

Status check_tokens(const Vocabulary& v, int64_t vocab_size) {
  const size_t count = v.tokens->size();
  if (static_cast<int64_t>(count) > vocab_size) {
    return invalid_argument("tokenizer.ggml.tokens has " + std::to_string(count) +
                            " tokens, the embedding " + std::to_string(vocab_size) + " rows");
  }
  if (v.types->size() != count) {
    return invalid_argument("tokenizer.ggml.token_type has " + std::to_string(v.types->size()) +
                            " entries for " + std::to_string(count) + " tokens");
  }
  std::set<std::string_view> seen;
  for (size_t id = 0; id < count; ++id) {
    const std::string_view token = (*v.tokens)[id];
    if (!is_valid_utf8(token)) {
      return invalid_argument("token " + std::to_string(id) + " " + shown_name(token) +
                              " is not valid UTF-8");
    }
    if ((*v.types)[id] != kUnused && !seen.insert(token).second) {
      return invalid_argument("token " + shown_name(token) + " appears twice, the second time as " +
                              std::to_string(id));
    }
  }
  for (const std::string_view merge : *v.merges) {
    if (!is_valid_utf8(merge)) {
      return invalid_argument("merge " + shown_name(merge) + " is not valid UTF-8");
    }
  }
  return ok_status();
}

StatusOr<Vocabulary> read_vocabulary(const GgufContents& gguf, int64_t vocab_size) {
  GgufFields in(gguf);
  const std::string_view model = in.text_if("tokenizer.ggml.model").value_or("");
  if (model != "gpt2") {
    return unimplemented("tokenizer.ggml.model " + shown_name(model) +
                         "; 'gpt2' (byte-level BPE) is converted");
  }
  const StatusOr<const PreTokenizer*> pre =
      find_pre_tokenizer(in.text_if("tokenizer.ggml.pre").value_or(""));
  if (!pre.ok()) return pre.status();
  Vocabulary v;
  v.pre = *pre;
  v.tokens = in.strings("tokenizer.ggml.tokens");
  v.types = in.integers("tokenizer.ggml.token_type");
  v.merges = in.strings("tokenizer.ggml.merges");
  v.chat_template = in.text_if("tokenizer.chat_template");
  if (v.chat_template && !is_valid_utf8(*v.chat_template)) {
    in.fail("tokenizer.chat_template is not valid UTF-8");
  }
  if (!in.status().ok()) return in.status();
  const auto last = static_cast<int64_t>(v.tokens->size()) - 1;
  v.bos = in.integer_if("tokenizer.ggml.bos_token_id", 0, last);
  v.eos = in.integer_if("tokenizer.ggml.eos_token_id", 0, last);
  v.unk = in.integer_if("tokenizer.ggml.unknown_token_id", 0, last);
  v.pad = in.integer_if("tokenizer.ggml.padding_token_id", 0, last);
  v.add_bos = in.boolean_or("tokenizer.ggml.add_bos_token", false);
  v.add_eos = in.boolean_or("tokenizer.ggml.add_eos_token", false);
  v.context = in.integer("llama.context_length", 1, INT64_MAX);
  if ((v.add_bos && !v.bos) || (v.add_eos && !v.eos)) {
    in.fail("tokenizer.ggml.add_bos_token or add_eos_token is true without the token's id");
  }
  if (!in.status().ok()) return in.status();
  FLOTILLA_RETURN_IF_ERROR(check_tokens(v, vocab_size));
  return v;
}

void write_added_tokens(JsonWriter& w, const Vocabulary& v) {
  w.begin_array();
  for (size_t id = 0; id < v.tokens->size(); ++id) {
    const int64_t type = (*v.types)[id];
    if (type != kControl && type != kUserDefined) continue;
    w.begin_object();
    w.field("id", id);
    w.field("content", (*v.tokens)[id]);
    for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized"}) {
      w.field(flag, false);
    }
    w.field("special", type == kControl);
    w.end_object();
  }
  w.end_array();
}

void write_template_part(JsonWriter& w, const char* kind, std::string_view id) {
  w.begin_object();
  w.key(kind);
  w.begin_object();
  w.field("id", id);
  w.field("type_id", 0);
  w.end_object();
  w.end_object();
}

// BOS and EOS around a text, where the file asks for them.
void write_post_processor(JsonWriter& w, const Vocabulary& v) {
  if (!v.add_bos && !v.add_eos) return w.null();
  w.begin_object();
  w.field("type", "TemplateProcessing");
  for (const bool pair : {false, true}) {
    w.key(pair ? "pair" : "single");
    w.begin_array();
    if (v.add_bos) write_template_part(w, "SpecialToken", v.text(*v.bos));
    write_template_part(w, "Sequence", "A");
    if (pair) write_template_part(w, "Sequence", "B");
    if (v.add_eos) write_template_part(w, "SpecialToken", v.text(*v.eos));
    w.end_array();
  }
  w.key("special_tokens");
  w.begin_object();
  std::set<int64_t> ids;
  if (v.add_bos) ids.insert(*v.bos);
  if (v.add_eos) ids.insert(*v.eos);
  for (const int64_t id : ids) {
    w.key(v.text(id));
    w.begin_object();
    w.field("id", v.text(id));
    w.key("ids");
    w.begin_array();
    w.value(id);
    w.end_array();
    w.key("tokens");
    w.begin_array();
    w.value(v.text(id));
    w.end_array();
    w.end_object();
  }
  w.end_object();
  w.end_object();
}

void write_bpe_model(JsonWriter& w, const Vocabulary& v) {
  w.begin_object();
  w.field("type", "BPE");
  for (const char* absent :
       {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"}) {
    w.key(absent);
    w.null();
  }
  w.field("fuse_unk", false);
  w.field("byte_fallback", false);
  w.field("ignore_merges", v.pre->ignore_merges);
  w.key("vocab");
  w.begin_object();
  for (size_t id = 0; id < v.tokens->size(); ++id) {
    if ((*v.types)[id] != kUnused) w.field((*v.tokens)[id], id);
  }
  w.end_object();
  w.key("merges");
  w.begin_array();
  for (const std::string_view merge : *v.merges) w.value(merge);
  w.end_array();
  w.end_object();
}

std::string tokenizer_json(const Vocabulary& v) {
  std::string json;
  JsonWriter w(&json);
  w.begin_object();
  w.field("version", "1.0");
  w.key("truncation");
  w.null();
  w.key("padding");
  w.null();
  w.key("added_tokens");
  write_added_tokens(w, v);
  w.key("normalizer");
  w.null();
  w.key("pre_tokenizer");
  w.raw(v.pre->json);
  w.key("post_processor");
  write_post_processor(w, v);
  w.key("decoder");
  w.raw(kByteLevel);
  w.key("model");
  write_bpe_model(w, v);
  w.end_object();
  return json + "\n";
}

std::string tokenizer_config_json(const Vocabulary& v) {
  std::string json;
  JsonWriter w(&json);
  w.begin_object();
  w.field("tokenizer_class", "PreTrainedTokenizerFast");
  w.field("model_max_length", v.context);
  w.field("clean_up_tokenization_spaces", false);
  w.field("add_bos_token", v.add_bos);
  w.field("add_eos_token", v.add_eos);
  if (v.bos) w.field("bos_token", v.text(*v.bos));
  if (v.eos) w.field("eos_token", v.text(*v.eos));
  if (v.unk) w.field("unk_token", v.text(*v.unk));
  if (v.pad) w.field("pad_token", v.text(*v.pad));
  if (v.chat_template) w.field("chat_template", *v.chat_template);
  w.end_object();
  return json + "\n";
}

}  // namespace

StatusOr<TokenizerFiles> tokenizer_from_gguf(const GgufContents& gguf, int64_t vocab_size) {
  const StatusOr<Vocabulary> vocabulary = read_vocabulary(gguf, vocab_size);
  if (!vocabulary.ok()) return vocabulary.status();
  TokenizerFiles files{.tokenizer_json = tokenizer_json(*vocabulary),
                       .tokenizer_config_json = tokenizer_config_json(*vocabulary)};
  // What the engine could not read must not be written.
  const auto read_back = Tokenizer::from_json(files.tokenizer_json, files.tokenizer_config_json);
  if (!read_back.ok()) {
    return Status(read_back.status().code(),
                  "the file's tokenizer cannot be used: " + read_back.status().message());
  }
  return files;
}

}  // namespace flotilla::convert
