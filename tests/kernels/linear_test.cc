#include "kernels/linear.h"

#include "kernels/reference/reference_table.h"
#include "tests/kernels/kernel_test.h"

using namespace flotilla;

namespace {

constexpr DType kActivations[] = {DType::kF32, DType::kBf16};

// A weight of its own memory, packed by `stream`.
struct Weight {
  Weight(int64_t n, int64_t k, DType stored, const Stream& stream)
      : memory(packed_linear_bytes(n, k, stored, stream)), packed{memory.data(), n, k, stored} {}
  Weight(const Tensor& src, DType stored, const Stream& stream)
      : Weight(src->rows(), src->cols(), stored, stream) {
    pack_linear({.src = src, .dst = packed}, stream);
  }
  Workspace memory;
  PackedWeight packed;
};

Tensor random_weight(int64_t n, int64_t k, DType dtype, uint32_t seed) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(std::max<int64_t>(k, 1)));
  Tensor w(dtype, {n, k}, 3);
  w.fill_random(seed, 2.0f * scale);
  return w;
}

Tensor multiply(
    const Tensor& x, const Weight& w, DType out, Stream& stream, const TensorView& bias = {}) {
  Tensor y(out, {x->rows(), w.packed.n}, 5);
  linear({.x = x, .w = w.packed, .bias = bias, .y = y}, stream);
  CHECK(y.surroundings_untouched());
  return y;
}

}  // namespace

TEST_CASE("Linear.AgreesWithTheReferenceForEveryTypeAndOddShapes") {
  const auto slow = make_stream(CpuIsa::kReference);
  for (const CpuIsa isa : fast_isas()) {
    const auto fast = make_stream(isa);
    for (const DType activation : kActivations) {
      for (const DType stored : kActivations) {
        for (const auto& [t, n, k] : std::vector<std::array<int64_t, 3>>{{0, 5, 7},
                                                                         {1, 1, 1},
                                                                         {1, 33, 2},
                                                                         {2, 31, 3},
                                                                         {3, 32, 64},
                                                                         {5, 97, 33},
                                                                         {8, 64, 127},
                                                                         {9, 130, 96},
                                                                         {13, 7, 1},
                                                                         {101, 71, 65},
                                                                         {4, 40, 5003},
                                                                         {97, 33, 4100}}) {
          Tensor x(activation, {t, k}, 7);
          x.fill_random(1);
          const Tensor w = random_weight(n, k, DType::kF32, 2);
          Tensor bias(DType::kF32, {n});
          bias.fill_random(3);
          const Weight fast_w(w, stored, *fast), slow_w(w, stored, *slow);
          for (const DType out : kActivations) {
            INFO(cpu_isa_name(isa),
                 " ",
                 dtype_name(activation),
                 " ",
                 dtype_name(stored),
                 " ",
                 dtype_name(out),
                 " ",
                 t,
                 " ",
                 n,
                 " ",
                 k);
            CHECK(worst_difference(multiply(x, fast_w, out, *fast, bias),
                                   multiply(x, slow_w, out, *slow, bias),
                                   2e-5,
                                   tolerance(out)) <= 1.0);
          }
        }
      }
    }
  }
}

TEST_CASE("Linear.WithoutInputWidthGivesTheBias") {
  for (const CpuIsa isa : fast_isas()) {
    const auto stream = make_stream(isa);
    const Tensor x(DType::kF32, {2, 0}), w(DType::kF32, {3, 0});
    const Weight weight(w, DType::kBf16, *stream);
    Tensor bias(DType::kF32, {3});
    bias.fill([](int64_t i, int64_t) { return static_cast<float>(i); });
    const Tensor y = multiply(x, weight, DType::kF32, *stream, bias);
    CHECK(y.at(1, 2) == 2.0f);
  }
}

