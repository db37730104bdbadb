#include "kernels/cast.h"
#include "kernels/embedding.h"
#include "kernels/rms_norm.h"
#include "kernels/swiglu.h"
#include "tests/kernels/kernel_test.h"

using namespace flotilla;

namespace {

constexpr int64_t kWidths[] = {1, 2, 7, 8, 16, 31, 63, 64, 65, 100, 576, 1031};
constexpr DType kResults[] = {DType::kF32, DType::kBf16};

}  // namespace

TEST_CASE("RmsNorm.AgreesWithTheReferenceWithAndWithoutResidual") {
  const auto slow = make_stream(CpuIsa::kReference);
  for (const CpuIsa isa : fast_isas()) {
    const auto fast = make_stream(isa, 2);
    for (const int64_t width : kWidths) {
      for (const int64_t rows : {0, 1, 5, 200}) {
        for (const DType out : kResults) {
          for (const bool with_residual : {false, true}) {
            Tensor x(DType::kF32, {rows, width}, 3), w(DType::kF32, {width});
            x.fill_random(1, 3.0f);
            w.fill_random(2);
            Tensor y[2], residual[2];
            for (int i = 0; i < 2; ++i) {
              y[i] = Tensor(out, {rows, width}, 2);
              if (with_residual) {
                residual[i] = Tensor(DType::kF32, {rows, width}, 1);
                residual[i].fill_random(3);
              }
              rms_norm({.y = y[i], .x = x, .w = w, .residual = residual[i], .eps = 1e-5f},
                       i ? *fast : *slow);
              CHECK(y[i].surroundings_untouched());
            }
            INFO(cpu_isa_name(isa), " ", width, " ", rows, " ", dtype_name(out));
            CHECK(worst_difference(y[1], y[0], 1e-6, tolerance(out)) <= 1.0);
            if (with_residual) {
              CHECK(worst_difference(residual[1], residual[0], 0.0, 0.0) == 0.0);
              CHECK(residual[1].surroundings_untouched());
            }
          }
        }
      }
    }
  }
}

TEST_CASE("RmsNorm.MayWriteOverItsInput") {
  for (const CpuIsa isa : fast_isas()) {
    const auto stream = make_stream(isa);
    Tensor x(DType::kF32, {3, 70}), y(DType::kF32, {3, 70}), w(DType::kF32, {70});
    x.fill_random(1);
    w.fill_random(2);
    rms_norm({.y = y, .x = x, .w = w}, *stream);
    rms_norm({.y = x, .x = x, .w = w}, *stream);
    CHECK(worst_difference(x, y, 0.0, 0.0) == 0.0);
  }
}

TEST_CASE("RmsNorm.GivesARowTheSameBitsInAnyCompany") {
  for (const CpuIsa isa : fast_isas()) {
    const int64_t width = 577;
    Tensor x(DType::kF32, {300, width}), w(DType::kF32, {width});
    x.fill_random(1);
    w.fill_random(2);
    Tensor alone(DType::kF32, {1, width});
    rms_norm({.y = alone, .x = x->slice_rows(299, 1), .w = w}, *make_stream(isa));
    for (const int threads : {1, 2, 3}) {
      Tensor y(DType::kF32, {300, width});
      rms_norm({.y = y, .x = x, .w = w}, *make_stream(isa, threads));
      CHECK(y.row_bytes(299) == alone.row_bytes(0));
    }
  }
}

TEST_CASE("SwiGlu.AgreesWithTheReference") {
  const auto slow = make_stream(CpuIsa::kReference);
  for (const CpuIsa isa : fast_isas()) {
    const auto fast = make_stream(isa, 2);
    for (const int64_t width : kWidths) {
      for (const int64_t rows : {0, 1, 77}) {
        for (const DType out : kResults) {
          Tensor gate_up(DType::kF32, {rows, 2 * width}, 3);
          gate_up.fill_random(1, 20.0f);
          Tensor y[2];
          for (int i = 0; i < 2; ++i) {
            y[i] = Tensor(out, {rows, width}, 1);
            swiglu({.gate_up = gate_up, .y = y[i]}, i ? *fast : *slow);
            CHECK(y[i].surroundings_untouched());
          }
          INFO(cpu_isa_name(isa), " ", width, " ", rows, " ", dtype_name(out));
          CHECK(worst_difference(y[1], y[0], 1e-9, tolerance(out)) <= 1.0);
        }
      }
    }
  }
}

TEST_CASE("SwiGlu.SaturatesAtTheEndsOfTheRange") {
  for (const CpuIsa isa : fast_isas()) {
    const std::vector<float> gates{-1e30f, -200.0f, -88.0f, 0.0f, 88.0f, 200.0f, 1e30f};
    const auto n = static_cast<int64_t>(gates.size());
    Tensor gate_up(DType::kF32, {1, 2 * n}), y(DType::kF32, {1, n});
    gate_up.fill([&](int64_t, int64_t i) { return i < n ? gates[static_cast<size_t>(i)] : 1.0f; });
    swiglu({.gate_up = gate_up, .y = y}, *make_stream(isa));
    for (int64_t i = 0; i < n; ++i) {
      const double z = gates[static_cast<size_t>(i)];
      CHECK(y.at(0, i) == doctest::Approx(z / (1 + std::exp(-z))).epsilon(1e-6));
    }
  }
}

