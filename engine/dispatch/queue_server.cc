#include "engine/dispatch/queue_server.h"

#include <pthread.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <functional>
#include <set>
#include <thread>
#include <unordered_map>

#include "common/crypto.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/wire/frame.h"
#include "common/wire/handshake.h"
#include "engine/dispatch/queue_messages.h"

namespace flotilla {
namespace asio = boost::asio;
namespace {

using asio::ip::tcp;
using Clock = std::chrono::steady_clock;

constexpr size_t kMaxUnsentBytes = 16u << 20;
constexpr size_t kMaxFrameBeforeAnswer = 1024;
constexpr std::chrono::seconds kAnswerDeadline{10};
constexpr std::chrono::milliseconds kFinishTime{100};  // at least, for finish()
constexpr std::chrono::milliseconds kAcceptPause{50};  // after a failed accept (out of descriptors)

// One client. The engine calls on_tokens() on its own thread; everything else happens on the wire
// thread.
class Connection final : public TokenSink, public std::enable_shared_from_this<Connection> {
 public:
  // `released` is called when the connection is closed and the engine has let go of its last
  // sequence.
  Connection(tcp::socket socket,
             const QueueServerOptions& options,
             Engine& engine,
             std::function<void()> released)
      : options_(options),
        engine_(engine),
        released_(std::move(released)),
        socket_(std::move(socket)),
        deadline_(socket_.get_executor()) {}

  void start() {
    boost::system::error_code ignored;
    socket_.set_option(tcp::no_delay(true), ignored);
    server_nonce_ = random_bytes(kNonceBytes);
    wire::FromRank message;
    message.mutable_challenge()->set_protocol(kQueueProtocol);
    message.mutable_challenge()->set_nonce(server_nonce_);
    send(message);
    deadline_.expires_after(kAnswerDeadline);
    deadline_.async_wait([self = shared_from_this()](boost::system::error_code error) {
      if (!error && !self->accepted_) self->protocol_error("no answer to the challenge in time");
    });
    read();
  }

  void close() {
    if (closed_) return;
    closed_ = true;
    boost::system::error_code ignored;
    socket_.close(ignored);
    deadline_.cancel();
    for (const auto& [internal, live] : live_) engine_.cancel(this, internal);
    if (live_.empty()) released_();
  }

  // Closes as soon as all of its sequences have ended and everything is sent.
  void close_when_done() {
    close_when_done_ = true;
    flush();
  }

  // Closed, and the engine holds no sequence of this sink any more.
  bool released() const { return closed_ && live_.empty(); }

  void on_tokens(std::span<TokenBatch> batches) override {
    bool first;
    {
      MutexLock lock(mutex_);
      first = arrived_.empty();
      for (TokenBatch& batch : batches) arrived_.push_back(std::move(batch));
    }
    if (first) asio::post(socket_.get_executor(), [self = shared_from_this()] { self->forward(); });
  }

 private:
  struct Live {
    uint64_t id;
    uint64_t generation;
    bool superseded = false;  // a newer generation took its place: nothing of it goes out any more
  };

  void read() {
    socket_.async_read_some(asio::buffer(buffer_),
                            [self = shared_from_this()](boost::system::error_code error, size_t n) {
                              if (error || self->closed_) return self->close();
                              self->take_frames(n);
                              if (!self->closed_) self->read();
                            });
  }

  void take_frames(size_t n) {
    frames_.feed({buffer_.data(), n});
    while (!closed_) {
      const auto frame = frames_.next();
      if (!frame.ok()) return protocol_error(frame.status().message());
      if (!frame->has_value()) return;
      if (!accepted_ && (*frame)->size() > kMaxFrameBeforeAnswer)
        return protocol_error("the first message is no answer to the challenge");
      wire::ToRank message;
      if (!message.ParseFromArray((*frame)->data(), static_cast<int>((*frame)->size()))) {
        return protocol_error("a frame holds no message");
      }
      take(message);
    }
  }

  void take(const wire::ToRank& message) {
    if (!accepted_) return take_answer(message);
    switch (message.message_case()) {
      case wire::ToRank::kSubmit:
        return take_submit(message.submit());
      case wire::ToRank::kCancel:
        return take_cancel(message.cancel());
      case wire::ToRank::kLoadQuery: {
        wire::FromRank out;
        to_wire(engine_.load(), out.mutable_load());
        return send(out);
      }
      case wire::ToRank::kDrain:
        return engine_.begin_drain();
      case wire::ToRank::kAnswer:
      case wire::ToRank::MESSAGE_NOT_SET:
        return protocol_error("an unexpected or unknown message");
    }
  }

