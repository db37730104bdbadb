#include "kernels/moe.h"

#include "tests/kernels/kernel_test.h"

using namespace flotilla;

namespace {

struct Chosen {
  Tensor ids, weights;
};

Chosen choose(const Tensor& logits,
              const TensorView& bias,
              int64_t k,
              bool renormalize,
              Stream& stream,
              float norm_min = 0.0f) {
  Chosen c{Tensor(DType::kI32, {logits->rows(), k}, 1),
           Tensor(DType::kF32, {logits->rows(), k}, 2)};
  moe_topk({.logits = logits,
            .bias = bias,
            .ids = c.ids,
            .weights = c.weights,
            .renormalize = renormalize,
            .norm_min = norm_min},
           stream);
  CHECK(c.ids.surroundings_untouched());
  CHECK(c.weights.surroundings_untouched());
  return c;
}

}  // namespace

TEST_CASE("MoeTopk.AgreesWithTheReference") {
  const auto slow = make_stream(CpuIsa::kReference);
  for (const CpuIsa isa : fast_isas()) {
    const auto fast = make_stream(isa, 2);
    for (const auto& [rows, experts, k] : std::vector<std::array<int64_t, 3>>{
             {0, 4, 2}, {1, 1, 1}, {3, 8, 8}, {50, 64, 6}, {300, 17, 3}, {2, 160, 8}}) {
      Tensor logits(DType::kF32, {rows, experts}, 3), bias(DType::kF32, {experts});
      logits.fill_random(1, 4.0f);
      bias.fill_random(2, 0.1f);
      for (const bool renormalize : {false, true}) {
        for (const bool with_bias : {false, true}) {
          const TensorView b = with_bias ? bias.view() : TensorView();
          const Chosen a = choose(logits, b, k, renormalize, *fast);
          const Chosen r = choose(logits, b, k, renormalize, *slow);
          INFO(cpu_isa_name(isa), " ", rows, " ", experts, " ", k);
          CHECK(worst_difference(a.ids, r.ids, 0.0, 0.0) == 0.0);
          CHECK(worst_difference(a.weights, r.weights, 0.0, 4e-6) <= 1.0);
        }
      }
    }
  }
}

TEST_CASE("MoeTopk.TakesTheLowerIdAmongEqualsAndWritesInOrderOfIds") {
  for (const CpuIsa isa : fast_isas()) {
    Tensor logits(DType::kF32, {1, 40});
    logits.fill([](int64_t, int64_t e) { return e == 30 ? 5.0f : e % 2 ? 1.0f : 0.0f; });
    const Chosen c = choose(logits, {}, 4, true, *make_stream(isa));
    CHECK(c.ids.at(0, 0) == 1);
    CHECK(c.ids.at(0, 1) == 3);
    CHECK(c.ids.at(0, 2) == 5);
    CHECK(c.ids.at(0, 3) == 30);
    CHECK(c.weights.at(0, 3) > 0.9f);
  }
}

TEST_CASE("MoeTopk.ChoosesByBiasButWeighsWithoutIt") {
  for (const CpuIsa isa : fast_isas()) {
    Tensor logits(DType::kF32, {1, 4}), bias(DType::kF32, {4});
    logits.fill([](int64_t, int64_t e) { return static_cast<float>(e); });
    bias.fill([](int64_t e, int64_t) { return e == 3 ? -2.0f : 0.0f; });
    const Chosen c = choose(logits, bias, 2, false, *make_stream(isa));
    CHECK(c.ids.at(0, 0) == 1);
    CHECK(c.ids.at(0, 1) == 2);
    const double total = 1 + std::exp(1.0) + std::exp(2.0) + std::exp(3.0);
    CHECK(c.weights.at(0, 1) == doctest::Approx(std::exp(2.0) / total));
  }
}

