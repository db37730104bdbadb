#include "api_server/null_model.h"

#include "common/json.h"
#include "common/utf8.h"

namespace flotilla {
namespace {

// The byte-level alphabet of GPT-2: printable bytes stand for themselves, the others for U+0100, U+0101, … in order.
char32_t byte_symbol(int byte, int* next) {
  const bool plain = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
  return plain ? static_cast<char32_t>(byte) : static_cast<char32_t>(0x100 + (*next)++);
}

}  // namespace

std::string byte_tokenizer_json() {
  std::string out;
  JsonWriter json(&out);
  json.begin_object();
  json.field("version", "1.0");
  json.key("added_tokens");
  json.begin_array();
  json.end_array();
  for (const char* part : {"pre_tokenizer", "decoder"}) {
    json.key(part);
    json.raw(R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"use_regex":false})");
  }
  json.key("model");
  json.begin_object();
  json.field("type", "BPE");
  json.key("vocab");
  json.begin_object();
  int next = 0;
  for (int byte = 0; byte < 256; ++byte) {
    std::string symbol;
    utf8_append(&symbol, byte_symbol(byte, &next));
    json.field(symbol, byte);
  }
  json.end_object();
  json.key("merges");
  json.begin_array();
  json.end_array();
  json.end_object();
  json.end_object();
  return out;
}

std::string plain_chat_template() {
  return "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}assistant: ";
}

std::string null_engine_text() {
  return "The quick brown fox jumps over the lazy dog, and the null engine says so without a model. ";
}

}  // namespace flotilla
