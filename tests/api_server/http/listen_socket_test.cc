#include "api_server/http/listen_socket.h"

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/api_server/http/http_test_client.h"

using namespace flotilla;

namespace {

int option(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  getsockopt(fd, level, name, &value, &size);
  return value;
}

}  // namespace

TEST_CASE("ListenSocket.ABusyPortNamesItsHolder") {
  const auto first = listen_on("127.0.0.1", 0);
  REQUIRE(first.ok());
  const uint16_t port = *local_port(first->get());
  const auto second = listen_on("127.0.0.1", port);
  REQUIRE_FALSE(second.ok());
  CHECK(second.status().code() == StatusCode::kUnavailable);
  CHECK(second.status().message().find("port " + std::to_string(port) + " is taken by ") == 0);
  CHECK(second.status().message().find("(pid " + std::to_string(getpid()) + ")") !=
        std::string::npos);
  CHECK(option(first->get(), SOL_SOCKET, SO_REUSEPORT) == 0);
}

TEST_CASE("ListenSocket.NobodyHoldsAFreePort") {
  uint16_t port = 0;
  {
    const auto socket = listen_on("localhost", 0);
    REQUIRE(socket.ok());
    port = *local_port(socket->get());
  }
  CHECK(port_holder(port).empty());
}

TEST_CASE("ListenSocket.ABadHostSaysSo") {
  CHECK(listen_on("no such host", 0).status().code() == StatusCode::kInvalidArgument);
  const auto foreign = listen_on("192.0.2.1", 0);  // TEST-NET: never ours
  CHECK(foreign.status().code() == StatusCode::kInvalidArgument);
  CHECK(foreign.status().message().find("192.0.2.1") != std::string::npos);
  CHECK(listen_on("::", 0).ok());
}

TEST_CASE("ListenSocket.AcceptedSocketsInheritTheOptions") {
  const auto listener = listen_on("127.0.0.1", 0);
  REQUIRE(listener.ok());
  REQUIRE(prepare_listening_socket(listener->get(), std::chrono::seconds(60)).ok());
  RawClient client(*local_port(listener->get()));
  REQUIRE(client.connected());
  const UniqueFd accepted(::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC));
  REQUIRE(static_cast<bool>(accepted));
  CHECK(option(accepted.get(), IPPROTO_TCP, TCP_NODELAY) == 1);
  CHECK(option(accepted.get(), IPPROTO_TCP, TCP_NOTSENT_LOWAT) == 64 << 10);
  CHECK(option(accepted.get(), IPPROTO_TCP, TCP_USER_TIMEOUT) == 60'000);
  CHECK(option(accepted.get(), SOL_SOCKET, SO_KEEPALIVE) == 1);
  CHECK(option(accepted.get(), IPPROTO_TCP, TCP_KEEPIDLE) == 30);
}
