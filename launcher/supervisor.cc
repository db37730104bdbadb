#include "launcher/supervisor.h"

#include <signal.h>
#include <sys/wait.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include "common/exit_codes.h"
#include "common/log.h"
#include "launcher/console.h"
#include "launcher/inherited.h"
#include "launcher/log_file.h"
#include "launcher/notify.h"
#include "launcher/progress.h"
#include "launcher/rank_process.h"

namespace flotilla {
namespace {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

double seconds(milliseconds duration) { return std::chrono::duration<double>(duration).count(); }

std::string in_seconds(milliseconds duration) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%g s", seconds(duration));
  return buffer;
}

}  // namespace

class Supervisor::Impl {
 public:
  Impl(SupervisorOptions options, std::vector<SupervisedRank> ranks, Console* console)
      : options_(std::move(options)),
        console_(console),
        progress_(console, static_cast<int>(ranks.size())),
        notifier_(options_.environment),
        deadline_(io_),
        signals_(io_) {
    for (size_t i = 0; i < ranks.size(); ++i) {
      check(ranks[i].rank.value == static_cast<int32_t>(i), "ranks must be 0 … N-1 in order");
      slots_.push_back(std::make_unique<Slot>(io_, std::move(ranks[i]), options_.restart));
    }
  }

  int run(FleetListener* listener) {
    listener_ = listener;
    if (options_.handle_signals) watch_signals();
    open_logs();
    for (const std::unique_ptr<Slot>& slot : slots_) {
      if (!draining_) start(*slot);  // the one before may have ended the fleet
    }
    const auto work = asio::make_work_guard(io_);
    if (!ended()) io_.run();
    progress_.clear();
    return exit_code();
  }

  template <typename Action>
  void post(Action action) {
    asio::post(io_, std::move(action));
  }

  void stop_requested(const std::string& by) {
    ++stop_requests_;
    // A fleet that drains since a failure is ended by the first request.
    if (stop_requests_ == 1 && draining_) stop_requests_ = 2;
    if (stop_requests_ == 1) {
      log_info("drain", {{"by", by}, {"limit_s", options_.drain_limit.count()}});
      begin_drain(options_.drain_limit);
    } else if (stop_requests_ == 2) {
      log_warn("end_now", {{"by", by}, {"alive", alive()}});
      end_now();
    } else {
      log_warn("kill", {{"by", by}, {"alive", alive()}});
      signal_all(SIGKILL);
    }
  }

  void progressed(Rank rank, pid_t pid, const std::string& stage, double fraction) {
    Slot* slot = find(rank, pid);
    if (slot != nullptr && !slot->ready_at) progress_.stage(rank, stage, fraction, Clock::now());
  }

  void serving(Rank rank, pid_t pid, double took_seconds) {
    Slot* slot = find(rank, pid);
    if (slot == nullptr || slot->ready_at) return;
    slot->ready_at = Clock::now();
    progress_.ready(rank, took_seconds);
    log_info("rank_ready", {{"rank", rank.value}, {"pid", pid}, {"seconds", took_seconds}});
    const size_t count = ready_count();
    if (count == slots_.size() && !draining_) complete();
    if (!draining_) notify_status();
  }

  void hung(Rank rank, pid_t pid, const std::string& reason) {
    Slot* slot = find(rank, pid);
    if (slot == nullptr) return;
    log_error("rank_hung",
              {{"rank", rank.value}, {"pid", pid}, {"reason", reason}, {"then", "killed"}});
    slot->process->signal(SIGKILL);
  }

  void refused(Rank rank, pid_t pid, const std::string& reason) {
    if (find(rank, pid) == nullptr) return;
    log_error("rank_refused", {{"rank", rank.value}, {"pid", pid}, {"reason", reason}});
    fail(kExitRefused,
         "rank " + std::to_string(rank.value) + " was refused by the step clock: " + reason);
  }

 private:
  struct Slot {
    Slot(asio::io_context& io, SupervisedRank s, const RestartOptions& restart)
        : spec(std::move(s)), policy(restart), timer(io) {}

    SupervisedRank spec;
    RestartPolicy policy;
    asio::steady_timer timer;  // to the next start
    bool waiting = false;      // for that timer
    std::unique_ptr<RankProcess> process;
    std::optional<LogFile> log;
    Clock::time_point started_at{};
    std::optional<Clock::time_point> ready_at;
    bool port_reported = false;
    bool started_in_drain = false;
  };

  Slot* find(Rank rank, pid_t pid) {
    if (rank.value < 0 || static_cast<size_t>(rank.value) >= slots_.size()) return nullptr;
    Slot* slot = slots_[static_cast<size_t>(rank.value)].get();
    return slot->process != nullptr && slot->process->pid() == pid ? slot : nullptr;
  }