TEST_CASE("Cast.RoundsToNearestEvenAndKeepsNanAndInfinity") {
  for (const CpuIsa isa : fast_isas()) {
    const auto stream = make_stream(isa);
    std::mt19937 random(3);
    const int64_t rows = 33, width = 67;
    Tensor x(DType::kF32, {rows, width}, 1), y(DType::kBf16, {rows, width}, 5);
    x.fill([&](int64_t r, int64_t) {
      // Any bits at all, and ties.
      const auto bits = static_cast<uint32_t>(random());
      return std::bit_cast<float>(r % 2 ? bits : (bits & 0xFFFF0000) | 0x8000);
    });
    x.set(0, 0, std::bit_cast<float>(0x7F800001u));  // a NaN whose upper half looks like infinity
    x.set(0, 1, HUGE_VALF);
    cast({.x = x, .y = y}, *stream);
    Tensor back(DType::kF32, {rows, width}, 2);
    cast({.x = y, .y = back}, *stream);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < width; ++c) {
        REQUIRE(y->row<uint16_t>(r)[c] == f32_to_bf16(x.at(r, c)));
        REQUIRE((back.at(r, c) == y.at(r, c) || std::isnan(y.at(r, c))));
      }
    }
    CHECK(y.surroundings_untouched());
    CHECK(back.surroundings_untouched());
    Tensor copy(DType::kBf16, {rows, width});
    cast({.x = y, .y = copy}, *stream);
    CHECK(copy.row_bytes(5) == y.row_bytes(5));
  }
}

TEST_CASE("Embedding.TakesRowsOfEveryStoredType") {
  for (const CpuIsa isa : fast_isas()) {
    const auto slow = make_stream(CpuIsa::kReference), fast = make_stream(isa, 2);
    for (const DType type : {DType::kF32, DType::kBf16, DType::kF16}) {
      for (const int64_t width : kWidths) {
        Tensor table(type, {11, width}, 3);
        std::mt19937 random(4);
        for (int64_t r = 0; r < 11; ++r) {
          for (int64_t c = 0; c < width; ++c) {
            if (type == DType::kF32) {
              table.set(r, c, static_cast<float>(random()));
            } else {
              table.set_bits(r, c, static_cast<uint16_t>(random() % 0x7C00));  // subnormals too
            }
          }
        }
        const Tensor ids = int_tensor({10, 0, 3, 3, 7});
        Tensor y[2];
        for (int i = 0; i < 2; ++i) {
          y[i] = Tensor(DType::kF32, {5, width}, 1);
          embedding({.table = table, .ids = ids, .y = y[i]}, i ? *fast : *slow);
          CHECK(y[i].surroundings_untouched());
        }
        CHECK(worst_difference(y[1], y[0], 0.0, 0.0) == 0.0);
      }
    }
  }
}

TEST_CASE("GatherRows.CopiesRowsBitForBit") {
  for (const CpuIsa isa : fast_isas()) {
    const auto stream = make_stream(isa);
    for (const DType type : kResults) {
      Tensor x(type, {5, 9}, 2);
      x.fill_random(1);
      const Tensor rows = int_tensor({4, 1, 1}), none = int_tensor({});
      Tensor y(type, {3, 9}, 1);
      gather_rows({.x = x, .rows = rows, .y = y}, *stream);
      CHECK(y.row_bytes(0) == x.row_bytes(4));
      CHECK(y.row_bytes(2) == x.row_bytes(1));
      CHECK(y.surroundings_untouched());
      gather_rows({.x = x, .rows = none, .y = y->slice_rows(0, 0)}, *stream);
    }
  }
}

TEST_CASE("ElementwiseOps.DieOfMisshapenArgumentsAndSayWhich") {
  for (const CpuIsa isa : {CpuIsa::kReference, best_cpu_isa()}) {
    const auto stream = make_stream(isa);
    Tensor x(DType::kF32, {2, 8}), y(DType::kF32, {2, 8}), half(DType::kBf16, {2, 8});
    Tensor w(DType::kF32, {7}), wide(DType::kF32, {2, 9});
    const auto dies = [&](const std::function<void()>& f, const char* words) {
      const std::string said = dying_words(f);
      INFO(said);
      CHECK(said.find(words) != std::string::npos);
    };
    dies([&] { rms_norm({.y = y, .x = x, .w = w}, *stream); },
         "w has the wrong shape: got [7], expected [8]");
    dies([&] { rms_norm({.y = y, .x = half, .w = w}, *stream); }, "x has the wrong type BF16");
    dies([&] { swiglu({.gate_up = wide, .y = y}, *stream); }, "gate_up has the wrong shape");
    dies([&] { cast({.x = wide, .y = y}, *stream); }, "same shape");
    const Tensor id = int_tensor({2}), negative = int_tensor({-1});
    const TensorView row = y->slice_rows(0, 1);
    dies([&] { embedding({.table = x, .ids = id, .y = row}, *stream); }, "token id lies outside");
    dies([&] { embedding({.table = x, .ids = negative, .y = row}, *stream); },
         "token id lies outside");
    dies([&] { gather_rows({.x = x, .rows = id, .y = row}, *stream); }, "row lies outside");
    dies([&] { gather_rows({.x = half, .rows = id, .y = row}, *stream); },
         "y has the wrong type F32");
  }
}
