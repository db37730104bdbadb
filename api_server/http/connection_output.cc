// The writing half of HttpConnection: plain responses, pieces of streams, and what the kernel does
// not take at once.
#include <sys/socket.h>

#include <cerrno>
#include <exception>

#include "api_server/http/connection.h"
#include "api_server/http/io_loop.h"
#include "common/log.h"

namespace flotilla {
namespace {

constexpr int kReadsPerTurn = 4;               // of 64 KiB: then other connections have their turn
constexpr size_t kKeptOutputBytes = 64 << 10;  // an output buffer that grew larger is given back

// Room in front of a piece for its chunk line: 8 hex digits and CR LF.
constexpr size_t kChunkLineBytes = 10;

// Writes the chunk line right before the data that starts at kChunkLineBytes. Returns where it
// begins.
size_t write_chunk_line(std::string* piece, size_t data_bytes) {
  static constexpr char kHex[] = "0123456789abcdef";
  size_t at = kChunkLineBytes;
  (*piece)[--at] = '\n';
  (*piece)[--at] = '\r';
  for (; data_bytes > 0; data_bytes >>= 4) (*piece)[--at] = kHex[data_bytes & 15];
  return at;
}

}  // namespace

void HttpConnection::on_answered() {
  if (state_ != State::kHandling) return;
  reads_left_ = kReadsPerTurn;
  if (job_->producer) {
    job_->request.body = {};
    release_body_bytes();
    HttpCounterCells::bump(core_.counters.streams_open);
    job_->attached_stream()->connection_ = this;
    state_ = State::kStreaming;
    started_ = produce_later_ = false;
    if (peer_reset_ || peer_half_closed_) {
      give_up();
      return;
    }
    produce();
  } else {
    state_ = State::kFlushing;
    status_ = job_->status;
    if (peer_reset_) {
      give_up();
      return;
    }
    if (send(job_->wire_response)) after_write();
  }
  advance();
}

void HttpConnection::on_woken() {
  reads_left_ = kReadsPerTurn;
  produce();
  advance();
}

void HttpConnection::produce() {
  produce_later_ = output_waits();
  if (produce_later_) return;
  std::string& piece = loop_.output();
  piece.assign(kChunkLineBytes, ' ');
  ResponseWriter writer(started_, &piece);
  try {
    job_->producer->produce(writer);
  } catch (const std::exception& error) {
    log_error("http_producer_failed", {{"path", job_->request.path}, {"why", error.what()}});
    cut();
    return;
  }
  if (writer.whole_) {
    end_stream();
    answer(std::move(writer.head_));
  } else {
    send_piece(writer, &piece);
  }
  if (piece.capacity() > kKeptOutputBytes) piece = {};
}

void HttpConnection::send_piece(ResponseWriter& writer, std::string* piece) {
  const size_t data_bytes = piece->size() - kChunkLineBytes;
  check(writer.started_ || (data_bytes == 0 && !writer.finished_),
        "a producer calls start() before it writes or finishes");
  const bool head_only = job_->head_only();
  std::string head;
  if (writer.has_head_) {
    started_ = true;
    status_ = writer.head_.status;
    chunked_ = job_->request.minor_version == 1;
    keep_alive_ = keep_alive_ && chunked_ && !core_.draining.load(std::memory_order_relaxed);
    HttpHeaders& headers = writer.head_.headers;
    finish_headers(core_.options, &job_->request, &headers);
    if (chunked_) headers.add("Transfer-Encoding", "chunked");
    if (!keep_alive_) headers.add("Connection", "close");
    append_response_head(&head, status_, headers);
  }
  size_t from = kChunkLineBytes;
  if (head_only) {
    piece->resize(from);
  } else if (chunked_) {
    if (data_bytes > 0) {
      from = write_chunk_line(piece, data_bytes);
      *piece += "\r\n";
    }
    if (writer.finished_) *piece += "0\r\n\r\n";
  }
  if (writer.finished_ || (head_only && started_)) {
    const auto producer = job_->producer;
    end_stream();
    if (!writer.finished_) producer->on_client_gone();  // a HEAD: nobody wants the rest
  }
  const std::string_view bytes = std::string_view(*piece).substr(from);
  if (head.empty() ? send(bytes) : send(head.append(bytes))) after_write();
}

void HttpConnection::end_stream() {
  job_->attached_stream()->connection_ = nullptr;
  job_->producer.reset();
  HttpCounterCells::drop(core_.counters.streams_open);
  state_ = State::kFlushing;
}

void HttpConnection::refuse(const HttpError& error, HttpRefusal reason) {
  core_.counters.refuse(reason);
  keep_alive_ = false;
  input_ = {};
  request_.body = {};
  release_body_bytes();
  answer(error_response(error, core_.options.error_body));
}

void HttpConnection::answer(HttpResponse response) {
  const HttpRequest* request = known_request();
  keep_alive_ = keep_alive_ && !core_.draining.load(std::memory_order_relaxed);
  finish_headers(core_.options, request, &response.headers);
  if (!keep_alive_) {
    response.headers.add("Connection", "close");
  } else if (request->minor_version == 0) {
    response.headers.add("Connection", "keep-alive");
  }
  const bool bodyless = response.status == 204 || response.status == 304;
  if (!bodyless) response.headers.add("Content-Length", std::to_string(response.body.size()));
  std::string bytes;
  append_response_head(&bytes, response.status, response.headers);
  if (!bodyless && !(request != nullptr && request->method == "HEAD")) bytes += response.body;
  status_ = response.status;
  state_ = State::kFlushing;
  if (send(bytes)) after_write();
}

void HttpConnection::refuse_unread(HttpCore& core, int socket) {
  HttpResponse response = error_response({.status = 503,
                                          .code = "too_many_connections",
                                          .message = "too many connections are open: retry later"},
                                         core.options.error_body);
  finish_headers(core.options, nullptr, &response.headers);
  response.headers.add("Connection", "close");
  response.headers.add("Content-Length", std::to_string(response.body.size()));
  std::string bytes;
  append_response_head(&bytes, response.status, response.headers);
  bytes += response.body;
  [[maybe_unused]] const ssize_t n = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  ::shutdown(socket, SHUT_WR);
}

bool HttpConnection::send(std::string_view bytes) {
  if (output_waits()) {
    output_.append(bytes);
    return true;
  }
  output_.clear();
  output_sent_ = 0;
  while (!bytes.empty()) {
    const ssize_t n = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n >= 0) {
      HttpCounterCells::bump(core_.counters.bytes_sent, static_cast<uint64_t>(n));
      bytes.remove_prefix(static_cast<size_t>(n));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      writable_ = false;
      output_.assign(bytes);
      set_deadline(loop_.now() + limits().stall_timeout);
      return true;
    } else if (errno != EINTR) {
      give_up();
      return false;
    }
  }
  return true;
}

