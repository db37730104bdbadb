#include <simdjson.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "common/json.h"
#include "engine/text/tokenizer.h"
#include "tools/cli/commands.h"

namespace flotilla::cli {
namespace {

constexpr std::string_view kHelp =
    "usage: flotilla tokenize DIR [--decode] [--jsonl]\n\n"
    "Reads standard input, writes standard output. DIR needs a model's tokenizer files only\n"
    "(tokenizer.json, or tokenizer.model with tokenizer_config.json). No BOS is added.\n\n"
    "  flotilla tokenize DIR                   the whole input is one text; prints its ids\n"
    "  flotilla tokenize DIR --decode          the input is ids; prints their text\n"
    "  flotilla tokenize DIR --jsonl           per line a JSON string in, an array of ids out\n"
    "  flotilla tokenize DIR --jsonl --decode  per line an array of ids in, a JSON string out\n\n"
    "Exit code 0; 1 if the input or the tokenizer is at fault (the message names the line); 2 for "
    "a wrong\ncommand line.\n";

struct Options {
  std::string dir;
  bool decode = false;
  bool jsonl = false;
};

int fail(const std::string& message) {
  std::fprintf(stderr, "flotilla tokenize: %s\n", message.c_str());
  return kFailed;
}

bool write_all(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(STDOUT_FILENO, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

// Appends up to 1 MiB of input; 0 at its end, −1 on an error.
ssize_t read_some(std::string* buffer) {
  constexpr size_t kChunk = 1 << 20;
  const size_t before = buffer->size();
  buffer->resize(before + kChunk);
  ssize_t n;
  do {
    n = ::read(STDIN_FILENO, buffer->data() + before, kChunk);
  } while (n < 0 && errno == EINTR);
  buffer->resize(before + static_cast<size_t>(n > 0 ? n : 0));
  return n;
}

Status check_id(const Tokenizer& tokenizer, int64_t id) {
  if (id >= 0 && id <= INT32_MAX) return ok_status();
  return invalid_argument(std::to_string(id) + " is not a token id; this tokenizer's are 0 to " +
                          std::to_string(tokenizer.vocab_size() - 1));
}

void append_ids(const std::vector<TokenId>& ids, std::string* out, char separator) {
  char number[16];
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) *out += separator;
    out->append(number, std::to_chars(number, number + sizeof number, ids[i]).ptr);
  }
}

// A JSON string without U+0085, U+2028 and U+2029, at which some readers of lines break too.
void append_line_string(std::string* out, std::string_view text) {
  const size_t begin = out->size();
  append_json_string(out, text);
  constexpr std::pair<std::string_view, std::string_view> kBreaks[] = {
      {"\u0085", "\\u0085"}, {"\u2028", "\\u2028"}, {"\u2029", "\\u2029"}};
  for (const auto& [character, escape] : kBreaks) {
    for (size_t at = begin; (at = out->find(character, at)) != std::string::npos;) {
      out->replace(at, character.size(), escape);
    }
  }
}

// One line of JSON in, one line appended to *out.
class LineWorker {
 public:
  LineWorker(const Tokenizer& tokenizer, bool decode) : tokenizer_(tokenizer), decode_(decode) {}

  Status work(std::string_view line, std::string* out) {
    simdjson::dom::element value;
    if (const auto error = parser_.parse(line.data(), line.size(), true).get(value)) {
      return invalid_argument(std::string("not valid JSON: ") + simdjson::error_message(error));
    }
    return decode_ ? decode(value, out) : encode(value, out);
  }

 private:
  Status encode(simdjson::dom::element value, std::string* out) const {
    std::string_view text;
    if (value.get(text) != simdjson::SUCCESS) return invalid_argument("expected a JSON string");
    auto ids = tokenizer_.encode(text);
    if (!ids.ok()) return ids.status();
    *out += '[';
    append_ids(*ids, out, ',');
    *out += "]\n";
    return ok_status();
  }

  Status decode(simdjson::dom::element value, std::string* out) const {
    simdjson::dom::array array;
    if (value.get(array) != simdjson::SUCCESS) {
      return invalid_argument("expected a JSON array of token ids");
    }
    std::vector<TokenId> ids;
    for (const auto element : array) {
      int64_t id;
      if (element.get(id) != simdjson::SUCCESS) {
        return invalid_argument("the array must hold whole numbers only");
      }
      FLOTILLA_RETURN_IF_ERROR(check_id(tokenizer_, id));
      ids.push_back(static_cast<TokenId>(id));
    }
    append_line_string(out, tokenizer_.decode(ids, /*skip_special_tokens=*/false));
    *out += '\n';
    return ok_status();
  }