  void take_answer(const wire::ToRank& message) {
    const wire::Answer& answer = message.answer();
    const bool right =
        message.has_answer() && answer.nonce().size() == kNonceBytes &&
        equal_constant_time(answer.proof(),
                            client_proof(options_.secret, "queue", server_nonce_, answer.nonce()));
    if (!right) {
      log_warn("queue port: a client without the cluster secret was refused");
      return protocol_error("wrong answer: the cluster secrets differ");
    }
    accepted_ = true;
    deadline_.cancel();
    wire::FromRank out;
    wire::Accepted& accepted = *out.mutable_accepted();
    accepted.set_proof(server_proof(options_.secret, "queue", server_nonce_, answer.nonce()));
    accepted.set_rank(options_.rank.value);
    accepted.set_instance_id(options_.instance_id);
    accepted.set_model_digest(options_.model_digest);
    send(out);
  }

  void take_submit(const wire::Submit& submit) {
    if (const auto known = newest_.find(submit.id()); known != newest_.end()) {
      Live& old = live_.at(known->second);
      if (submit.generation() <= old.generation) {
        return send_error(submit.id(),
                          submit.generation(),
                          failed_precondition("generation " + std::to_string(submit.generation()) +
                                              " of request " + std::to_string(submit.id()) +
                                              " is not newer than " +
                                              std::to_string(old.generation) + ", which runs"));
      }
      old.superseded = true;
      engine_.cancel(this, known->second);
      newest_.erase(known);
    }
    GenerationRequest request = from_wire(submit, Clock::now());
    const uint64_t internal = ++last_internal_;
    request.id = internal;
    live_.emplace(internal, Live{submit.id(), submit.generation()});
    newest_.emplace(submit.id(), internal);
    const Status status = engine_.submit(std::move(request), this);
    if (status.ok()) return;
    live_.erase(internal);
    newest_.erase(submit.id());
    send_error(submit.id(), submit.generation(), status);
  }

  void take_cancel(const wire::Cancel& cancel) {
    const auto known = newest_.find(cancel.id());
    if (known == newest_.end() || live_.at(known->second).generation != cancel.generation()) return;
    engine_.cancel(this, known->second);
  }

  void forward() {
    std::vector<TokenBatch> batches;
    {
      MutexLock lock(mutex_);
      batches.swap(arrived_);
    }
    for (TokenBatch& batch : batches) {
      const auto it = live_.find(batch.id);
      const Live live = it->second;
      const bool last = batch.finish != FinishReason::kRunning;
      if (last) {
        if (!live.superseded) newest_.erase(live.id);
        live_.erase(it);
      }
      if (live.superseded || closed_) continue;
      batch.id = live.id;
      batch.generation = live.generation;
      wire::FromRank out;
      to_wire(batch, out.mutable_tokens());
      append_frame(&unsent_, out);
    }
    if (released()) return released_();
    flush();
  }

  void send_error(uint64_t id, uint64_t generation, Status status) {
    TokenBatch batch;
    batch.id = id;
    batch.generation = generation;
    batch.finish = FinishReason::kError;
    batch.error = std::move(status);
    wire::FromRank out;
    to_wire(batch, out.mutable_tokens());
    send(out);
  }

  void protocol_error(const std::string& why) {
    wire::FromRank out;
    out.set_protocol_error(why);
    append_frame(&unsent_, out);
    boost::system::error_code ignored;
    if (!writing_) socket_.write_some(asio::buffer(unsent_), ignored);  // a last word, if it fits
    close();
  }

  void send(const wire::FromRank& message) {
    append_frame(&unsent_, message);
    flush();
  }

  void flush() {
    if (closed_) return;
    if (unsent_.size() > kMaxUnsentBytes) {
      log_warn("queue port: a client does not read", {{"unsent_bytes", unsent_.size()}});
      return close();
    }
    if (writing_) return;
    if (unsent_.empty()) {
      if (close_when_done_ && live_.empty()) close();
      return;
    }
    writing_ = true;
    sending_.swap(unsent_);
    unsent_.clear();
    asio::async_write(socket_,
                      asio::buffer(sending_),
                      [self = shared_from_this()](boost::system::error_code error, size_t) {
                        self->writing_ = false;
                        if (error) return self->close();
                        self->flush();
                      });
  }

