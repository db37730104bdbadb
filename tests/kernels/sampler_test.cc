#include "kernels/sampler.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "tests/kernels/kernel_test.h"

using namespace flotilla;

namespace {

constexpr double kLowest = -HUGE_VAL;

// One row with its lists, and the straightforward answer: everything sorted, in double.
struct Row {
  std::vector<float> logits;
  SamplerRow params;
  std::vector<SeenToken> seen;
  std::vector<BiasedToken> bias;
  std::vector<int32_t> banned;
  std::vector<bool> allowed;  // empty: everything

  int32_t v() const { return static_cast<int32_t>(logits.size()); }
  double raw(int32_t i) const {
    const float x = logits[static_cast<size_t>(i)];
    return std::isnan(x) ? kLowest : x;
  }
  std::vector<bool> may_come() const {
    std::vector<bool> may(logits.size(), true);
    if (!allowed.empty()) may = allowed;
    for (const int32_t i : banned) may[static_cast<size_t>(i)] = false;
    return may;
  }
  // In float, step by step, as the kernels: near-ties must fall the same way.
  std::vector<double> adjusted() const {
    std::vector<float> x = logits;
    for (const BiasedToken& b : bias) x[static_cast<size_t>(b.token)] += b.bias;
    for (const SeenToken& s : seen) {
      float& y = x[static_cast<size_t>(s.token)];
      y = y > 0 ? y / params.repetition_penalty : y * params.repetition_penalty;
      if (s.produced == 0) continue;
      y -= params.frequency_penalty * static_cast<float>(s.produced);
      y -= params.presence_penalty;
    }
    std::vector<double> result(x.begin(), x.end());
    const auto may = may_come();
    for (int32_t i = 0; i < v(); ++i) {
      double& y = result[static_cast<size_t>(i)];
      if (std::isnan(y) || !may[static_cast<size_t>(i)]) y = kLowest;
    }
    return result;
  }
};

// The tokens that are right. More than one only where float and double may fall to different sides.
std::set<int32_t> right_tokens(const Row& row) {
  const auto x = row.adjusted();
  std::vector<int32_t> order;
  for (int32_t i = 0; i < row.v(); ++i) {
    if (x[static_cast<size_t>(i)] > kLowest) order.push_back(i);
  }
  const auto value = [&](int32_t i) { return x[static_cast<size_t>(i)]; };
  if (order.empty()) {
    const auto may = row.may_come();
    int32_t best = -1;
    for (int32_t i = 0; i < row.v(); ++i) {
      if (may[static_cast<size_t>(i)] && (best < 0 || row.raw(i) > row.raw(best))) best = i;
    }
    return {std::max(best, 0)};
  }
  std::stable_sort(
      order.begin(), order.end(), [&](int32_t a, int32_t b) { return value(a) > value(b); });
  const SamplerRow& p = row.params;
  if (p.temperature == 0) return {order[0]};

  const double top = value(order[0]);
  const auto weight = [&](int32_t i) {
    return value(i) == top ? 1.0 : std::exp((value(i) - top) / static_cast<double>(p.temperature));
  };
  const double slack = 1e-6 + row.v() * 0x1p-30;
  // Every set of kept tokens that rounding may give.
  std::vector<size_t> kept_counts;
  size_t n = 1;
  while (n < order.size() && weight(order[n]) >= p.min_p * (1 + 1e-5)) ++n;
  size_t n_loose = n;
  while (n_loose < order.size() && weight(order[n_loose]) >= p.min_p * (1 - 1e-5)) ++n_loose;
  for (; n <= n_loose; ++n) {
    const size_t k = p.top_k > 0 ? std::min(n, static_cast<size_t>(p.top_k)) : n;
    double total = 0, sum = 0;
    for (size_t i = 0; i < k; ++i) total += weight(order[i]);
    for (size_t i = 0; i < k; ++i) {
      // i tokens weigh `sum`: the last one needed?
      sum += weight(order[i]);
      const double share = sum / total, before = (sum - weight(order[i])) / total;
      if (p.top_p < 1 && share < p.top_p - slack) continue;
      if (i + 1 == k || p.top_p < 1) kept_counts.push_back(i + 1);
      if (p.top_p < 1 && (share > p.top_p + slack || before >= p.top_p)) break;
    }
  }
  const double u = sampling_uniform(p.seed, p.choice, p.position);
  std::set<int32_t> right;
  for (const size_t count : kept_counts) {
    std::vector<int32_t> kept(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count));
    std::sort(kept.begin(), kept.end());
    double total = 0, sum = 0;
    for (const int32_t i : kept) total += weight(i);
    for (const int32_t i : kept) {
      const double low = sum / total;
      sum += weight(i);
      if (weight(i) > 0 && u >= low - slack && u <= sum / total + slack) right.insert(i);
    }
  }
  return right;
}

