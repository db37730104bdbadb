#include "engine/parallel/mesh_links.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/crypto.h"
#include "common/wire/handshake.h"

namespace flotilla {
namespace {

// What a caller says: magic, epoch, rank; then its nonce and its proof.
struct Introduction {
  static constexpr uint32_t kMagic = 0x4853454D;  // "MESH"
  uint32_t magic = kMagic;
  int32_t rank = 0;
  uint64_t epoch = 0;
};
static_assert(sizeof(Introduction) == 16);

std::string error_text(int error) {
  char buffer[128];
  return strerror_r(error, buffer, sizeof buffer);
}

StatusOr<UniqueFd> open_socket(int family) {
  UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return errno_status("socket for the expert exchange");
  if (family == AF_INET) {
    const int on = 1;
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  return fd;
}

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

StatusOr<Address> parse_address(std::string_view text) {
  Address address;
  if (text.starts_with("unix:")) {
    text.remove_prefix(5);
    auto* un = reinterpret_cast<sockaddr_un*>(&address.storage);
    if (text.size() >= sizeof un->sun_path) {
      return invalid_argument(
          "the path of a Unix socket is longer than " + std::to_string(sizeof un->sun_path - 1) +
          " bytes: " + std::string(text) + " (set XDG_RUNTIME_DIR or TMPDIR to a shorter one)");
    }
    un->sun_family = AF_UNIX;
    std::memcpy(un->sun_path, text.data(), text.size());
    address.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + text.size() + 1);
    return address;
  }
  const size_t colon = text.rfind(':');
  if (text.starts_with("tcp:") && colon > 4) {
    auto* in = reinterpret_cast<sockaddr_in*>(&address.storage);
    in->sin_family = AF_INET;
    in->sin_port =
        htons(static_cast<uint16_t>(std::atoi(std::string(text.substr(colon + 1)).c_str())));
    if (::inet_pton(AF_INET, std::string(text.substr(4, colon - 4)).c_str(), &in->sin_addr) == 1) {
      address.size = sizeof *in;
      return address;
    }
  }
  return invalid_argument("'" + std::string(text) + "' is neither unix:PATH nor tcp:IPv4:PORT");
}

}  // namespace

void MeshLink::fail(std::string_view what) {
  if (!status_.ok()) return;
  status_ = unavailable("rank " + std::to_string(rank_.value) + ": " + std::string(what));
}

void MeshLink::send(std::string_view bytes) {
  outgoing_.append(bytes);
  flush();
}

void MeshLink::flush() {
  while (unsent() && status_.ok()) {
    const ssize_t n =
        ::send(fd_.get(), outgoing_.data() + sent_, outgoing_.size() - sent_, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (n < 0) return fail(error_text(errno));
    sent_ += static_cast<size_t>(n);
  }
  outgoing_.clear();
  sent_ = 0;
}

void MeshLink::expect(size_t n) {
  filled_ = 0;
  wanted_ = n;
  buffer_.resize(std::max(buffer_.size(), n));
}

void MeshLink::receive() {
  while (filled_ < wanted_ && status_.ok()) {
    const ssize_t n = ::recv(fd_.get(), buffer_.data() + filled_, wanted_ - filled_, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (n < 0) return fail(error_text(errno));
    if (n == 0) return fail("closed its connection");
    filled_ += static_cast<size_t>(n);
  }
}

StatusOr<std::unique_ptr<MeshLinks>> MeshLinks::listen(const MeshOptions& options) {
  std::unique_ptr<MeshLinks> mesh(new MeshLinks(options));
  const bool tcp = options.directory.empty();
  if (!tcp) {
    mesh->unix_path_ = options.directory + "/mesh-" + std::to_string(options.rank.value) + "-" +
                       std::to_string(::getpid()) + "-" + to_hex(random_bytes(4)) + ".sock";
  }
  const StatusOr<Address> address =
      parse_address(tcp ? "tcp:" + options.host + ":0" : "unix:" + mesh->unix_path_);
  if (!address.ok()) return address.status();
  StatusOr<UniqueFd> fd = open_socket(tcp ? AF_INET : AF_UNIX);
  if (!fd.ok()) return fd.status();
  if (::bind(fd->get(), address->get(), address->size) != 0 || ::listen(fd->get(), 128) != 0) {
    return errno_status("the expert exchange cannot listen on " +
                        (tcp ? options.host : mesh->unix_path_));
  }
  mesh->listener_ = std::move(*fd);
  if (tcp) {
    sockaddr_in bound{};
    socklen_t size = sizeof bound;
    ::getsockname(mesh->listener_.get(), reinterpret_cast<sockaddr*>(&bound), &size);
    mesh->address_ = "tcp:" + options.host + ":" + std::to_string(ntohs(bound.sin_port));
  } else {
    mesh->address_ = "unix:" + mesh->unix_path_;
  }
  return mesh;
}

MeshLinks::~MeshLinks() {
  if (!unix_path_.empty()) ::unlink(unix_path_.c_str());
}

void MeshLinks::cancel_before(Epoch valid) {
  uint64_t old = valid_.load();
  while (old < valid.value && !valid_.compare_exchange_weak(old, valid.value)) {
  }
  // Nobody drains a wake of an epoch that goes on: its waits would spin.
  if (old < valid.value) wake_.wake();
}

Status MeshLinks::check_epoch(Epoch epoch) const {
  if (epoch.value >= valid_.load(std::memory_order_acquire)) return ok_status();
  return aborted("epoch " + std::to_string(epoch.value) + " is over");
}

namespace {

int milliseconds_until(std::chrono::steady_clock::time_point deadline) {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, 3'600'000));
}

}  // namespace

Status MeshLinks::poll_once(Clock::time_point deadline) {
  FLOTILLA_RETURN_IF_ERROR(check_epoch(epoch_));
  std::vector<pollfd> fds = {{wake_.fd(), POLLIN, 0}};
  std::vector<MeshLink*> polled = {nullptr};
  std::string slow;
  for (MeshLink& link : links_) {
    short events = 0;
    if (!link.have()) events |= POLLIN;
    if (link.unsent()) events |= POLLOUT;
    if (events == 0) continue;
    fds.push_back({link.fd(), events, 0});
    polled.push_back(&link);
    slow += (slow.empty() ? "" : ", ") + std::to_string(link.rank().value);
  }
  const bool wait = deadline != Clock::time_point::min();
  const auto begin = Clock::now();
  if (wait) waiting_.store(true, std::memory_order_relaxed);
  const int n = ::poll(fds.data(), fds.size(), wait ? milliseconds_until(deadline) : 0);
  if (wait) {
    waiting_.store(false, std::memory_order_relaxed);
    waited_ += Clock::now() - begin;
  }
  FLOTILLA_RETURN_IF_ERROR(check_epoch(epoch_));
  if (n == 0 && wait) {
    return deadline_exceeded("no expert rows from rank " + slow + " for " +
                             std::to_string(options_.deadline.count()) + " ms");
  }
  for (size_t i = 1; i < fds.size(); ++i) {
    if (fds[i].revents & POLLOUT) polled[i]->flush();
    if (!polled[i]->have() && (fds[i].revents & (POLLIN | POLLHUP | POLLERR))) polled[i]->receive();
  }
  return ok_status();
}

Status MeshLinks::wait_for(int fd, short events, Epoch epoch, Clock::time_point deadline) {
  while (true) {
    FLOTILLA_RETURN_IF_ERROR(check_epoch(epoch));
    pollfd fds[2] = {{wake_.fd(), POLLIN, 0}, {fd, events, 0}};
    waiting_.store(true, std::memory_order_relaxed);
    const int n = ::poll(fds, 2, milliseconds_until(deadline));
    waiting_.store(false, std::memory_order_relaxed);
    FLOTILLA_RETURN_IF_ERROR(check_epoch(epoch));
    if (n < 0 && errno != EINTR) return errno_status("poll");
    if (fds[1].revents != 0) return ok_status();
    if (Clock::now() >= deadline) {
      return deadline_exceeded("a member of epoch " + std::to_string(epoch.value) +
                               " did not connect within " +
                               std::to_string(options_.deadline.count()) + " ms");
    }
    if (fds[0].revents != 0) wake_.drain();  // of an older epoch's end
  }
}

Status MeshLinks::read_all(int fd, char* data, size_t n, Epoch epoch, Clock::time_point deadline) {
  while (n > 0) {
    FLOTILLA_RETURN_IF_ERROR(wait_for(fd, POLLIN, epoch, deadline));
    const ssize_t got = ::recv(fd, data, n, 0);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) return unavailable("connection to a member: " + error_text(errno));
    if (got == 0) return unavailable("a member closed its connection");
    data += got;
    n -= static_cast<size_t>(got);
  }
  return ok_status();
}

