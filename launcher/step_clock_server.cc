#include "launcher/step_clock_server.h"

#include <pthread.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <map>
#include <thread>

#include "common/log.h"
#include "common/wire/frame.h"

namespace flotilla {
namespace asio = boost::asio;
namespace {

using Socket = asio::local::stream_protocol::socket;
using Clock = StepClock::Clock;

// A rank that does not read its messages is as good as dead.
constexpr size_t kMaxUnsentBytes = 16u << 20;

}  // namespace

class StepClockServer::Impl final : private StepClockOutput {
 public:
  Impl(const StepClockOptions& options, FleetEvents& events)
      : events_(events), clock_(options, *this), acceptor_(io_), timer_(io_) {}

  ~Impl() override {
    io_.stop();
    if (thread_.joinable()) thread_.join();
  }

  Status listen(const std::string& path) {
    boost::system::error_code error;
    acceptor_.open(asio::local::stream_protocol(), error);
    if (!error) acceptor_.bind(path, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error)
      return internal_error("the step clock cannot listen on " + path + ": " + error.message());
    accept();
    thread_ = std::thread([this] {
      pthread_setname_np(pthread_self(), "step-clock");
      io_.run();
    });
    return ok_status();
  }

  void post(std::function<void(StepClock&)> what) {
    asio::post(io_, [this, what = std::move(what)] {
      what(clock_);
      set_timer();
    });
  }

 private:
  struct Connection : std::enable_shared_from_this<Connection> {
    explicit Connection(Socket s) : socket(std::move(s)) {}
    Socket socket;
    FrameReader frames{kMaxClockFrame};
    std::array<char, 4096> buffer;
    std::string unsent;  // what the socket did not take at once
    bool writing = false;
  };
  using ConnectionPtr = std::shared_ptr<Connection>;

  void accept() {
    acceptor_.async_accept([this](boost::system::error_code error, Socket socket) {
      if (error == asio::error::operation_aborted) return;
      if (!error) {
        const ConnectionId id = ++last_id_;
        socket.non_blocking(true, error);
        connections_[id] = std::make_shared<Connection>(std::move(socket));
        read(id, connections_[id]);
      }
      accept();
    });
  }

  void read(ConnectionId id, const ConnectionPtr& connection) {
    connection->socket.async_read_some(
        asio::buffer(connection->buffer),
        [this, id, connection](boost::system::error_code error, size_t n) {
          if (!connections_.contains(id)) return;
          if (error || !take_frames(id, *connection, n)) {
            connections_.erase(id);
            clock_.on_disconnect(id);
          } else if (connections_.contains(id)) {
            read(id, connection);
          }
          set_timer();
        });
  }

  bool take_frames(ConnectionId id, Connection& connection, size_t n) {
    connection.frames.feed({connection.buffer.data(), n});
    while (connections_.contains(id)) {
      const auto frame = connection.frames.next();
      if (!frame.ok()) {
        log_error("step clock: bad frame", {{"why", frame.status().message()}});
        return false;
      }
      if (!frame->has_value()) return true;
      wire::ToClock message;
      if (!message.ParseFromArray((*frame)->data(), static_cast<int>((*frame)->size()))) {
        log_error("step clock: a frame is no message");
        return false;
      }
      clock_.on_message(id, message, Clock::now());
    }
    return true;
  }

  // StepClockOutput
  void send(ConnectionId id, const wire::FromClock& message) override {
    const auto it = connections_.find(id);
    if (it == connections_.end()) return;
    Connection& connection = *it->second;
    append_frame(&connection.unsent, message);
    if (connection.writing) return;
    // Almost always the socket takes it all, and the rank is woken without another turn of the
    // loop.
    boost::system::error_code error;
    const size_t n = connection.socket.write_some(asio::buffer(connection.unsent), error);
    connection.unsent.erase(0, n);
    if (!connection.unsent.empty()) write_rest(id, it->second);
  }

  void write_rest(ConnectionId id, const ConnectionPtr& connection) {
    if (connection->unsent.size() > kMaxUnsentBytes) {
      log_error("step clock: a rank does not read", {{"unsent_bytes", connection->unsent.size()}});
      connection->socket.close();
      return;
    }
    connection->writing = true;
    auto data = std::make_shared<std::string>(std::move(connection->unsent));
    connection->unsent.clear();
    asio::async_write(connection->socket,
                      asio::buffer(*data),
                      [this, id, connection, data](boost::system::error_code error, size_t) {
                        connection->writing = false;
                        if (error || !connections_.contains(id))
                          return;  // the reader sees the end, too
                        if (!connection->unsent.empty()) write_rest(id, connection);
                      });
  }

  void close(ConnectionId id) override {
    const auto it = connections_.find(id);
    if (it == connections_.end()) return;
    // What was said last still arrives: the peer reads until end of file.
    boost::system::error_code ignored;
    it->second->socket.shutdown(Socket::shutdown_both, ignored);
    connections_.erase(it);
  }
  void progress(Rank rank, int64_t pid, const std::string& stage, double fraction) override {
    events_.on_progress(rank, static_cast<pid_t>(pid), stage, fraction);
  }
  void serving(Rank rank, int64_t pid, double seconds) override {
    events_.on_serving(rank, static_cast<pid_t>(pid), seconds);
  }
  void hung(Rank rank, int64_t pid, const std::string& reason) override {
    events_.on_hung(rank, static_cast<pid_t>(pid), reason);
  }
  void refused(Rank rank, int64_t pid, const std::string& reason) override {
    events_.on_refused(rank, static_cast<pid_t>(pid), reason);
  }

  // The timer is only moved when it would come too late: the step path never touches it.
  void set_timer() {
    const auto due = clock_.next_deadline();
    if (!due || (timer_set_ && timer_.expiry() <= *due)) return;
    timer_set_ = true;
    timer_.expires_at(*due);
    timer_.async_wait([this](boost::system::error_code error) {
      if (error == asio::error::operation_aborted) return;
      timer_set_ = false;
      clock_.on_timer(Clock::now());
      set_timer();
    });
  }

  FleetEvents& events_;
  asio::io_context io_{1};
  StepClock clock_;
  asio::local::stream_protocol::acceptor acceptor_;
  asio::steady_timer timer_;
  bool timer_set_ = false;
  std::map<ConnectionId, ConnectionPtr> connections_;
  ConnectionId last_id_ = 0;
  std::thread thread_;
};

StepClockServer::StepClockServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
StepClockServer::~StepClockServer() = default;

StatusOr<std::unique_ptr<StepClockServer>> StepClockServer::start(const std::string& socket_path,
                                                                  const StepClockOptions& options,
                                                                  FleetEvents& events) {
  auto impl = std::make_unique<Impl>(options, events);
  FLOTILLA_RETURN_IF_ERROR(impl->listen(socket_path));
  return std::unique_ptr<StepClockServer>(new StepClockServer(std::move(impl)));
}

void StepClockServer::on_rank_started(Rank, pid_t) {}
void StepClockServer::on_rank_exited(Rank rank, pid_t pid, const std::string&) {
  impl_->post([rank, pid](StepClock& clock) { clock.on_process_exit(rank, pid); });
}
void StepClockServer::on_fleet_draining() {
  impl_->post([](StepClock& clock) { clock.on_fleet_draining(); });
}

}  // namespace flotilla
