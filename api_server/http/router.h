// Which handler answers a method and a path.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "api_server/http/http_server.h"

namespace flotilla {

class HttpRouter {
 public:
  struct Route {
    std::string method;
    HttpHandler handler;
    RouteKind kind;
  };
  struct Match {
    const Route* route = nullptr;  // null: no route for that method
    std::string allow;  // what the path has, "GET, HEAD, OPTIONS", if there is no route; empty: no
                        // such path
  };

  void add(std::string_view method, std::string_view path, HttpHandler handler, RouteKind kind);
  // HEAD falls back to GET. "OPTIONS *" is a path that every method is allowed on.
  Match find(std::string_view method, std::string_view path) const;

 private:
  using Routes = std::vector<Route>;
  const Routes* find_path(std::string_view path) const;

  std::map<std::string, Routes, std::less<>> exact_;
  std::map<std::string, Routes, std::less<>> prefixes_;  // with their last '/', without the '*'
};

}  // namespace flotilla
