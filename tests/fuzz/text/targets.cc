#include "tests/fuzz/text/targets.h"

#include <algorithm>
#include <string>
#include <vector>

#include "common/check.h"
#include "common/utf8.h"
#include "engine/text/chat_template.h"
#include "engine/text/incremental_decoder.h"
#include "engine/text/reasoning_parser.h"
#include "engine/text/stop_strings.h"
#include "engine/text/tokenizer.h"

namespace flotilla::fuzz {
namespace {

std::string_view text_of(std::span<const uint8_t> data) {
  return {reinterpret_cast<const char*>(data.data()), data.size()};
}

// Decodes with two ways to cut the ids, which must agree.
void check_decoding(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  for (const bool skip : {false, true}) {
    const std::string whole = tokenizer.decode(ids, skip);
    check(is_valid_utf8(whole), "decode() gave text that is not UTF-8");
    IncrementalDecoder decoder(tokenizer, skip);
    std::string streamed;
    for (const TokenId id : ids) {
      std::string piece;
      decoder.append(id, &piece);
      check(is_valid_utf8(piece), "the incremental decoder gave half a character");
      streamed += piece;
    }
    decoder.finish(&streamed);
    check(streamed == whole, "the incremental decoder and decode() differ");
  }
}

// Llama-2's kind of decoder over a handful of tokens: bytes, pieces with spaces, special ones.
const Tokenizer& byte_fallback_tokenizer() {
  static const auto tokenizer = [] {
    std::string vocab = R"("<unk>":0,"a":1,"▁b":2,"▁":3,"é":4,"<s>":5,"▁▁":6,"x▁y":7)";
    for (int b = 0; b < 256; ++b) {
      char entry[24];
      std::snprintf(entry, sizeof entry, ",\"<0x%02X>\":%d", b, 8 + b);
      vocab += entry;
    }
    return *Tokenizer::from_json(
        R"({"added_tokens":[{"id":5,"content":"<s>","special":true,"normalized":false}],"normalizer":null,)"
        R"("pre_tokenizer":null,"post_processor":null,"decoder":{"type":"Sequence","decoders":[)"
        R"({"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},)"
        R"({"type":"Strip","content":" ","start":1,"stop":0}]},"model":{"type":"BPE","byte_fallback":true,"vocab":{)" +
        vocab + R"(},"merges":[]}})");
  }();
  return *tokenizer;
}

}  // namespace

void tokenizer_json(std::span<const uint8_t> data) {
  const std::string_view input = text_of(data);
  const size_t nul = std::min(input.find('\0'), input.size());
  const auto tokenizer = Tokenizer::from_json(input.substr(0, nul));
  if (!tokenizer.ok()) {
    check(!tokenizer.status().message().empty(), "a refusal without a reason");
    return;
  }
  const std::string_view text = nul < input.size() ? input.substr(nul + 1) : "Hello wörld 12 <s>";
  const auto ids = (*tokenizer)->encode(text, {.add_special_tokens = true});
  if (ids.ok()) check_decoding(**tokenizer, *ids);
  std::vector<TokenId> arbitrary;
  for (const uint8_t byte : data.subspan(0, std::min<size_t>(64, data.size())))
    arbitrary.push_back(byte % 16);
  check_decoding(**tokenizer, arbitrary);
  for (TokenId id = -1; id < 8; ++id) {
    check(is_valid_utf8((*tokenizer)->token_text(id)), "token_text() is not UTF-8");
  }
}

void chat_template(std::span<const uint8_t> data) {
  TokenizerConfig tokens;
  tokens.special_tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  const auto chat = ChatTemplate::from_text(text_of(data), tokens);
  if (!chat.ok()) {
    check(!chat.status().message().empty(), "a refusal without a reason");
    return;
  }
  const auto prompt = (*chat)->render(
      {.messages_json =
           R"([{"role":"system","content":"é"},{"role":"user","content":[{"type":"text","text":"x"}]},)"
           R"({"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":{"a":[1,2.5]}}}]}])",
       .tools_json = R"([{"type":"function","function":{"name":"f","parameters":{}}}])",
       .kwargs_json = R"({"enable_thinking":false})"});
  if (prompt.ok()) check(is_valid_utf8(*prompt), "a template wrote text that is not UTF-8");
}

void text_stream(std::span<const uint8_t> data) {
  if (data.size() < 4) return;
  const bool include = data[0] % 2 == 1;
  const size_t stop_bytes = std::min<size_t>(data[1] % 24, data.size() - 4);
  std::vector<std::string> stops{""};
  for (const uint8_t byte : data.subspan(4, stop_bytes)) {
    if (byte == 0) {
      stops.emplace_back();
    } else {
      stops.back() += static_cast<char>(byte);
    }
  }
  std::vector<TokenId> ids;
  for (const uint8_t byte : data.subspan(4 + stop_bytes)) ids.push_back(byte < 8 ? byte : byte + 8);
  check_decoding(byte_fallback_tokenizer(), ids);

  const std::string text = byte_fallback_tokenizer().decode(ids, false);
  const auto matched_text = [&](size_t step) {
    StopMatcher matcher(stops, include);
    std::string out;
    for (size_t at = 0; at < text.size(); at += step) {
      if (matcher.append(std::string_view(text).substr(at, step), &out)) return out;
    }
    matcher.finish(&out);
    return out;
  };
  const auto split = [&](const char* name, size_t step) {
    auto parser = ReasoningParser::make(name, data[3] % 2 == 1 ? "<think>" : "");
    ReasoningParser::Delta out;
    for (size_t at = 0; at < text.size(); at += step) {
      parser->append(std::string_view(text).substr(at, step), &out);
    }
    parser->finish(&out);
    return out;
  };
  const size_t step = 1 + data[2] % 7;
  check(matched_text(step) == matched_text(text.size() + 1), "chunks change where a text stops");
  for (const char* name : {"qwen3", "ernie-x1"}) {
    check(split(name, step) == split(name, text.size() + 1),
          "chunks change how reasoning is split");
  }
}

}  // namespace flotilla::fuzz
