// SHA-256, HMAC and random bytes (OpenSSL's libcrypto).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace flotilla {

using Sha256Digest = std::array<uint8_t, 32>;

// Incremental SHA-256.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void update(std::string_view bytes);
  Sha256Digest finish();  // once

 private:
  void* context_;
};

Sha256Digest sha256(std::string_view bytes);
Sha256Digest hmac_sha256(std::string_view key, std::string_view message);
// Same time for equal and unequal inputs of one length.
bool equal_constant_time(std::string_view a, std::string_view b);
std::string random_bytes(size_t n);
std::string to_hex(std::string_view bytes);
inline std::string_view as_bytes(const Sha256Digest& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

}  // namespace flotilla
