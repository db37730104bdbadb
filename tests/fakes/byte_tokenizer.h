// A tokenizer in which id b is byte b, so that any character beyond ASCII takes several tokens, and
// a few special tokens.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/utf8.h"
#include "engine/text/tokenizer.h"

namespace flotilla {

inline constexpr TokenId kByteEos = 256;         // "<|end|>"
inline constexpr TokenId kByteThink = 257;       // "<think>"
inline constexpr TokenId kByteEndThink = 258;    // "</think>"
inline constexpr int64_t kByteVocabulary = 300;  // of the model: 259 … 299 have no token

// GPT-2's byte alphabet: printable bytes stand for themselves, the others for U+0100 and on.
inline std::string byte_letter(int byte) {
  int next = 0x100;
  std::string letter;
  for (int b = 0; b <= byte; ++b) {
    const bool printable =
        (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
    const int code = printable ? b : next++;
    if (b == byte) utf8_append(&letter, static_cast<char32_t>(code));
  }
  return letter;
}

inline std::string byte_tokenizer_json() {
  std::string json;
  JsonWriter w(&json);
  w.begin_object();
  w.key("added_tokens");
  w.begin_array();
  TokenId id = kByteEos;
  for (const char* token : {"<|end|>", "<think>", "</think>"}) {
    w.begin_object();
    w.field("id", id);
    w.field("content", token);
    w.field("single_word", false);
    w.field("lstrip", false);
    w.field("rstrip", false);
    w.field("normalized", false);
    w.field("special",
            id == kByteEos);  // the thinking marks are ordinary added tokens, as in Qwen3
    w.end_object();
    ++id;
  }
  w.end_array();
  w.key("normalizer");
  w.null();
  w.key("pre_tokenizer");
  w.raw(R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false})");
  w.key("post_processor");
  w.null();
  w.key("decoder");
  w.raw(R"({"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true})");
  w.key("model");
  w.begin_object();
  w.field("type", "BPE");
  w.key("vocab");
  w.begin_object();
  for (int b = 0; b < 256; ++b) w.field(byte_letter(b), b);
  w.end_object();
  w.key("merges");
  w.raw("[]");
  w.end_object();
  w.end_object();
  return json;
}

inline std::unique_ptr<Tokenizer> make_byte_tokenizer() {
  return Tokenizer::from_json(byte_tokenizer_json(), R"({"eos_token":"<|end|>"})").value();
}

inline std::vector<TokenId> byte_ids(std::string_view text) {
  std::vector<TokenId> ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

}  // namespace flotilla
