// HttpConnection's life, its responses and its end.
#include <sys/epoll.h>
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

HttpConnection::HttpConnection(HttpIoLoop& loop,
                               uint64_t id,
                               UniqueFd socket,
                               std::string remote_address)
    : loop_(loop),
      core_(loop.core()),
      id_(id),
      socket_(std::move(socket)),
      remote_address_(std::move(remote_address)),
      head_(loop.core().options.limits.head) {
  set_deadline(loop_.now() + limits().head_timeout);
}

const HttpLimits& HttpConnection::limits() const { return core_.options.limits; }

const HttpRequest* HttpConnection::known_request() const {
  if (job_) return &job_->request;
  return head_known_ ? &request_ : nullptr;
}

void HttpConnection::on_events(uint32_t events) {
  reads_left_ = kReadsPerTurn;
  readable_ = true;  // whatever it is, reading tells
  if (events & EPOLLOUT) writable_ = true;
  if (events & EPOLLRDHUP) peer_half_closed_ = true;
  if (events & (EPOLLHUP | EPOLLERR)) peer_reset_ = true;
  switch (state_) {
    case State::kHandling:
      if (peer_reset_) {
        job_->peer = HttpJob::Peer::kReset;
      } else if (peer_half_closed_) {
        job_->peer = HttpJob::Peer::kHalfClosed;
      }
      return;
    case State::kStreaming:
      if (peer_reset_ || peer_half_closed_) {
        give_up();
        return;
      }
      break;
    case State::kFlushing:
      if (peer_reset_) {
        give_up();
        return;
      }
      break;
    default:
      if (peer_reset_) {
        remove();
        return;
      }
  }
  if (output_waits() && writable_ && flush()) after_write();
  advance();
}

void HttpConnection::on_turn() {
  turn_pending_ = false;
  reads_left_ = kReadsPerTurn;
  advance();
}

void HttpConnection::on_timer(TimePoint when) {
  if (when != timer_at_) return;
  timer_at_ = TimePoint::max();
  if (loop_.now() < deadline_) {
    set_deadline(deadline_);
    return;
  }
  const auto too_slow = [&](std::string message, HttpRefusal reason) {
    refuse({.status = 408, .code = "request_timeout", .message = std::move(message)}, reason);
  };
  reads_left_ = kReadsPerTurn;
  switch (state_) {
    case State::kHead:
      too_slow("the request's head was not complete in time", HttpRefusal::kHeadTimeout);
      break;
    case State::kBody: {
      const auto seconds = std::chrono::duration<double>(limits().body_window).count();
      const auto due = static_cast<double>(limits().min_body_bytes_per_second) * seconds;
      if (static_cast<double>(window_bytes_) < due) {
        too_slow("the request's body comes slower than " +
                     std::to_string(limits().min_body_bytes_per_second) + " bytes per second",
                 HttpRefusal::kBodyTimeout);
      } else {
        window_bytes_ = 0;
        set_deadline(loop_.now() + limits().body_window);
      }
      break;
    }
    case State::kStreaming:
    case State::kFlushing:
      core_.counters.refuse(HttpRefusal::kStalledReader);
      cut();
      return;
    case State::kIdle:
    case State::kLingering:
      remove();
      return;
    case State::kHandling:
    case State::kRemoved:
      return;
  }
  advance();
}

void HttpConnection::set_deadline(TimePoint deadline) {
  deadline_ = deadline;
  if (deadline >= timer_at_) return;  // the timer looks again when it fires
  timer_at_ = deadline;
  loop_.watch_deadline(id_, deadline);
}

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

void HttpConnection::end_request(bool complete) {
  if (const HttpRequest* request = known_request(); request && core_.options.on_finished) {
    core_.options.on_finished(*request, status_, complete);
  }
  release_body_bytes();
  job_.reset();
  request_ = {};
  head_known_ = false;
  chunks_.reset();
  if (std::exchange(in_flight_, false)) core_.request_ends();
}

void HttpConnection::give_up() {
  HttpCounterCells::bump(core_.counters.clients_gone);
  if (state_ == State::kStreaming) {
    const auto producer = job_->producer;
    end_stream();
    producer->on_client_gone();
  }
  end_request(false);
  remove();
}

void HttpConnection::close_if_idle() {
  reads_left_ = kReadsPerTurn;
  readable_ = true;
  advance();  // a request that has just come in is answered
  if (idle()) begin_linger();
}

void HttpConnection::cut() {
  const bool response_due =
      state_ == State::kHandling || state_ == State::kStreaming || state_ == State::kFlushing;
  if (!response_due) {
    remove();
    return;
  }
  const linger reset{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(socket_.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  give_up();
}

void HttpConnection::begin_linger() {
  ::shutdown(socket_.get(), SHUT_WR);
  input_ = {};
  linger_bytes_ = 0;
  state_ = State::kLingering;
  readable_ = true;
  set_deadline(loop_.now() + limits().linger_timeout);
}

void HttpConnection::release_body_bytes() {
  HttpCounterCells::drop(core_.counters.body_bytes_in_memory,
                         std::exchange(body_bytes_counted_, 0));
}

void HttpConnection::remove() {
  release_body_bytes();
  state_ = State::kRemoved;
  loop_.remove(id_);
}

}  // namespace flotilla