Status MeshLinks::write_all(int fd,
                            std::string_view data,
                            Epoch epoch,
                            Clock::time_point deadline) {
  while (!data.empty()) {
    FLOTILLA_RETURN_IF_ERROR(wait_for(fd, POLLOUT, epoch, deadline));
    const ssize_t n = ::send(fd, data.data(), data.size(), MSG_NOSIGNAL);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n < 0) return unavailable("connection to a member: " + error_text(errno));
    data.remove_prefix(static_cast<size_t>(n));
  }
  return ok_status();
}

StatusOr<UniqueFd> MeshLinks::call(const MeshMember& member,
                                   Epoch epoch,
                                   Clock::time_point deadline) {
  const auto named = [&](const Status& status) {
    return Status(status.code(),
                  "rank " + std::to_string(member.rank.value) + ": " + status.message());
  };
  const StatusOr<Address> address = parse_address(member.address);
  if (!address.ok()) return named(address.status());
  StatusOr<UniqueFd> fd = open_socket(address->storage.ss_family);
  if (!fd.ok()) return fd.status();
  // A Unix listener whose queue is full says EAGAIN at once.
  while (::connect(fd->get(), address->get(), address->size) != 0 && errno != EISCONN) {
    if (errno == EINPROGRESS) {
      if (const Status s = wait_for(fd->get(), POLLOUT, epoch, deadline); !s.ok()) return named(s);
      int error = 0;
      socklen_t size = sizeof error;
      ::getsockopt(fd->get(), SOL_SOCKET, SO_ERROR, &error, &size);
      if (error == 0) break;
      return named(unavailable(error_text(error)));
    }
    if (errno != EAGAIN && errno != EINTR)
      return named(unavailable("cannot be reached: " + error_text(errno)));
    if (Clock::now() >= deadline) return named(deadline_exceeded("does not accept connections"));
    pollfd wake{wake_.fd(), POLLIN, 0};
    ::poll(&wake, 1, 5);
    if (const Status s = check_epoch(epoch); !s.ok()) return s;
    if (wake.revents != 0) wake_.drain();
  }
  std::string server_nonce(kNonceBytes, '\0');
  if (const Status s = read_all(fd->get(), server_nonce.data(), kNonceBytes, epoch, deadline);
      !s.ok())
    return named(s);
  const Introduction introduction{.rank = options_.rank.value, .epoch = epoch.value};
  const std::string client_nonce = random_bytes(kNonceBytes);
  std::string hello(reinterpret_cast<const char*>(&introduction), sizeof introduction);
  hello += client_nonce + client_proof(options_.secret, "mesh", server_nonce, client_nonce + hello);
  if (const Status s = write_all(fd->get(), hello, epoch, deadline); !s.ok()) return named(s);
  std::string proof(kProofBytes, '\0');
  if (const Status s = read_all(fd->get(), proof.data(), kProofBytes, epoch, deadline); !s.ok())
    return named(s);
  if (!equal_constant_time(proof,
                           server_proof(options_.secret, "mesh", server_nonce, client_nonce))) {
    return named(unauthenticated("does not know the cluster secret"));
  }
  return fd;
}

