// Where cpp-httplib comes in: it runs a handler and composes its response. No httplib type leaves
// the .cc file.
//
// What httplib is not given, and why: the socket (its accept loop spins when descriptors run out
// and ends at any other error; it keeps a thread per connection), the request's own bytes (it
// percent-decodes header values, so that
// "%0d%0a" in one becomes a line break, and joins framing rules that servers in front read
// differently), and the choice of the route (regular expressions in order, recursive in the length
// of the path).
#pragma once

#include <memory>
#include <string>

#include "api_server/http/http_job.h"

namespace flotilla {

struct HttpServerOptions;
struct HttpCounterCells;

// Makes a response's headers final: the server's own ones, those of options.decorate. `request` is
// null where no head could be parsed. Content-Length and Transfer-Encoding are set by whoever
// frames the body.
void finish_headers(const HttpServerOptions& options,
                    const HttpRequest* request,
                    HttpHeaders* headers);
// Appends "HTTP/1.1 200 OK\r\n", the headers, and the empty line.
void append_response_head(std::string* out, int status, const HttpHeaders& headers);

class HttplibBridge {
 public:
  HttplibBridge(const HttpServerOptions& options, HttpCounterCells& counters);
  ~HttplibBridge();

  // Runs the job's handler; then the job has a producer, or wire_response and status. Handler
  // threads; many at once.
  void run(HttpJob& job);

 private:
  class Processor;
  std::unique_ptr<Processor> processor_;
};

}  // namespace flotilla
