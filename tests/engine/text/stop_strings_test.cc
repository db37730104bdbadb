#include "engine/text/stop_strings.h"

#include <doctest/doctest.h>

#include <random>

using namespace flotilla;

namespace {

struct Result {
  std::string text;
  bool matched = false;
  size_t index = 0;
  bool operator==(const Result&) const = default;
};

Result run(const std::vector<std::string>& stops,
           bool include,
           const std::vector<std::string>& chunks) {
  StopMatcher matcher(stops, include);
  Result result;
  for (const std::string& chunk : chunks) {
    if (matcher.append(chunk, &result.text)) {
      result.matched = true;
      result.index = matcher.matched_index();
      return result;
    }
  }
  matcher.finish(&result.text);
  CHECK(matcher.held_bytes() == 0);
  return result;
}

// Straight from the definition: the stop string that ends first, of those the one that begins
// first.
Result expected(const std::vector<std::string>& stops, bool include, const std::string& text) {
  size_t best_end = std::string::npos, best = 0;
  for (size_t i = 0; i < stops.size(); ++i) {
    const size_t at = stops[i].empty() ? std::string::npos : text.find(stops[i]);
    if (at == std::string::npos) continue;
    const size_t end = at + stops[i].size();
    if (end < best_end || (end == best_end && stops[i].size() > stops[best].size())) {
      best_end = end;
      best = i;
    }
  }
  if (best_end == std::string::npos) return {text, false, 0};
  return {text.substr(0, include ? best_end : best_end - stops[best].size()), true, best};
}

}  // namespace

// Failure table row 22: stop strings over several chunks never leak.
TEST_CASE("StopMatcher.GivesTheSameForEveryWayToCutTheText") {
  std::mt19937 random(3);
  for (int round = 0; round < 4000; ++round) {
    const auto word = [&](size_t longest) {
      std::string s;
      for (size_t n = random() % (longest + 1); n > 0; --n)
        s += static_cast<char>('a' + random() % 3);
      return s;
    };
    std::vector<std::string> stops;
    for (size_t n = random() % 4; n > 0; --n) stops.push_back(word(6));
    const std::string text = word(30);
    const bool include = random() % 2 == 0;
    std::vector<std::string> chunks;
    for (size_t at = 0; at < text.size();) {
      const size_t n = random() % 5;
      chunks.push_back(text.substr(at, n));
      at += n;
    }
    CAPTURE(text);
    CHECK(run(stops, include, chunks) == expected(stops, include, text));
  }
}

TEST_CASE("StopMatcher.HoldsBackOnlyWhatCouldBeginAStopString") {
  StopMatcher matcher({"###", "\nUser:"}, false);
  std::string out;
  CHECK_FALSE(matcher.append("Hello #", &out));
  CHECK(out == "Hello ");
  CHECK(matcher.held_bytes() == 1);
  CHECK_FALSE(matcher.append("# x\n", &out));
  CHECK(out == "Hello ## x");
  CHECK_FALSE(matcher.append("Us", &out));
  CHECK(out == "Hello ## x");
  CHECK(matcher.emitted_bytes() == 10);
  CHECK(matcher.append("er: hi", &out));
  CHECK(out == "Hello ## x");
  CHECK(matcher.matched());
  CHECK(matcher.matched_string() == "\nUser:");
  CHECK(matcher.matched_index() == 1);
}

TEST_CASE("StopMatcher.IncludesTheStopStringIfAskedAndNothingBehindIt") {
  CHECK(run({"STOP"}, true, {"a ST", "OP b"}) == Result{"a STOP", true, 0});
  CHECK(run({"STOP"}, false, {"a ST", "OP b"}) == Result{"a ", true, 0});
  CHECK(run({}, false, {"a", "b"}) == Result{"ab", false, 0});
  CHECK(run({""}, false, {"a"}) == Result{"a", false, 0});
}

TEST_CASE("StopMatcher.FinishGivesOutWhatTurnedOutToBeNoStopString") {
  CHECK(run({"<|end|>"}, false, {"x <|", "en"}) == Result{"x <|en", false, 0});
  CHECK(run({"终止"}, false, {"话终", "点"}) == Result{"话终点", false, 0});
}

TEST_CASE("StopMatcher.StaysLinearOnTextMadeOfBeginnings") {
  std::vector<std::string> stops;
  for (int i = 0; i < 16; ++i) stops.push_back(std::string(255, 'a') + static_cast<char>('b' + i));
  StopMatcher matcher(stops, false);
  std::string out;
  for (int i = 0; i < 2000; ++i) CHECK_FALSE(matcher.append(std::string(100, 'a'), &out));
  CHECK(matcher.held_bytes() == 255);
  matcher.finish(&out);
  CHECK(out.size() == 200'000);
}
