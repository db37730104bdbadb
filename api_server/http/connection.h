// One client's connection: reads requests strictly and within limits, hands complete ones to
// handlers, writes what comes back, runs the producer of a detached response, and ends.
//
//   kIdle → kHead → kBody → kHandling → kFlushing ───────→ kIdle, or kLingering → removed
//                              └──────→ kStreaming → kFlushing
//
// Threads: the I/O thread that owns it, all members. epoll is edge-triggered: readable_ and
// writable_ remember what it said.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "api_server/http/chunked_decoder.h"
#include "api_server/http/head_parser.h"
#include "api_server/http/http_core.h"
#include "api_server/http/http_job.h"

namespace flotilla {

class HttpConnection {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  HttpConnection(HttpIoLoop& loop, uint64_t id, UniqueFd socket, std::string remote_address);

  void on_events(uint32_t events);
  void on_turn();
  void on_timer(TimePoint when);
  void on_answered();
  void on_woken();

  void close_if_idle();
  // Ends it now, with a reset if a response is cut short by it: what was sent so far must not look
  // complete.
  void cut();
  bool idle() const { return state_ == State::kIdle && input_.empty(); }
  TimePoint deadline() const { return deadline_; }

  // For a socket that gets no connection object: says 503 if that fits, without waiting.
  static void refuse_unread(HttpCore& core, int socket);

 private:
  // Reads of 64 KiB: then other connections have their turn.
  static constexpr int kReadsPerTurn = 4;

  enum class State { kIdle, kHead, kBody, kHandling, kStreaming, kFlushing, kLingering, kRemoved };

  // Reading: connection_input.cc. A step is true if there may be more to do at once.
  void advance();
  bool step_head();
  bool step_body();
  bool step_linger();
  // More bytes of the client, good until the next call; empty: none now, or the connection is gone.
  std::string_view receive();
  void begin_request();
  // The answer to a request that no handler needs to see: 404, 405, OPTIONS, or check_head's.
  std::optional<HttpResponse> answer_to_head();
  bool count_body_bytes(size_t n);
  void dispatch();

  // Answers of the server itself.
  void refuse(const HttpError& error, HttpRefusal reason);  // and ends the connection
  void answer(HttpResponse response);

  // Writing: connection_output.cc.
  void produce();
  void send_piece(ResponseWriter& writer, std::string* piece);
  void end_stream();
  // Sends `bytes` behind what waits already; the rest waits. False if the connection is gone.
  bool send(std::string_view bytes);
  bool flush();
  bool output_waits() const { return output_sent_ < output_.size(); }
  void after_write();
  void end_request(bool complete);
  void give_up();  // a response is due that can't be sent any more
  void begin_linger();
  void release_body_bytes();
  void remove();

  // The request whose response is being made, if its head could be parsed.
  const HttpRequest* known_request() const;
  void set_deadline(TimePoint deadline);
  const HttpLimits& limits() const;

  HttpIoLoop& loop_;
  HttpCore& core_;
  const uint64_t id_;
  UniqueFd socket_;
  const std::string remote_address_;

  State state_ = State::kIdle;
  bool readable_ = false;
  bool writable_ = false;
  bool peer_half_closed_ = false;
  bool peer_reset_ = false;
  bool turn_pending_ = false;
  int reads_left_ = 0;  // of this turn
  TimePoint deadline_ = TimePoint::max();
  TimePoint timer_at_ = TimePoint::max();  // the one that counts of those set in the loop

  std::string input_;   // bytes received and not yet understood
  std::string output_;  // bytes the kernel has not yet taken, from output_sent_ on
  size_t output_sent_ = 0;

  // The request being read.
  HeadParser head_;
  bool head_known_ = false;  // request_ holds a parsed head
  HttpRequest request_;
  const HttpRouter::Route* route_ = nullptr;
  std::optional<HttpResponse> early_answer_;  // to be given once the body has been read
  BodyFraming framing_ = BodyFraming::kNone;
  std::optional<ChunkedDecoder> chunks_;
  uint64_t body_left_ = 0;         // kLength
  size_t body_bytes_counted_ = 0;  // our share of body_bytes_in_memory
  uint64_t window_bytes_ = 0;      // received since the rate was last looked at
  size_t linger_bytes_ = 0;

  // The response being made.
  bool in_flight_ = false;
  bool keep_alive_ = true;
  int status_ = 0;
  std::shared_ptr<HttpJob> job_;
  bool started_ = false;        // a stream's head was sent
  bool chunked_ = false;        // its framing
  bool produce_later_ = false;  // woken while output waited
};

}  // namespace flotilla
