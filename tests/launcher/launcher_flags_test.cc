#include "launcher/launcher_flags.h"

#include <doctest/doctest.h>

#include "common/fd.h"

using namespace flotilla;

namespace {

std::string error_of(const std::vector<std::string>& args) {
  const auto flags = parse_launcher_flags(args, {});
  return flags.ok() ? "(no error)" : flags.status().message();
}

}  // namespace

TEST_CASE("LauncherFlags.ReadsTheCommandOfTheDataParallelPage") {
  const auto flags =
      parse_launcher_flags({"--ports",
                            "1811,1822",
                            "--num-servers",
                            "2",
                            "--metrics-ports",
                            "3101,3201",
                            "--args",
                            "--model",
                            "M",
                            "--engine-worker-queue-port",
                            "25611,25621"},
                           {{"FD_ENABLE_MULTI_API_SERVER", "1"}, {"FD_LOG_DIR", "logs"}});
  REQUIRE(flags.ok());
  CHECK(flags->ports == std::vector<int>{1811, 1822});
  CHECK(flags->metrics_ports == std::vector<int>{3101, 3201});
  CHECK(flags->num_servers == 2);
  CHECK(flags->server_args ==
        std::vector<std::string>{"--model", "M", "--engine-worker-queue-port", "25611,25621"});
  CHECK(flags->log_dir == "logs");
  CHECK(flags->warnings.empty());
}

TEST_CASE("LauncherFlags.MinusOneMeansNoMetricsPorts") {
  CHECK(parse_launcher_flags({"--metrics-ports", "-1"}, {})->metrics_ports.empty());
  CHECK(parse_launcher_flags({}, {})->metrics_ports.empty());
  CHECK(error_of({"--metrics-ports", "x"})
            .starts_with("--metrics-ports: got 'x', expected -1 or port numbers"));
}

TEST_CASE("LauncherFlags.ControllerPortsAreNotInThisVersion") {
  CHECK(error_of({"--controller-ports", "-1"}) == "(no error)");
  CHECK(error_of({"--controller-ports", "1,2"})
            .starts_with("--controller-ports is not in this version"));
}

TEST_CASE("LauncherFlags.OneConfigFileServesBothPrograms") {
  const auto flags = parse_launcher_flags({"--config=/dev/null", "--args", "--model", "M"}, {});
  REQUIRE(flags.ok());
  CHECK(flags->server_args == std::vector<std::string>{"--config", "/dev/null", "--model", "M"});
  const auto own = parse_launcher_flags({"--config=/dev/null", "--args", "--config=x"}, {});
  CHECK(own->server_args == std::vector<std::string>{"--config=x"});
}

TEST_CASE("LauncherFlags.LogDirIsFlagThenVariableThenLog") {
  CHECK(parse_launcher_flags({}, {})->log_dir == "log");
  CHECK(parse_launcher_flags({"--log-dir", "a"}, {{"FD_LOG_DIR", "b"}})->log_dir == "a");
  CHECK(parse_launcher_flags({}, {{"FD_LOG_BACKUP_COUNT", "3"}})->log_backup_count == 3);
  CHECK(parse_launcher_flags({"--log-backup-count", "1"}, {{"FD_LOG_BACKUP_COUNT", "3"}})
            ->log_backup_count == 1);
}

TEST_CASE("LauncherFlags.AMisplacedServerFlagIsNamed") {
  CHECK(error_of({"--model", "M"}) == "--model is a flag of api_server: put it behind --args");
  CHECK(error_of({"--json"}).starts_with("--json goes with --dry-run only"));
}

TEST_CASE("LauncherFlags.HelpBehindArgsIsApiServers") {
  CHECK(launcher_flags_info({"--help"}).value().starts_with("Usage: multi_api_server"));
  CHECK(launcher_flags_info({"--args", "--help"}).value().starts_with("Usage: api_server"));
  CHECK_FALSE(launcher_flags_info({"--args", "--model", "M"}).has_value());
}

TEST_CASE("FlagsDocument.IsWhatDocsFlagsMdSays") {
  const auto committed = read_file(FLOTILLA_DOCS "/flags.md", 1 << 20);
  REQUIRE(committed.ok());
  // To update: build/release/bin/multi_api_server --print-flags markdown >docs/flags.md
  CHECK((*committed == flags_document()));
  CHECK(launcher_flags_info({"--print-flags", "markdown"}) == flags_document());
}
