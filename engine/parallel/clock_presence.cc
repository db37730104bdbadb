#include "engine/parallel/clock_presence.h"

#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>

#include "common/crypto.h"

namespace flotilla {

using Clock = std::chrono::steady_clock;

StatusOr<std::unique_ptr<ClockPresence>> ClockPresence::start(ClockPresenceOptions options) {
  StatusOr<std::unique_ptr<ClockClient>> clock = ClockClient::connect(options.clock_socket);
  if (!clock.ok()) return clock.status();
  std::unique_ptr<ClockPresence> presence(new ClockPresence(std::move(options), std::move(*clock)));
  FLOTILLA_RETURN_IF_ERROR(presence->introduce());
  presence->thread_ = std::thread([p = presence.get()] { p->run(); });
  return presence;
}

ClockPresence::ClockPresence(ClockPresenceOptions options, std::unique_ptr<ClockClient> clock)
    : options_(std::move(options)), clock_(std::move(clock)) {}

ClockPresence::~ClockPresence() {
  stop_.wake();
  if (thread_.joinable()) thread_.join();
}

Status ClockPresence::introduce() {
  wire::ToClock hello;
  hello.mutable_hello()->set_rank(options_.rank.value);
  hello.mutable_hello()->set_instance_id(to_hex(random_bytes(8)));
  hello.mutable_hello()->set_role("mixed");
  hello.mutable_hello()->set_pid(::getpid());
  wire::Setting& version = *hello.mutable_hello()->add_must_match();
  version.set_name("version");
  version.set_value(FLOTILLA_VERSION);
  FLOTILLA_RETURN_IF_ERROR(clock_->send(hello));
  wire::ToClock loaded;
  loaded.mutable_loaded();
  FLOTILLA_RETURN_IF_ERROR(clock_->send(loaded));
  wire::ToClock serving;
  const std::chrono::duration<double> seconds = Clock::now() - options_.process_start;
  serving.mutable_serving()->set_seconds(seconds.count());
  return clock_->send(serving);
}

void ClockPresence::run() {
  pthread_setname_np(pthread_self(), "clock");
  auto next_heartbeat = Clock::now();
  while (true) {
    if (Clock::now() >= next_heartbeat) {
      next_heartbeat = Clock::now() + heartbeat_every_;
      wire::ToClock beat;
      beat.mutable_heartbeat()->set_state(wire::Heartbeat::IDLE);
      if (const Status status = clock_->send(beat); !status.ok())
        return options_.on_end(status.message());
    }
    pollfd fds[2] = {{clock_->fd(), POLLIN, 0}, {stop_.fd(), POLLIN, 0}};
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(next_heartbeat - Clock::now());
    ::poll(fds, 2, static_cast<int>(std::max<int64_t>(0, left.count())));
    if (fds[1].revents != 0) return;
    if (fds[0].revents == 0) continue;
    const StatusOr<std::vector<wire::FromClock>> messages = clock_->receive();
    if (!messages.ok()) return options_.on_end(messages.status().message());
    for (const wire::FromClock& message : *messages) {
      if (message.has_welcome()) next_heartbeat = Clock::now();
      if (const Status status = take(message); !status.ok())
        return options_.on_end(status.message());
    }
  }
}

Status ClockPresence::take(const wire::FromClock& message) {
  if (message.has_refused()) return failed_precondition(message.refused().reason());
  if (message.has_fleet_draining()) options_.on_fleet_draining();
  if (message.has_welcome()) {
    heartbeat_every_ = std::chrono::milliseconds(std::max(100u, message.welcome().heartbeat_ms()));
  }
  return ok_status();
}

}  // namespace flotilla