struct Result {
  Tensor tokens, logprobs, ranks, top_ids, top_logprobs;
};

// All rows must have the same vocabulary.
Result run(const std::vector<Row>& rows, Stream& stream, int64_t room = 0) {
  const auto s = static_cast<int64_t>(rows.size());
  const int64_t v = rows.empty() ? 1 : rows[0].v(), words = (v + 31) / 32;
  Tensor logits(DType::kF32, {s, v}, 3), allowed(DType::kI32, {s, words}, 1);
  std::vector<SamplerRow> params;
  std::vector<SeenToken> seen;
  std::vector<BiasedToken> bias;
  std::vector<int32_t> banned;
  for (int64_t i = 0; i < s; ++i) {
    const Row& row = rows[static_cast<size_t>(i)];
    std::copy(row.logits.begin(), row.logits.end(), logits->row<float>(i));
    SamplerRow p = row.params;
    const auto append = [](auto& all, const auto& mine, int32_t& begin, int32_t& end) {
      begin = static_cast<int32_t>(all.size());
      all.insert(all.end(), mine.begin(), mine.end());
      end = static_cast<int32_t>(all.size());
    };
    append(seen, row.seen, p.seen_begin, p.seen_end);
    append(bias, row.bias, p.bias_begin, p.bias_end);
    append(banned, row.banned, p.banned_begin, p.banned_end);
    if (!row.allowed.empty()) {
      p.mask_row = static_cast<int32_t>(i);
      auto* const mask = allowed->row<uint32_t>(i);
      std::fill(mask, mask + words, 0);
      for (size_t t = 0; t < row.allowed.size(); ++t) {
        if (row.allowed[t]) mask[t / 32] |= 1u << t % 32;
      }
    }
    params.push_back(p);
  }
  Result r{Tensor(DType::kI32, {s}),
           Tensor(DType::kF32, {s}),
           Tensor(DType::kI32, {s}),
           Tensor(DType::kI32, {s, room}, 1),
           Tensor(DType::kF32, {s, room}, 2)};
  const Workspace workspace(sample_workspace_bytes(s, v, stream));
  sample({.logits = logits,
          .rows = params.data(),
          .seen = seen.data(),
          .bias = bias.data(),
          .banned = banned.data(),
          .allowed = allowed,
          .tokens = r.tokens,
          .logprobs = r.logprobs,
          .ranks = r.ranks,
          .top_ids = r.top_ids,
          .top_logprobs = r.top_logprobs,
          .workspace = workspace.data()},
         stream);
  CHECK(workspace.surroundings_untouched());
  CHECK(r.tokens.surroundings_untouched());
  CHECK(r.top_ids.surroundings_untouched());
  CHECK(r.top_logprobs.surroundings_untouched());
  return r;
}

int32_t token(const Result& r, int64_t row = 0) { return r.tokens->as<int32_t>()[row]; }

