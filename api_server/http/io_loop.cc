#include "api_server/http/io_loop.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <span>

#include "common/log.h"

namespace flotilla {
namespace {

constexpr uint64_t kMailboxId = 0;
constexpr uint64_t kListenerId = 1;
constexpr uint64_t kFirstConnectionId = 2;
constexpr int kAcceptsPerTurn = 64;
constexpr auto kAcceptPause = std::chrono::milliseconds(100);

std::string address_text(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    ::inet_ntop(
        AF_INET, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, text, sizeof text);
  } else if (address.ss_family == AF_INET6) {
    const in6_addr& ip = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(&ip)) {
      ::inet_ntop(AF_INET, &ip.s6_addr[12], text, sizeof text);
    } else {
      ::inet_ntop(AF_INET6, &ip, text, sizeof text);
    }
  }
  return text;
}

bool watch(int epoll, int fd, uint32_t events, uint64_t id) {
  epoll_event event{.events = events, .data = {.u64 = id}};
  return ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

}  // namespace

HttpIoLoop::HttpIoLoop(HttpCore& core)
    : core_(core), epoll_(::epoll_create1(EPOLL_CLOEXEC)), next_id_(kFirstConnectionId) {
  check(static_cast<bool>(epoll_) &&
            watch(epoll_.get(), mailbox_->wake_fd.fd(), EPOLLIN | EPOLLET, kMailboxId),
        "epoll failed: out of descriptors (raise ulimit -n)");
}

void HttpIoLoop::listen_on(UniqueFd listening_socket) {
  listener_ = std::move(listening_socket);
  check(watch(epoll_.get(), listener_.get(), EPOLLIN, kListenerId), "epoll refused the listener");
}

void HttpIoLoop::start() {
  thread_ = std::thread([this] { run(); });
  ::pthread_setname_np(thread_.native_handle(), (core_.options.name + "-io").substr(0, 15).c_str());
}

int HttpIoLoop::wait_ms() const {
  if (!turns_.empty()) return 0;
  if (timers_.empty()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(timers_.top().when -
                                                                 std::chrono::steady_clock::now());
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, 60'000));
}

void HttpIoLoop::run() {
  std::array<epoll_event, 256> events;
  while (!stopping_) {
    const int n = ::epoll_wait(epoll_.get(), events.data(), events.size(), wait_ms());
    now_ = std::chrono::steady_clock::now();
    for (const epoll_event& event : std::span(events.data(), n < 0 ? 0 : static_cast<size_t>(n))) {
      const uint64_t id = event.data.u64;
      if (id == kListenerId) {
        accept_some();
      } else if (HttpConnection* connection = find(id)) {
        connection->on_events(event.events);
      }
    }
    read_mailbox();
    for (const uint64_t id : std::exchange(turns_, {})) {
      if (HttpConnection* connection = find(id)) connection->on_turn();
    }
    fire_timers();
    removed_.clear();
  }
  listener_.reset();
  {
    MutexLock lock(mailbox_->mutex);
    mailbox_->closed = true;
  }
  mailbox_->signalled.store(true);
  read_mailbox();  // connections that were on their way here are counted already
  while (!connections_.empty()) connections_.begin()->second->cut();
  removed_.clear();
}

HttpConnection* HttpIoLoop::find(uint64_t id) {
  const auto it = connections_.find(id);
  return it == connections_.end() ? nullptr : it->second.get();
}

void HttpIoLoop::remove(uint64_t id) {
  const auto it = connections_.find(id);
  if (it == connections_.end()) return;
  removed_.push_back(std::move(it->second));
  connections_.erase(it);
  num_connections_.fetch_sub(1, std::memory_order_relaxed);
  HttpCounterCells::drop(core_.counters.connections_open);
}

void HttpIoLoop::read_mailbox() {
  IoMailbox& mailbox = *mailbox_;
  if (!mailbox.signalled.load()) return;
  mailbox.signalled.store(false);  // before the swap: what is put in behind it signals again
  {
    MutexLock lock(mailbox.mutex);
    commands_.swap(mailbox.commands);
    woken_.swap(mailbox.woken);
  }
  for (IoCommand& command : commands_) obey(std::move(command));
  for (const ResponseStreamHandle& stream : woken_) {
    stream->queued_.store(false);  // before it is served: later news wakes it again
    if (stream->connection_ != nullptr) stream->connection_->on_woken();
  }
  commands_.clear();
  woken_.clear();
}

void HttpIoLoop::obey(IoCommand command) {
  switch (command.kind) {
    case IoCommand::Kind::kAdopt:
      adopt(std::move(command.socket), std::move(command.remote_address));
      break;
    case IoCommand::Kind::kAnswered:
      if (HttpConnection* connection = find(command.job->connection_id)) connection->on_answered();
      break;
    case IoCommand::Kind::kDrain: {
      std::vector<HttpConnection*> all;  // closing one changes the map
      for (const auto& [id, connection] : connections_) all.push_back(connection.get());
      for (HttpConnection* connection : all) connection->close_if_idle();
      break;
    }
    case IoCommand::Kind::kStopListening:
      listener_.reset();
      break;
    case IoCommand::Kind::kStop:
      stopping_ = true;
      break;
  }
}

void HttpIoLoop::fire_timers() {
  while (!timers_.empty() && timers_.top().when <= now_) {
    const auto [when, id] = timers_.top();
    timers_.pop();
    if (id == kListenerId) {
      accept_paused_ = !(listener_ && watch(epoll_.get(), listener_.get(), EPOLLIN, kListenerId));
      if (accept_paused_ && listener_) timers_.push({now_ + kAcceptPause, kListenerId});
    } else if (HttpConnection* connection = find(id)) {
      connection->on_timer(when);
    }
  }
}

void HttpIoLoop::accept_some() {
  for (int i = 0; i < kAcceptsPerTurn && listener_ && !accept_paused_; ++i) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    UniqueFd socket(::accept4(listener_.get(),
                              reinterpret_cast<sockaddr*>(&address),
                              &size,
                              SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket) {
      HttpCounterCells::bump(core_.counters.connections_accepted);
      place(std::move(socket), address_text(address));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return;
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      pause_accepting();
    }
    // Anything else is the fault of that one connection: it was reset in the queue, or a firewall
    // forbids it.
  }
}

// The listener stays readable while there is no descriptor for what it holds: watching it on would
// spin.
void HttpIoLoop::pause_accepting() {
  log_warn("http_accept_paused",
           {{"server", core_.options.name},
            {"why", errno_status("accept").message()},
            {"help", "raise ulimit -n"}});
  HttpCounterCells::bump(core_.counters.accept_pauses);
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener_.get(), nullptr);
  accept_paused_ = true;
  timers_.push({now_ + kAcceptPause, kListenerId});
  if (HttpConnection* idle = longest_idle()) idle->cut();
}

