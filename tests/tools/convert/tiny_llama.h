// A Llama of one layer with a byte-level tokenizer, as a GGUF file.
#pragma once

#include <string>
#include <vector>

#include "common/utf8.h"
#include "tests/tools/convert/gguf_builder.h"

namespace flotilla {

struct TinyLlama {
  static constexpr uint64_t kHidden = 64, kHeads = 4, kKvHeads = 2, kHeadDim = 16, kWidth = 96;
  static constexpr uint64_t kVocab = 262;  // 5 beyond the tokenizer's

  // A different value in every place, exact in BF16 up to 8 bits.
  static std::vector<float> values(uint64_t n, uint32_t salt) {
    std::vector<float> out;
    for (uint64_t i = 0; i < n; ++i) {
      out.push_back(static_cast<float>((i * 37 + salt * 11) % 255) / 128.0f - 1.0f);
    }
    return out;
  }

  // GPT-2's letters for the 256 bytes.
  static std::vector<std::string> byte_tokens() {
    std::vector<std::string> tokens;
    char32_t next = 256;
    for (char32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      utf8_append(&tokens.emplace_back(), printable ? b : next++);
    }
    return tokens;
  }

  static GgufBuilder metadata() {
    GgufBuilder b;
    std::vector<std::string> tokens = {"<|end|>"};
    std::vector<int32_t> types = {3};
    for (std::string& token : byte_tokens()) {
      tokens.push_back(std::move(token));
      types.push_back(1);
    }
    b.string("general.architecture", "llama")
        .u32("llama.block_count", 1)
        .u32("llama.context_length", 128)
        .u32("llama.embedding_length", kHidden)
        .u32("llama.feed_forward_length", kWidth)
        .u32("llama.attention.head_count", kHeads)
        .u32("llama.attention.head_count_kv", kKvHeads)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5f)
        .f32("llama.rope.freq_base", 100000.0f)
        .u32("llama.rope.dimension_count", kHeadDim)
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", "smollm")
        .strings("tokenizer.ggml.tokens", tokens)
        .i32s("tokenizer.ggml.token_type", types)
        .strings("tokenizer.ggml.merges", {})
        .u32("tokenizer.ggml.bos_token_id", 0)
        .u32("tokenizer.ggml.eos_token_id", 0)
        .string("tokenizer.chat_template",
                "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}");
    return b;
  }

  static void add_tensors(GgufBuilder* b) {
    const auto add = [&](const std::string& name, std::vector<uint64_t> ne, uint32_t salt) {
      uint64_t n = 1;
      for (const uint64_t d : ne) n *= d;
      b->f32_tensor(name, std::move(ne), values(n, salt));
    };
    add("token_embd.weight", {kHidden, kVocab}, 1);
    add("output_norm.weight", {kHidden}, 2);
    add("blk.0.attn_norm.weight", {kHidden}, 3);
    add("blk.0.attn_q.weight", {kHidden, kHeads * kHeadDim}, 4);
    add("blk.0.attn_k.weight", {kHidden, kKvHeads * kHeadDim}, 5);
    add("blk.0.attn_v.weight", {kHidden, kKvHeads * kHeadDim}, 6);
    add("blk.0.attn_output.weight", {kHeads * kHeadDim, kHidden}, 7);
    add("blk.0.ffn_norm.weight", {kHidden}, 8);
    add("blk.0.ffn_gate.weight", {kHidden, kWidth}, 9);
    add("blk.0.ffn_up.weight", {kHidden, kWidth}, 10);
    add("blk.0.ffn_down.weight", {kWidth, kHidden}, 11);
  }

  static GgufBuilder builder() {
    GgufBuilder b = metadata();
    add_tensors(&b);
    return b;
  }
};

}  // namespace flotilla
