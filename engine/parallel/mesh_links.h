// The sockets of the mesh: one connection between every two members of a group, made anew for every
// epoch, so that nothing of a broken step can be left in them. Every wait has a deadline and ends
// at once when the epoch does. Threads: the device thread, but where it says otherwise.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/fd.h"
#include "common/ids.h"
#include "common/status.h"

namespace flotilla {

struct MeshMember {
  Rank rank;
  std::string address;
};

struct MeshOptions {
  Rank rank;
  std::string secret;     // of the cluster
  std::string directory;  // for Unix sockets: a folder that only this user can enter; empty: TCP
  std::string host = "127.0.0.1";  // for TCP: where to listen, and the address the others are told
  std::chrono::milliseconds deadline{60'000};  // of any single wait for a peer
};

// Bytes to and from one peer. Reading stops behind each message that was asked for; writing never
// blocks.
class MeshLink {
 public:
  MeshLink() = default;
  MeshLink(Rank rank, UniqueFd fd) : rank_(rank), fd_(std::move(fd)) {}

  Rank rank() const { return rank_; }
  int fd() const { return fd_.get(); }

  // Queues bytes and sends what the socket takes. An error ends the link; it shows in status().
  void send(std::string_view bytes);
  bool unsent() const { return sent_ < outgoing_.size(); }
  void flush();

  // Asks for the next `n` bytes; they are in received() once have() says so, until the next
  // expect().
  void expect(size_t n);
  bool have() const { return filled_ == wanted_; }
  void receive();
  std::string_view received() const { return {buffer_.data(), filled_}; }

  const Status& status() const { return status_; }

 private:
  void fail(std::string_view what);

  Rank rank_;
  UniqueFd fd_;
  std::string outgoing_;
  size_t sent_ = 0;
  std::vector<char> buffer_;
  size_t filled_ = 0;
  size_t wanted_ = 0;
  Status status_;
};

class MeshLinks {
 public:
  static StatusOr<std::unique_ptr<MeshLinks>> listen(const MeshOptions& options);
  ~MeshLinks();

  // What the others need to reach this rank: "unix:/path" or "tcp:host:port".
  const std::string& address() const { return address_; }

  // Closes all links and connects to the members of the new epoch (self among them): those before
  // self are called, those behind are waited for. kAborted if the epoch is over meanwhile,
  // kUnavailable or kDeadlineExceeded if a member cannot be reached.
  Status connect(Epoch epoch, const std::vector<MeshMember>& members);
  // By member index; the one of self is not connected.
  std::vector<MeshLink>& links() { return links_; }

  // Sends and receives until `done()`, or an error. Waits only if `wait`: else one look at what
  // there is.
  template <typename Done>
  Status run(bool wait, Done done) {
    const auto deadline = Clock::now() + options_.deadline;
    while (true) {
      for (MeshLink& link : links_) {
        if (!link.status().ok()) return link.status();
      }
      if (done()) return ok_status();
      if (const Status status = poll_once(wait ? deadline : Clock::time_point::min()); !status.ok())
        return status;
      if (!wait) return ok_status();
    }
  }

  // Epochs before `valid` are over. Threads: any.
  void cancel_before(Epoch valid);
  bool waiting() const { return waiting_.load(std::memory_order_relaxed); }
  std::chrono::nanoseconds waited() const { return waited_; }

 private:
  using Clock = std::chrono::steady_clock;
  explicit MeshLinks(const MeshOptions& options) : options_(options) {}

  // A connection whose caller has shown that it knows the secret.
  struct Caller {
    UniqueFd fd;
    Rank rank;
    Epoch epoch;
    std::string proof;  // to be sent when it is taken
  };

  Status check_epoch(Epoch epoch) const;
  Status poll_once(Clock::time_point deadline);
  // Waits until `fd` is ready for `events`.
  Status wait_for(int fd, short events, Epoch epoch, Clock::time_point deadline);
  Status read_all(int fd, char* data, size_t n, Epoch epoch, Clock::time_point deadline);
  Status write_all(int fd, std::string_view data, Epoch epoch, Clock::time_point deadline);
  StatusOr<UniqueFd> call(const MeshMember& member, Epoch epoch, Clock::time_point deadline);
  Status answer_one(Epoch epoch, Clock::time_point deadline);

  const MeshOptions options_;
  std::string address_;
  UniqueFd listener_;
  std::string unix_path_;
  Epoch epoch_;
  std::vector<MeshLink> links_;
  std::vector<Caller> callers_;  // of epochs that this rank has not reached yet
  std::atomic<uint64_t> valid_{0};
  WakeFd wake_;
  std::atomic<bool> waiting_{false};
  std::chrono::nanoseconds waited_{0};
};

}  // namespace flotilla
