#include <algorithm>

#include "common/flags/flag_value.h"
#include "common/json.h"
#include "launcher/plan.h"

namespace flotilla {
namespace {

bool is_secret(const std::string& variable) { return variable == "FLOTILLA_API_KEY"; }

std::string port_text(const std::optional<int>& port) {
  if (!port) return "-";
  return *port == 0 ? "free" : std::to_string(*port);
}

// {0, 1, 2, 5} → "0-2,5"
std::string cpu_list(const std::vector<int>& cpus) {
  std::vector<int> sorted = cpus;
  std::sort(sorted.begin(), sorted.end());
  std::string out;
  for (size_t i = 0; i < sorted.size();) {
    size_t last = i;
    while (last + 1 < sorted.size() && sorted[last + 1] == sorted[last] + 1) ++last;
    out += (out.empty() ? "" : ",") + std::to_string(sorted[i]);
    if (last > i) out += "-" + std::to_string(sorted[last]);
    i = last + 1;
  }
  return out;
}

// As a shell would take it.
std::string quoted(const std::string& word) {
  static constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./,:=@%+";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string out = "'";
  for (const char c : word) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out + "'";
}

std::vector<std::string> arguments(const Plan& plan, const RankPlan& rank) {
  return rank_arguments(plan, rank, {rank.http_port, rank.metrics_port});
}

}  // namespace

std::string plan_table(const Plan& plan) {
  std::vector<std::vector<std::string>> rows = {
      {"RANK", "HTTP", "METRICS", "QUEUE", "DEVICE", "THREADS", "CPUS", "MEMORY"}};
  for (const RankPlan& rank : plan.ranks) {
    rows.push_back({std::to_string(rank.rank),
                    port_text(rank.http_port),
                    port_text(rank.metrics_port),
                    port_text(rank.queue_port),
                    rank.device,
                    std::to_string(rank.num_threads),
                    rank.cores.empty() ? "any" : cpu_list(rank.cores),
                    rank.memory_bytes ? "~" + format_bytes(*rank.memory_bytes) : "?"});
  }
  std::vector<size_t> widths(rows[0].size(), 0);
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i)
      line += row[i] + std::string(widths[i] - row[i].size() + 2, ' ');
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  out += "\nHTTP on " + plan.http_host + ", queue on " + plan.queue_host + ", step clock " +
         plan.clock_address + ", logs in " + plan.log_dir + "/log_*\n";
  for (const RankPlan& rank : plan.ranks) {
    out += "\nrank " + std::to_string(rank.rank) + ":";
    for (const auto& [name, value] : rank.environment)
      out += " " + name + "=" + (is_secret(name) ? "***" : quoted(value));
    out += " " + quoted(plan.program);
    for (const std::string& word : arguments(plan, rank)) out += " " + quoted(word);
    out += "\n";
  }
  for (const std::string& warning : plan.warnings) out += "\nwarning: " + warning + "\n";
  return out;
}

std::string plan_json(const Plan& plan) {
  std::string out;
  JsonWriter json(&out);
  const auto cpus = [&json](std::string_view name, const std::vector<int>& list) {
    json.key(name);
    json.begin_array();
    for (const int cpu : list) json.value(cpu);
    json.end_array();
  };
  json.begin_object();
  json.field("num_ranks", plan.ranks.size());
  json.field("http_host", plan.http_host);
  json.field("queue_host", plan.queue_host);
  json.field("clock_address", plan.clock_address);
  json.field("log_dir", plan.log_dir);
  json.field("program", plan.program);
  json.key("ranks");
  json.begin_array();
  for (const RankPlan& rank : plan.ranks) {
    json.begin_object();
    json.field("rank", rank.rank);
    // 0: a free port is chosen by binding.
    json.field("http_port", rank.http_port);
    json.key("metrics_port");
    rank.metrics_port ? json.value(*rank.metrics_port) : json.null();
    json.field("queue_port", rank.queue_port);
    json.field("device", rank.device);
    json.field("num_threads", rank.num_threads);
    cpus("cores", rank.cores);
    cpus("affinity", rank.affinity);
    json.key("memory_bytes");
    rank.memory_bytes ? json.value(*rank.memory_bytes) : json.null();
    json.key("environment");
    json.begin_object();
    for (const auto& [name, value] : rank.environment)
      json.field(name, is_secret(name) ? "***" : value);
    json.end_object();
    json.key("args");
    json.begin_array();
    for (const std::string& word : arguments(plan, rank)) json.value(word);
    json.end_array();
    json.end_object();
  }
  json.end_array();
  json.key("warnings");
  json.begin_array();
  for (const std::string& warning : plan.warnings) json.value(warning);
  json.end_array();
  json.end_object();
  out += "\n";
  return out;
}

}  // namespace flotilla
