#include "common/log.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

using namespace flotilla;

namespace {

// What `log` writes to stderr.
std::string captured(auto log) {
  std::fflush(stderr);
  FILE* file = std::tmpfile();
  const int saved = dup(2);
  dup2(fileno(file), 2);
  log();
  std::fflush(stderr);
  dup2(saved, 2);
  close(saved);
  std::rewind(file);
  std::string text(1 << 16, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  return text;
}

}  // namespace

TEST_CASE("Log.UserTextCannotForgeALine") {
  configure_logging({.rank = 3});
  const std::string out = captured([] {
    log_info("got", {{"text", "x\n2026 error event=fake \"q\""}, {"n", 5}});
  });
  CHECK(out.find(R"( info rank=3 event=got text="x\n2026 error event=fake \"q\"" n=5)") !=
        std::string::npos);
  CHECK(std::count(out.begin(), out.end(), '\n') == 1);
}

TEST_CASE("Log.JsonLinesAndLevels") {
  configure_logging({.level = LogLevel::kWarn, .json = true});
  const std::string out = captured([] {
    log_info("quiet");
    log_warn("loud", {{"text", "a\nb"}, {"ok", true}});
  });
  CHECK(out.find("quiet") == std::string::npos);
  CHECK(out.find(R"("event":"loud","text":"a\nb","ok":true})") != std::string::npos);
  configure_logging({});
}
