// A slow, obvious forward pass in double precision, written from the families' published arithmetic
// and nothing of the engine: what the engine's logits are compared with for shapes that no fixture
// has. Weights are kept as double, [out, in].
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "kernels/dtype.h"

namespace flotilla::oracle {

using Matrix = std::vector<std::vector<double>>;
using Vector = std::vector<double>;

struct Shape {
  std::string family = "ernie";  // "ernie", "qwen3", "llama"
  int layers = 2, hidden = 48, heads = 4, kv_heads = 2, head_dim = 16, intermediate = 64,
      vocab = 97;
  double eps = 1e-5, theta = 10000.0;
  bool tied = true, bias = false;
  int experts = 0, top_k = 0, expert_width = 0, shared_width = 0;
  std::vector<bool> moe_layer = {};  // [layers]; empty: none
  bool correction_bias = true, renormalize = true;
  bool llama3 = false;  // rope scaling with factor 8, low 1, high 4, original 64
};

// name → [out, in] (a vector is one row), values that BF16 holds exactly.
using Weights = std::map<std::string, Matrix>;

inline Weights random_weights(const Shape& s, unsigned seed) {
  std::mt19937 random(seed);
  const auto make = [&](int out, int in, double scale, double mean = 0.0) {
    std::normal_distribution<double> normal(mean, scale);
    Matrix m(static_cast<size_t>(out), Vector(static_cast<size_t>(in)));
    for (Vector& row : m) {
      for (double& v : row) v = bf16_to_f32(f32_to_bf16(static_cast<float>(normal(random))));
    }
    return m;
  };
  Weights w;
  w["embed"] = make(s.vocab, s.hidden, 0.5);
  w["norm"] = make(1, s.hidden, 0.2, 1.0);
  if (!s.tied) w["head"] = make(s.vocab, s.hidden, 0.3);
  for (int l = 0; l < s.layers; ++l) {
    const std::string p = std::to_string(l) + ".";
    const double in = 1.5 / std::sqrt(s.hidden);
    w[p + "n1"] = make(1, s.hidden, 0.2, 1.0);
    w[p + "n2"] = make(1, s.hidden, 0.2, 1.0);
    w[p + "q"] = make(s.heads * s.head_dim, s.hidden, in);
    w[p + "k"] = make(s.kv_heads * s.head_dim, s.hidden, in);
    w[p + "v"] = make(s.kv_heads * s.head_dim, s.hidden, in);
    w[p + "o"] = make(s.hidden, s.heads * s.head_dim, in);
    if (s.bias) {
      w[p + "qb"] = make(1, s.heads * s.head_dim, 0.3);
      w[p + "kb"] = make(1, s.kv_heads * s.head_dim, 0.3);
      w[p + "vb"] = make(1, s.kv_heads * s.head_dim, 0.3);
      w[p + "ob"] = make(1, s.hidden, 0.3);
    }
    if (s.family == "qwen3") {
      w[p + "qn"] = make(1, s.head_dim, 0.2, 1.0);
      w[p + "kn"] = make(1, s.head_dim, 0.2, 1.0);
    }
    const auto mlp = [&](const std::string& name, int width) {
      w[p + name + "g"] = make(width, s.hidden, in);
      w[p + name + "u"] = make(width, s.hidden, in);
      w[p + name + "d"] = make(s.hidden, width, 1.5 / std::sqrt(width));
    };
    if (s.moe_layer.empty() || !s.moe_layer[static_cast<size_t>(l)]) {
      mlp("m", s.intermediate);
      continue;
    }
    w[p + "gate"] = make(s.experts, s.hidden, in);
    if (s.family == "ernie" && s.correction_bias) w[p + "cb"] = make(1, s.experts, 0.05);
    for (int e = 0; e < s.experts; ++e) mlp("e" + std::to_string(e) + ".", s.expert_width);
    if (s.shared_width > 0) mlp("s", s.shared_width);
  }
  return w;
}

inline Vector times(const Matrix& w, const Vector& x) {
  Vector y;
  for (const Vector& row : w) {
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) sum += row[i] * x[i];
    y.push_back(sum);
  }
  return y;
}
inline void add(Vector& a, const Vector& b, double scale = 1.0) {
  for (size_t i = 0; i < a.size(); ++i) a[i] += scale * b[i];
}
inline Vector rms_norm(const Vector& x, const Vector& w, double eps) {
  double sum = 0;
  for (const double v : x) sum += v * v;
  const double r = 1.0 / std::sqrt(sum / static_cast<double>(x.size()) + eps);
  Vector y(x.size());
  for (size_t i = 0; i < x.size(); ++i) y[i] = w[i] * x[i] * r;
  return y;
}

class Model {
 public:
  Model(const Shape& s, const Weights& w) : s_(s), w_(w) {}

  // Logits of every position.
  std::vector<Vector> logits(const std::vector<int32_t>& ids) const {
    std::vector<Vector> x;
    for (const int32_t id : ids) x.push_back(w_.at("embed")[static_cast<size_t>(id)]);
    for (int l = 0; l < s_.layers; ++l) {
      attention(l, x);
      for (Vector& row : x) add(row, ffn(l, rms_norm(row, at(l, "n2")[0], s_.eps)));
    }
    std::vector<Vector> out;
    for (const Vector& row : x)
      out.push_back(
          times(s_.tied ? w_.at("embed") : w_.at("head"), rms_norm(row, w_.at("norm")[0], s_.eps)));
    return out;
  }

