// The texts that flags take, and what they mean.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/flags/flag_spec.h"

namespace flotilla {

// nullopt for a text that is no such value.
std::optional<bool> parse_bool(
    std::string_view text);  // 1/0, true/false, yes/no, on/off in any case
std::optional<int64_t> parse_integer(std::string_view text);
std::optional<double> parse_number(std::string_view text);  // finite
std::optional<int64_t> parse_bytes(
    std::string_view text);  // "4096", "512M", "2GiB", "1.5G": powers of 1024
std::optional<std::vector<int>> parse_ports(std::string_view text);  // "1811,1822"; each 0 … 65535
// "0-3,8" → {0, 1, 2, 3, 8}, as the kernel writes CPU lists; at most 65,536 of them.
std::optional<std::vector<int>> parse_cpu_list(std::string_view text);
// "a, b,,c" → {"a", "b", "c"}
std::vector<std::string> split_list(std::string_view text);

// What a value of this flag looks like ("a whole number from 1 to 8"), if `text` is none; else
// nullopt.
std::optional<std::string> why_not_a_value(const FlagSpec& spec, const std::string& text);

// "12.0 GiB", "512 MiB", "17 B"
std::string format_bytes(int64_t bytes);

}  // namespace flotilla