Row random_row(std::mt19937& random, int32_t v) {
  const auto one_of = [&](auto... values) {
    const std::array list{static_cast<float>(values)...};
    return list[random() % list.size()];
  };
  Row row;
  std::normal_distribution<float> normal;
  const float spread = one_of(0.1, 1, 4, 30);
  const bool ties = random() % 3 == 0;
  for (int32_t i = 0; i < v; ++i) {
    const float x = spread * normal(random);
    row.logits.push_back(ties ? std::round(x) : x);
  }
  const auto some_token = [&] { return static_cast<int32_t>(random() % static_cast<uint32_t>(v)); };
  const float rare[] = {NAN, HUGE_VALF, -HUGE_VALF, 3e38f, -3e38f};
  for (uint32_t i = random() % 4 == 0 ? random() % 4 : 0; i > 0; --i) {
    row.logits[static_cast<size_t>(some_token())] = rare[random() % 5];
  }
  if (random() % 20 == 0)
    std::fill(row.logits.begin(), row.logits.end(), random() % 2 ? NAN : -HUGE_VALF);

  SamplerRow& p = row.params;
  p.temperature = one_of(0, 1e-6, 0.3, 1, 1, 5, 1e6);
  p.top_p = one_of(0, 0.1, 0.5, 0.9, 1, 1);
  p.min_p = one_of(0, 0, 0.05, 1);
  p.top_k = static_cast<int32_t>(one_of(-1, 0, 0, 1, 5, 50, v, v + 10));
  p.seed = random();
  p.choice = static_cast<int32_t>(random() % 4);
  p.position = random() % 100;
  if (random() % 2) {
    p.presence_penalty = one_of(-1, 0, 2);
    p.frequency_penalty = one_of(0, 0.5);
    p.repetition_penalty = one_of(1, 1.3, 0.5);
    std::set<int32_t> distinct;
    for (int i = 0; i < 20; ++i) distinct.insert(some_token());
    for (const int32_t t : distinct) row.seen.push_back({t, static_cast<int32_t>(random() % 3)});
  }
  if (random() % 3 == 0) {
    for (int i = 0; i < 3; ++i) row.bias.push_back({some_token(), one_of(-100, -1, 1, 100)});
  }
  if (random() % 3 == 0) {
    for (int i = 0; i < 5; ++i) row.banned.push_back(some_token());
  }
  if (random() % 30 == 0) {
    row.banned.resize(static_cast<size_t>(v));
    std::iota(row.banned.begin(), row.banned.end(), 0);
  }
  if (random() % 4 == 0) {
    for (int32_t i = 0; i < v; ++i) row.allowed.push_back(random() % 2);
  }
  return row;
}

std::vector<CpuIsa> all_isas() {
  auto isas = fast_isas();
  isas.insert(isas.begin(), CpuIsa::kReference);
  return isas;
}

}  // namespace

TEST_CASE("Sample.AgreesWithASortInManyRandomCases") {
  std::mt19937 random(1);
  for (const int32_t v : {1, 2, 7, 31, 32, 33, 100, 1000, 5003}) {
    std::vector<Row> rows;
    std::vector<std::set<int32_t>> right;
    int64_t open = 0;
    for (int i = 0; i < (v > 1000 ? 60 : 400); ++i) {
      rows.push_back(random_row(random, v));
      right.push_back(right_tokens(rows.back()));
      open += right.back().size() > 1;
    }
    CHECK(open < 30);  // the test would show little if any token were right
    for (const CpuIsa isa : all_isas()) {
      const Result r = run(rows, *make_stream(isa, 2));
      for (size_t i = 0; i < rows.size(); ++i) {
        const SamplerRow& p = rows[i].params;
        INFO(cpu_isa_name(isa), " v ", v, " row ", i, " T ", p.temperature, " top_p ", p.top_p);
        INFO("top_k ", p.top_k, " min_p ", p.min_p, " right ", *right[i].begin());
        CHECK(right[i].count(token(r, static_cast<int64_t>(i))) == 1);
      }
    }
  }
}