  const QueueServerOptions& options_;
  Engine& engine_;
  const std::function<void()> released_;
  tcp::socket socket_;
  asio::steady_timer deadline_;
  std::array<char, 16384> buffer_;
  FrameReader frames_{kMaxQueueFrame};
  std::string server_nonce_;
  bool accepted_ = false;
  bool closed_ = false;
  bool close_when_done_ = false;
  bool writing_ = false;
  std::string unsent_, sending_;
  uint64_t last_internal_ = 0;
  std::unordered_map<uint64_t, Live> live_;        // by the engine's id
  std::unordered_map<uint64_t, uint64_t> newest_;  // the client's id → the engine's
  Mutex mutex_;
  std::vector<TokenBatch> arrived_ GUARDED_BY(mutex_);
};

}  // namespace

class QueueServer::Impl {
 public:
  Impl(UniqueFd listener, const QueueServerOptions& options, Engine& engine)
      : options_(options),
        engine_(engine),
        acceptor_(io_, tcp::v4(), listener.release()),
        pause_(io_) {
    accept();
    thread_ = std::thread([this] {
      pthread_setname_np(pthread_self(), "wire");
      io_.run();
    });
  }

  // Every sequence gets its last batch from the engine, which still runs: only then the sinks may
  // go.
  ~Impl() {
    asio::post(io_, [this] {
      stop_accepting();
      const auto all = connections_;
      for (const auto& connection : all) connection->close();
      stopping_ = true;
      sweep();
    });
    thread_.join();
  }

  bool finish(Clock::time_point deadline) {
    asio::post(io_, [this] {
      stop_accepting();
      finishing_ = true;
      const auto all = connections_;
      for (const auto& connection : all) connection->close_when_done();
      sweep();
    });
    // Who has nothing to be sent is gone at once, however short the time.
    deadline = std::max(deadline, Clock::now() + kFinishTime);
    MutexLock lock(mutex_);
    return all_gone_.wait_until(lock, deadline, [&] { return gone_; });
  }

 private:
  void stop_accepting() {
    boost::system::error_code ignored;
    acceptor_.close(ignored);
    pause_.cancel();
  }

  void accept() {
    acceptor_.async_accept([this](boost::system::error_code error, tcp::socket socket) {
      if (error == asio::error::operation_aborted || !acceptor_.is_open()) return;
      if (error) {
        pause_.expires_after(kAcceptPause);
        return pause_.async_wait([this](boost::system::error_code cancelled) {
          if (!cancelled) accept();
        });
      }
      const auto connection = std::make_shared<Connection>(
          std::move(socket), options_, engine_, [this] { sweep_soon(); });
      connections_.insert(connection);
      connection->start();
      accept();
    });
  }

  void sweep_soon() {
    asio::post(io_, [this] { sweep(); });
  }
  void sweep() {
    std::erase_if(connections_, [](const auto& c) { return c->released(); });
    if (!connections_.empty()) return;
    if (stopping_) work_.reset();
    if (!finishing_) return;
    MutexLock lock(mutex_);
    gone_ = true;
    all_gone_.notify_all();
  }

  const QueueServerOptions options_;
  Engine& engine_;
  asio::io_context io_{1};
  tcp::acceptor acceptor_;
  asio::steady_timer pause_;
  asio::executor_work_guard<asio::io_context::executor_type> work_{io_.get_executor()};
  std::set<std::shared_ptr<Connection>> connections_;
  bool stopping_ = false;
  bool finishing_ = false;
  Mutex mutex_;
  CondVar all_gone_;
  bool gone_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

QueueServer::QueueServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
QueueServer::~QueueServer() = default;
bool QueueServer::finish(Clock::time_point deadline) { return impl_->finish(deadline); }

StatusOr<std::unique_ptr<QueueServer>> QueueServer::start(UniqueFd listener,
                                                          const QueueServerOptions& options,
                                                          Engine& engine) {
  if (options.secret.empty()) {
    return failed_precondition(
        "the queue port needs a cluster secret: --cluster-secret-file or FLOTILLA_CLUSTER_SECRET");
  }
  FLOTILLA_RETURN_IF_ERROR(set_nonblocking(listener.get(), true));
  return std::unique_ptr<QueueServer>(
      new QueueServer(std::make_unique<Impl>(std::move(listener), options, engine)));
}

}  // namespace flotilla
