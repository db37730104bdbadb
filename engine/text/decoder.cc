#include "engine/text/decoder.h"

#include <algorithm>
#include <utility>

#include "common/utf8.h"
#include "engine/text/normalizer.h"
#include "engine/text/unicode.h"

namespace flotilla::text {
namespace {

constexpr std::string_view kReplacementCharacter = "\uFFFD";
constexpr std::string_view kLowLine = "\u2581";

class Stage : public DecoderStage {
 public:
  explicit Stage(DecoderStage* next) : next_(next) {}
  void text(std::string_view fragment) override { next_->text(fragment); }
  void end_token() override { next_->end_token(); }
  void finish() override { next_->finish(); }

 protected:
  DecoderStage* const next_;
};

class Fuse final : public Stage {
 public:
  using Stage::Stage;
  void end_token() override {}
  void finish() override {
    next_->end_token();
    next_->finish();
  }
};

// For stages that must see a token as a whole.
class WholeTokens : public Stage {
 public:
  using Stage::Stage;
  void text(std::string_view fragment) final { token_ += fragment; }
  void end_token() final {
    take(token_);
    token_.clear();
  }

 protected:
  virtual void take(std::string_view token) = 0;

 private:
  std::string token_;
};

class ByteLevel final : public WholeTokens {
 public:
  using WholeTokens::WholeTokens;
  void finish() override {
    pass(true);
    next_->end_token();
    next_->finish();
  }

 private:
  void take(std::string_view token) override {
    append_byte_level(&bytes_, token);
    pass(false);
  }
  void pass(bool final) {
    text_.clear();
    bytes_.erase(0, append_utf8_lossy(&text_, bytes_, final));
    if (!text_.empty()) next_->text(text_);
  }
  std::string bytes_, text_;
};

// Whether a run of bytes is valid is known at its end only: one wrong byte spoils them all.
class ByteFallback final : public WholeTokens {
 public:
  using WholeTokens::WholeTokens;
  void finish() override {
    flush();
    next_->finish();
  }

 private:
  void take(std::string_view token) override {
    if (const int byte = byte_token_value(token); byte >= 0) {
      run_ += static_cast<char>(byte);
      return;
    }
    flush();
    next_->text(token);
    next_->end_token();
  }
  void flush() {
    if (run_.empty()) return;
    if (is_valid_utf8(run_)) {
      next_->text(run_);
      next_->end_token();
    } else {
      for (size_t i = 0; i < run_.size(); ++i) {
        next_->text(kReplacementCharacter);
        next_->end_token();
      }
    }
    run_.clear();
  }
  std::string run_;
};

// The suffix of a word becomes a space, except in the last token.
class BpeSuffix final : public WholeTokens {
 public:
  BpeSuffix(DecoderStage* next, const BpeSuffixDecoder& spec)
      : WholeTokens(next), pattern_(Pattern::literal(spec.suffix)) {}
  void finish() override {
    pass("");
    next_->finish();
  }

 private:
  void take(std::string_view token) override {
    pass(" ");
    held_ = token;
    holds_ = true;
  }
  void pass(std::string_view replacement) {
    if (!holds_) return;
    next_->text(*replace_all(pattern_, held_, replacement));
    next_->end_token();
    holds_ = false;
  }
  const Pattern pattern_;
  std::string held_;
  bool holds_ = false;
};

// Works on fragments, since it may stand behind Fuse: characters at the end are held back while
// they could be stripped.
class Strip final : public Stage {
 public:
  Strip(DecoderStage* next, const StripDecoder& spec) : Stage(next), spec_(spec) {}
  void text(std::string_view fragment) override {
    while (at_front_ && cut_ < spec_.start && fragment.starts_with(spec_.content)) {
      fragment.remove_prefix(spec_.content.size());
      ++cut_;
    }
    if (fragment.empty()) return;
    at_front_ = false;
    size_t trailing = 0;
    std::string_view body = fragment;
    while (body.ends_with(spec_.content)) {
      body.remove_suffix(spec_.content.size());
      ++trailing;
    }
    if (!body.empty()) {
      release(0);
      next_->text(body);
    }
    held_ += trailing;
    release(spec_.stop);
  }
  void end_token() override {
    held_ = 0;
    at_front_ = true;
    cut_ = 0;
    next_->end_token();
  }

 private:
  void release(size_t keep) {
    for (; held_ > keep; --held_) next_->text(spec_.content);
  }
  const StripDecoder& spec_;
  bool at_front_ = true;
  size_t cut_ = 0;   // characters stripped at the front of this token
  size_t held_ = 0;  // characters at its end that may be stripped
};

class Metaspace final : public Stage {
 public:
  Metaspace(DecoderStage* next, const MetaspaceDecoder& spec) : Stage(next), spec_(spec) {}
  void text(std::string_view fragment) override {
    text_.clear();
    while (!fragment.empty()) {
      if (fragment.starts_with(spec_.replacement)) {
        if (!first_ || !spec_.drop_in_first) text_ += ' ';
        fragment.remove_prefix(spec_.replacement.size());
      } else {
        text_ += fragment[0];
        fragment.remove_prefix(1);
      }
    }
    next_->text(text_);
  }
  void end_token() override {
    first_ = false;
    next_->end_token();
  }

