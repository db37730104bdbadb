#include "common/json.h"

#include <doctest/doctest.h>

#include <limits>

using namespace flotilla;

namespace {
std::string quoted(std::string_view text) {
  std::string out;
  append_json_string(&out, text);
  return out;
}
}  // namespace

TEST_CASE("JsonString.EscapesControlCharactersQuotesAndBackslashes") {
  CHECK(quoted("a\"b\\c\n\r\t\x01\x7f") == "\"a\\\"b\\\\c\\n\\r\\t\\u0001\\u007f\"");
}

TEST_CASE("JsonString.KeepsValidUtf8AndReplacesEachBadByte") {
  CHECK(quoted("é€😀") == "\"é€😀\"");
  CHECK(quoted("a\xff\xe2\x82") == "\"a\uFFFD\uFFFD\uFFFD\"");
  CHECK(quoted("\xed\xa0\x80") == "\"\uFFFD\uFFFD\uFFFD\"");  // a surrogate is no character
}

TEST_CASE("JsonWriter.SetsCommasBetweenFieldsAndElements") {
  std::string out;
  JsonWriter json(&out);
  json.begin_object();
  json.field("a", 1);
  json.key("b");
  json.begin_array();
  json.value(true);
  json.null();
  json.begin_object();
  json.end_object();
  json.value(1.5);
  json.end_array();
  json.field("c", "x");
  json.end_object();
  CHECK(out == R"({"a":1,"b":[true,null,{},1.5],"c":"x"})");
}

TEST_CASE("JsonNumber.ReadsBackAsTheSameFloatAndNeverWritesNan") {
  std::string out;
  append_json_number(&out, 0.1f);
  CHECK(out == "0.1");
  out.clear();
  append_json_number(&out, std::numeric_limits<double>::quiet_NaN());
  CHECK(out == "null");
}
