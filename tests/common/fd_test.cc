#include "common/fd.h"

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>

using namespace flotilla;

TEST_CASE("WakeFd.IsReadableFromWakeToDrain") {
  WakeFd wake;
  pollfd p{wake.fd(), POLLIN, 0};
  CHECK(poll(&p, 1, 0) == 0);
  wake.wake();
  wake.wake();
  CHECK(poll(&p, 1, 0) == 1);
  wake.drain();
  CHECK(poll(&p, 1, 0) == 0);
}

TEST_CASE("WriteFully.ToAClosedPeerIsAnErrorAndNoSignal") {
  int fds[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  const UniqueFd a(fds[0]);
  UniqueFd b(fds[1]);
  b.reset();
  const std::byte data[4] = {};
  CHECK_FALSE(write_fully(a.get(), data).ok());
}

TEST_CASE("ReadFile.SaysWhichFileAndWhy") {
  const auto missing = read_file("/nonexistent/x", 10);
  CHECK(missing.status().code() == StatusCode::kNotFound);
  CHECK(missing.status().message().find("/nonexistent/x") != std::string::npos);
  const auto big = read_file("/proc/self/status", 10);
  CHECK(big.status().message() == "/proc/self/status is larger than 10 bytes");
}