TEST_CASE("Linear.GivesARowTheSameBitsInAnyCompanyOnAnyNumberOfThreads") {
  const int64_t n = 200, k = 4163;
  for (const CpuIsa isa : fast_isas()) {
    for (const DType activation : kActivations) {
      for (const DType stored : kActivations) {
        Tensor x(activation, {513, k});
        x.fill_random(1);
        const auto one = make_stream(isa, 1);
        const Weight w(random_weight(n, k, DType::kF32, 2), stored, *one);
        std::vector<std::string> alone;
        for (const int64_t row : {0, 6, 63, 512}) {
          Tensor y(DType::kF32, {1, n});
          linear({.x = x->slice_rows(row, 1), .w = w.packed, .y = y}, *one);
          alone.push_back(y.row_bytes(0));
        }
        for (const int threads : {1, 2, 3}) {
          const auto stream = make_stream(isa, threads);
          for (const int64_t t : {1, 2, 7, 8, 64, 97, 513}) {
            Tensor y(DType::kF32, {t, n});
            linear({.x = x->slice_rows(0, t), .w = w.packed, .y = y}, *stream);
            INFO(cpu_isa_name(isa),
                 " ",
                 dtype_name(activation),
                 " ",
                 dtype_name(stored),
                 " ",
                 threads,
                 " ",
                 t);
            CHECK(y.row_bytes(0) == alone[0]);
            if (t >= 7) CHECK(y.row_bytes(6) == alone[1]);
            if (t >= 64) CHECK(y.row_bytes(63) == alone[2]);
            if (t == 513) CHECK(y.row_bytes(512) == alone[3]);
          }
        }
      }
    }
  }
}

TEST_CASE("Linear.GivesAnOutputTheSameBitsWhateverTheWidthOfTheWeight") {
  const int64_t k = 300;
  for (const CpuIsa isa : fast_isas()) {
    const auto stream = make_stream(isa, 2);
    Tensor x(DType::kBf16, {3, k});
    x.fill_random(1);
    const Tensor w = random_weight(120, k, DType::kBf16, 2);
    const Weight whole(w, DType::kBf16, *stream);
    Weight part(77, k, DType::kBf16, *stream);
    pack_linear({.src = w->slice_rows(0, 77), .dst = part.packed}, *stream);
    const Tensor y = multiply(x, whole, DType::kF32, *stream);
    const Tensor z = multiply(x, part, DType::kF32, *stream);
    for (int64_t r = 0; r < 3; ++r) CHECK(y.row_bytes(r).substr(0, 77 * 4) == z.row_bytes(r));
  }
}

TEST_CASE("Linear.NeverLetsPaddingTouchResults") {
  // K odd, N no multiple of a panel, and infinities that times zero would be NaN.
  for (const CpuIsa isa : fast_isas()) {
    const auto stream = make_stream(isa);
    for (const DType activation : kActivations) {
      Tensor x(activation, {1, 3});
      x.fill([](int64_t, int64_t) { return 1.0f; });
      Tensor w(DType::kF32, {33, 3});
      w.fill([](int64_t row, int64_t) { return static_cast<float>(row); });
      const Tensor y = multiply(x, Weight(w, DType::kBf16, *stream), DType::kF32, *stream);
      for (int64_t i = 0; i < 33; ++i) CHECK(y.at(0, i) == 3.0f * static_cast<float>(i));
    }
  }
}