bool HttpConnection::flush() {
  const size_t before = output_sent_;
  while (output_waits()) {
    const ssize_t n = ::send(
        socket_.get(), output_.data() + output_sent_, output_.size() - output_sent_, MSG_NOSIGNAL);
    if (n >= 0) {
      HttpCounterCells::bump(core_.counters.bytes_sent, static_cast<uint64_t>(n));
      output_sent_ += static_cast<size_t>(n);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      writable_ = false;
      if (output_sent_ > before) set_deadline(loop_.now() + limits().stall_timeout);
      return true;
    } else if (errno != EINTR) {
      give_up();
      return false;
    }
  }
  output_.clear();
  output_sent_ = 0;
  if (output_.capacity() > kKeptOutputBytes) output_ = {};
  return true;
}

void HttpConnection::after_write() {
  if (output_waits()) return;
  if (state_ == State::kStreaming) {
    set_deadline(TimePoint::max());
    if (produce_later_) produce();
  } else if (state_ == State::kFlushing) {
    end_request(true);
    if (keep_alive_ && !core_.draining.load(std::memory_order_relaxed)) {
      state_ = State::kIdle;
      set_deadline(loop_.now() + limits().idle_timeout);
    } else {
      begin_linger();
    }
  }
}

}  // namespace flotilla
