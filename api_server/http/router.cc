#include "api_server/http/router.h"

namespace flotilla {

void HttpRouter::add(std::string_view method,
                     std::string_view path,
                     HttpHandler handler,
                     RouteKind kind) {
  const bool prefix = path.ends_with("/*");
  check(is_http_token(method) && path.starts_with('/'), "a route is a method and a path from '/'");
  auto& table = prefix ? prefixes_ : exact_;
  table[std::string(path.substr(0, path.size() - (prefix ? 1 : 0)))].push_back(
      {std::string(method), std::move(handler), kind});
}

const HttpRouter::Routes* HttpRouter::find_path(std::string_view path) const {
  if (const auto it = exact_.find(path); it != exact_.end()) return &it->second;
  for (size_t slash = path.rfind('/'); slash != std::string_view::npos;
       slash = slash == 0 ? std::string_view::npos : path.rfind('/', slash - 1)) {
    const auto it = prefixes_.find(path.substr(0, slash + 1));
    if (it != prefixes_.end() && path.size() > slash + 1) return &it->second;
  }
  return nullptr;
}

HttpRouter::Match HttpRouter::find(std::string_view method, std::string_view path) const {
  if (path == "*") return {.route = nullptr, .allow = "GET, HEAD, POST, OPTIONS"};
  const Routes* routes = find_path(path);
  if (routes == nullptr) return {};
  const Route* get = nullptr;
  for (const Route& route : *routes) {
    if (route.method == method) return {.route = &route, .allow = {}};
    if (route.method == "GET") get = &route;
  }
  if (method == "HEAD" && get != nullptr) return {.route = get, .allow = {}};
  std::string allow;
  for (const Route& route : *routes) allow += route.method + ", ";
  if (get != nullptr) allow += "HEAD, ";
  return {.route = nullptr, .allow = allow + "OPTIONS"};
}

}  // namespace flotilla
