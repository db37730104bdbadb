#include "engine/text/normalizer.h"

#include <utility>

#include "common/utf8.h"

namespace flotilla::text {
namespace {

class UnicodeNormalizer final : public NormalizerStep {
 public:
  explicit UnicodeNormalizer(NormalForm form) : form_(form) {}
  Status apply(Stretch* stretch) const override {
    stretch->text = text::normalize(form_, stretch->text);
    return ok_status();
  }

 private:
  NormalForm form_;
};

class Lowercase final : public NormalizerStep {
 public:
  Status apply(Stretch* stretch) const override {
    std::string out;
    out.reserve(stretch->text.size());
    for (size_t pos = 0; pos < stretch->text.size();) {
      append_lowercase(&out, utf8_decode(stretch->text, &pos));
    }
    stretch->text = std::move(out);
    return ok_status();
  }
};

class StripAccents final : public NormalizerStep {
 public:
  Status apply(Stretch* stretch) const override {
    std::string out;
    out.reserve(stretch->text.size());
    for (size_t pos = 0; pos < stretch->text.size();) {
      const size_t begin = pos;
      if (!is_combining_mark(utf8_decode(stretch->text, &pos))) {
        out.append(stretch->text, begin, pos - begin);
      } else if (begin == 0) {
        stretch->at_start = false;
      }
    }
    stretch->text = std::move(out);
    return ok_status();
  }
};

class Strip final : public NormalizerStep {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  Status apply(Stretch* stretch) const override {
    const std::string& text = stretch->text;
    size_t begin = 0, end = 0;
    bool seen = false;
    for (size_t pos = 0; pos < text.size();) {
      const size_t at = pos;
      if (is_white_space(utf8_decode(text, &pos))) continue;
      if (!seen) begin = at;
      seen = true;
      end = pos;
    }
    if (!seen) begin = end = text.size();
    if (!left_) begin = 0;
    if (!right_) end = text.size();
    if (begin > 0) stretch->at_start = false;
    stretch->text = begin < end ? text.substr(begin, end - begin) : std::string();
    return ok_status();
  }

 private:
  bool left_, right_;
};

class Prepend final : public NormalizerStep {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  Status apply(Stretch* stretch) const override {
    if (!stretch->text.empty()) stretch->text.insert(0, prefix_);
    return ok_status();
  }

 private:
  std::string prefix_;
};

class Replace final : public NormalizerStep {
 public:
  Replace(Pattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  Status apply(Stretch* stretch) const override {
    std::vector<Span> matches;
    FLOTILLA_RETURN_IF_ERROR(pattern_.find_all(stretch->text, &matches));
    // What replaces the front takes the place of the last byte it replaces.
    if (!matches.empty() && matches[0].begin == 0 && matches[0].end > 0) {
      const std::string_view front = std::string_view(stretch->text).substr(0, matches[0].end);
      if (content_.empty() || utf8_char_length(front) < front.size()) stretch->at_start = false;
    }
    auto replaced = replace_all(pattern_, stretch->text, content_);
    if (!replaced.ok()) return replaced.status();
    stretch->text = std::move(*replaced);
    return ok_status();
  }

 private:
  Pattern pattern_;
  std::string content_;
};

}  // namespace

std::unique_ptr<NormalizerStep> make_unicode_normalizer(NormalForm form) {
  return std::make_unique<UnicodeNormalizer>(form);
}
std::unique_ptr<NormalizerStep> make_lowercase_normalizer() {
  return std::make_unique<Lowercase>();
}
std::unique_ptr<NormalizerStep> make_strip_accents_normalizer() {
  return std::make_unique<StripAccents>();
}
std::unique_ptr<NormalizerStep> make_strip_normalizer(bool left, bool right) {
  return std::make_unique<Strip>(left, right);
}
std::unique_ptr<NormalizerStep> make_prepend_normalizer(std::string prefix) {
  return std::make_unique<Prepend>(std::move(prefix));
}
std::unique_ptr<NormalizerStep> make_replace_normalizer(Pattern pattern, std::string content) {
  return std::make_unique<Replace>(std::move(pattern), std::move(content));
}

Status normalize(const Normalizer& normalizer, Stretch* stretch) {
  for (const auto& step : normalizer) {
    FLOTILLA_RETURN_IF_ERROR(step->apply(stretch));
    if (stretch->text.size() > UINT32_MAX / 2) {
      return invalid_argument("the normalised text has " + std::to_string(stretch->text.size()) +
                              " bytes; at most 2 GiB can be tokenised");
    }
  }
  return ok_status();
}

StatusOr<std::string> replace_all(const Pattern& pattern,
                                  std::string_view text,
                                  std::string_view content) {
  std::vector<Span> matches;
  FLOTILLA_RETURN_IF_ERROR(pattern.find_all(text, &matches));
  std::string out;
  out.reserve(text.size() + matches.size() * content.size());
  size_t kept = 0;
  for (const Span match : matches) {
    out.append(text, kept, match.begin - kept);
    out += content;
    kept = match.end;
  }
  out.append(text.substr(kept));
  return out;
}

}  // namespace flotilla::text