TEST_CASE("Sample.AgreesWithASortOverALargeVocabulary") {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<Row> rows;
  std::vector<std::set<int32_t>> right;
  for (int i = 0; i < 12; ++i) {
    Row row;
    const float spread = i % 2 ? 0.5f : 3.0f;
    for (int32_t t = 0; t < 49'157; ++t) row.logits.push_back(spread * normal(random));
    row.params.temperature = i % 3 ? 1.0f : 8.0f;
    row.params.top_p = i % 4 == 0 ? 1.0f : 0.3f * static_cast<float>(i % 4);
    row.params.top_k = i % 5 == 0 ? 3000 : 0;
    row.params.position = i;
    right.push_back(right_tokens(row));
    rows.push_back(std::move(row));
  }
  for (const CpuIsa isa : fast_isas()) {
    const Result r = run(rows, *make_stream(isa, 2));
    for (size_t i = 0; i < rows.size(); ++i) {
      INFO(cpu_isa_name(isa), " row ", i);
      CHECK(right[i].count(token(r, static_cast<int64_t>(i))) == 1);
    }
  }
}

TEST_CASE("Sample.GivesARowTheSameTokenInAnyCompanyOnAnyNumberOfThreads") {
  for (const CpuIsa isa : fast_isas()) {
    std::mt19937 random(3);
    std::vector<Row> rows;
    for (int i = 0; i < 30; ++i) {
      rows.push_back(random_row(random, 997));
      rows.back().params.num_logprobs = 5;
    }
    const Result all = run(rows, *make_stream(isa, 3), 5);
    const auto one = make_stream(isa, 1);
    for (size_t i = 0; i < rows.size(); ++i) {
      const Result alone = run({rows[i]}, *one, 5);
      const auto at = static_cast<int64_t>(i);
      CHECK(token(alone) == token(all, at));
      CHECK(alone.logprobs.row_bytes(0) == all.logprobs.row_bytes(at));
      CHECK(alone.top_logprobs.row_bytes(0) == all.top_logprobs.row_bytes(at));
    }
  }
}

TEST_CASE("Sample.DrawsInProportionToTheProbabilities") {
  struct Case {
    float temperature, top_p;
    int32_t top_k;
    std::vector<double> weights;  // of the tokens, 0: never
  };
  const std::vector<float> logits{0.0f, 1.0f, 2.0f, -1.0f, 1.5f, 0.5f};
  const auto e = [](double x) { return std::exp(x); };
  const std::vector<Case> cases{
      {1.0f, 1.0f, 0, {e(0), e(1), e(2), e(-1), e(1.5), e(0.5)}},
      {2.0f, 1.0f, 0, {e(0), e(0.5), e(1), e(-0.5), e(0.75), e(0.25)}},
      {1.0f, 1.0f, 3, {0, e(1), e(2), 0, e(1.5), 0}},
      {1.0f, 0.6f, 0, {0, 0, e(2), 0, e(1.5), 0}},
  };
  constexpr int kDraws = 20'000;
  for (const CpuIsa isa : all_isas()) {
    const auto stream = make_stream(isa);
    for (const Case& c : cases) {
      std::vector<Row> rows;
      for (int i = 0; i < kDraws; ++i) {
        Row row{
            .logits = logits, .params = {}, .seen = {}, .bias = {}, .banned = {}, .allowed = {}};
        row.params.temperature = c.temperature;
        row.params.top_p = c.top_p;
        row.params.top_k = c.top_k;
        row.params.seed = 12345;
        row.params.position = i;
        rows.push_back(row);
      }
      const Result r = run(rows, *stream);
      std::vector<int> counts(logits.size());
      for (int64_t i = 0; i < kDraws; ++i) ++counts[static_cast<size_t>(token(r, i))];
      const double total = std::accumulate(c.weights.begin(), c.weights.end(), 0.0);
      double chi_square = 0.0;
      for (size_t i = 0; i < counts.size(); ++i) {
        const double expected = kDraws * c.weights[i] / total;
        if (expected == 0.0) {
          CHECK(counts[i] == 0);
        } else {
          chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
        }
      }
      CHECK(chi_square < 20.5);  // 99.9 % for 5 degrees of freedom
    }
  }
}

TEST_CASE("Sample.FallsBackToTheBestRawLogitThatIsNotBanned") {
  for (const CpuIsa isa : all_isas()) {
    const auto stream = make_stream(isa);
    Row row;
    row.logits = {-3e38f, NAN, -3.1e38f, -HUGE_VALF};
    row.bias = {{0, -3e38f}, {2, -3e38f}};  // nothing is left
    CHECK(token(run({row}, *stream)) == 0);
    row.banned = {0};
    CHECK(token(run({row}, *stream)) == 2);
    row.banned = {0, 2};
    CHECK(token(run({row}, *stream)) == 1);
    row.allowed = {true, false, true, true};
    CHECK(token(run({row}, *stream)) == 3);
    row.banned = {0, 1, 2, 3};
    CHECK(token(run({row}, *stream)) == 0);
  }
}

TEST_CASE("Sample.KeepsTheBestTokenUnderTheTightestLimits") {
  for (const CpuIsa isa : all_isas()) {
    const auto stream = make_stream(isa);
    Row row;
    for (int i = 0; i < 300; ++i) row.logits.push_back(static_cast<float>(i % 150) / 150.0f);
    for (const auto& [top_p, top_k, temperature] : std::vector<std::tuple<float, int32_t, float>>{
             {0.0f, 0, 1.0f}, {1.0f, 1, 1e6f}, {1.0f, 0, 0.0f}, {1e-9f, 0, 1e6f}}) {
      row.params.top_p = top_p;
      row.params.top_k = top_k;
      row.params.temperature = temperature;
      for (row.params.position = 0; row.params.position < 10; ++row.params.position) {
        CHECK(token(run({row}, *stream)) == 149);
      }
    }
    // min_p = 1 keeps all of the best, and nothing else.
    row.params = {};
    row.params.min_p = 1.0f;
    std::set<int32_t> drawn;
    for (row.params.position = 0; row.params.position < 50; ++row.params.position) {
      drawn.insert(token(run({row}, *stream)));
    }
    CHECK(drawn == std::set<int32_t>{149, 299});
  }
}

TEST_CASE("Sample.ReportsLogProbabilitiesOfTheRawLogits") {
  for (const CpuIsa isa : all_isas()) {
    const auto stream = make_stream(isa);
    std::mt19937 random(4);
    for (const int32_t v : {3, 100, 5003, 9000}) {
      std::vector<Row> rows;
      for (int i = 0; i < 12; ++i) {
        rows.push_back(random_row(random, v));
        for (float& x : rows.back().logits) x = std::isinf(x) || std::abs(x) > 1e30f ? 1.0f : x;
        rows.back().params.num_logprobs = i % 4 == 3 ? -1 : std::min(i * 2, 20);
      }
      const Result r = run(rows, *stream, 22);
      for (int64_t s = 0; s < 12; ++s) {
        const Row& row = rows[static_cast<size_t>(s)];
        std::vector<int32_t> order(static_cast<size_t>(v));
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
          return row.raw(a) > row.raw(b);
        });
        const double top = row.raw(order[0]);
        double sum = 0.0;
        for (int32_t i = 0; i < v; ++i) sum += row.raw(i) == top ? 1.0 : std::exp(row.raw(i) - top);
        const auto logprob = [&](int32_t i) {
          return row.raw(i) == top ? -std::log(sum) : row.raw(i) - top - std::log(sum);
        };
        INFO(cpu_isa_name(isa), " v ", v, " row ", s);
        if (row.params.num_logprobs < 0) {
          CHECK(std::isnan(r.logprobs.at(s, 0)));  // not written
          continue;
        }
        const int32_t chosen = token(r, s);
        const auto close = [](double a, double b) {
          return a == b || std::abs(a - b) <= 2e-6 * (1 + std::abs(b));
        };
        CHECK(close(r.logprobs.at(s, 0), logprob(chosen)));
        const auto place = std::find(order.begin(), order.end(), chosen) - order.begin();
        CHECK(r.ranks->as<int32_t>()[s] == place + 1);
        for (int64_t j = 0; j < row.params.num_logprobs; ++j) {
          const bool there = j < v;
          CHECK(r.top_ids->row<int32_t>(s)[j] == (there ? order[static_cast<size_t>(j)] : -1));
          CHECK(close(r.top_logprobs.at(s, j),
                      there ? logprob(order[static_cast<size_t>(j)]) : kLowest));
        }
        if (row.params.num_logprobs < 22)
          CHECK(std::isnan(r.top_logprobs.at(s, row.params.num_logprobs)));
      }
    }
  }
}

