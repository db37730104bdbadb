// A complete request on its way from its connection through a handler thread and back.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "api_server/http/http_server.h"
#include "api_server/http/router.h"

namespace flotilla {

class HttpJob final : public HttpExchange {
 public:
  enum class Peer { kOpen, kHalfClosed, kReset };

  // The connection sets these before the handler runs.
  HttpRequest request;
  const HttpRouter::Route* route = nullptr;
  std::shared_ptr<IoMailbox> mailbox;
  uint64_t connection_id = 0;
  bool keep_alive = false;  // the response's Connection header
  std::atomic<Peer> peer{Peer::kOpen};

  // The handler's thread sets these before the job goes back: a producer, or the response as it
  // goes over the wire.
  std::shared_ptr<ResponseProducer> producer;
  std::string wire_response;
  int status = 0;

  bool head_only() const { return request.method == "HEAD"; }
  const ResponseStreamHandle& attached_stream() { return stream_ ? stream_ : (stream_ = make()); }
  std::optional<HttpResponse>& response() { return response_; }

  void respond(HttpResponse response) override { response_ = std::move(response); }
  void detach(std::shared_ptr<ResponseProducer> p) override { producer = std::move(p); }
  ResponseStreamHandle stream() override { return attached_stream(); }
  bool client_gone() const override { return peer.load(std::memory_order_relaxed) != Peer::kOpen; }

 private:
  ResponseStreamHandle make() const { return std::make_shared<ResponseStream>(mailbox); }

  std::optional<HttpResponse> response_;
  ResponseStreamHandle stream_;
};

}  // namespace flotilla
