// Writes an oracle's model as a checkpoint, in each of the layouts that published files have.
#pragma once

#include <string>
#include <vector>

#include "tests/engine/model/oracle.h"
#include "tests/fakes/safetensors_file.h"

namespace flotilla::oracle {

enum class FileLayout {
  kPlain,    // "model.", [out, in], everything apart
  kPaddle,   // "ernie.", [in, out], q|k|v and gate|up fused, BF16 called U16
  kStacked,  // as plain, but the experts of a layer in two tensors
};

class CheckpointWriter {
 public:
  CheckpointWriter(const Shape& s, const Weights& w, FileLayout layout)
      : s_(s), w_(w), layout_(layout) {}

  std::vector<RawTensor> tensors() {
    const std::string root = paddle() ? "ernie." : "model.";
    plain(root + "embed_tokens.weight", w_.at("embed"));
    vector(root + "norm.weight", w_.at("norm"));
    if (!s_.tied) linear("lm_head", {w_.at("head")});
    for (int l = 0; l < s_.layers; ++l) layer(l, root + "layers." + std::to_string(l) + ".");
    return std::move(out_);
  }

 private:
  bool paddle() const { return layout_ == FileLayout::kPaddle; }
  const Matrix& at(int l, const std::string& name) const {
    return w_.at(std::to_string(l) + "." + name);
  }

  void put(const std::string& name,
           std::vector<int64_t> shape,
           const std::vector<float>& values,
           bool f32 = false) {
    const std::string dtype = f32 ? "F32" : paddle() ? "U16" : "BF16";
    out_.push_back({name, dtype, std::move(shape), encode_values(values, dtype)});
  }
  void plain(const std::string& name, const Matrix& m) {
    std::vector<float> values;
    for (const Vector& row : m) values.insert(values.end(), row.begin(), row.end());
    put(name, {static_cast<int64_t>(m.size()), static_cast<int64_t>(m[0].size())}, values);
  }
  void vector(const std::string& name, const Matrix& m) {
    put(name, {static_cast<int64_t>(m[0].size())}, std::vector<float>(m[0].begin(), m[0].end()));
  }
  // Parts stacked along the output, transposed for Paddle.
  void linear(const std::string& name, const std::vector<Matrix>& parts, bool f32 = false) {
    Matrix all;
    for (const Matrix& part : parts) all.insert(all.end(), part.begin(), part.end());
    const size_t n = all.size(), k = all[0].size();
    std::vector<float> values;
    if (paddle()) {
      for (size_t i = 0; i < k; ++i) {
        for (size_t o = 0; o < n; ++o) values.push_back(static_cast<float>(all[o][i]));
      }
      put(name + ".weight", {static_cast<int64_t>(k), static_cast<int64_t>(n)}, values, f32);
    } else {
      for (const Vector& row : all) values.insert(values.end(), row.begin(), row.end());
      put(name + ".weight", {static_cast<int64_t>(n), static_cast<int64_t>(k)}, values, f32);
    }
  }
  void mlp(int l, const std::string& prefix, const std::string& name) {
    if (paddle()) {
      linear(prefix + "up_gate_proj", {at(l, name + "g"), at(l, name + "u")});
    } else {
      linear(prefix + "gate_proj", {at(l, name + "g")});
      linear(prefix + "up_proj", {at(l, name + "u")});
    }
    linear(prefix + "down_proj", {at(l, name + "d")});
  }
  void stacked_experts(int l, const std::string& prefix) {
    std::vector<float> gate_up, down;
    for (int e = 0; e < s_.experts; ++e) {
      const std::string name = "e" + std::to_string(e) + ".";
      for (const char* part : {"g", "u"}) {
        for (const Vector& row : at(l, name + part))
          gate_up.insert(gate_up.end(), row.begin(), row.end());
      }
      for (const Vector& row : at(l, name + "d")) down.insert(down.end(), row.begin(), row.end());
    }
    put(prefix + "experts.gate_up_proj", {s_.experts, 2 * s_.expert_width, s_.hidden}, gate_up);
    put(prefix + "experts.down_proj", {s_.experts, s_.hidden, s_.expert_width}, down);
  }
  void layer(int l, const std::string& p) {
    vector(p + "input_layernorm.weight", at(l, "n1"));
    vector(p + "post_attention_layernorm.weight", at(l, "n2"));
    if (paddle()) {
      linear(p + "self_attn.qkv_proj", {at(l, "q"), at(l, "k"), at(l, "v")});
    } else {
      for (const char* name : {"q", "k", "v"}) {
        linear(p + "self_attn." + name + "_proj", {at(l, name)});
        if (s_.bias) vector(p + "self_attn." + name + "_proj.bias", at(l, std::string(name) + "b"));
      }
    }
    linear(p + "self_attn.o_proj", {at(l, "o")});
    if (s_.bias) vector(p + "self_attn.o_proj.bias", at(l, "ob"));
    if (s_.family == "qwen3") {
      vector(p + "self_attn.q_norm.weight", at(l, "qn"));
      vector(p + "self_attn.k_norm.weight", at(l, "kn"));
    }
    if (s_.moe_layer.empty() || !s_.moe_layer[static_cast<size_t>(l)])
      return mlp(l, p + "mlp.", "m");
    linear(p + "mlp.gate", {at(l, "gate")}, true);
    if (s_.family == "ernie" && s_.correction_bias) {
      const Vector& b = at(l, "cb")[0];
      put(p + "mlp.moe_statics.e_score_correction_bias",
          {1, s_.experts},
          std::vector<float>(b.begin(), b.end()),
          true);
    }
    if (layout_ == FileLayout::kStacked) {
      stacked_experts(l, p + "mlp.");
    } else {
      for (int e = 0; e < s_.experts; ++e)
        mlp(l, p + "mlp.experts." + std::to_string(e) + ".", "e" + std::to_string(e) + ".");
    }
    if (s_.shared_width > 0) mlp(l, p + "mlp.shared_experts.", "s");
  }

  const Shape& s_;
  const Weights& w_;
  const FileLayout layout_;
  std::vector<RawTensor> out_;
};

}  // namespace flotilla::oracle