HttpConnection* HttpIoLoop::longest_idle() {
  HttpConnection* longest = nullptr;
  for (const auto& [id, connection] : connections_) {
    if (!connection->idle()) continue;
    if (longest == nullptr || connection->deadline() < longest->deadline()) {
      longest = connection.get();
    }
  }
  return longest;
}

void HttpIoLoop::place(UniqueFd socket, std::string remote_address) {
  if (core_.counters.connections_open.load() >= core_.options.limits.max_connections) {
    HttpConnection* idle = longest_idle();
    if (idle == nullptr) {
      core_.counters.refuse(HttpRefusal::kTooManyConnections);
      HttpConnection::refuse_unread(core_, socket.get());
      return;
    }
    idle->cut();
    give_to(*this, std::move(socket), std::move(remote_address));
    return;
  }
  HttpIoLoop* least = this;
  for (const auto& loop : core_.loops) {
    if (loop->num_connections_.load(std::memory_order_relaxed) <
        least->num_connections_.load(std::memory_order_relaxed)) {
      least = loop.get();
    }
  }
  give_to(*least, std::move(socket), std::move(remote_address));
}

void HttpIoLoop::give_to(HttpIoLoop& loop, UniqueFd socket, std::string remote_address) {
  // Counted now, so that a burst of connections is spread although the other loop has not yet seen
  // them.
  loop.num_connections_.fetch_add(1, std::memory_order_relaxed);
  HttpCounterCells::bump(core_.counters.connections_open);
  if (&loop == this) {
    adopt(std::move(socket), std::move(remote_address));
  } else if (!loop.mailbox_->post({.kind = IoCommand::Kind::kAdopt,
                                   .socket = std::move(socket),
                                   .remote_address = std::move(remote_address)})) {
    HttpCounterCells::drop(core_.counters.connections_open);
  }
}

void HttpIoLoop::adopt(UniqueFd socket, std::string remote_address) {
  const uint64_t id = next_id_++;
  const int fd = socket.get();
  connections_.emplace(
      id,
      std::make_unique<HttpConnection>(*this, id, std::move(socket), std::move(remote_address)));
  if (!watch(epoll_.get(), fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, id)) remove(id);
}

}  // namespace flotilla
