// A JSON writer. Text that is not valid UTF-8 comes out with U+FFFD in place of each bad byte, so
// the output is always valid JSON. (Reading JSON is simdjson's job, at the edges.)
#pragma once

#include <charconv>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace flotilla {

// Appends `text` as a JSON string, quotes included.
void append_json_string(std::string* out, std::string_view text);
// Appends the shortest decimal that reads back as the same float or double; null for NaN and
// infinities.
void append_json_number(std::string* out, double number);
void append_json_number(std::string* out, float number);

// Writes into a string that the caller owns; commas are set by the writer. Wrong nesting is not
// checked.
class JsonWriter {
 public:
  explicit JsonWriter(std::string* out) : out_(out) {}

  void begin_object() { open('{'); }
  void end_object() { close('}'); }
  void begin_array() { open('['); }
  void end_array() { close(']'); }
  void key(std::string_view name) {
    comma();
    append_json_string(out_, name);
    *out_ += ':';
    need_comma_ = false;
  }

  void value(std::string_view text) {
    comma();
    append_json_string(out_, text);
  }
  void value(const std::string& text) { value(std::string_view(text)); }
  void value(const char* text) { value(std::string_view(text)); }
  void value(bool b) { raw(b ? "true" : "false"); }
  void value(std::integral auto number) {
    comma();
    char buffer[24];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, number).ptr;
    out_->append(buffer, end);
  }
  void value(std::floating_point auto number) {
    comma();
    append_json_number(out_, number);
  }
  void null() { raw("null"); }
  // `json` must be one valid JSON value.
  void raw(std::string_view json) {
    comma();
    *out_ += json;
  }

  template <typename T>
  void field(std::string_view name, const T& v) {
    key(name);
    value(v);
  }

 private:
  void comma() {
    if (need_comma_) *out_ += ',';
    need_comma_ = true;
  }
  void open(char c) {
    comma();
    *out_ += c;
    need_comma_ = false;
  }
  void close(char c) {
    *out_ += c;
    need_comma_ = true;
  }

  std::string* out_;
  bool need_comma_ = false;
};

}  // namespace flotilla