TEST_CASE("PackLinear.TakesEveryTypeTransposedOrNotAndSeveralSources") {
  const auto slow = make_stream(CpuIsa::kReference);
  for (const CpuIsa isa : fast_isas()) {
    const auto fast = make_stream(isa);
    for (const DType source : {DType::kF32, DType::kBf16, DType::kF16, DType::kF8E4M3}) {
      for (const DType stored : kActivations) {
        for (const bool transposed : {false, true}) {
          for (const auto& [n1, n2, k] : std::vector<std::array<int64_t, 3>>{
                   {1, 1, 1}, {32, 64, 256}, {3, 62, 259}, {150, 13, 200}, {37, 0, 5}}) {
            const int64_t n = n1 + n2;
            std::mt19937 random(7);
            Weight fast_w(n, k, stored, *fast), slow_w(n, k, stored, *slow);
            // The second source first: any order.
            for (const auto& [first, rows] : {std::pair{n1, n2}, std::pair{int64_t{0}, n1}}) {
              Tensor src = transposed ? Tensor(source, {k, rows}, 5) : Tensor(source, {rows, k}, 5);
              Tensor scales;
              for (int64_t i = 0; i < src->rows(); ++i) {
                for (int64_t j = 0; j < src->cols(); ++j) {
                  if (source == DType::kF16) {
                    src.set_bits(
                        i, j, static_cast<uint16_t>(random() % 0x7C00 | (random() & 1) << 15));
                  } else if (source == DType::kF8E4M3) {
                    src.set_bits(
                        i, j, static_cast<uint16_t>(random() % 0x7F | (random() & 1) << 7));
                  } else {
                    src.set(i, j, static_cast<float>(static_cast<int32_t>(random())) * 0x1p-31f);
                  }
                }
              }
              if (source == DType::kF8E4M3) {
                scales =
                    Tensor(DType::kF32, {(src->rows() + 127) / 128, (src->cols() + 127) / 128}, 1);
                scales.fill_random(9);
              }
              for (auto* w : {&fast_w, &slow_w}) {
                pack_linear({.src = src,
                             .transposed = transposed,
                             .scales = scales,
                             .dst = w->packed,
                             .first_row = first},
                            w == &fast_w ? *fast : *slow);
              }
            }
            // Column k of the weight is the product with the k-th unit vector: exact.
            Tensor x(DType::kF32, {k, k});
            x.fill([](int64_t r, int64_t c) { return r == c ? 1.0f : 0.0f; });
            INFO(cpu_isa_name(isa),
                 " ",
                 dtype_name(source),
                 " ",
                 dtype_name(stored),
                 " ",
                 transposed,
                 " ",
                 n1,
                 " ",
                 n2,
                 " ",
                 k);
            CHECK(worst_difference(multiply(x, fast_w, DType::kF32, *fast),
                                   multiply(x, slow_w, DType::kF32, *slow),
                                   1e-30,
                                   0.0) <= 1.0);
            CHECK(fast_w.memory.surroundings_untouched());
          }
        }
      }
    }
  }
}

TEST_CASE("PackLinear.FillsEveryByteOfTheLayout") {
  for (const CpuIsa isa : fast_isas()) {
    const auto stream = make_stream(isa);
    const int64_t n = 35, k = 5;
    for (const DType stored : kActivations) {
      Tensor w(DType::kF32, {n, k});
      w.fill([](int64_t, int64_t) { return 0.0f; });
      const Weight weight(w, stored, *stream);
      const auto* bytes = static_cast<const char*>(weight.packed.data);
      const size_t size = packed_linear_bytes(n, k, stored, *stream);
      CHECK(std::count(bytes, bytes + size, 0) == static_cast<int64_t>(size));
    }
  }
}

TEST_CASE("GroupedLinear.AgreesWithTheReferenceAndWritesOnlyTheNamedRows") {
  const auto slow = make_stream(CpuIsa::kReference);
  const int64_t n = 70, k = 45, tokens = 130;
  // Groups of 0, 1, 3, 0, 100 and 8 rows.
  const std::vector<int32_t> offsets{0, 0, 1, 4, 4, 104, 112};
  const int64_t groups = 6, rows = offsets.back();
  std::mt19937 random(5);
  std::vector<int32_t> x_rows, out_rows;
  for (int32_t r = 0; r < rows; ++r) {
    x_rows.push_back(static_cast<int32_t>(random() % tokens));
    out_rows.push_back(r * 2 + 1);
  }
  std::shuffle(out_rows.begin(), out_rows.end(), random);
  const Tensor x_index = int_tensor(x_rows), out_index = int_tensor(out_rows),
               offset = int_tensor(offsets);

  for (const CpuIsa isa : fast_isas()) {
    for (const DType activation : kActivations) {
      Tensor x(activation, {tokens, k}, 1);
      x.fill_random(1);
      const auto fast = make_stream(isa, 2);
      Tensor results[2];
      std::vector<Weight> kept;
      for (int pass = 0; pass < 2; ++pass) {
        Stream& stream = pass ? *fast : *slow;
        std::vector<PackedWeight> w(static_cast<size_t>(groups));
        for (int64_t g = 0; g < groups; ++g) {
          if (g == 3) continue;  // a group without rows needs no weight
          kept.emplace_back(
              random_weight(n, k, DType::kF32, static_cast<uint32_t>(g)), DType::kBf16, stream);
          w[static_cast<size_t>(g)] = kept.back().packed;
        }
        results[pass] = Tensor(DType::kF32, {2 * rows + 2, n}, 3);
        grouped_linear({.x = x,
                        .x_rows = x_index,
                        .offsets = offset,
                        .w = w.data(),
                        .num_groups = groups,
                        .out_rows = out_index,
                        .y = results[pass]},
                       stream);
      }
      INFO(cpu_isa_name(isa), " ", dtype_name(activation));
      CHECK(worst_difference(results[1], results[0], 2e-5, 4e-6) <= 1.0);
      for (int64_t r = 0; r < rows; ++r) CHECK(std::isnan(results[1].at(2 * r, 0)));
      // Grouped as single, bit for bit.
      for (int64_t g : {1, 4}) {
        for (int32_t r = offsets[static_cast<size_t>(g)]; r < offsets[static_cast<size_t>(g + 1)];
             ++r) {
          const size_t at = static_cast<size_t>(r);
          const Weight w(
              random_weight(n, k, DType::kF32, static_cast<uint32_t>(g)), DType::kBf16, *fast);
          Tensor y(DType::kF32, {1, n});
          linear({.x = x->slice_rows(x_rows[at], 1), .w = w.packed, .y = y}, *fast);
          REQUIRE(y.row_bytes(0) == results[1].row_bytes(out_rows[at]));
        }
      }
    }
  }
}

