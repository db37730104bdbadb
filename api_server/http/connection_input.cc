// The reading half of HttpConnection: heads, bodies, limits, and the way to a handler.
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "api_server/http/connection.h"
#include "api_server/http/io_loop.h"

namespace flotilla {
namespace {

// A refused request's body of up to so many bytes is read, so that the connection can be used
// again.
constexpr uint64_t kBodyWorthReading = 64 << 10;

}  // namespace

void HttpConnection::advance() {
  for (;;) {
    bool more = false;
    switch (state_) {
      case State::kIdle:
      case State::kHead:
        more = step_head();
        break;
      case State::kBody:
        more = step_body();
        break;
      case State::kLingering:
        more = step_linger();
        break;
      case State::kHandling:
      case State::kStreaming:
      case State::kFlushing:
      case State::kRemoved:
        break;
    }
    if (!more) return;
  }
}

std::string_view HttpConnection::receive() {
  if (!readable_) return {};
  if (reads_left_ == 0) {
    if (!std::exchange(turn_pending_, true)) loop_.take_turn_later(id_);
    return {};
  }
  --reads_left_;
  auto& buffer = loop_.input();
  const ssize_t n = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
  if (n > 0) {
    // A short read has emptied the socket; only an end of input could be behind it.
    readable_ = static_cast<size_t>(n) == buffer.size() || peer_half_closed_;
    HttpCounterCells::bump(core_.counters.bytes_received, static_cast<uint64_t>(n));
    return {buffer.data(), static_cast<size_t>(n)};
  }
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
    readable_ = errno == EINTR;
    return {};
  }
  remove();  // end of input where no response is due, or a reset
  return {};
}

bool HttpConnection::step_head() {
  if (!input_.empty()) {
    switch (head_.scan(input_)) {
      case HeadParser::Result::kDone:
        begin_request();
        return true;
      case HeadParser::Result::kError:
        refuse(head_.error(), HttpRefusal::kMalformed);
        return true;
      case HeadParser::Result::kNeedMore:
        break;
    }
    if (state_ == State::kIdle) {
      state_ = State::kHead;
      set_deadline(loop_.now() + limits().head_timeout);
    }
  }
  const std::string_view bytes = receive();
  input_.append(bytes);
  return !bytes.empty();
}

void HttpConnection::begin_request() {
  RequestHead& head = head_.head();
  request_ = std::move(head.request);
  request_.remote_address = remote_address_;
  head_known_ = true;
  keep_alive_ = head.keep_alive;
  framing_ = head.framing;
  body_left_ = head.content_length;
  const bool expect_continue = head.expect_continue && framing_ != BodyFraming::kNone;
  input_.erase(0, head_.head_bytes());
  head_.reset();

  early_answer_ = answer_to_head();
  if (framing_ == BodyFraming::kNone) {
    dispatch();
    return;
  }
  if (early_answer_) {
    if (expect_continue || framing_ == BodyFraming::kChunked || body_left_ > kBodyWorthReading) {
      keep_alive_ = false;
      dispatch();
      return;
    }
  } else if (body_left_ > limits().max_body_bytes) {
    refuse({.status = 413,
            .code = "body_too_large",
            .message = "the request body of " + std::to_string(body_left_) +
                       " bytes is larger than the limit of " +
                       std::to_string(limits().max_body_bytes) + " bytes (--max-body-bytes)"},
           HttpRefusal::kBodyTooLarge);
    return;
  } else if (request_.headers.has("Content-Encoding") &&
             !http_equal_ignoring_case(request_.headers.get("Content-Encoding"), "identity")) {
    refuse({.status = 415,
            .code = "unsupported_content_encoding",
            .message = "compressed request bodies are not taken: send it without Content-Encoding"},
           HttpRefusal::kUnsupportedCoding);
    return;
  }
  if (framing_ == BodyFraming::kChunked) chunks_.emplace(limits().max_body_bytes);
  state_ = State::kBody;
  window_bytes_ = 0;
  set_deadline(loop_.now() + limits().body_window);
  if (expect_continue && input_.empty()) send("HTTP/1.1 100 Continue\r\n\r\n");
}

