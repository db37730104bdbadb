// Responses that are made later than their handler runs: pulled from a producer by the I/O thread
// that owns the socket.
//
// Pull, not push: whoever has new text wakes the stream; when the socket can take bytes, the I/O
// thread asks the producer for everything there is. A client slower than the model so gets larger
// pieces, and nothing is queued here per token.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "api_server/http/http_message.h"

namespace flotilla {

class HttpConnection;
struct IoMailbox;

// What a producer writes to. Valid during one produce() call.
class ResponseWriter {
 public:
  // True once start() was called, now or earlier: the status can't be changed any more.
  bool started() const { return started_; }

  // The whole response at once. Only if not started; ends the stream.
  void respond(HttpResponse response);

  // Begins a response whose body follows in pieces. Framing is the server's: chunked, or until
  // close for HTTP/1.0.
  void start(int status, HttpHeaders headers);
  // 200, text/event-stream, not to be cached nor buffered by proxies; `headers` besides.
  void start_events(HttpHeaders headers = {});

  // Append here, after start(). All of one produce() call is sent as one chunk, with one system
  // call.
  std::string& body() { return *body_; }
  // Nothing more will come. The producer is not called again, and released once all is sent.
  void finish() { finished_ = true; }

 private:
  friend class HttpConnection;
  ResponseWriter(bool started, std::string* body) : started_(started), body_(body) {}

  bool started_;
  bool finished_ = false;
  bool has_head_ = false;  // `head_` was set by this call
  bool whole_ = false;     // by respond()
  HttpResponse head_;
  std::string* body_;
};

// Makes a response. Both members run on the stream's I/O thread, one at a time, and must not wait.
// Destroyed on that thread or, if it outlives the stream elsewhere, wherever its last owner is.
class ResponseProducer {
 public:
  virtual ~ResponseProducer() = default;
  // Writes everything that is ready; may be nothing. Called at least once after each wake, unless
  // the client is gone. One that throws has its connection cut.
  virtual void produce(ResponseWriter& out) = 0;
  // The client went away, was cut for not reading, or the server stops: nothing that is produced
  // will reach it. Called at most once, and no produce() after it. Not called after finish() or
  // respond().
  virtual void on_client_gone() = 0;
};

// One response to be: wakes its producer. Any thread; stays valid, and does nothing, after the
// stream or the server ended.
class ResponseStream {
 public:
  explicit ResponseStream(std::shared_ptr<IoMailbox> mailbox) : mailbox_(std::move(mailbox)) {}

 private:
  friend class HttpConnection;
  friend class HttpIoLoop;
  friend struct IoMailbox;
  friend void wake(const std::shared_ptr<ResponseStream>& stream);
  friend void wake_many(std::span<const std::shared_ptr<ResponseStream>> streams);

  const std::shared_ptr<IoMailbox> mailbox_;
  std::atomic<bool> queued_{false};       // in the mailbox: a wake that nobody has served yet
  HttpConnection* connection_ = nullptr;  // I/O thread only; null before detach() and after the end
};

using ResponseStreamHandle = std::shared_ptr<ResponseStream>;

void wake(const ResponseStreamHandle& stream);
// At most one system call per I/O thread, however many streams: for all streams of one engine step.
void wake_many(std::span<const ResponseStreamHandle> streams);

}  // namespace flotilla