TEST_CASE("Sample.KeepsLogProbabilitiesNumbersAmongInfinities") {
  for (const CpuIsa isa : all_isas()) {
    const auto stream = make_stream(isa);
    Row row;
    row.logits = {1.0f, HUGE_VALF, HUGE_VALF, NAN};
    row.params.temperature = 0.0f;
    row.params.num_logprobs = 3;
    const Result r = run({row}, *stream, 3);
    CHECK(token(r) == 1);
    CHECK(r.logprobs.at(0, 0) == doctest::Approx(-std::log(2.0)));
    CHECK(r.top_ids->row<int32_t>(0)[1] == 2);
    CHECK(r.top_logprobs.at(0, 2) == -HUGE_VALF);
    row.logits = {NAN, -HUGE_VALF};
    CHECK(run({row}, *stream, 3).logprobs.at(0, 0) == doctest::Approx(-std::log(2.0)));
  }
}

TEST_CASE("TokenLogprobs.AreThoseThatSampleReportsAndLeaveTheLogitsAlone") {
  for (const CpuIsa isa : all_isas()) {
    const auto stream = make_stream(isa, 2);
    std::mt19937 random(5);
    std::vector<Row> rows;
    for (int i = 0; i < 20; ++i) {
      rows.push_back(random_row(random, 777));
      rows.back().params.num_logprobs = 4;
    }
    const Result sampled = run(rows, *stream, 4);
    Tensor logits(DType::kF32, {20, 777}, 3);
    for (int64_t i = 0; i < 20; ++i) {
      std::copy(rows[static_cast<size_t>(i)].logits.begin(),
                rows[static_cast<size_t>(i)].logits.end(),
                logits->row<float>(i));
    }
    const std::string before = logits.row_bytes(7);
    Tensor logprobs(DType::kF32, {20}), ranks(DType::kI32, {20}), ids(DType::kI32, {20, 4}),
        tops(DType::kF32, {20, 4});
    token_logprobs({.logits = logits,
                    .targets = sampled.tokens,
                    .num_top = 4,
                    .logprobs = logprobs,
                    .ranks = ranks,
                    .top_ids = ids,
                    .top_logprobs = tops},
                   *stream);
    CHECK(logits.row_bytes(7) == before);
    for (int64_t i = 0; i < 20; ++i) {
      CHECK(logprobs.row_bytes(i) == sampled.logprobs.row_bytes(i));
      CHECK(ranks.row_bytes(i) == sampled.ranks.row_bytes(i));
      CHECK(ids.row_bytes(i) == sampled.top_ids.row_bytes(i));
      CHECK(tops.row_bytes(i) == sampled.top_logprobs.row_bytes(i));
    }
    token_logprobs({.logits = logits->slice_rows(0, 0),
                    .targets = sampled.tokens->slice_rows(0, 0),
                    .logprobs = logprobs->slice_rows(0, 0),
                    .ranks = ranks->slice_rows(0, 0)},
                   *stream);
  }
}

