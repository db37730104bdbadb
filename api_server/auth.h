// Who may use the API: keys as bearer tokens, and browser pages by their origin.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "api_server/http/http_message.h"
#include "common/crypto.h"

namespace flotilla {

// Keys are kept as digests only, and a check takes the same time whichever key is right or how far
// a wrong one agrees.
class ApiKeys {
 public:
  // Each key not empty. No keys: everybody may in.
  explicit ApiKeys(const std::vector<std::string>& keys);

  bool required() const { return !digests_.empty(); }
  // `authorization` is the header's value: "Bearer KEY".
  bool admits(std::string_view authorization) const;

 private:
  std::vector<Sha256Digest> digests_;
};

// Cross-origin resource sharing (--allowed-origins).
class Cors {
 public:
  // Origins as browsers send them ("https://chat.example"), or "*". None: no page of another origin
  // may read answers.
  explicit Cors(std::vector<std::string> allowed_origins);

  void decorate(const HttpRequest& request, HttpHeaders* response) const;

 private:
  std::vector<std::string> origins_;
  bool any_ = false;
};

}  // namespace flotilla
