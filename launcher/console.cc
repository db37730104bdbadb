#include "launcher/console.h"

#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <deque>
#include <thread>
#include <utility>

#include "common/mutex.h"

namespace flotilla {
namespace {

constexpr auto kLastWait = std::chrono::seconds(2);
constexpr size_t kDefaultColumns = 80;

// Errors (a closed pipe, a full disk) are nobody's to hear of: the log files have the lines too.
void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    text.remove_prefix(static_cast<size_t>(n));
  }
}

size_t terminal_columns(int fd) {
  winsize size{};
  return ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kDefaultColumns;
}

// A wrapped status line would break the count of lines to go up. Cuts between UTF-8 characters.
std::string fitted(const std::string& line, size_t columns) {
  size_t used = 0;
  for (size_t i = 0; i < line.size(); ++i) {
    if ((static_cast<unsigned char>(line[i]) & 0xC0) == 0x80) continue;
    if (++used >= columns) return line.substr(0, i);
  }
  return line;
}

}  // namespace

struct Console::State {
  struct Item {
    OutputStream stream;
    std::string text;
  };

  ConsoleOptions options;
  bool out_is_terminal = false;
  bool err_is_terminal = false;
  Mutex mutex;
  CondVar changed;
  std::deque<Item> items GUARDED_BY(mutex);
  size_t queued_bytes GUARDED_BY(mutex) = 0;
  size_t dropped_lines GUARDED_BY(mutex) = 0;
  std::vector<std::string> status GUARDED_BY(mutex);
  bool status_changed GUARDED_BY(mutex) = false;
  bool closing GUARDED_BY(mutex) = false;
  bool done GUARDED_BY(mutex) = false;

  void run() {
    // A closed pipe is an error of write(), here and not in the whole process.
    sigset_t pipe_signal;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, nullptr);
    size_t shown = 0;  // status lines on the screen
    std::vector<std::string> current;
    while (true) {
      std::deque<Item> batch;
      size_t dropped = 0;
      {
        MutexLock lock(mutex);
        changed.wait(lock, [&] { return closing || !items.empty() || status_changed; });
        batch.swap(items);
        queued_bytes = 0;
        dropped = std::exchange(dropped_lines, 0);
        current = status;
        status_changed = false;
        if (closing && batch.empty() && current.empty()) break;
        if (closing) status.clear();
      }
      print(batch, dropped, current, &shown);
    }
    if (shown > 0) print({}, 0, {}, &shown);
    MutexLock lock(mutex);
    done = true;
    changed.notify_all();
  }

  void print(const std::deque<Item>& batch,
             size_t dropped,
             const std::vector<std::string>& lines,
             size_t* shown) {
    std::string out;
    if (*shown > 0) out = "\x1b[" + std::to_string(*shown) + "A\x1b[J";
    for (const Item& item : batch) {
      if (item.stream == OutputStream::kOut) {
        out += item.text;
      } else if (out_is_terminal && err_is_terminal) {
        out += item.text;  // the same screen: one write keeps the order
      } else {
        write_all(options.out_fd, std::exchange(out, {}));
        write_all(options.err_fd, item.text);
      }
    }
    write_all(options.out_fd, out);
    if (dropped > 0) {
      write_all(options.err_fd,
                "[launcher] " + std::to_string(dropped) +
                    " lines were dropped here: the output is read too slowly (the log files have "
                    "them)\n");
    }
    std::string block;
    const size_t columns = lines.empty() ? 0 : terminal_columns(options.out_fd);
    for (const std::string& line : lines) block += fitted(line, columns) + "\n";
    write_all(options.out_fd, block);
    *shown = lines.size();
  }
};

Console::Console(const ConsoleOptions& options) : state_(std::make_shared<State>()) {
  state_->options = options;
  state_->out_is_terminal = isatty(options.out_fd) == 1;
  state_->err_is_terminal = isatty(options.err_fd) == 1;
  std::thread([state = state_] { state->run(); }).detach();
}

Console::~Console() {
  MutexLock lock(state_->mutex);
  state_->closing = true;
  state_->changed.notify_all();
  state_->changed.wait_until(
      lock, std::chrono::steady_clock::now() + kLastWait, [&] { return state_->done; });
}

bool Console::is_terminal() const { return state_->out_is_terminal; }

void Console::write(OutputStream stream, std::string lines) {
  MutexLock lock(state_->mutex);
  if (state_->queued_bytes + lines.size() > state_->options.max_queued_bytes) {
    for (const char c : lines) state_->dropped_lines += c == '\n' ? 1 : 0;
    return;
  }
  state_->queued_bytes += lines.size();
  state_->items.push_back({stream, std::move(lines)});
  state_->changed.notify_all();
}

void Console::set_status(std::vector<std::string> lines) {
  if (!state_->out_is_terminal) return;
  MutexLock lock(state_->mutex);
  state_->status = std::move(lines);
  state_->status_changed = true;
  state_->changed.notify_all();
}

}  // namespace flotilla
