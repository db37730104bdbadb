// A blocking client of the queue port, for tests.
#pragma once

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <optional>
#include <string>

#include "common/crypto.h"
#include "common/fd.h"
#include "common/wire/frame.h"
#include "common/wire/handshake.h"
#include "common/wire/queue.pb.h"

namespace flotilla {

class QueueClient {
 public:
  explicit QueueClient(int port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    timeval patience{30, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }

  int fd() const { return fd_.get(); }
  void send_bytes(std::string_view bytes) {
    (void)write_fully(fd_.get(), std::as_bytes(std::span(bytes.data(), bytes.size())));
  }
  void send(const wire::ToRank& message) {
    std::string bytes;
    append_frame(&bytes, message);
    send_bytes(bytes);
  }
  // nullopt at the end of the connection.
  std::optional<wire::FromRank> receive() {
    while (true) {
      auto frame = frames_.next();
      REQUIRE(frame.ok());
      if (frame->has_value()) {
        wire::FromRank message;
        REQUIRE(message.ParseFromArray((*frame)->data(), static_cast<int>((*frame)->size())));
        return message;
      }
      char buffer[4096];
      const ssize_t n = ::recv(fd_.get(), buffer, sizeof buffer, 0);
      if (n <= 0) return std::nullopt;
      frames_.feed({buffer, static_cast<size_t>(n)});
    }
  }
  // The answer to ours: Accepted, or a protocol error.
  wire::FromRank shake_hands(const std::string& secret) {
    const wire::FromRank challenge = receive().value();
    REQUIRE(challenge.has_challenge());
    wire::ToRank answer;
    const std::string nonce(kNonceBytes, 'n');
    answer.mutable_answer()->set_nonce(nonce);
    answer.mutable_answer()->set_proof(
        client_proof(secret, "queue", challenge.challenge().nonce(), nonce));
    send(answer);
    const wire::FromRank reply = receive().value();
    if (reply.has_accepted()) {
      CHECK(reply.accepted().proof() ==
            server_proof(secret, "queue", challenge.challenge().nonce(), nonce));
    }
    return reply;
  }
  // All batches of request `id` up to its last one; other requests' are dropped.
  std::vector<wire::TokenBatch> run_to_end(uint64_t id) {
    std::vector<wire::TokenBatch> batches;
    while (true) {
      const auto message = receive();
      REQUIRE(message.has_value());
      if (!message->has_tokens() || message->tokens().id() != id) continue;
      batches.push_back(message->tokens());
      if (batches.back().finish() != wire::TokenBatch::RUNNING) return batches;
    }
  }

 private:
  UniqueFd fd_;
  FrameReader frames_{kMaxQueueFrame};
};

}  // namespace flotilla
