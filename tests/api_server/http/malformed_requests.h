// Requests that have to be refused, and with what: shared by the parser's tests and those over a
// socket.
#pragma once

#include <string>
#include <vector>

namespace flotilla {

struct MalformedRequest {
  std::string name;
  std::string bytes;
  int status = 400;
  std::string code;
};

// Wrong in their heads.
inline std::vector<MalformedRequest> malformed_heads() {
  using namespace std::string_literals;
  const std::string host = "Host: x\r\n";
  const std::string line = "POST /echo HTTP/1.1\r\n";
  const auto with = [&](const std::string& field) { return line + host + field + "\r\n\r\n"; };
  const auto target = [&](const std::string& t) {
    return "GET " + t + " HTTP/1.1\r\n" + host + "\r\n";
  };
  std::vector<MalformedRequest> all = {
      {"two Content-Length",
       with("Content-Length: 2\r\nContent-Length: 2"),
       400,
       "bad_content_length"},
      {"Content-Length list", with("Content-Length: 2, 2"), 400, "bad_content_length"},
      {"signed Content-Length +", with("Content-Length: +2"), 400, "bad_content_length"},
      {"signed Content-Length -", with("Content-Length: -2"), 400, "bad_content_length"},
      {"hex Content-Length", with("Content-Length: 0x2"), 400, "bad_content_length"},
      {"Content-Length with a blank", with("Content-Length: 1 2"), 400, "bad_content_length"},
      {"empty Content-Length", with("Content-Length:"), 400, "bad_content_length"},
      {"Content-Length over 64 bits",
       with("Content-Length: 18446744073709551616"),
       400,
       "bad_content_length"},
      {"Content-Length and Transfer-Encoding",
       with("Content-Length: 2\r\nTransfer-Encoding: chunked"),
       400,
       "ambiguous_length"},
      {"Transfer-Encoding and Content-Length",
       with("Transfer-Encoding: chunked\r\nContent-Length: 2"),
       400,
       "ambiguous_length"},
      {"other coding", with("Transfer-Encoding: gzip"), 400, "bad_transfer_encoding"},
      {"coding identity", with("Transfer-Encoding: identity"), 400, "bad_transfer_encoding"},
      {"coding list", with("Transfer-Encoding: gzip, chunked"), 400, "bad_transfer_encoding"},
      {"coding twice in one",
       with("Transfer-Encoding: chunked, chunked"),
       400,
       "bad_transfer_encoding"},
      {"coding twice in two",
       with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
       400,
       "bad_transfer_encoding"},
      {"coding quoted", with("Transfer-Encoding: \"chunked\""), 400, "bad_transfer_encoding"},
      {"coding with parameter",
       with("Transfer-Encoding: chunked;q=1"),
       400,
       "bad_transfer_encoding"},
      {"coding empty", with("Transfer-Encoding:"), 400, "bad_transfer_encoding"},
      {"coding look-alike", with("Transfer-Encoding: xchunked"), 400, "bad_transfer_encoding"},
      {"coding on HTTP/1.0",
       "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
       400,
       "bad_transfer_encoding"},
      {"bare LF after the request line", "GET /health HTTP/1.1\nHost: x\r\n\r\n", 400, "bare_lf"},
      {"bare LF after a field", line + "Host: x\nA: b\r\n\r\n", 400, "bare_lf"},
      {"bare LF at the end", line + host + "\n", 400, "bare_lf"},
      {"bare LF inside a value",
       line + host + "A: b\nTransfer-Encoding: chunked\r\n\r\n",
       400,
       "bare_lf"},
      {"bare CR in a value", line + host + "A: b\rc\r\n\r\n", 400, "bare_cr"},
      {"bare CR in the request line", "GET /he\ralth HTTP/1.1\r\n" + host + "\r\n", 400, "bare_cr"},
      {"CR CR LF", line + host + "A: b\r\r\n\r\n", 400, "bare_cr"},
      {"obs-fold with a space", with("A: b\r\n c"), 400, "folded_header"},
      {"obs-fold with a tab", with("A: b\r\n\tTransfer-Encoding: chunked"), 400, "folded_header"},
      {"blank before the first field", line + " Host: x\r\n\r\n", 400, "folded_header"},
      {"space before the colon", with("Content-Length : 2"), 400, "bad_header_name"},
      {"tab before the colon", with("Transfer-Encoding\t: chunked"), 400, "bad_header_name"},
      {"space inside a name", with("Con tent: 2"), 400, "bad_header_name"},
      {"field without a colon", with("Nonsense"), 400, "bad_header_name"},
      {"field without a name", with(": v"), 400, "bad_header_name"},
      {"field name in UTF-8", with("N\xC3\xA4me: v"), 400, "bad_header_name"},
      {"NUL in a value", with("A: b\0c"s), 400, "control_character"},
      {"NUL in a name", with("A\0: b"s), 400, "control_character"},
      {"NUL in the target", "GET /he\0alth HTTP/1.1\r\nHost: x\r\n\r\n"s, 400, "control_character"},
      {"escape character in a value", with("A: \x1b[31m"), 400, "control_character"},
      {"DEL in a value", with("A: \x7f"), 400, "control_character"},
      {"vertical tab",
       with("A:\x0b"
            "b"),
       400,
       "control_character"},
      {"a TLS hello", "\x16\x03\x01\x02\x00\x01"s, 400, "control_character"},
      {"no Host", line + "\r\n", 400, "bad_host"},
      {"two Hosts", with("Host: x"), 400, "bad_host"},
      {"two Hosts on HTTP/1.0",
       "GET /health HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
       400,
       "bad_host"},
      {"Host with a path", line + "Host: x/y\r\n\r\n", 400, "bad_host"},
      {"Host with a user", line + "Host: a@x\r\n\r\n", 400, "bad_host"},
      {"Host with a blank", line + "Host: a b\r\n\r\n", 400, "bad_host"},
      {"no version", "GET /health\r\n" + host + "\r\n", 400, "bad_request_line"},
      {"HTTP/0.9", "GET /health HTTP/0.9\r\n" + host + "\r\n", 400, "bad_version"},
      {"HTTP/1.2", "GET /health HTTP/1.2\r\n" + host + "\r\n", 400, "bad_version"},
      {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\n", 400, "bad_version"},
      {"lower-case version", "GET /health http/1.1\r\n" + host + "\r\n", 400, "bad_version"},
      {"version with more behind it",
       "GET /health HTTP/1.1x\r\n" + host + "\r\n",
       400,
       "bad_version"},
      {"a space behind the version",
       "GET /health HTTP/1.1 \r\n" + host + "\r\n",
       400,
       "bad_version"},
      {"two spaces", "GET  /health HTTP/1.1\r\n" + host + "\r\n", 400, "bad_request_target"},
      {"tabs for spaces", "GET\t/health\tHTTP/1.1\r\n" + host + "\r\n", 400, "bad_request_line"},
      {"no method", " /health HTTP/1.1\r\n" + host + "\r\n", 400, "bad_method"},
      {"method that is no token", "GE(T /health HTTP/1.1\r\n" + host + "\r\n", 400, "bad_method"},
      {"method of 33 letters",
       std::string(33, 'G') + " /health HTTP/1.1\r\n" + host + "\r\n",
       400,
       "bad_method"},
      {"two empty lines first",
       "\r\n\r\nGET /health HTTP/1.1\r\n" + host + "\r\n",
       400,
       "bad_request_line"},
      {"target without a slash", target("health"), 400, "bad_request_target"},
      {"target with a space", target("/he alth"), 400, "bad_request_target"},
      {"target with a fragment", target("/health#x"), 400, "bad_request_target"},
      {"target in UTF-8", target("/h\xC3\xA4lth"), 400, "bad_request_target"},
      {"target with a broken escape", target("/h%e"), 400, "bad_request_target"},
      {"target with a wrong escape", target("/h%zz"), 400, "bad_request_target"},
      {"target with an escaped NUL", target("/health%00"), 400, "bad_request_target"},
      {"target with an escaped line end", target("/health%0d%0aX:1"), 400, "bad_request_target"},
      {"target with a backslash", target("/a\\b"), 400, "bad_request_target"},
      {"asterisk for GET", target("*"), 400, "bad_request_target"},
      {"a scheme alone", target("http"), 400, "bad_request_target"},
      {"another scheme", target("ftp://x/health"), 400, "bad_request_target"},
      {"absolute target without a host", target("http:///health"), 400, "bad_request_target"},
      {"absolute target with a user", target("http://a@x/health"), 400, "bad_request_target"},
      {"CONNECT", "CONNECT x:80 HTTP/1.1\r\n" + host + "\r\n", 400, "bad_request_target"},
      {"unknown expectation", with("Expect: the unexpected"), 417, "bad_expectation"},
      {"request line of 8 KiB + 1",
       "GET /" + std::string(8178, 'a') + "?" + " HTTP/1.1\r\n",
       414,
       "request_line_too_long"},
      {"request line without an end",
       "GET /" + std::string(9000, 'a'),
       414,
       "request_line_too_long"},
      {"headers over 64 KiB in one",
       line + host + "A: " + std::string(64 << 10, 'a') + "\r\n\r\n",
       431,
       "headers_too_large"},
      {"more than 128 fields", "", 431, "too_many_headers"},
      {"headers over 64 KiB in many", "", 431, "headers_too_large"},
  };
  std::string many = line + host;
  for (int i = 0; i < 128; ++i) many += "A: b\r\n";
  all[all.size() - 2].bytes = many + "\r\n";
  std::string large = line + host;
  for (int i = 0; i < 100; ++i) large += "A: " + std::string(700, 'b') + "\r\n";
  all.back().bytes = large + "\r\n";
  return all;
}

// Wrong in their chunks. Only the body: what follows a head with "Transfer-Encoding: chunked".
inline std::vector<MalformedRequest> malformed_chunks() {
  using namespace std::string_literals;
  std::vector<MalformedRequest> all = {
      {"no size", "\r\nhello\r\n", 400, "bad_chunk_size"},
      {"size not hex", "g\r\n", 400, "bad_chunk_size"},
      {"size with 0x", "0x5\r\nhello\r\n0\r\n\r\n", 400, "bad_chunk_size"},
      {"signed size", "+5\r\nhello\r\n0\r\n\r\n", 400, "bad_chunk_size"},
      {"negative size", "-5\r\nhello\r\n0\r\n\r\n", 400, "bad_chunk_size"},
      {"blank before the size", " 5\r\nhello\r\n0\r\n\r\n", 400, "bad_chunk_size"},
      {"blank behind the size", "5 \r\nhello\r\n0\r\n\r\n", 400, "bad_chunk_size"},
      {"size of 16 digits", "0000000000000005\r\nhello\r\n0\r\n\r\n", 400, "bad_chunk_size"},
      {"size that overflows", "fffffffffffffffff\r\n", 400, "bad_chunk_size"},
      {"extension without a size", ";a=b\r\n", 400, "bad_chunk_size"},
      {"bare LF behind the size", "5\nhello\r\n0\r\n\r\n", 400, "bad_chunk_size"},
      {"bare LF in an extension", "5;a\nhello\r\n0\r\n\r\n", 400, "bad_chunk"},
      {"NUL in an extension", "5;\0\r\nhello\r\n0\r\n\r\n"s, 400, "bad_chunk"},
      {"bare CR behind the size", "5\rhello\r\n0\r\n\r\n", 400, "bad_chunk"},
      {"data longer than its size", "4\r\nhello\r\n0\r\n\r\n", 400, "bad_chunk"},
      {"data without CR", "5\r\nhello\n0\r\n\r\n", 400, "bad_chunk"},
      {"data without a line end", "5\r\nhello0\r\n\r\n", 400, "bad_chunk"},
      {"chunk line over 1 KiB",
       "5;" + std::string(1024, 'a') + "\r\nhello\r\n0\r\n\r\n",
       400,
       "chunk_line_too_long"},
      {"chunk line without an end", "5;" + std::string(5000, 'a'), 400, "chunk_line_too_long"},
      {"trailer without a colon", "0\r\nnonsense\r\n\r\n", 400, "bad_trailer"},
      {"trailer without a name", "0\r\n: v\r\n\r\n", 400, "bad_trailer"},
      {"trailer that is folded", "0\r\nA: b\r\n c\r\n\r\n", 400, "bad_trailer"},
      {"trailer with a blank before the colon", "0\r\nA : b\r\n\r\n", 400, "bad_trailer"},
      {"trailer with a bare LF", "0\r\nA: b\n\r\n", 400, "bad_trailer"},
      {"end with a bare LF", "0\r\n\n", 400, "bad_trailer"},
      {"end with a lone CR", "0\r\n\rGET", 400, "bad_chunk"},
      {"trailers over 8 KiB",
       "0\r\nA: " + std::string(9000, 'b') + "\r\n\r\n",
       431,
       "trailers_too_large"},
      {"chunk over the body limit", "2000001\r\n", 413, "body_too_large"},
      {"chunk of nearly 2^60", "fffffffffffffff\r\n", 413, "body_too_large"},
      {"tiny chunks with long lines", "", 400, "chunk_overhead"},
  };
  for (int i = 0; i < 30; ++i) all.back().bytes += "1;" + std::string(1000, 'a') + "\r\nx\r\n";
  return all;
}

}  // namespace flotilla