// Takes one caller from the listener, whichever epoch it belongs to. Strangers are dropped.
Status MeshLinks::answer_one(Epoch epoch, Clock::time_point deadline) {
  FLOTILLA_RETURN_IF_ERROR(wait_for(listener_.get(), POLLIN, epoch, deadline));
  UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd) return ok_status();  // it has gone again
  const int on = 1;
  ::setsockopt(
      fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // does nothing on a Unix socket
  const auto soon = std::min(
      deadline,
      Clock::now() + std::chrono::seconds(5));  // a silent stranger holds nobody up for long
  const std::string server_nonce = random_bytes(kNonceBytes);
  std::string hello(sizeof(Introduction) + kNonceBytes + kProofBytes, '\0');
  Status status = write_all(fd.get(), server_nonce, epoch, soon);
  if (status.ok()) status = read_all(fd.get(), hello.data(), hello.size(), epoch, soon);
  if (status.code() == StatusCode::kAborted) return status;
  if (!status.ok()) return ok_status();
  Introduction introduction;
  std::memcpy(&introduction, hello.data(), sizeof introduction);
  const std::string head = hello.substr(0, sizeof introduction);
  const std::string client_nonce = hello.substr(sizeof introduction, kNonceBytes);
  const std::string proof = hello.substr(sizeof introduction + kNonceBytes);
  if (introduction.magic != Introduction::kMagic ||
      !equal_constant_time(
          proof, client_proof(options_.secret, "mesh", server_nonce, client_nonce + head))) {
    return ok_status();
  }
  callers_.push_back({.fd = std::move(fd),
                      .rank = Rank(introduction.rank),
                      .epoch = Epoch(introduction.epoch),
                      .proof = server_proof(options_.secret, "mesh", server_nonce, client_nonce)});
  return ok_status();
}