TEST_CASE("Sample.DiesOfWhatTheOutputsOrTheVocabularyCannotHold") {
  for (const CpuIsa isa : {CpuIsa::kReference, best_cpu_isa()}) {
    const auto stream = make_stream(isa);
    const auto dies = [&](const Row& row, const char* words) {
      const std::string said = dying_words([&] { run({row}, *stream, 2); });
      INFO(said);
      CHECK(said.find(words) != std::string::npos);
    };
    Row row;
    row.logits = {1.0f, 2.0f};
    row.params.num_logprobs = 3;
    dies(row, "more are asked for than the outputs hold");
    row.params.num_logprobs = -1;
    row.bias = {{2, 1.0f}};
    dies(row, "lies outside of the vocabulary");
    row.bias.clear();
    row.seen = {{-1, 1}};
    dies(row, "lies outside of the vocabulary");

    Tensor logits(DType::kF32, {1, 2}), out(DType::kF32, {1}), rank(DType::kI32, {1});
    const Tensor target = int_tensor({2});
    const std::string said = dying_words([&] {
      token_logprobs({.logits = logits, .targets = target, .logprobs = out, .ranks = rank},
                     *stream);
    });
    CHECK(said.find("lies outside of the vocabulary") != std::string::npos);
    const std::string too_many = dying_words([&] {
      token_logprobs(
          {.logits = logits, .targets = target, .num_top = 1, .logprobs = out, .ranks = rank},
          *stream);
    });
    CHECK(too_many.find("num_top is larger than the outputs") != std::string::npos);
  }
}