 private:
  const Matrix& at(int l, const std::string& name) const {
    return w_.at(std::to_string(l) + "." + name);
  }

  double frequency(int j) const {
    const double f = std::pow(s_.theta, -2.0 * j / s_.head_dim);
    if (!s_.llama3) return f;
    const double wave = 2 * M_PI / f, original = 64, low = 1, high = 4, factor = 8;
    if (wave < original / high) return f;
    if (wave > original / low) return f / factor;
    const double smooth = (original / wave - low) / (high - low);
    return (1 - smooth) * f / factor + smooth * f;
  }

  void rotate(Vector& head, size_t position) const {
    const int half = s_.head_dim / 2;
    for (int j = 0; j < half; ++j) {
      const bool interleaved = s_.family == "ernie";
      double& a = head[static_cast<size_t>(interleaved ? 2 * j : j)];
      double& b = head[static_cast<size_t>(interleaved ? 2 * j + 1 : j + half)];
      const double phase = static_cast<double>(position) * frequency(j);
      const double a0 = a, b0 = b;
      a = a0 * std::cos(phase) - b0 * std::sin(phase);
      b = b0 * std::cos(phase) + a0 * std::sin(phase);
    }
  }

  // Heads of one projection of all rows.
  std::vector<std::vector<Vector>> heads(
      int l, const std::vector<Vector>& n, const std::string& name, int count, bool rotated) const {
    std::vector<std::vector<Vector>> out;
    for (size_t t = 0; t < n.size(); ++t) {
      Vector y = times(at(l, name), n[t]);
      if (s_.bias) add(y, at(l, name + "b")[0]);
      std::vector<Vector> row;
      for (int h = 0; h < count; ++h) {
        const auto begin = y.begin() + h * s_.head_dim;
        Vector head(begin, begin + s_.head_dim);
        if (rotated && s_.family == "qwen3") head = rms_norm(head, at(l, name + "n")[0], s_.eps);
        if (rotated) rotate(head, t);
        row.push_back(std::move(head));
      }
      out.push_back(std::move(row));
    }
    return out;
  }

  void attention(int l, std::vector<Vector>& x) const {
    std::vector<Vector> n;
    for (const Vector& row : x) n.push_back(rms_norm(row, at(l, "n1")[0], s_.eps));
    const auto q = heads(l, n, "q", s_.heads, true), k = heads(l, n, "k", s_.kv_heads, true),
               v = heads(l, n, "v", s_.kv_heads, false);
    for (size_t t = 0; t < x.size(); ++t) {
      Vector mixed;
      for (int h = 0; h < s_.heads; ++h) {
        const auto kv = static_cast<size_t>(h / (s_.heads / s_.kv_heads));
        Vector score;
        for (size_t u = 0; u <= t; ++u) {
          double dot = 0;
          for (size_t d = 0; d < static_cast<size_t>(s_.head_dim); ++d)
            dot += q[t][static_cast<size_t>(h)][d] * k[u][kv][d];
          score.push_back(dot / std::sqrt(s_.head_dim));
        }
        const double top = *std::max_element(score.begin(), score.end());
        double sum = 0;
        for (double& p : score) sum += p = std::exp(p - top);
        Vector out(static_cast<size_t>(s_.head_dim), 0.0);
        for (size_t u = 0; u <= t; ++u) add(out, v[u][kv], score[u] / sum);
        mixed.insert(mixed.end(), out.begin(), out.end());
      }
      Vector o = times(at(l, "o"), mixed);
      if (s_.bias) add(o, at(l, "ob")[0]);
      add(x[t], o);
    }
  }

  Vector mlp(int l, const std::string& name, const Vector& n) const {
    Vector g = times(at(l, name + "g"), n);
    const Vector u = times(at(l, name + "u"), n);
    for (size_t i = 0; i < g.size(); ++i) g[i] = g[i] / (1 + std::exp(-g[i])) * u[i];
    return times(at(l, name + "d"), g);
  }

  Vector ffn(int l, const Vector& n) const {
    if (s_.moe_layer.empty() || !s_.moe_layer[static_cast<size_t>(l)]) return mlp(l, "m", n);
    Vector p = times(at(l, "gate"), n);
    const double top = *std::max_element(p.begin(), p.end());
    double sum = 0;
    for (double& v : p) sum += v = std::exp(v - top);
    for (double& v : p) v /= sum;
    Vector score = p;
    if (s_.family == "ernie" && s_.correction_bias) add(score, at(l, "cb")[0]);
    std::vector<size_t> order(p.size());
    for (size_t e = 0; e < order.size(); ++e) order[e] = e;
    std::stable_sort(
        order.begin(), order.end(), [&](size_t a, size_t b) { return score[a] > score[b]; });
    order.resize(static_cast<size_t>(s_.top_k));
    double chosen = 0;
    for (const size_t e : order) chosen += p[e];
    Vector y(n.size(), 0.0);
    for (const size_t e : order)
      add(y, mlp(l, "e" + std::to_string(e) + ".", n), s_.renormalize ? p[e] / chosen : p[e]);
    if (s_.shared_width > 0) add(y, mlp(l, "s", n));
    return y;
  }

  const Shape& s_;
  const Weights& w_;
};

}  // namespace flotilla::oracle