 private:
  const MetaspaceDecoder& spec_;
  std::string text_;
  bool first_ = true;
};

// A literal is replaced in fragments as they come, since it may stand behind Fuse; a regex in whole
// tokens.
class Replace final : public Stage {
 public:
  Replace(DecoderStage* next, const ReplaceDecoder& spec) : Stage(next), spec_(spec) {}
  void text(std::string_view fragment) override {
    held_ += fragment;
    if (spec_.literal.empty()) return;
    size_t done = 0;
    for (size_t at; (at = held_.find(spec_.literal, done)) != std::string::npos;
         done = at + spec_.literal.size()) {
      pass(done, at);
      next_->text(spec_.content);
    }
    const size_t settled = std::max(done, held_.size() - longest_beginning());
    pass(done, settled);
    held_.erase(0, settled);
  }
  void end_token() override {
    if (spec_.literal.empty()) {
      // A regex that gives up on a token (hostile file) leaves the token as it is.
      const auto replaced = replace_all(*spec_.pattern, held_, spec_.content);
      next_->text(replaced.ok() ? *replaced : held_);
    } else if (!held_.empty()) {
      next_->text(held_);
    }
    held_.clear();
    next_->end_token();
  }

 private:
  void pass(size_t begin, size_t end) {
    if (begin < end) next_->text(std::string_view(held_).substr(begin, end - begin));
  }
  // Bytes at the end of held_ with which the literal could begin.
  size_t longest_beginning() const {
    const std::string_view held = held_;
    for (size_t n = std::min(held.size(), spec_.literal.size() - 1); n > 0; --n) {
      if (held.substr(held.size() - n) == std::string_view(spec_.literal).substr(0, n)) return n;
    }
    return 0;
  }
  const ReplaceDecoder& spec_;
  std::string held_;
};

class Join final : public Stage {
 public:
  using Stage::Stage;
  void text(std::string_view fragment) override {
    if (between_) next_->text(" ");
    between_ = false;
    next_->text(fragment);
  }
  void end_token() override {
    between_ = true;
    next_->end_token();
  }

 private:
  bool between_ = false;
};

class SentencePiece final : public Stage {
 public:
  SentencePiece(DecoderStage* next, const SentencePieceDecoder& spec) : Stage(next), spec_(spec) {}

  void token(TokenId id, std::string_view piece) override {
    using Kind = SentencePieceDecoder::Kind;
    const Kind kind = spec_.kinds[static_cast<size_t>(id)];
    if (kind == Kind::kByte) {
      bytes_ += static_cast<char>(byte_token_value(piece));
      pass_bytes(false);
      return;
    }
    pass_bytes(true);
    switch (kind) {
      case Kind::kText:
        plain(piece);
        break;
      case Kind::kUnknown:
        emit(spec_.unk_surface);
        break;
      case Kind::kVerbatim:
        next_->text(piece);
        run_empty_ = true;
        space_dropped_ = false;
        break;
      case Kind::kControl:
      case Kind::kByte:
        break;
    }
  }
  void finish() override {
    pass_bytes(true);
    next_->finish();
  }

 private:
  void plain(std::string_view piece) {
    if (run_empty_ && !space_dropped_ && (spec_.drop_first_space || spec_.drop_all_first_spaces) &&
        piece.starts_with(kLowLine)) {
      piece.remove_prefix(kLowLine.size());
      // With remove_extra_whitespaces every space at the front of a run goes.
      space_dropped_ = !spec_.drop_all_first_spaces;
    }
    text_.clear();
    while (!piece.empty()) {
      const size_t at = std::min(piece.find(kLowLine), piece.size());
      text_ += piece.substr(0, at);
      piece.remove_prefix(at);
      if (piece.empty()) break;
      text_ += ' ';
      piece.remove_prefix(kLowLine.size());
    }
    emit(text_);
  }
  void emit(std::string_view text) {
    if (text.empty()) return;
    run_empty_ = false;
    next_->text(text);
  }
  // Unlike a ByteFallback decoder, the library gives each byte that fits no character a U+FFFD of
  // its own.
  void pass_bytes(bool final) {
    while (!bytes_.empty()) {
      const size_t length = utf8_char_length(bytes_);
      if (length > 0) {
        emit(std::string_view(bytes_).substr(0, length));
        bytes_.erase(0, length);
      } else if (!final && utf8_complete_prefix(bytes_) == 0) {
        return;
      } else {
        emit(kReplacementCharacter);
        bytes_.erase(0, 1);
      }
    }
  }