std::optional<HttpResponse> HttpConnection::answer_to_head() {
  const HttpRouter::Match match = core_.router.find(request_.method, request_.path);
  route_ = match.route;
  if (route_ == nullptr) {
    HttpResponse response;
    if (match.allow.empty()) {
      core_.counters.refuse(HttpRefusal::kNoSuchRoute);
      return error_response(
          {.status = 404, .code = "unknown_url", .message = "there is no such path on this server"},
          core_.options.error_body);
    }
    if (request_.method == "OPTIONS") {
      response.status = 204;
    } else {
      core_.counters.refuse(HttpRefusal::kMethodNotAllowed);
      response = error_response({.status = 405,
                                 .code = "method_not_allowed",
                                 .message = "this path takes only " + match.allow},
                                core_.options.error_body);
    }
    response.headers.set("Allow", match.allow);
    return response;
  }
  if (!core_.options.check_head) return std::nullopt;
  std::optional<HttpResponse> response = core_.options.check_head(request_);
  if (response) core_.counters.refuse(HttpRefusal::kCheckedHead);
  return response;
}

bool HttpConnection::step_body() {
  const bool from_input = !input_.empty();
  const std::string_view bytes = from_input ? std::string_view(input_) : receive();
  if (bytes.empty()) return false;

  const size_t body_before = request_.body.size();
  size_t consumed = 0;
  bool done = false;
  if (framing_ == BodyFraming::kLength) {
    consumed = std::min<uint64_t>(body_left_, bytes.size());
    request_.body.append(bytes, 0, consumed);
    body_left_ -= consumed;
    done = body_left_ == 0;
  } else {
    const auto result = chunks_->feed(bytes, &request_.body, &consumed);
    if (result == ChunkedDecoder::Result::kError) {
      refuse(chunks_->error(),
             chunks_->error().status == 413 ? HttpRefusal::kBodyTooLarge : HttpRefusal::kMalformed);
      return true;
    }
    done = result == ChunkedDecoder::Result::kDone;
  }
  window_bytes_ += consumed;
  if (!count_body_bytes(request_.body.size() - body_before)) return true;
  if (from_input) {
    input_.erase(0, consumed);
  } else {
    input_.assign(bytes.substr(consumed));
  }
  if (done) dispatch();
  return true;
}

bool HttpConnection::count_body_bytes(size_t n) {
  const uint64_t total =
      core_.counters.body_bytes_in_memory.fetch_add(n, std::memory_order_relaxed) + n;
  body_bytes_counted_ += n;
  if (total <= limits().max_body_bytes_in_memory) return true;
  refuse({.status = 503,
          .code = "overloaded",
          .message = "too many request bodies are being read: retry later"},
         HttpRefusal::kOverloaded);
  return false;
}

void HttpConnection::dispatch() {
  request_.received_at = std::chrono::steady_clock::now();
  core_.request_begins();
  in_flight_ = true;
  keep_alive_ = keep_alive_ && !core_.draining.load(std::memory_order_relaxed);
  if (early_answer_) {
    answer(*std::exchange(early_answer_, std::nullopt));
    return;
  }
  job_ = std::make_shared<HttpJob>();
  job_->request = std::move(request_);
  job_->route = route_;
  job_->mailbox = loop_.mailbox();
  job_->connection_id = id_;
  job_->keep_alive = keep_alive_;
  if (peer_half_closed_) job_->peer = HttpJob::Peer::kHalfClosed;
  state_ = State::kHandling;
  set_deadline(TimePoint::max());
  if (core_.pool.submit(job_)) return;
  core_.counters.refuse(HttpRefusal::kOverloaded);
  answer(error_response({.status = 503,
                         .code = "overloaded",
                         .message = "the server has too many requests waiting: retry later"},
                        core_.options.error_body));
}

bool HttpConnection::step_linger() {
  const std::string_view bytes = receive();
  linger_bytes_ += bytes.size();
  if (linger_bytes_ > limits().max_linger_bytes) {
    remove();
    return false;
  }
  return !bytes.empty();
}

}  // namespace flotilla
