// Every fixture's checkpoint against the logits and greedy tokens that its reference implementation
// gave.
#include "tests/engine/model/sequence_runner.h"

using namespace flotilla;

TEST_CASE("Model.F32MatchesTheReferenceOnEveryRow") {
  for (const std::string& dir : fixture_dirs()) {
    const Fixture fixture = load_fixture(dir);
    for (const CpuIsa isa : available_isas()) {
      CAPTURE(fixture.name);
      CAPTURE(cpu_isa_name(isa));
      TestModel t = bring_up(dir, DType::kF32, isa);
      for (const ReferencePrompt& p : fixture.prompts) {
        SequenceRunner s(t);
        const auto rows = s.run(p.ids);
        for (size_t r = 0; r < p.logits.size(); ++r) {
          const RowError e = row_error(rows[rows.size() - p.logits.size() + r], p.logits[r]);
          CHECK(e.max <= 1e-4);
        }
        TokenId next = argmax(rows.back());
        for (size_t i = 0; i < p.greedy.size(); ++i) {
          REQUIRE(next == p.greedy[i]);
          next = argmax(s.run({next}).front());
        }
      }
    }
  }
}

TEST_CASE("Model.Bf16StaysCloseToTheReference") {
  for (const std::string& dir : fixture_dirs()) {
    const Fixture fixture = load_fixture(dir);
    for (const CpuIsa isa : available_isas()) {
      CAPTURE(fixture.name);
      CAPTURE(cpu_isa_name(isa));
      TestModel t = bring_up(dir, DType::kBf16, isa);
      std::vector<double> errors;
      double kl = 0;
      for (const ReferencePrompt& p : fixture.prompts) {
        SequenceRunner s(t);
        const auto rows = s.run(p.ids);
        for (size_t r = 0; r < p.logits.size(); ++r) {
          const RowError e = row_error(rows[rows.size() - p.logits.size() + r], p.logits[r]);
          errors.push_back(e.mean);
          kl += e.kl;
        }
        // Tokens are the reference's up to the first one whose margin is below what bf16 can tell
        // apart.
        std::vector<float> row = rows.back();
        for (size_t i = 0; i < p.greedy.size(); ++i) {
          const auto [low, high] = std::minmax_element(row.begin(), row.end());
          if (argmax(row) != p.greedy[i]) {
            CHECK(p.margin[i] <= 2e-2 * (*high - *low));
            break;
          }
          row = s.run({p.greedy[i]}).front();
        }
      }
      std::sort(errors.begin(), errors.end());
      CHECK(errors[errors.size() / 2] <= 3e-3);
      CHECK(errors[errors.size() * 9 / 10] <= 1e-2);
      CHECK(kl / static_cast<double>(errors.size()) <= 2e-2);
    }
  }
}