  const SentencePieceDecoder& spec_;
  std::string bytes_, text_;
  bool run_empty_ = true;       // nothing came out since the last special token
  bool space_dropped_ = false;  // the run's one leading space is gone
};

std::unique_ptr<DecoderStage> make_stage(const DecoderSpec& spec, DecoderStage* next) {
  struct Maker {
    DecoderStage* next;
    std::unique_ptr<DecoderStage> operator()(const ByteLevelDecoder&) const {
      return std::make_unique<ByteLevel>(next);
    }
    std::unique_ptr<DecoderStage> operator()(const ByteFallbackDecoder&) const {
      return std::make_unique<ByteFallback>(next);
    }
    std::unique_ptr<DecoderStage> operator()(const FuseDecoder&) const {
      return std::make_unique<Fuse>(next);
    }
    std::unique_ptr<DecoderStage> operator()(const BpeSuffixDecoder& s) const {
      return std::make_unique<BpeSuffix>(next, s);
    }
    std::unique_ptr<DecoderStage> operator()(const StripDecoder& s) const {
      return std::make_unique<Strip>(next, s);
    }
    std::unique_ptr<DecoderStage> operator()(const MetaspaceDecoder& s) const {
      return std::make_unique<Metaspace>(next, s);
    }
    std::unique_ptr<DecoderStage> operator()(const ReplaceDecoder& s) const {
      return std::make_unique<Replace>(next, s);
    }
    std::unique_ptr<DecoderStage> operator()(const JoinDecoder&) const {
      return std::make_unique<Join>(next);
    }
    std::unique_ptr<DecoderStage> operator()(const SentencePieceDecoder& s) const {
      return std::make_unique<SentencePiece>(next, s);
    }
  };
  return std::visit(Maker{next}, spec);
}

}  // namespace

class DecoderChain::Sink final : public DecoderStage {
 public:
  void text(std::string_view fragment) override { *out_ += fragment; }
  void end_token() override {}
  void finish() override {}
  void set_out(std::string* out) { out_ = out; }

 private:
  std::string* out_ = nullptr;
};

DecoderChain::DecoderChain(const DecoderSpecs& specs) : sink_(std::make_unique<Sink>()) {
  DecoderStage* next = sink_.get();
  for (size_t i = specs.size(); i-- > 0;) {
    stages_.push_back(make_stage(specs[i], next));
    next = stages_.back().get();
  }
}
DecoderChain::~DecoderChain() = default;
DecoderChain::DecoderChain(DecoderChain&&) noexcept = default;

void DecoderChain::token(TokenId id, std::string_view text, std::string* out) {
  sink_->set_out(out);
  (stages_.empty() ? static_cast<DecoderStage*>(sink_.get()) : stages_.back().get())
      ->token(id, text);
}

void DecoderChain::finish(std::string* out) {
  sink_->set_out(out);
  if (!stages_.empty()) stages_.back()->finish();
}

Status check_decoder(const DecoderSpecs& specs) {
  bool fused = false;
  for (const DecoderSpec& spec : specs) {
    const char* refused = nullptr;
    if (std::holds_alternative<ByteLevelDecoder>(spec)) refused = "ByteLevel";
    if (std::holds_alternative<ByteFallbackDecoder>(spec)) refused = "ByteFallback";
    if (std::holds_alternative<BpeSuffixDecoder>(spec)) refused = "BPEDecoder";
    if (const auto* replace = std::get_if<ReplaceDecoder>(&spec);
        replace != nullptr && replace->literal.empty()) {
      refused = "Replace with a Regex";
    }
    if (fused && refused != nullptr) {
      return invalid_argument(std::string("decoder '") + refused +
                              "' behind Fuse or ByteLevel is not supported: it would need the "
                              "whole text before any of it could be streamed");
    }
    fused = fused || std::holds_alternative<FuseDecoder>(spec) ||
            std::holds_alternative<ByteLevelDecoder>(spec);
  }
  return ok_status();
}

int byte_token_value(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int value = 0;
  for (size_t i = 3; i < 5; ++i) {
    const char c = token[i];
    value *= 16;
    if (c >= '0' && c <= '9') {
      value += c - '0';
    } else if (c >= 'A' && c <= 'F') {
      value += c - 'A' + 10;
    } else if (c >= 'a' && c <= 'f') {
      value += c - 'a' + 10;
    } else {
      return -1;
    }
  }
  return value;
}

void append_byte_level(std::string* out, std::string_view token) {
  const size_t before = out->size();
  for (size_t pos = 0; pos < token.size();) {
    const int byte = char_to_byte(utf8_decode(token, &pos));
    if (byte < 0) {
      out->resize(before);
      *out += token;
      return;
    }
    *out += static_cast<char>(byte);
  }
}

size_t append_utf8_lossy(std::string* out, std::string_view bytes, bool final) {
  size_t pos = 0;
  while (pos < bytes.size()) {
    const std::string_view rest = bytes.substr(pos);
    size_t length = utf8_char_length(rest);
    if (length > 0) {
      *out += rest.substr(0, length);
      pos += length;
      continue;
    }
    // The ill-formed part: as many bytes as could have begun a character.
    length = 1;
    while (length < 4 && length < rest.size() &&
           utf8_complete_prefix(rest.substr(0, length + 1)) == 0) {
      ++length;
    }
    const bool unfinished = utf8_complete_prefix(rest.substr(0, length)) == 0;
    if (unfinished && length == rest.size() && !final) return pos;
    *out += kReplacementCharacter;
    pos += length;
  }
  return pos;
}

}  // namespace flotilla::text
