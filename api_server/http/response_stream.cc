#include "api_server/http/response_stream.h"

#include <algorithm>

#include "api_server/http/io_mailbox.h"

namespace flotilla {

void ResponseWriter::respond(HttpResponse response) {
  check(!started_, "respond() after the response has started");
  started_ = finished_ = has_head_ = whole_ = true;
  head_ = std::move(response);
}

void ResponseWriter::start(int status, HttpHeaders headers) {
  check(!started_, "a response starts once");
  started_ = has_head_ = true;
  head_ = {.status = status, .headers = std::move(headers), .body = {}};
}

void ResponseWriter::start_events(HttpHeaders headers) {
  headers.set("Content-Type", "text/event-stream");
  headers.set("Cache-Control", "no-cache");
  headers.set("X-Accel-Buffering", "no");  // nginx passes events on as they come
  start(200, std::move(headers));
}

void wake(const ResponseStreamHandle& stream) { wake_many({&stream, 1}); }

void wake_many(std::span<const ResponseStreamHandle> streams) {
  size_t served = 0;
  // One pass per I/O thread: those are few, and the first pass finds most of the mailboxes.
  for (size_t first = 0; served < streams.size(); ++first) {
    IoMailbox& mailbox = *streams[first]->mailbox_;
    const auto same = [&](const ResponseStreamHandle& s) { return s->mailbox_.get() == &mailbox; };
    if (std::any_of(streams.begin(), streams.begin() + static_cast<ptrdiff_t>(first), same)) {
      continue;
    }
    bool news = false;
    {
      MutexLock lock(mailbox.mutex);
      for (const ResponseStreamHandle& stream : streams.subspan(first)) {
        if (!same(stream)) continue;
        ++served;
        if (mailbox.closed || stream->queued_.exchange(true)) continue;
        mailbox.woken.push_back(stream);
        news = true;
      }
    }
    if (news) mailbox.signal();
  }
}

}  // namespace flotilla
