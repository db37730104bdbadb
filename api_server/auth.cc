#include "api_server/auth.h"

#include <algorithm>

#include "common/check.h"

namespace flotilla {

ApiKeys::ApiKeys(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) {
    check(!key.empty(), "an API key must not be empty");
    digests_.push_back(sha256(key));
  }
}

bool ApiKeys::admits(std::string_view authorization) const {
  if (!required()) return true;
  constexpr std::string_view kScheme = "Bearer ";
  if (!http_equal_ignoring_case(authorization.substr(0, kScheme.size()), kScheme)) return false;
  const Sha256Digest given = sha256(authorization.substr(kScheme.size()));
  bool found = false;
  for (const Sha256Digest& digest : digests_) {
    found |= equal_constant_time(as_bytes(given), as_bytes(digest));
  }
  return found;
}

Cors::Cors(std::vector<std::string> allowed_origins) : origins_(std::move(allowed_origins)) {
  any_ = std::find(origins_.begin(), origins_.end(), "*") != origins_.end();
}

void Cors::decorate(const HttpRequest& request, HttpHeaders* response) const {
  if (origins_.empty()) return;
  const std::string_view origin = request.headers.get("Origin");
  if (!any_) {
    response->set("Vary", "Origin");  // caches must not give one origin's answer to another
    if (std::find(origins_.begin(), origins_.end(), origin) == origins_.end()) return;
  }
  if (origin.empty()) return;
  response->set("Access-Control-Allow-Origin", any_ ? std::string_view("*") : origin);
  response->set("Access-Control-Expose-Headers", "X-Request-Id, X-Data-Parallel-Rank, Retry-After, x-should-retry");
  if (request.method == "OPTIONS") {
    response->set("Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    const std::string_view asked = request.headers.get("Access-Control-Request-Headers");
    response->set("Access-Control-Allow-Headers",
                  asked.empty() ? "Authorization, Content-Type, X-Request-Id" : asked);
    response->set("Access-Control-Max-Age", "86400");
  }
}

}  // namespace flotilla
