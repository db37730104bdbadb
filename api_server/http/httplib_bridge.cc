#include "api_server/http/httplib_bridge.h"

#include <httplib.h>

#include <algorithm>
#include <cstring>
#include <exception>

#include "api_server/http/http_counters.h"
#include "common/log.h"

namespace flotilla {
namespace {

// A request line and no more: httplib's input; what it writes: the response.
class MemoryStream final : public httplib::Stream {
 public:
  MemoryStream(std::string_view input, std::string* output) : input_(input), output_(output) {}

  bool is_readable() const override { return true; }
  bool is_writable() const override { return true; }
  ssize_t read(char* out, size_t size) override {
    const size_t n = std::min(size, input_.size());
    std::memcpy(out, input_.data(), n);
    input_.remove_prefix(n);
    return static_cast<ssize_t>(n);
  }
  ssize_t write(const char* data, size_t size) override {
    output_->append(data, size);
    return static_cast<ssize_t>(size);
  }
  void get_remote_ip_and_port(std::string&, int&) const override {}
  void get_local_ip_and_port(std::string&, int&) const override {}
  socket_t socket() const override { return INVALID_SOCKET; }

 private:
  std::string_view input_;
  std::string* output_;
};

// httplib's hooks are given its own request only.
thread_local HttpJob* current_job = nullptr;

bool is_bodyless(int status) { return status == 204 || status == 304; }

}  // namespace

void finish_headers(const HttpServerOptions& options,
                    const HttpRequest* request,
                    HttpHeaders* headers) {
  for (const std::string_view own :
       {"Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Date"}) {
    headers->remove(own);
  }
  headers->add("Date", http_date());
  if (request != nullptr && options.decorate) options.decorate(*request, headers);
}

void append_response_head(std::string* out, int status, const HttpHeaders& headers) {
  *out += "HTTP/1.1 ";
  *out += std::to_string(status);
  *out += ' ';
  *out += httplib::status_message(status);
  *out += "\r\n";
  for (const auto& [name, value] : headers) {
    *out += name;
    *out += ": ";
    *out += value;
    *out += "\r\n";
  }
  *out += "\r\n";
}

class HttplibBridge::Processor final : public httplib::Server {
 public:
  Processor(const HttpServerOptions& options, HttpCounterCells& counters)
      : options_(options), counters_(counters) {
    set_pre_routing_handler([this](const httplib::Request&, httplib::Response& response) {
      HttpJob& job = *current_job;
      job.route->handler(job.request, job);
      if (!job.producer) take_response(job, response);
      return HandlerResponse::Handled;
    });
    set_exception_handler(
        [this](const httplib::Request&, httplib::Response& response, std::exception_ptr error) {
          fail(*current_job, response, error);
        });
    set_header_writer([](httplib::Stream& stream, httplib::Headers& headers) {
      return write_headers(stream, headers);
    });
  }

  void run(HttpJob& job) {
    const std::string head = job.request.method + " / HTTP/1.1\r\n\r\n";
    MemoryStream stream(head, &job.wire_response);
    current_job = &job;
    bool closed = false;
    process_request(stream, {}, 0, {}, 0, !job.keep_alive, closed, nullptr);
    current_job = nullptr;
    if (job.producer) job.wire_response.clear();
  }

 private:
  void take_response(HttpJob& job, httplib::Response& response) {
    if (!job.response()) answer_failure(job, "it returned without an answer");
    HttpResponse& own = *job.response();
    finish_headers(options_, &job.request, &own.headers);
    if (job.keep_alive && job.request.minor_version == 0) {
      own.headers.add("Connection", "keep-alive");
    }
    job.status = response.status = own.status;
    if (!is_bodyless(own.status)) response.body = std::move(own.body);
    for (const auto& [name, value] : own.headers) response.headers.emplace(name, value);
  }

  void fail(HttpJob& job, httplib::Response& response, const std::exception_ptr& error) {
    std::string why = "an exception of unknown type";
    try {
      std::rethrow_exception(error);
    } catch (const std::exception& known) {
      why = known.what();
    } catch (...) {
    }
    job.producer.reset();
    answer_failure(job, why);
    take_response(job, response);
  }

  void answer_failure(HttpJob& job, std::string_view why) {
    log_error("http_handler_failed", {{"path", job.request.path}, {"why", why}});
    counters_.refuse(HttpRefusal::kHandlerFailed);
    job.respond(error_response({.status = 500,
                                .code = "internal_error",
                                .message = "the server failed to answer this request"},
                               options_.error_body));
  }

  // As httplib does, less what it adds by itself: a Keep-Alive with a count that does not hold
  // here, an Accept-Ranges for HEAD, and the length of a body that must not be.
  static ssize_t write_headers(httplib::Stream& stream, const httplib::Headers& headers) {
    const bool bodyless = is_bodyless(current_job->status);
    std::string text;
    for (const auto& [name, value] : headers) {
      if (name == "Keep-Alive" || name == "Accept-Ranges") continue;
      if (bodyless && name == "Content-Length") continue;
      text.append(name).append(": ").append(value).append("\r\n");
    }
    text += "\r\n";
    return stream.write(text.data(), text.size());
  }

  const HttpServerOptions& options_;
  HttpCounterCells& counters_;
};

HttplibBridge::HttplibBridge(const HttpServerOptions& options, HttpCounterCells& counters)
    : processor_(std::make_unique<Processor>(options, counters)) {}

HttplibBridge::~HttplibBridge() = default;

void HttplibBridge::run(HttpJob& job) { processor_->run(job); }

}  // namespace flotilla
