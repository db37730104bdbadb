// Challenge and response with the cluster secret, the same on the queue port and on the mesh: the
// one who was connected to (server) sends a nonce; the client answers with its own nonce and a
// proof; the server answers with its proof. Neither proof can be replayed or turned round.
#pragma once

#include <string>
#include <string_view>

namespace flotilla {

inline constexpr size_t kNonceBytes = 32;
inline constexpr size_t kProofBytes = 32;

// HMAC-SHA256(secret, "flotilla " + purpose + " client" + server nonce + client nonce); `purpose`
// is "queue" or "mesh".
std::string client_proof(std::string_view secret,
                         std::string_view purpose,
                         std::string_view server_nonce,
                         std::string_view client_nonce);
// HMAC-SHA256(secret, "flotilla " + purpose + " server" + client nonce + server nonce).
std::string server_proof(std::string_view secret,
                         std::string_view purpose,
                         std::string_view server_nonce,
                         std::string_view client_nonce);

}  // namespace flotilla