  const Tokenizer& tokenizer_;
  const bool decode_;
  simdjson::dom::parser parser_;
};

// Answers every complete line before it waits for more input, so a program may talk to it line by
// line.
int run_lines(const Tokenizer& tokenizer, bool decode) {
  LineWorker worker(tokenizer, decode);
  std::string input, output;
  size_t line_number = 0, searched = 0;
  bool at_end = false;
  while (!at_end) {
    const ssize_t n = read_some(&input);
    if (n < 0) return fail(std::string("cannot read the input: ") + std::strerror(errno));
    at_end = n == 0;
    if (at_end && !input.empty() && !input.ends_with('\n')) input += '\n';
    size_t begin = 0;
    for (size_t end; (end = input.find('\n', std::max(begin, searched))) != std::string::npos;
         begin = end + 1) {
      ++line_number;
      std::string_view line(input.data() + begin, end - begin);
      if (line.ends_with('\r')) line.remove_suffix(1);
      const Status status = worker.work(line, &output);
      if (!status.ok()) {
        write_all(output);
        return fail("line " + std::to_string(line_number) + ": " + status.message());
      }
      if (output.size() > 1 << 20) {
        if (!write_all(output)) return fail("cannot write the output");
        output.clear();
      }
    }
    input.erase(0, begin);
    searched = input.size();
    if (!write_all(output)) return fail("cannot write the output");
    output.clear();
  }
  return kOk;
}

// Ids apart by white space, commas or brackets.
Status parse_ids(const Tokenizer& tokenizer, std::string_view text, std::vector<TokenId>* ids) {
  size_t line = 1;
  while (!text.empty()) {
    if (text[0] == '\n') ++line;
    if (std::string_view(" \t\r\n,[]").find(text[0]) != std::string_view::npos) {
      text.remove_prefix(1);
      continue;
    }
    int64_t id;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (error != std::errc()) {
      return invalid_argument("line " + std::to_string(line) + ": '" +
                              std::string(text.substr(0, text.find_first_of(" \t\r\n,[]"))) +
                              "' is not a token id");
    }
    if (const Status status = check_id(tokenizer, id); !status.ok()) {
      return invalid_argument("line " + std::to_string(line) + ": " + status.message());
    }
    ids->push_back(static_cast<TokenId>(id));
    text.remove_prefix(static_cast<size_t>(end - text.data()));
  }
  return ok_status();
}

int run_whole(const Tokenizer& tokenizer, bool decode) {
  std::string input, output;
  ssize_t n;
  while ((n = read_some(&input)) > 0) {
  }
  if (n < 0) return fail(std::string("cannot read the input: ") + std::strerror(errno));
  if (decode) {
    std::vector<TokenId> ids;
    const Status status = parse_ids(tokenizer, input, &ids);
    if (!status.ok()) return fail(status.message());
    output = tokenizer.decode(ids, /*skip_special_tokens=*/false);
  } else {
    auto ids = tokenizer.encode(input);
    if (!ids.ok()) return fail(ids.status().message());
    append_ids(*ids, &output, ' ');
    output += '\n';
  }
  return write_all(output) ? kOk : fail("cannot write the output");
}

}  // namespace

int run_tokenize(Args args) {
  Options options;
  for (const std::string_view arg : args) {
    if (arg == "--help" || arg == "-h") {
      std::fwrite(kHelp.data(), 1, kHelp.size(), stdout);
      return kOk;
    }
    if (arg == "--decode") {
      options.decode = true;
    } else if (arg == "--jsonl") {
      options.jsonl = true;
    } else if (!arg.starts_with("-") && options.dir.empty()) {
      options.dir = arg;
    } else {
      std::fprintf(stderr,
                   "flotilla tokenize: unexpected argument '%s'\n%s",
                   std::string(arg).c_str(),
                   std::string(kHelp).c_str());
      return kUsage;
    }
  }
  if (options.dir.empty()) {
    std::fprintf(
        stderr, "flotilla tokenize: the model's folder is missing\n%s", std::string(kHelp).c_str());
    return kUsage;
  }
  auto tokenizer = Tokenizer::load(options.dir);
  if (!tokenizer.ok()) return fail(tokenizer.status().message());
  return options.jsonl ? run_lines(**tokenizer, options.decode)
                       : run_whole(**tokenizer, options.decode);
}

}  // namespace flotilla::cli
