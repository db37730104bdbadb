// HttpConnection's life: events, deadlines, and its end.
#include "api_server/http/connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include "api_server/http/io_loop.h"

namespace flotilla {

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
