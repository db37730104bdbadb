#include "common/wire/handshake.h"

#include "common/crypto.h"

namespace flotilla {
namespace {

std::string proof(std::string_view secret,
                  std::string_view purpose,
                  std::string_view side,
                  std::string_view first,
                  std::string_view second) {
  std::string message = "flotilla ";
  message.append(purpose).append(side).append(first).append(second);
  const Sha256Digest digest = hmac_sha256(secret, message);
  return std::string(as_bytes(digest));
}

}  // namespace

std::string client_proof(std::string_view secret,
                         std::string_view purpose,
                         std::string_view server_nonce,
                         std::string_view client_nonce) {
  return proof(secret, purpose, " client", server_nonce, client_nonce);
}

std::string server_proof(std::string_view secret,
                         std::string_view purpose,
                         std::string_view server_nonce,
                         std::string_view client_nonce) {
  return proof(secret, purpose, " server", client_nonce, server_nonce);
}

}  // namespace flotilla
