#include "launcher/plan.h"

#include <doctest/doctest.h>

#include <algorithm>

using namespace flotilla;

namespace {

Machine machine(int cpus) {
  Machine m;
  for (int i = 0; i < cpus; ++i) m.cpus.push_back({i, 0, i});
  return m;
}

// As multi_api_server reads its command line.
PlanInput input_of(const std::vector<std::string>& args, const Environment& environment = {}) {
  PlanInput input;
  auto launcher = parse_launcher_flags(args, environment);
  REQUIRE_MESSAGE(launcher.ok(), launcher.status().message());
  auto server = parse_server_flags(launcher->server_args, environment, ServerFlagsUse::kLauncher);
  REQUIRE_MESSAGE(server.ok(), server.status().message());
  input.launcher = *launcher;
  input.server = *server;
  input.machine = machine(8);
  input.program = "/opt/api_server";
  input.run_dir = "/run/f";
  return input;
}

Plan plan_of(const std::vector<std::string>& args, const Environment& environment = {}) {
  auto plan = make_plan(input_of(args, environment));
  REQUIRE_MESSAGE(plan.ok(), plan.status().message());
  return *plan;
}

std::string error_of(const std::vector<std::string>& args) {
  const auto plan = make_plan(input_of(args));
  return plan.ok() ? "(no error)" : plan.status().message();
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// The word behind a flag; "" if it is not there.
std::string value_in(const std::vector<std::string>& args, const std::string& flag) {
  const auto at = std::find(args.begin(), args.end(), flag);
  return at == args.end() || at + 1 == args.end() ? "" : *(at + 1);
}

}  // namespace

TEST_CASE("Plan.TheCommandOfTheDataParallelPage") {
  const Plan plan = plan_of({"--ports",
                             "1811,1822,1833,1844,1855,1866,1877,1888",
                             "--num-servers",
                             "8",
                             "--metrics-ports",
                             "3101,3201,3301,3401,3501,3601,3701,3801",
                             "--args",
                             "--model",
                             "M",
                             "--engine-worker-queue-port",
                             "25611,25621,25631,25641,25651,25661,25671,25681",
                             "--tensor-parallel-size",
                             "1",
                             "--data-parallel-size",
                             "8",
                             "--max-model-len",
                             "12288",
                             "--max-num-seqs",
                             "64",
                             "--num-gpu-blocks-override",
                             "256",
                             "--enable-expert-parallel"});
  REQUIRE(plan.ranks.size() == 8);
  CHECK(plan.warnings.empty());
  const RankPlan& last = plan.ranks[7];
  CHECK(last.http_port == 1888);
  CHECK(last.metrics_port == 3801);
  CHECK(last.queue_port == 25681);
  CHECK(last.num_threads == 1);
  CHECK(last.cores == std::vector<int>{7});
  const auto args = rank_arguments(plan, last, {1888, 3801});
  CHECK(value_in(args, "--port") == "1888");
  CHECK(value_in(args, "--metrics-port") == "3801");
  CHECK(value_in(args, "--local-data-parallel-id") == "7");
  CHECK(value_in(args, "--max-num-seqs") == "64");
  CHECK(value_in(args, "--clock-address") == "unix:/run/f/clock.sock");
  CHECK(value_in(args, "--run-dir") == "/run/f");
  CHECK(std::count(args.begin(), args.end(), "--data-parallel-size") == 1);
}

// What the plan says a rank is given, the rank understands.
TEST_CASE("Plan.ARanksCommandLineIsValidForApiServer") {
  const Plan plan = plan_of(
      {"--num-servers", "2", "--ports", "1811", "--metrics-ports", "0", "--args", "--model=M"});
  const auto flags = parse_server_flags(
      rank_arguments(plan, plan.ranks[1], {1812, 3000}),
      rank_environment(plan.ranks[1], {{"FLOTILLA_PORT", "7"}, {"FLOTILLA_NUM_SERVERS", "2"}}));
  REQUIRE_MESSAGE(flags.ok(), flags.status().message());
  CHECK(flags->warnings.empty());
  CHECK(flags->port == 1812);
  CHECK(flags->metrics_port == 3000);
  CHECK(flags->local_data_parallel_id == 1);
  CHECK(flags->data_parallel_size == 2);
  CHECK(flags->num_threads == 4);
  CHECK(flags->cpu_cores == std::vector<int>{4, 5, 6, 7});
  CHECK(flags->max_concurrency == 512);
  CHECK(flags->clock_address == plan.clock_address);
}

// fastdeploy.md §2.1: there, a list of another length is an assertion.
TEST_CASE("Plan.AListThatIsTooLongIsUsedFromTheFrontWithAWarning") {
  const Plan plan = plan_of({"--num-servers",
                             "2",
                             "--ports",
                             "1,2,3",
                             "--args",
                             "--model",
                             "M",
                             "--engine-worker-queue-port",
                             "11,12,13,14"});
  CHECK(plan.ranks[1].http_port == 2);
  CHECK(plan.ranks[1].queue_port == 12);
  CHECK(plan.warnings ==
        std::vector<std::string>{
            "--ports has 3 ports for 2 ranks: the first 2 are used",
            "--engine-worker-queue-port has 4 ports for 2 ranks: the first 2 are used"});
}

TEST_CASE("Plan.AListThatIsTooShortNamesFlagGotAndNeeded") {
  CHECK(error_of({"--num-servers", "4", "--ports", "1,2,3", "--args", "--model", "M"}) ==
        "--ports: got 3 ports, needed 4 (one per rank; or a single one, which means port + rank)");
  CHECK(contains(
      error_of(
          {"--num-servers", "4", "--args", "--model", "M", "--engine-worker-queue-port", "1,2"}),
      "--engine-worker-queue-port: got 2 ports, needed 4"));
}

TEST_CASE("Plan.OnePortForSeveralRanksMeansPortPlusRank") {
  const Plan plan = plan_of({"--num-servers",
                             "3",
                             "--ports",
                             "8000",
                             "--metrics-ports",
                             "9000",
                             "--args",
                             "--model",
                             "M",
                             "--engine-worker-queue-port=7000"});
  CHECK(plan.ranks[2].http_port == 8002);
  CHECK(plan.ranks[2].metrics_port == 9002);
  CHECK(plan.ranks[2].queue_port == 7002);
  CHECK(contains(error_of({"--num-servers", "3", "--ports", "65534", "--args", "--model", "M"}),
                 "--ports: got 65534"));
}

// fastdeploy.md §2.1: there, --flag=value inside --args is not recognised.
TEST_CASE("Plan.BothFormsOfAFlagWorkInsideArgs") {
  for (const auto& queue : {std::vector<std::string>{"--engine-worker-queue-port=5,6"},
                            std::vector<std::string>{"--engine-worker-queue-port", "5,6"}}) {
    std::vector<std::string> args = {"--num-servers", "2", "--args", "--model", "M"};
    args.insert(args.end(), queue.begin(), queue.end());
    CHECK(plan_of(args).ranks[1].queue_port == 6);
  }
}

// fastdeploy.md §2.1: there, missing lists need CUDA_VISIBLE_DEVICES.
TEST_CASE("Plan.AbsentListsAreFreePortsAndAbsentMetricsPortsAreNone") {
  const Plan plan = plan_of({"--num-servers", "2", "--args", "--model", "M"});
  CHECK(plan.ranks[0].http_port == 0);
  CHECK(plan.ranks[0].queue_port == 0);
  CHECK_FALSE(plan.ranks[0].metrics_port.has_value());
  const auto args = rank_arguments(plan, plan.ranks[0], {0, std::nullopt});
  CHECK(value_in(args, "--port") == "");
  CHECK(plan_of({"--num-servers", "2", "--metrics-ports", "0", "--args", "--model", "M"})
            .ranks[1]
            .metrics_port == 0);
}

// fastdeploy.md §2.1: there, nothing checks it.
TEST_CASE("Plan.NumServersMustEqualDataParallelSize") {
  const std::string error =
      error_of({"--num-servers", "8", "--args", "--model", "M", "--data-parallel-size", "4"});
  CHECK(contains(
      error,
      "--num-servers 8 and --data-parallel-size 4 differ: every server is one data-parallel rank"));
  CHECK(plan_of({"--args", "--model", "M", "--data-parallel-size", "3"}).ranks.size() == 3);
  CHECK(plan_of({"--args", "--model", "M"}).ranks.size() == 2);
  const Plan plan = plan_of({"--num-servers", "3", "--args", "--model", "M"});
  CHECK(value_in(plan.server_args, "--data-parallel-size") == "3");
}

TEST_CASE("Plan.PortsThatMeetNameBothFlags") {
  CHECK(error_of({"--num-servers",
                  "2",
                  "--ports",
                  "1811,1822",
                  "--metrics-ports",
                  "3101,1811",
                  "--args",
                  "--model",
                  "M"}) ==
        "port 1811 is given twice: in --ports for rank 0 and in --metrics-ports for rank 1; every "
        "port must be its own");
  CHECK(contains(error_of({"--num-servers", "2", "--ports", "5,5", "--args", "--model", "M"}),
                 "port 5 is given twice: in --ports for rank 0 and in --ports for rank 1"));
  CHECK(contains(error_of({"--num-servers",
                           "3",
                           "--ports",
                           "8000",
                           "--args",
                           "--model",
                           "M",
                           "--engine-worker-queue-port",
                           "8002"}),
                 "in --ports for rank 2 and in --engine-worker-queue-port for rank 0"));
}

TEST_CASE("Plan.AllMistakesAreSaidAtOnce") {
  const std::string error = error_of({"--num-servers",
                                      "3",
                                      "--ports",
                                      "1,2",
                                      "--metrics-ports",
                                      "3,4",
                                      "--args",
                                      "--model",
                                      "M",
                                      "--data-parallel-size",
                                      "4"});
  CHECK(std::count(error.begin(), error.end(), '\n') == 2);
}

TEST_CASE("Plan.RanksGetWhatFastDeploysChildrenGet") {
  const Plan plan =
      plan_of({"--num-servers", "2", "--args", "--model", "M"}, {{"FD_LOG_DIR", "/var/log/f"}});
  const Environment environment = rank_environment(plan.ranks[1],
                                                   {{"PATH", "/bin"},
                                                    {"FD_LOG_DIR", "/var/log/f"},
                                                    {"NOTIFY_SOCKET", "/run/systemd/notify"},
                                                    {"FLOTILLA_CLUSTER_SECRET", "secret"},
                                                    {"FLOTILLA_METRICS_PORT", "9"}});
  CHECK(environment == Environment{{"PATH", "/bin"},
                                   {"FD_LOG_DIR", "/var/log/f/log_1"},
                                   {"FD_ENABLE_MULTI_API_SERVER", "1"}});
}

TEST_CASE("Plan.KeysTravelByEnvironmentAndAreNeverPrinted") {
  const Plan plan = plan_of({"--num-servers",
                             "1",
                             "--args",
                             "--model",
                             "M",
                             "--api-key",
                             "hunter2",
                             "--api_key=swordfish",
                             "--headless"});
  CHECK(plan.ranks[0].environment.at("FLOTILLA_API_KEY") == "hunter2,swordfish");
  for (const std::string& text : {plan_table(plan), plan_json(plan)}) {
    CHECK_FALSE(contains(text, "hunter2"));
    CHECK_FALSE(contains(text, "swordfish"));
    CHECK(contains(text, "--headless"));
  }
}

TEST_CASE("Plan.NumThreadsOverridesTheShare") {
  const Plan plan = plan_of({"--num-servers", "2", "--args", "--model", "M", "--num-threads", "3"});
  CHECK(plan.ranks[0].num_threads == 3);
  CHECK(plan.ranks[0].cores == std::vector<int>{0, 1, 2});
  const auto args = rank_arguments(plan, plan.ranks[0], {});
  CHECK(parse_server_flags(args, {})->warnings.empty());
}

TEST_CASE("Plan.EstimatesMemoryAndWarnsWhenItIsShort") {
  PlanInput input = input_of({"--num-servers",
                              "4",
                              "--args",
                              "--model",
                              "M",
                              "--enable-expert-parallel",
                              "--kv-cache-memory",
                              "1GiB"});
  input.sizes = ModelSizes{.expert_bytes = int64_t{8} << 30, .other_bytes = int64_t{1} << 30};
  input.machine.memory_bytes = int64_t{64} << 30;
  CHECK(make_plan(input)->ranks[0].memory_bytes == int64_t{4} << 30);
  CHECK(make_plan(input)->warnings.empty());
  input.machine.memory_bytes = int64_t{8} << 30;
  REQUIRE(make_plan(input)->warnings.size() == 1);
  CHECK(contains(make_plan(input)->warnings[0],
                 "4 ranks of about 4.0 GiB need more memory than the 8.0 GiB"));
  input.server.enable_expert_parallel = false;
  CHECK(make_plan(input)->ranks[0].memory_bytes == int64_t{10} << 30);
  input.server.num_gpu_blocks_override = 16;
  input.sizes->kv_elements_per_token = 1 << 20;
  CHECK(make_plan(input)->ranks[0].memory_bytes ==
        (int64_t{9} << 30) + int64_t{16} * 64 * (1 << 20) * 4);
}

TEST_CASE("Plan.TableAndJsonShowRanksPortsAndCommandLines") {
  const Plan plan = plan_of({"--num-servers",
                             "2",
                             "--ports",
                             "1811,0",
                             "--metrics-ports",
                             "-1",
                             "--args",
                             "--model",
                             "my model"});
  const std::string table = plan_table(plan);
  CHECK(contains(table, "RANK  HTTP  METRICS  QUEUE  DEVICE  THREADS  CPUS  MEMORY\n"));
  CHECK(contains(table, "0     1811  -        free   cpu     4        0-3   ?\n"));
  CHECK(contains(table, "1     free  -        free   cpu     4        4-7   ?\n"));
  CHECK(contains(table, "/opt/api_server --model 'my model'"));
  const std::string json = plan_json(plan);
  CHECK(contains(json, R"("num_ranks":2)"));
  CHECK(contains(
      json,
      R"("rank":1,"http_port":0,"metrics_port":null,"queue_port":0,"device":"cpu","num_threads":4)"));
}