Status MeshLinks::connect(Epoch epoch, const std::vector<MeshMember>& members) {
  links_.clear();
  epoch_ = epoch;
  FLOTILLA_RETURN_IF_ERROR(check_epoch(epoch));
  wake_.drain();
  FLOTILLA_RETURN_IF_ERROR(check_epoch(epoch));
  const auto deadline = Clock::now() + options_.deadline;
  std::erase_if(callers_, [&](const Caller& caller) { return caller.epoch < epoch; });
  std::vector<MeshLink> links(members.size());
  const auto self = std::find_if(
      members.begin(), members.end(), [&](const MeshMember& m) { return m.rank == options_.rank; });
  check(self != members.end(), "a rank joins groups that it is a member of");
  const auto self_index = static_cast<size_t>(self - members.begin());
  for (size_t i = 0; i < self_index; ++i) {
    StatusOr<UniqueFd> fd = call(members[i], epoch, deadline);
    if (!fd.ok()) return fd.status();
    links[i] = MeshLink(members[i].rank, std::move(*fd));
  }
  for (size_t i = self_index + 1; i < members.size(); ++i) {
    while (true) {
      const auto caller = std::find_if(callers_.begin(), callers_.end(), [&](const Caller& c) {
        return c.epoch == epoch && c.rank == members[i].rank;
      });
      if (caller == callers_.end()) {
        FLOTILLA_RETURN_IF_ERROR(answer_one(epoch, deadline));
        continue;
      }
      UniqueFd fd = std::move(caller->fd);
      const std::string proof = std::move(caller->proof);
      callers_.erase(caller);
      FLOTILLA_RETURN_IF_ERROR(write_all(fd.get(), proof, epoch, deadline));
      links[i] = MeshLink(members[i].rank, std::move(fd));
      break;
    }
  }
  links_ = std::move(links);
  return ok_status();
}

}  // namespace flotilla
