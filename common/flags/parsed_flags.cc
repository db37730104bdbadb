#include <algorithm>

#include "common/flags/flag_value.h"
#include "common/flags/flags.h"

namespace flotilla {

const ParsedFlags::Value& ParsedFlags::at(std::string_view name,
                                          std::initializer_list<FlagType> types) const {
  const auto found = values_.find(name);
  check(found != values_.end(), "no such flag in the table: " + std::string(name));
  const FlagType type = found->second.spec->type;
  check(types.size() == 0 || std::find(types.begin(), types.end(), type) != types.end(),
        "the flag is of another type: " + std::string(name));
  return found->second;
}

FlagSource ParsedFlags::source(std::string_view name) const { return at(name, {}).source; }

bool ParsedFlags::has(std::string_view name) const { return !at(name, {}).texts.empty(); }

bool ParsedFlags::boolean(std::string_view name) const {
  const Value& value = at(name, {FlagType::kBool});
  return !value.texts.empty() && parse_bool(value.texts.back()).value_or(false);
}

int64_t ParsedFlags::integer(std::string_view name) const {
  const Value& value = at(name, {FlagType::kInt, FlagType::kBytes});
  check(!value.texts.empty(), "the flag has no value: " + std::string(name));
  return value.spec->type == FlagType::kBytes ? parse_bytes(value.texts.back()).value()
                                              : parse_integer(value.texts.back()).value();
}

double ParsedFlags::number(std::string_view name) const {
  const Value& value = at(name, {FlagType::kFloat});
  check(!value.texts.empty(), "the flag has no value: " + std::string(name));
  return parse_number(value.texts.back()).value();
}

std::string ParsedFlags::text(std::string_view name) const {
  const Value& value = at(name, {FlagType::kText, FlagType::kChoice});
  return value.texts.empty() ? "" : value.texts.back();
}

std::vector<std::string> ParsedFlags::list(std::string_view name) const {
  const Value& value = at(name, {FlagType::kText, FlagType::kList, FlagType::kRemainder});
  return value.texts;
}

std::vector<int> ParsedFlags::ports(std::string_view name) const {
  const Value& value = at(name, {FlagType::kPorts});
  return value.texts.empty() ? std::vector<int>() : parse_ports(value.texts.back()).value();
}

std::string ParsedFlags::non_default() const {
  std::string out;
  for (const auto& [name, value] : values_) {
    if (value.source == FlagSource::kDefault || value.spec->type == FlagType::kRemainder) continue;
    std::string shown;
    for (const std::string& text : value.texts) shown += (shown.empty() ? "" : ",") + text;
    if (value.spec->secret) shown = "***";
    out += (out.empty() ? "--" : " --") + name + "=" + shown;
    if (value.source == FlagSource::kEnvironment) out += " (environment)";
    if (value.source == FlagSource::kFile) out += " (file)";
  }
  return out;
}

void add_common_flags(FlagTable* table) {
  const std::string group = "General";
  table->groups.push_back({group, "--config fleet.ini --log-level warn"});
  const std::vector<FlagSpec> rows = {
      {.name = "config",
       .group = group,
       .metavar = "FILE",
       .help = "INI file of 'flag = value' lines; [sections] are decoration. Command line and "
               "environment "
               "win over it."},
      {.name = "log-level",
       .type = FlagType::kChoice,
       .group = group,
       .default_value = "info",
       .help = "Least level of log lines.",
       .choices = {{"debug"}, {"info"}, {"warn"}, {"error"}, {"off"}}},
      {.name = "log-json",
       .type = FlagType::kBool,
       .group = group,
       .default_value = "false",
       .help = "One JSON object per log line in place of key=value pairs."},
      {.name = "help",
       .type = FlagType::kBool,
       .group = group,
       .help = "This text.",
       .aliases = {"-h"}},
      {.name = "version", .type = FlagType::kBool, .group = group, .help = "The version."},
      {.name = "print-flags",
       .type = FlagType::kChoice,
       .group = group,
       .help = "All flags for machines: docs/flags.md or one JSON object.",
       .choices = {{"markdown"}, {"json"}}},
  };
  table->flags.insert(table->flags.end(), rows.begin(), rows.end());
}

}  // namespace flotilla
