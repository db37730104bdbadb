// Repeatable random numbers: the same on every machine, unlike the distributions of <random>.
#pragma once

#include <bit>
#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

namespace flotilla::convert {

// SplitMix64 (Steele et al., OOPSLA'14).
class Noise {
 public:
  // One stream per key: {seed, layer, expert, …}.
  explicit Noise(std::initializer_list<uint64_t> key) {
    for (const uint64_t part : key) state_ = mix(state_ ^ part);
  }

  uint64_t bits() {
    state_ += 0x9E3779B97F4A7C15u;
    return mix(state_);
  }
  // Mean 0, variance 1, nearly normal: the sum of eight uniform bytes (mean 1020, variance 8 ·
  // (256² − 1) / 12).
  float normal() {
    int sum = 0;
    for (uint64_t b = bits(); b != 0; b >>= 8) sum += static_cast<int>(b & 255);
    return static_cast<float>(sum - 1020) / 209.03f;
  }
  float sign() { return bits() & 1 ? 1.0f : -1.0f; }
  // The bias of a remainder does not matter for n far below 2^64.
  uint64_t below(uint64_t n) { return bits() % n; }

  template <typename T>
  void shuffle(std::vector<T>* values) {
    for (size_t i = values->size(); i > 1; --i) std::swap((*values)[i - 1], (*values)[below(i)]);
  }

 private:
  static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
  }

  uint64_t state_ = 0x9E3779B97F4A7C15u;
};

}  // namespace flotilla::convert
