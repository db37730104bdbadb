#include "common/flags/flag_value.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>

namespace flotilla {
namespace {

constexpr int kMaxPort = 65535;
constexpr int kMaxCpu = 65535;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::string range_text(const FlagSpec& spec) {
  const bool low = spec.min != std::numeric_limits<int64_t>::min();
  const bool high = spec.max != std::numeric_limits<int64_t>::max();
  if (low && high) return " from " + std::to_string(spec.min) + " to " + std::to_string(spec.max);
  if (low) return " of at least " + std::to_string(spec.min);
  if (high) return " of at most " + std::to_string(spec.max);
  return "";
}

std::string unit_text(const FlagSpec& spec) {
  return spec.unit.empty() ? "" : " (" + spec.unit + ")";
}

}  // namespace

std::optional<bool> parse_bool(std::string_view text) {
  const std::string word = lower(text);
  for (const char* yes : {"1", "true", "yes", "on"}) {
    if (word == yes) return true;
  }
  for (const char* no : {"0", "false", "no", "off"}) {
    if (word == no) return false;
  }
  return std::nullopt;
}

std::optional<int64_t> parse_integer(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

std::optional<double> parse_number(std::string_view text) {
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  if (!std::isfinite(value)) return std::nullopt;
  return value;
}

std::optional<int64_t> parse_bytes(std::string_view text) {
  static constexpr std::string_view kSuffixes = "kmgt";
  const std::string word = lower(text);
  const size_t digits = std::min(word.find_first_not_of("0123456789."), word.size());
  const std::optional<double> number = parse_number(std::string_view(word).substr(0, digits));
  if (!number) return std::nullopt;
  std::string_view suffix = std::string_view(word).substr(digits);
  double scale = 1.0;
  if (!suffix.empty() && suffix != "b") {
    const size_t power = kSuffixes.find(suffix.front());
    if (power == std::string_view::npos) return std::nullopt;
    suffix.remove_prefix(1);
    if (suffix != "" && suffix != "b" && suffix != "ib") return std::nullopt;
    scale = std::ldexp(1.0, 10 * (static_cast<int>(power) + 1));
  }
  const double bytes = *number * scale;
  if (bytes >= 0x1p62) return std::nullopt;
  return static_cast<int64_t>(bytes);
}

std::optional<std::vector<int>> parse_ports(std::string_view text) {
  std::vector<int> ports;
  for (const std::string& word : split_list(text)) {
    const std::optional<int64_t> port = parse_integer(word);
    if (!port || *port < 0 || *port > kMaxPort) return std::nullopt;
    ports.push_back(static_cast<int>(*port));
  }
  if (ports.empty()) return std::nullopt;
  return ports;
}

std::optional<std::vector<int>> parse_cpu_list(std::string_view text) {
  std::vector<int> cpus;
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  for (const std::string& word : split_list(text)) {
    const size_t dash = word.find('-');
    const std::optional<int64_t> first = parse_integer(word.substr(0, dash));
    const std::optional<int64_t> last =
        dash == std::string::npos ? first : parse_integer(word.substr(dash + 1));
    if (!first || !last || *first < 0 || *last < *first || *last > kMaxCpu) return std::nullopt;
    for (int64_t cpu = *first; cpu <= *last; ++cpu) cpus.push_back(static_cast<int>(cpu));
    if (cpus.size() > kMaxCpu + 1u) return std::nullopt;
  }
  return cpus;
}

std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> words;
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view word = trimmed(text.substr(0, comma));
    if (!word.empty()) words.emplace_back(word);
    if (comma == std::string_view::npos) return words;
    text.remove_prefix(comma + 1);
  }
}

std::optional<std::string> why_not_a_value(const FlagSpec& spec, const std::string& text) {
  switch (spec.type) {
    case FlagType::kBool:
      if (parse_bool(text)) return std::nullopt;
      return "true or false";
    case FlagType::kInt: {
      const std::optional<int64_t> value = parse_integer(text);
      if (value && *value >= spec.min && *value <= spec.max) return std::nullopt;
      return "a whole number" + range_text(spec) + unit_text(spec);
    }
    case FlagType::kFloat: {
      const std::optional<double> value = parse_number(text);
      if (value && *value >= static_cast<double>(spec.min) &&
          *value <= static_cast<double>(spec.max)) {
        return std::nullopt;
      }
      return "a number" + range_text(spec) + unit_text(spec);
    }
    case FlagType::kBytes: {
      const std::optional<int64_t> value = parse_bytes(text);
      if (value && *value >= spec.min && *value <= spec.max) return std::nullopt;
      return "a size" + range_text(spec) + " bytes, such as 4096, 512M or 2GiB";
    }
    case FlagType::kPorts:
      if (parse_ports(text)) return std::nullopt;
      return "port numbers from 0 to 65535 separated by commas, such as 1811,1822";
    case FlagType::kChoice: {
      std::string names;
      for (const FlagChoice& choice : spec.choices) {
        if (choice.value == text) return std::nullopt;
        if (choice.availability == Availability::kWorks ||
            choice.availability == Availability::kNoEffect) {
          names += (names.empty() ? "" : ", ") + choice.value;
        }
      }
      return "one of " + names;
    }
    case FlagType::kText:
    case FlagType::kList:
    case FlagType::kRemainder:
      return std::nullopt;
  }
  return std::nullopt;
}

std::string format_bytes(int64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024.0 && unit + 1 < std::size(kUnits)) {
    value /= 1024.0;
    ++unit;
  }
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, unit >= 3 ? "%.1f %s" : "%.0f %s", value, kUnits[unit]);
  return buffer;
}

}  // namespace flotilla
