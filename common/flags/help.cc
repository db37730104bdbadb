#include "common/flags/help.h"

#include <algorithm>
#include <sstream>

#include "common/flags/flags.h"
#include "common/json.h"

namespace flotilla {
namespace {

constexpr size_t kWidth = 100;
constexpr size_t kIndent = 34;

bool stops(const FlagSpec& spec) {
  return spec.availability == Availability::kLater ||
         spec.availability == Availability::kSuperseded;
}

std::string_view type_name(FlagType type) {
  switch (type) {
    case FlagType::kBool:
      return "bool";
    case FlagType::kInt:
      return "int";
    case FlagType::kFloat:
      return "float";
    case FlagType::kText:
      return "text";
    case FlagType::kChoice:
      return "choice";
    case FlagType::kList:
      return "list";
    case FlagType::kPorts:
      return "ports";
    case FlagType::kBytes:
      return "bytes";
    case FlagType::kRemainder:
      return "remainder";
  }
  return "text";
}

std::string_view availability_name(Availability availability) {
  switch (availability) {
    case Availability::kWorks:
      return "works";
    case Availability::kNoEffect:
      return "no effect";
    case Availability::kLater:
      return "not in this version";
    case Availability::kSuperseded:
      return "superseded";
  }
  return "works";
}

std::string choices_text(const FlagSpec& spec) {
  std::string out;
  for (const FlagChoice& choice : spec.choices) {
    if (choice.availability != Availability::kWorks) continue;
    out += (out.empty() ? "" : "|") + choice.value;
  }
  return out;
}

std::string metavar(const FlagSpec& spec) {
  if (!spec.metavar.empty()) return spec.metavar;
  switch (spec.type) {
    case FlagType::kBool:
      return "";
    case FlagType::kInt:
      return "N";
    case FlagType::kFloat:
      return "X";
    case FlagType::kText:
      return "TEXT";
    case FlagType::kChoice:
      return choices_text(spec);
    case FlagType::kList:
      return "A,B,…";
    case FlagType::kPorts:
      return "PORT,PORT,…";
    case FlagType::kBytes:
      return "SIZE";
    case FlagType::kRemainder:
      return "…";
  }
  return "";
}

// "--tensor-parallel-size, -tp N"
std::string heading(const FlagSpec& spec) {
  std::string out = "--" + spec.name;
  if (spec.negatable) out += ", --no-" + spec.name;
  for (const std::string& alias : spec.aliases) out += ", " + alias;
  if (const std::string value = metavar(spec); !value.empty()) out += " " + value;
  return out;
}

std::string default_text(const FlagSpec& spec) {
  if (!spec.default_note.empty()) return spec.default_note;
  if (spec.default_value.empty()) return spec.type == FlagType::kBool ? "off" : "none";
  if (spec.type == FlagType::kBool) return spec.default_value == "true" ? "on" : "off";
  return spec.default_value + (spec.unit.empty() ? "" : " " + spec.unit);
}

std::string range_text(const FlagSpec& spec) {
  const bool low = spec.min != std::numeric_limits<int64_t>::min();
  const bool high = spec.max != std::numeric_limits<int64_t>::max();
  if (low && high) return std::to_string(spec.min) + " … " + std::to_string(spec.max);
  if (low) return "≥ " + std::to_string(spec.min);
  return high ? "≤ " + std::to_string(spec.max) : "";
}

// Columns, not bytes: continuation bytes of UTF-8 take none.
size_t columns(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

void append_wrapped(std::string* out, const std::string& text, size_t column, size_t indent) {
  std::istringstream words(text);
  std::string word;
  bool first = true;
  while (words >> word) {
    if (!first && column + 1 + columns(word) > kWidth) {
      *out += "\n" + std::string(indent, ' ');
      column = indent;
      first = true;
    }
    *out += (first ? "" : " ") + word;
    column += columns(word) + (first ? 0 : 1);
    first = false;
  }
  *out += "\n";
}

void append_flag(std::string* out, const FlagSpec& spec) {
  const std::string head = "  " + heading(spec);
  *out += head;
  size_t column = columns(head);
  if (column + 2 > kIndent) {
    *out += "\n" + std::string(kIndent, ' ');
  } else {
    *out += std::string(kIndent - column, ' ');
  }
  std::string text = spec.help;
  if (spec.repeatable) text += " May be repeated.";
  if (spec.type != FlagType::kRemainder) text += " [default: " + default_text(spec) + "]";
  append_wrapped(out, text, kIndent, kIndent);
}

template <typename Predicate>
void append_names(std::string* out,
                  const FlagTable& table,
                  const std::string& title,
                  Predicate wanted) {
  std::string names;
  for (const FlagSpec& spec : table.flags) {
    if (wanted(spec)) names += "--" + spec.name + " ";
  }
  if (names.empty()) return;
  *out += "\n" + title + " (docs/flags.md says more)\n  ";
  append_wrapped(out, names, 2, 2);
}

// '|' would end a Markdown table's cell.
std::string cell(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') out += '\\';
    out += c;
  }
  return out;
}

std::string meaning(const FlagSpec& spec) {
  std::string out = spec.help;
  if (const std::string range = range_text(spec); !range.empty() && spec.type != FlagType::kBytes) {
    out += " Range: " + range + ".";
  }
  if (spec.repeatable) out += " May be repeated.";
  if (spec.secret) out += " Never printed or logged.";
  for (const FlagChoice& choice : spec.choices) {
    if (choice.availability == Availability::kLater) {
      out += " `" + choice.value + "` is not in this version: " + choice.note;
    } else if (choice.availability == Availability::kSuperseded) {
      out += " `" + choice.value + "` is not supported: " + choice.note;
    }
  }
  return out;
}

void append_row(std::string* out, std::initializer_list<std::string> cells) {
  *out += "|";
  for (const std::string& text : cells) *out += " " + cell(text) + " |";
  *out += "\n";
}

void append_notes(std::string* out,
                  const FlagTable& table,
                  Availability availability,
                  const std::string& title,
                  const std::string& column) {
  std::string rows;
  for (const FlagSpec& spec : table.flags) {
    if (spec.availability != availability) continue;
    std::string accepted;
    for (const std::string& value : spec.accepted)
      accepted += (accepted.empty() ? "`" : ", `") + value + "`";
    append_row(&rows, {"`" + heading(spec) + "`", accepted, spec.note});
  }
  if (rows.empty()) return;
  *out += "### " + title + "\n\n| Flag | Values that are fine | " + column + " |\n|---|---|---|\n" +
          rows + "\n";
}

}  // namespace

std::string help_text(const FlagTable& table) {
  std::string out = "Usage: " + table.usage + "\n\n";
  append_wrapped(&out, table.about, 0, 0);
  for (const FlagGroup& group : table.groups) {
    std::string rows;
    for (const FlagSpec& spec : table.flags) {
      if (spec.group == group.name && spec.availability == Availability::kWorks && !spec.internal) {
        append_flag(&rows, spec);
      }
    }
    if (rows.empty()) continue;
    out += "\n" + group.name + "\n" + rows;
    if (!group.example.empty()) out += "  Example: " + group.example + "\n";
  }
  append_names(&out, table, "Accepted, without effect here", [](const FlagSpec& spec) {
    return spec.availability == Availability::kNoEffect;
  });
  append_names(&out, table, "Known, but not in this version", stops);
  out += "\n";
  append_wrapped(&out,
                 "Every flag can also be set by an environment variable (--max-model-len: "
                 "FLOTILLA_MAX_MODEL_LEN) or in --config FILE. Precedence: command line > "
                 "environment > file > default.",
                 0,
                 0);
  return out;
}

std::string markdown_text(const FlagTable& table) {
  std::string out =
      "## " + table.program + "\n\n" + table.about + "\n\n```\n" + table.usage + "\n```\n\n";
  std::vector<FlagGroup> groups = table.groups;
  for (const FlagGroup& group : groups) {
    std::string rows;
    for (const FlagSpec& spec : table.flags) {
      if (spec.group != group.name || spec.availability != Availability::kWorks || spec.internal)
        continue;
      append_row(&rows, {"`" + heading(spec) + "`", default_text(spec), meaning(spec)});
    }
    if (rows.empty()) continue;
    out += "### " + group.name + "\n\n| Flag | Default | Meaning |\n|---|---|---|\n" + rows + "\n";
    if (!group.example.empty()) out += "Example: `" + group.example + "`\n\n";
  }
  std::string internal;
  for (const FlagSpec& spec : table.flags) {
    if (spec.internal)
      append_row(&internal, {"`" + heading(spec) + "`", default_text(spec), meaning(spec)});
  }
  if (!internal.empty()) {
    out +=
        "### Set by the launcher for its ranks\n\n| Flag | Default | Meaning |\n|---|---|---|\n" +
        internal + "\n";
  }
  append_notes(&out, table, Availability::kNoEffect, "Accepted, without effect", "Why");
  append_notes(&out, table, Availability::kLater, "Not in this version", "What it would need");
  append_notes(&out, table, Availability::kSuperseded, "Not supported", "What to use");
  return out;
}

std::string json_text(const FlagTable& table) {
  std::string out;
  JsonWriter json(&out);
  json.begin_object();
  json.field("program", table.program);
  json.key("flags");
  json.begin_array();
  for (const FlagSpec& spec : table.flags) {
    json.begin_object();
    json.field("name", spec.name);
    json.field("type", type_name(spec.type));
    json.field("group", spec.group);
    json.field("default", default_text(spec));
    json.field("unit", spec.unit);
    json.field("help", spec.help);
    json.field("availability", availability_name(spec.availability));
    json.field("note", spec.note);
    json.field("environment", flag_environment_name(normalise_flag_name(spec.name)));
    json.key("aliases");
    json.begin_array();
    for (const std::string& alias : spec.aliases) json.value(alias);
    json.end_array();
    json.key("choices");
    json.begin_array();
    for (const FlagChoice& choice : spec.choices) {
      json.begin_object();
      json.field("value", choice.value);
      json.field("availability", availability_name(choice.availability));
      json.field("note", choice.note);
      json.end_object();
    }
    json.end_array();
    json.field("repeatable", spec.repeatable);
    json.field("secret", spec.secret);
    json.field("negatable", spec.negatable);
    json.field("internal", spec.internal);
    json.end_object();
  }
  json.end_array();
  json.end_object();
  out += "\n";
  return out;
}

std::optional<std::string> print_flags_format(const FlagTable& table,
                                              const std::vector<std::string>& args) {
  for (size_t i = 0; i < args.size(); ++i) {
    const FlagSpec* spec = args[i].starts_with("--") ? table.find(args[i].substr(2)) : nullptr;
    if (spec != nullptr && spec->type == FlagType::kRemainder) return std::nullopt;
    std::string format;
    if (args[i].starts_with("--print-flags=")) format = args[i].substr(sizeof "--print-flags=" - 1);
    if (args[i] == "--print-flags" && i + 1 < args.size()) format = args[i + 1];
    if (format == "markdown" || format == "json") return format;
  }
  return std::nullopt;
}

std::optional<std::string> flags_info(const FlagTable& table,
                                      const std::vector<std::string>& args) {
  if (const std::optional<std::string> format = print_flags_format(table, args)) {
    return *format == "json" ? json_text(table) : markdown_text(table);
  }
  if (has_flag(table, args, "help")) return help_text(table);
  if (has_flag(table, args, "version")) return table.program + " " FLOTILLA_VERSION "\n";
  return std::nullopt;
}

}  // namespace flotilla