TEST_CASE("GroupedLinear.WithoutIndicesTakesRowsInPlace") {
  for (const CpuIsa isa : fast_isas()) {
    const auto stream = make_stream(isa);
    Tensor x(DType::kF32, {3, 4});
    x.fill_random(1);
    const Weight w(random_weight(6, 4, DType::kF32, 2), DType::kF32, *stream);
    const Tensor offsets = int_tensor({0, 3});
    Tensor y(DType::kF32, {3, 6});
    grouped_linear({.x = x, .offsets = offsets, .w = &w.packed, .num_groups = 1, .y = y}, *stream);
    CHECK(worst_difference(y, multiply(x, w, DType::kF32, *stream), 0.0, 0.0) == 0.0);
    const Tensor none = int_tensor({0});
    grouped_linear({.x = x, .offsets = none, .y = y}, *stream);  // no groups at all
  }
}

TEST_CASE("Linear.DiesOfMisshapenArgumentsAndSaysWhich") {
  for (const CpuIsa isa : {CpuIsa::kReference, best_cpu_isa()}) {
    const auto stream = make_stream(isa);
    Tensor x(DType::kF32, {2, 8}), y(DType::kF32, {2, 4}), narrow(DType::kF32, {2, 7});
    const Tensor src(DType::kF32, {4, 8});
    Weight w(4, 8, DType::kF32, *stream);
    const auto dies = [&](const std::function<void()>& f, const char* words) {
      const std::string said = dying_words(f);
      CAPTURE(said);
      CHECK(said.find(words) != std::string::npos);
    };
    dies([&] { linear({.x = narrow, .w = w.packed, .y = y}, *stream); }, "expected [4, 7]");
    dies([&] { linear({.x = x, .w = {}, .y = y}, *stream); }, "w is empty");
    dies([&] { linear({.x = int_tensor({1}).view(), .w = w.packed, .y = y}, *stream); },
         "x has the wrong shape");
    dies([&] { pack_linear({.src = src, .dst = w.packed, .first_row = 1}, *stream); },
         "lie outside of 4");
    dies([&] { pack_linear({.src = src, .scales = src, .dst = w.packed}, *stream); },
         "needs scales");
    dies([&] { (void)packed_linear_bytes(4, 8, DType::kF16, *stream); }, "stored as F32 or BF16");
    dies(
        [&] {
          PackedWeight odd = w.packed;
          odd.data = static_cast<char*>(odd.data) + 4;
          pack_linear({.src = src, .dst = odd}, *stream);
        },
        "aligned to 64");
    const Tensor offsets = int_tensor({0, 2}), back = int_tensor({0, 2, 1});
    const PackedWeight none[2] = {};
    dies(
        [&] {
          grouped_linear({.x = x, .offsets = offsets, .w = none, .num_groups = 1, .y = y}, *stream);
        },
        "no weight");
    if (isa == CpuIsa::kReference) continue;
    dies(
        [&] {
          const PackedWeight both[2] = {w.packed, w.packed};
          grouped_linear({.x = x, .offsets = back, .w = both, .num_groups = 2, .y = y}, *stream);
        },
        "must ascend");
  }
}
