// The normalizers of a tokenizer.json: steps that rewrite a stretch of text before it is cut into
// pieces.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/status.h"
#include "engine/text/pattern.h"
#include "engine/text/unicode.h"

namespace flotilla::text {

// A stretch of text on its way. `at_start`: its first character is the first of the whole input,
// which Metaspace's scheme "first" asks for.
struct Stretch {
  std::string text;
  bool at_start = false;
};

// Threads: immutable.
class NormalizerStep {
 public:
  virtual ~NormalizerStep() = default;
  // `stretch->text` is valid UTF-8 before and after.
  virtual Status apply(Stretch* stretch) const = 0;
};

using Normalizer = std::vector<std::unique_ptr<NormalizerStep>>;

std::unique_ptr<NormalizerStep> make_unicode_normalizer(NormalForm form);
std::unique_ptr<NormalizerStep> make_lowercase_normalizer();
std::unique_ptr<NormalizerStep> make_strip_accents_normalizer();
std::unique_ptr<NormalizerStep> make_strip_normalizer(bool left, bool right);
std::unique_ptr<NormalizerStep> make_prepend_normalizer(std::string prefix);
std::unique_ptr<NormalizerStep> make_replace_normalizer(Pattern pattern, std::string content);

Status normalize(const Normalizer& normalizer, Stretch* stretch);

// `text` with each match of the pattern replaced by `content`; used by a decoder too.
StatusOr<std::string> replace_all(const Pattern& pattern,
                                  std::string_view text,
                                  std::string_view content);

}  // namespace flotilla::text
