#include "engine/text/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "common/check.h"
#include "common/utf8.h"
#include "engine/text/regex_syntax.h"

namespace flotilla::text {
namespace {

constexpr size_t kMaxPatternBytes = 64 << 10;
constexpr uint32_t kMaxNestedParens = 100;
constexpr uint32_t kMaxSteps = 4'000'000;    // backtracking points of one match
constexpr uint32_t kMaxHeapKiB = 256 << 10;  // of one match of the interpreter

template <auto kFree>
struct Deleter {
  template <typename T>
  void operator()(T* pointer) const {
    kFree(pointer);
  }
};
using MatchData = std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>>;
using CompileContext = std::unique_ptr<pcre2_compile_context, Deleter<pcre2_compile_context_free>>;

std::string error_text(int code) {
  unsigned char buffer[160];
  if (pcre2_get_error_message(code, buffer, sizeof buffer) < 0) return "unknown error";
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

struct Pattern::Compiled {
  std::unique_ptr<pcre2_code, Deleter<pcre2_code_free>> code;
  std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>> context;

  // Returns as pcre2_match does.
  int match(std::string_view text, size_t from, pcre2_match_data* data) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    const int result = pcre2_match(
        code.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK, data, context.get());
    if (result != PCRE2_ERROR_JIT_STACKLIMIT) return result;
    // The machine code has 32 KiB of stack; the interpreter takes the heap.
    return pcre2_match(code.get(),
                       subject,
                       text.size(),
                       from,
                       PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                       data,
                       context.get());
  }
};

Pattern::Pattern(std::string literal, std::unique_ptr<Compiled> compiled)
    : literal_(std::move(literal)), compiled_(std::move(compiled)) {}
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;
Pattern::~Pattern() = default;

Pattern Pattern::literal(std::string text) {
  if (text.empty()) return pcre2("");  // matches before every character, as in the reference
  return Pattern(std::move(text), nullptr);
}

StatusOr<Pattern> Pattern::regex(std::string_view regex) {
  if (regex.size() > kMaxPatternBytes) {
    return invalid_argument("the regex has " + std::to_string(regex.size()) + " bytes; at most " +
                            std::to_string(kMaxPatternBytes) + " are taken");
  }
  auto translated = oniguruma_to_pcre2(regex);
  if (!translated.ok()) return translated.status();
  return compile(*translated);
}

Pattern Pattern::pcre2(std::string_view regex) {
  auto pattern = compile(std::string(regex));
  check(pattern.ok(), "a built-in regex does not compile");
  return std::move(*pattern);
}

StatusOr<Pattern> Pattern::compile(const std::string& pcre2) {
  const CompileContext compile_context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(compile_context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(compile_context.get(), kMaxNestedParens);
  int error = 0;
  size_t offset = 0;
  auto compiled = std::make_unique<Compiled>();
  // Ruby's ^ and $ are anchors of lines.
  compiled->code.reset(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pcre2.data()),
                    pcre2.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                    &error,
                    &offset,
                    compile_context.get()));
  if (compiled->code == nullptr) {
    return invalid_argument("the regex is not valid: " + error_text(error) + " (at byte " +
                            std::to_string(offset) + " of its PCRE2 form)");
  }
  pcre2_jit_compile(compiled->code.get(), PCRE2_JIT_COMPLETE);  // without it, slower but the same
  compiled->context.reset(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(compiled->context.get(), kMaxSteps);
  pcre2_set_heap_limit(compiled->context.get(), kMaxHeapKiB);
  return Pattern("", std::move(compiled));
}

Status Pattern::find_all(std::string_view text, std::vector<Span>* matches) const {
  const auto add = [matches](size_t begin, size_t end) {
    matches->push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
  };
  if (compiled_ == nullptr) {
    for (size_t pos = text.find(literal_); pos != std::string_view::npos;
         pos = text.find(literal_, pos + literal_.size())) {
      add(pos, pos + literal_.size());
    }
    return ok_status();
  }
  const MatchData data(pcre2_match_data_create(1, nullptr));
  const size_t* const found = pcre2_get_ovector_pointer(data.get());
  size_t from = 0;
  size_t last_end = std::string_view::npos;
  while (from <= text.size()) {
    const int result = compiled_->match(text, from, data.get());
    if (result == PCRE2_ERROR_NOMATCH) return ok_status();
    if (result < 0) {
      return invalid_argument("a regex of the tokenizer gave up on this text: " +
                              error_text(result));
    }
    const size_t begin = found[0], end = found[1];
    if (begin >= end) {
      // Empty (or made so by \K in a look-behind).
      if (end == last_end || begin > end) {
        const size_t step = from < text.size() ? utf8_char_length(text.substr(from)) : 1;
        from += step;
        continue;
      }
    }
    add(begin, end);
    from = last_end = end;
  }
  return ok_status();
}

}  // namespace flotilla::text