TEST_CASE("MoeTopk.CountsNanAsNeverAndSurvivesInfinities") {
  for (const CpuIsa isa : {CpuIsa::kReference, best_cpu_isa()}) {
    const auto stream = make_stream(isa);
    Tensor logits(DType::kF32, {3, 20});
    logits.fill([](int64_t row, int64_t e) {
      if (row == 0) return e % 2 ? NAN : static_cast<float>(e);
      if (row == 1) return e == 7 ? HUGE_VALF : 0.0f;
      return NAN;
    });
    const Chosen c = choose(logits, {}, 2, true, *stream);
    CHECK(c.ids.at(0, 0) == 16);
    CHECK(c.ids.at(0, 1) == 18);
    CHECK(c.weights.at(0, 0) + c.weights.at(0, 1) == doctest::Approx(1.0));
    CHECK(c.ids.at(1, 1) == 7);
    CHECK(c.weights.at(1, 1) == 1.0f);
    CHECK(c.ids.at(2, 0) == 0);
    CHECK(c.weights.at(2, 0) == 0.0f);
  }
}

TEST_CASE("MoeTopk.NeverDividesByLessThanNormMin") {
  for (const CpuIsa isa : {CpuIsa::kReference, best_cpu_isa()}) {
    Tensor logits(DType::kF32, {1, 4}), bias(DType::kF32, {4});
    logits.fill([](int64_t, int64_t e) { return e == 0 ? 20.0f : 0.0f; });
    bias.fill([](int64_t e, int64_t) { return e == 0 ? -9.0f : 0.0f; });
    const Chosen c = choose(logits, bias, 1, true, *make_stream(isa), 0.5f);
    CHECK(c.ids.at(0, 0) == 1);
    CHECK(c.weights.at(0, 0) == doctest::Approx(2.0 * std::exp(-20.0)).epsilon(1e-5));
  }
}

TEST_CASE("MoeCombine.AgreesWithTheReferenceAndMayWriteOverItsBase") {
  const auto slow = make_stream(CpuIsa::kReference);
  for (const CpuIsa isa : fast_isas()) {
    const auto fast = make_stream(isa, 2);
    for (const auto& [tokens, width, k] :
         std::vector<std::array<int64_t, 3>>{{0, 4, 2}, {1, 1, 1}, {7, 65, 3}, {64, 576, 6}}) {
      for (const bool with_base : {false, true}) {
        Tensor rows(DType::kF32, {tokens * k, width}, 3), weights(DType::kF32, {tokens, k}, 1);
        rows.fill_random(1);
        weights.fill_random(2);
        Tensor y[2];
        for (int i = 0; i < 2; ++i) {
          y[i] = Tensor(DType::kF32, {tokens, width}, 2);
          y[i].fill_random(3);
          moe_combine({.rows = rows,
                       .weights = weights,
                       .base = with_base ? y[i].view() : TensorView(),
                       .y = y[i]},
                      i ? *fast : *slow);
          CHECK(y[i].surroundings_untouched());
        }
        CHECK(worst_difference(y[1], y[0], 1e-6, 1e-6) <= 1.0);
      }
    }
  }
}

TEST_CASE("MoeOps.DieOfMisshapenArgumentsAndSayWhich") {
  const auto stream = make_stream(best_cpu_isa());
  const auto dies = [&](const std::function<void()>& f, const char* words) {
    const std::string said = dying_words(f);
    INFO(said);
    CHECK(said.find(words) != std::string::npos);
  };
  Tensor logits(DType::kF32, {2, 3}), ids(DType::kI32, {2, 4}), weights(DType::kF32, {2, 4});
  Tensor rows(DType::kF32, {7, 5}), y(DType::kF32, {2, 5});
  dies([&] { moe_topk({.logits = logits, .ids = ids, .weights = weights}, *stream); },
       "k is 4, expected 1 to 3");
  dies([&] { moe_combine({.rows = rows, .weights = weights, .y = y}, *stream); },
       "got [7, 5], expected [8, 5]");
  if (best_cpu_isa() == CpuIsa::kReference) return;
  Tensor many(DType::kF32, {1, 4097}), one(DType::kI32, {1, 1}), weight(DType::kF32, {1, 1});
  dies([&] { moe_topk({.logits = many, .ids = one, .weights = weight}, *stream); },
       "4097 experts, expected at most 4096");
}