  size_t alive() const {
    size_t count = 0;
    for (const std::unique_ptr<Slot>& slot : slots_) count += slot->process != nullptr ? 1 : 0;
    return count;
  }

  size_t ready_count() const {
    size_t count = 0;
    for (const std::unique_ptr<Slot>& slot : slots_) count += slot->ready_at ? 1 : 0;
    return count;
  }

  void watch_signals() {
    signals_.add(SIGTERM);
    signals_.add(SIGINT);
    struct sigaction hangup {};
    // Under nohup it is ignored and stays so.
    if (sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
      signals_.add(SIGHUP);
    next_signal();
  }

  void next_signal() {
    signals_.async_wait([this](const boost::system::error_code& error, int number) {
      if (error) return;
      stop_requested(strsignal(number));
      next_signal();
    });
  }

  void open_logs() {
    if (options_.log_dir.empty()) return;
    for (const std::unique_ptr<Slot>& slot : slots_) {
      StatusOr<LogFile> log =
          LogFile::open({.path = options_.log_dir + "/log_" +
                                 std::to_string(slot->spec.rank.value) + "/api_server.log",
                         .rotate_bytes = options_.log_rotate_bytes,
                         .backup_count = options_.log_backup_count});
      if (log.ok()) {
        slot->log.emplace(*std::move(log));
      } else {
        log_warn("no_log_file",
                 {{"rank", slot->spec.rank.value}, {"reason", log.status().message()}});
      }
    }
  }

  // ---- start ------------------------------------------------------------------------------------

  // False if a port is taken; said once until it is free.
  bool bind_sockets(Slot& slot) {
    const auto bind = [&](const std::optional<PortRequest>& request, UniqueFd& fd) {
      if (!request || fd) return true;
      StatusOr<UniqueFd> bound = bind_port(*request);
      if (bound.ok()) {
        fd = *std::move(bound);
        return true;
      }
      if (!std::exchange(slot.port_reported, true)) {
        log_error("rank_waits_for_port",
                  {{"rank", slot.spec.rank.value},
                   {"reason", bound.status().message()},
                   {"retry_s", seconds(options_.port_retry)}});
        progress_.note(slot.spec.rank, "waiting: " + bound.status().message());
      }
      return false;
    };
    SupervisedRank& spec = slot.spec;
    const bool all = bind(spec.http, spec.sockets.http) &&
                     bind(spec.metrics, spec.sockets.metrics) &&
                     bind(spec.queue, spec.sockets.queue);
    if (all) slot.port_reported = false;
    return all;
  }

  void start_after(Slot& slot, milliseconds delay) {
    slot.waiting = true;
    slot.timer.expires_after(delay);
    slot.timer.async_wait([this, &slot](const boost::system::error_code& error) {
      if (error || !slot.waiting) return;
      slot.waiting = false;
      start(slot);
    });
  }

  void start(Slot& slot) {
    if (!bind_sockets(slot)) return start_after(slot, options_.port_retry);
    SupervisedRank& spec = slot.spec;
    std::vector<int> inherited;
    std::string names;
    const auto hand_over = [&](const char* name, int fd) {
      if (fd < 0) return;
      inherited.push_back(fd);
      names += (names.empty() ? "" : ",") + std::string(name) + "=" + std::to_string(fd);
    };
    hand_over("http", spec.sockets.http.get());
    hand_over("metrics", spec.sockets.metrics.get());
    hand_over("queue", spec.sockets.queue.get());
    hand_over("clock_secret", options_.secret_fd);
    ChildCommand command = spec.command;
    if (!names.empty()) command.environment[kInheritedFdsVariable] = names;

    slot.started_at = Clock::now();
    slot.started_in_drain = draining_;
    StatusOr<std::unique_ptr<RankProcess>> process =
        RankProcess::start(io_,
                           spec.rank,
                           command,
                           inherited,
                           console_,
                           slot.log ? &*slot.log : nullptr,
                           [this, &slot](int status) { exited(slot, status); });
    spec.sockets = {};
    if (!process.ok()) {
      log_error("rank_not_started",
                {{"rank", spec.rank.value}, {"reason", process.status().message()}});
      return died(slot, process.status().message(), std::nullopt);
    }
    slot.process = *std::move(process);
    progress_.stage(spec.rank, "starting", 0.0, slot.started_at);
    log_debug("rank_started", {{"rank", spec.rank.value}, {"pid", slot.process->pid()}});
    listener_->on_rank_started(spec.rank, slot.process->pid());
  }

  void complete() {
    std::vector<std::string> urls;
    for (const std::unique_ptr<Slot>& slot : slots_) {
      if (!slot->spec.url.empty()) urls.push_back(slot->spec.url);
    }
    progress_.all_ready(urls);
    if (!std::exchange(was_complete_, true)) notifier_.send("READY=1");
  }

  void notify_status() {
    notifier_.send("STATUS=" + std::to_string(ready_count()) + " of " +
                   std::to_string(slots_.size()) + " ranks ready");
  }

  // ---- end of a process -------------------------------------------------------------------------

  void exited(Slot& slot, int status) {
    const auto now = Clock::now();
    const Rank rank = slot.spec.rank;
    const pid_t pid = slot.process->pid();
    const std::string how = describe_wait_status(status);
    std::optional<milliseconds> ready_for;
    if (slot.ready_at) ready_for = std::chrono::duration_cast<milliseconds>(now - *slot.ready_at);
    const bool clean = WIFEXITED(status) && WEXITSTATUS(status) == kExitOk;
    const bool config = WIFEXITED(status) && WEXITSTATUS(status) == kExitConfig;
    if (draining_) {
      note_end_in_drain(slot, status, clean);
    } else if (clean) {
      log_info("rank_left",
               {{"rank", rank.value}, {"pid", pid}, {"was_ready", slot.ready_at.has_value()}});
    } else {
      report_death(slot, how, now);
    }
    const std::unique_ptr<RankProcess> gone = std::move(slot.process);
    slot.ready_at.reset();
    listener_->on_rank_exited(rank, pid, how);
    if (config && !was_complete_ && !draining_) {
      return fail(
          kExitConfig,
          "rank " + std::to_string(rank.value) + " cannot run with these flags or this model");
    }
    died(slot, how, ready_for);
  }

  void report_death(const Slot& slot, const std::string& how, Clock::time_point now) {
    const auto ran = std::chrono::duration_cast<milliseconds>(now - slot.started_at);
    const int rank = slot.spec.rank.value;
    log_error("rank_died",
              {{"rank", rank},
               {"pid", slot.process->pid()},
               {"how", how},
               {"ran_s", seconds(ran)},
               {"was_ready", slot.ready_at.has_value()}});
    for (const std::string& line : slot.process->last_lines()) {
      log_error("rank_last_line", {{"rank", rank}, {"line", line}});
    }
  }

  void note_end_in_drain(const Slot& slot, int status, bool clean) {
    const int rank = slot.spec.rank.value;
    if (clean) {
      log_info("rank_drained", {{"rank", rank}});
      return;
    }
    const bool cut =
        WIFEXITED(status) ? WEXITSTATUS(status) == kExitStreamsCut : slot.ready_at.has_value();
    streams_cut_ |= cut;
    unclean_end_ |= !cut && WIFEXITED(status);  // a rank that was loading ends by SIGTERM itself
    log_warn("rank_ended_in_drain",
             {{"rank", rank}, {"how", describe_wait_status(status)}, {"streams_cut", cut}});
  }

  // Decides what follows. `ready_for`: nullopt if it never was ready.
  void died(Slot& slot, const std::string& how, std::optional<milliseconds> ready_for) {
    if (draining_ && !needed_for_drain(slot)) return check_ended();
    const std::optional<milliseconds> delay = slot.policy.after_death(ready_for);
    const int rank = slot.spec.rank.value;
    if (!delay) {
      return fail(kExitGaveUp,
                  "rank " + std::to_string(rank) + " ended early " +
                      std::to_string(slot.policy.early_deaths()) +
                      " times in a row, the last time with " + how);
    }
    if (!draining_) notify_status();
    if (delay->count() == 0) {
      progress_.note(slot.spec.rank, "ended (" + how + "), starting again");
      return start(slot);
    }
    progress_.note(slot.spec.rank,
                   "ended early (" + how + "), starting again in " + in_seconds(*delay));
    log_warn(
        "rank_restart",
        {{"rank", rank}, {"early_deaths", slot.policy.early_deaths()}, {"in_s", seconds(*delay)}});
    start_after(slot, *delay);
  }

  // A rank without which others cannot finish their streams comes back once more.
  bool needed_for_drain(const Slot& slot) const {
    if (!options_.restart_while_draining || stop_requests_ > 1 || failure_) return false;
    for (const std::unique_ptr<Slot>& other : slots_) {
      if (other.get() != &slot && other->process != nullptr && !other->started_in_drain)
        return true;
    }
    return false;
  }

  // ---- end of the fleet -------------------------------------------------------------------------

  void fail(ExitCode code, const std::string& reason) {
    if (failure_) return check_ended();
    failure_ = code;
    log_error("fleet_ends", {{"reason", reason}, {"exit_code", static_cast<int>(code)}});
    if (draining_) return check_ended();
    const milliseconds limit = options_.drain_limit.count() > 0 ? milliseconds(options_.drain_limit)
                                                                : options_.failure_drain_limit;
    begin_drain(limit);
    // Nothing can be running in a fleet that never was complete.
    if (!was_complete_) end_now();
  }

  void begin_drain(milliseconds limit) {
    draining_ = true;
    notifier_.send("STOPPING=1\nSTATUS=draining");
    listener_->on_fleet_draining();
    stop_waiting();
    signal_all(SIGTERM);
    // The ranks know the limit too and end by themselves.
    if (limit.count() > 0) at_deadline(limit, [this] { end_now(); });
    check_ended();
  }

  void end_now() {
    if (std::exchange(ending_now_, true)) return;
    // Not SIGTERM again: a second one that comes before the first was read is lost.
    signal_all(SIGINT);
    at_deadline(options_.kill_grace, [this] {
      log_error(
          "kill",
          {{"by", "launcher"}, {"alive", alive()}, {"after_s", seconds(options_.kill_grace)}});
      signal_all(SIGKILL);
    });
    check_ended();
  }

  template <typename Action>
  void at_deadline(milliseconds delay, Action action) {
    deadline_.expires_after(delay);
    deadline_.async_wait([action](const boost::system::error_code& error) {
      if (!error) action();
    });
  }

  void signal_all(int number) {
    for (const std::unique_ptr<Slot>& slot : slots_) {
      if (slot->process != nullptr) slot->process->signal(number);
    }
  }

  bool ended() const {
    if (!draining_) return false;
    for (const std::unique_ptr<Slot>& slot : slots_) {
      if (slot->process != nullptr || slot->waiting) return false;
    }
    return true;
  }

  void check_ended() {
    if (ended()) return io_.stop();
    for (const std::unique_ptr<Slot>& slot : slots_) {
      if (slot->process != nullptr && !slot->started_in_drain) return;
    }
    // Ranks that came back only to help the others finish have nothing of their own to finish.
    stop_waiting();
    if (alive() == 0) return io_.stop();
    if (!std::exchange(helpers_dismissed_, true)) signal_all(SIGTERM);
  }

  void stop_waiting() {
    for (const std::unique_ptr<Slot>& slot : slots_) {
      slot->waiting = false;
      slot->timer.cancel();
    }
  }

  int exit_code() const {
    if (failure_) return *failure_;
    if (streams_cut_) return kExitStreamsCut;
    return unclean_end_ ? kExitFailure : kExitOk;
  }

  const SupervisorOptions options_;
  Console* const console_;
  asio::io_context io_;
  FleetProgress progress_;
  Notifier notifier_;
  asio::steady_timer deadline_;
  asio::signal_set signals_;
  FleetListener* listener_ = nullptr;
  std::vector<std::unique_ptr<Slot>> slots_;
  bool was_complete_ = false;
  bool draining_ = false;
  bool ending_now_ = false;
  bool helpers_dismissed_ = false;
  int stop_requests_ = 0;
  std::optional<ExitCode> failure_;
  bool streams_cut_ = false;
  bool unclean_end_ = false;
};

Supervisor::Supervisor(SupervisorOptions options,
                       std::vector<SupervisedRank> ranks,
                       Console* console)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(ranks), console)) {}

Supervisor::~Supervisor() = default;

int Supervisor::run(FleetListener* listener) { return impl_->run(listener); }

void Supervisor::drain() {
  impl_->post([this] { impl_->stop_requested("request"); });
}

void Supervisor::on_progress(Rank rank, pid_t pid, std::string stage, double fraction) {
  impl_->post([this, rank, pid, stage = std::move(stage), fraction] {
    impl_->progressed(rank, pid, stage, fraction);
  });
}

void Supervisor::on_serving(Rank rank, pid_t pid, double seconds) {
  impl_->post([this, rank, pid, seconds] { impl_->serving(rank, pid, seconds); });
}

void Supervisor::on_hung(Rank rank, pid_t pid, std::string reason) {
  impl_->post([this, rank, pid, reason = std::move(reason)] { impl_->hung(rank, pid, reason); });
}

void Supervisor::on_refused(Rank rank, pid_t pid, std::string reason) {
  impl_->post([this, rank, pid, reason = std::move(reason)] { impl_->refused(rank, pid, reason); });
}

}  // namespace flotilla
