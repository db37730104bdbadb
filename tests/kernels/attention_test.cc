#include "kernels/paged_attention.h"
#include "kernels/rope_cache.h"
#include "tests/kernels/kernel_test.h"

using namespace flotilla;

namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kBf16};

// A pool whose every slot is NaN until it is written.
struct Cache {
  explicit Cache(const KvLayout& l) : layout(l), memory(l.bytes()) {}

  float at(int64_t block, int which, int64_t head, int64_t token, int64_t dim) const {
    const int64_t i = index(block, which, head, token, dim);
    if (layout.dtype == DType::kF32) return static_cast<const float*>(memory.data())[i];
    return bf16_to_f32(static_cast<const uint16_t*>(memory.data())[i]);
  }
  void set(int64_t block, int which, int64_t head, int64_t token, int64_t dim, float value) {
    const int64_t i = index(block, which, head, token, dim);
    if (layout.dtype == DType::kF32) {
      static_cast<float*>(memory.data())[i] = value;
    } else {
      static_cast<uint16_t*>(memory.data())[i] = f32_to_bf16(value);
    }
  }
  int64_t index(int64_t block, int which, int64_t head, int64_t token, int64_t dim) const {
    return layout.offset(layer, block, which, head) + token * layout.head_dim + dim;
  }

  KvLayout layout;
  int64_t layer = 1;
  Workspace memory;
};

KvLayout make_layout(
    int64_t blocks, int64_t block_size, int64_t kv_heads, int64_t head_dim, DType t) {
  return {.num_layers = 2,
          .num_blocks = blocks,
          .block_size = block_size,
          .num_kv_heads = kv_heads,
          .head_dim = head_dim,
          .dtype = t};
}

// What K or V of a token of a sequence is: the same in whatever block it lies.
float content(int64_t sequence, int64_t token, int which, int64_t head, int64_t dim) {
  uint64_t x = static_cast<uint64_t>(((sequence * 7919 + token) * 2 + which) * 64 + head) * 512 +
               static_cast<uint64_t>(dim);
  x = (x ^ x >> 31) * 0x9E3779B97F4A7C15;
  x = (x ^ x >> 29) * 0xBF58476D1CE4E5B9;
  return static_cast<float>(static_cast<int32_t>(x >> 32)) * 0x1p-31f;
}
float query(int64_t sequence, int64_t token, int64_t column) {
  return 3.0f * content(sequence + 100, token, 0, column / 256, column % 256);
}

struct Sequence {
  int64_t id;
  int64_t rows;     // in this step
  int64_t context;  // after it
};

struct Shape {
  int64_t heads, kv_heads, head_dim, block_size;
  DType q, cache, out;
};

// Runs the sequences in one step; returns the outputs, a row for a token.
Tensor attend(const std::vector<Sequence>& sequences, const Shape& shape, Stream& stream) {
  int64_t rows = 0, longest = 1, blocks = 0;
  const auto blocks_of = [&](int64_t context) {
    return (context + shape.block_size - 1) / shape.block_size;
  };
  for (const Sequence& s : sequences) {
    rows += s.rows;
    longest = std::max(longest, s.context);
    blocks += blocks_of(s.context);
  }
  Cache cache(
      make_layout(blocks + 3, shape.block_size, shape.kv_heads, shape.head_dim, shape.cache));
  const auto num_sequences = static_cast<int64_t>(sequences.size());
  Tensor table(DType::kI32, {num_sequences, blocks_of(longest)}, 2);
  table.fill([](int64_t, int64_t) { return -1.0f; });  // entries behind a context
  std::vector<int32_t> free(static_cast<size_t>(blocks + 3)), offsets{0}, contexts;
  for (size_t i = 0; i < free.size(); ++i) free[i] = static_cast<int32_t>(i);
  std::mt19937 random(11);
  std::shuffle(free.begin(), free.end(), random);

  Tensor q(shape.q, {rows, shape.heads, shape.head_dim}, 5);
  Tensor out(shape.out, {rows, shape.heads, shape.head_dim}, 3);
  for (int64_t i = 0; i < num_sequences; ++i) {
    const Sequence& s = sequences[static_cast<size_t>(i)];
    for (int64_t b = 0; b < blocks_of(s.context); ++b) {
      table->row<int32_t>(i)[b] = free.back();
      free.pop_back();
    }
    for (int64_t t = 0; t < s.context; ++t) {
      const int64_t block = table->row<int32_t>(i)[t / shape.block_size];
      for (int which = 0; which < 2; ++which) {
        for (int64_t h = 0; h < shape.kv_heads; ++h) {
          for (int64_t d = 0; d < shape.head_dim; ++d) {
            cache.set(block, which, h, t % shape.block_size, d, content(s.id, t, which, h, d));
          }
        }
      }
    }
    for (int64_t j = 0; j < s.rows; ++j) {
      for (int64_t c = 0; c < q->cols(); ++c) {
        q.set(offsets.back() + j, c, query(s.id, s.context - s.rows + j, c));
      }
    }
    offsets.push_back(offsets.back() + static_cast<int32_t>(s.rows));
    contexts.push_back(static_cast<int32_t>(s.context));
  }
  const Tensor q_offsets = int_tensor(offsets), context = int_tensor(contexts);
  const Workspace workspace(
      paged_attention_workspace_bytes(rows, shape.heads, longest, cache.layout, stream));
  paged_attention({.q = q,
                   .out = out,
                   .q_offsets = q_offsets,
                   .context = context,
                   .block_table = table,
                   .scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim)),
                   .cache = cache.memory.data(),
                   .layout = cache.layout,
                   .layer = cache.layer,
                   .workspace = workspace.data()},
                  stream);
  CHECK(out.surroundings_untouched());
  CHECK(workspace.surroundings_untouched());
  return out;
}

const Shape kSmall{6, 2, 32, 16, DType::kBf16, DType::kBf16, DType::kF32};

std::string rows_of(const Tensor& t, int64_t begin, int64_t n) {
  std::string bytes;
  for (int64_t r = begin; r < begin + n; ++r) bytes += t.row_bytes(r);
  return bytes;
}

// Every combination of types for which an instruction set has a path of its own.
std::vector<Shape> exactness_shapes() {
  std::vector<Shape> shapes;
  for (const DType q : kTypes) {
    for (const DType cache : kTypes) shapes.push_back({6, 2, 32, 16, q, cache, DType::kF32});
  }
  shapes.push_back({5, 1, 64, 64, DType::kBf16, DType::kBf16, DType::kF32});
  return shapes;
}

}  // namespace

TEST_CASE("PagedAttention.AgreesWithTheReferenceForEveryTypeAndOddShapes") {
  const auto slow = make_stream(CpuIsa::kReference);
  const std::vector<Sequence> sequences{
      {0, 1, 1}, {1, 5, 5}, {2, 1, 130}, {3, 70, 70}, {4, 9, 66}, {5, 0, 3}, {6, 1, 64}};
  for (const auto& [heads, kv_heads, d, block_size] :
       std::vector<std::array<int64_t, 4>>{{1, 1, 2, 1},
                                           {3, 3, 16, 64},
                                           {6, 2, 34, 7},
                                           {5, 1, 64, 16},
                                           {8, 1, 80, 100},
                                           {9, 3, 64, 64},
                                           {4, 2, 128, 13},
                                           {2, 1, 256, 5}}) {
    for (const DType cache : kTypes) {
      for (const DType q : kTypes) {
        for (const DType out : kTypes) {
          const Shape shape{heads, kv_heads, d, block_size, q, cache, out};
          const Tensor expected = attend(sequences, shape, *slow);
          for (const CpuIsa isa : fast_isas()) {
            const Tensor got = attend(sequences, shape, *make_stream(isa, 2));
            INFO(cpu_isa_name(isa),
                 " heads ",
                 heads,
                 " ",
                 kv_heads,
                 " d ",
                 d,
                 " block ",
                 block_size,
                 " types ",
                 dtype_name(q),
                 " ",
                 dtype_name(cache),
                 " ",
                 dtype_name(out));
            CHECK(worst_difference(got, expected, 4e-6, tolerance(out)) <= 1.0);
          }
        }
      }
    }
  }
}

TEST_CASE("PagedAttention.AgreesWithTheReferenceOverSeveralSplits") {
  const auto slow = make_stream(CpuIsa::kReference);
  const std::vector<Sequence> sequences{
      {0, 1, 2500}, {1, 30, 1040}, {2, 1, 1024}, {3, 1, 1025}, {4, 1, 7}};
  for (const DType cache : kTypes) {
    const Shape shape{6, 2, 16, 64, cache, cache, DType::kF32};
    const Tensor expected = attend(sequences, shape, *slow);
    for (const CpuIsa isa : fast_isas()) {
      for (const int threads : {1, 2, 3}) {
        INFO(cpu_isa_name(isa), " ", threads);
        CHECK(worst_difference(
                  attend(sequences, shape, *make_stream(isa, threads)), expected, 4e-6, 4e-6) <=
              1.0);
      }
    }
  }
}

TEST_CASE("PagedAttention.WithManyQueryHeadsOfOneKvHead") {
  const auto slow = make_stream(CpuIsa::kReference);
  const Shape shape{101, 1, 16, 16, DType::kF32, DType::kF32, DType::kF32};
  const std::vector<Sequence> sequences{{0, 3, 20}};
  const Tensor expected = attend(sequences, shape, *slow);
  for (const CpuIsa isa : fast_isas()) {
    CHECK(worst_difference(attend(sequences, shape, *make_stream(isa, 2)), expected, 4e-6, 4e-6) <=
          1.0);
  }
}

TEST_CASE("PagedAttention.GivesARowTheSameBitsHoweverThePromptIsCut") {
  for (const CpuIsa isa : fast_isas()) {
    const auto stream = make_stream(isa, 2);
    for (const Shape& shape : exactness_shapes()) {
      const int64_t n = 1100;  // over a split
      const Tensor whole = attend({{0, n, n}}, shape, *stream);
      INFO(cpu_isa_name(isa), " ", dtype_name(shape.q), " ", dtype_name(shape.cache));
      for (const auto& [begin, end] : std::vector<std::pair<int64_t, int64_t>>{
               {0, 1}, {0, 7}, {7, 71}, {71, 584}, {584, 1030}, {1030, n}, {1000, 1064}}) {
        const Tensor part = attend({{0, end - begin, end}}, shape, *stream);
        CHECK(rows_of(part, 0, end - begin) == rows_of(whole, begin, end - begin));
      }
      // Decode: one row at a time.
      for (const int64_t position : {0, 1, 62, 63, 64, 511, 1023, 1024, 1099}) {
        const Tensor row = attend({{0, 1, position + 1}}, shape, *stream);
        CHECK(row.row_bytes(0) == whole.row_bytes(position));
      }
    }
  }
}

TEST_CASE("PagedAttention.GivesARowTheSameBitsInAnyCompanyOnAnyNumberOfThreads") {
  for (const CpuIsa isa : fast_isas()) {
    for (const Shape& shape : exactness_shapes()) {
      const Tensor alone = attend({{0, 1, 2100}}, shape, *make_stream(isa, 1));
      const Tensor prompt = attend({{7, 40, 90}}, shape, *make_stream(isa, 1));
      for (const int threads : {1, 2, 3}) {
        INFO(cpu_isa_name(isa), " ", threads);
        const auto stream = make_stream(isa, threads);
        // So many long ones that not all find room to be cut.
        std::vector<Sequence> crowd{{3, 100, 100}, {7, 40, 90}, {4, 1, 2049}};
        for (int64_t i = 10; i < 16; ++i) crowd.push_back({i, 1, 2000 + i});
        crowd.push_back({0, 1, 2100});
        const Tensor all = attend(crowd, shape, *stream);
        CHECK(all.row_bytes(all->rows() - 1) == alone.row_bytes(0));
        CHECK(rows_of(all, 100, 40) == rows_of(prompt, 0, 40));
        std::reverse(crowd.begin(), crowd.end());
        const Tensor reversed = attend(crowd, shape, *stream);
        CHECK(reversed.row_bytes(0) == alone.row_bytes(0));
      }
    }
  }
}

TEST_CASE("PagedAttention.GivesTheSameBitsForEveryBlockSize") {
  for (const CpuIsa isa : fast_isas()) {
    const auto stream = make_stream(isa, 2);
    for (Shape shape : exactness_shapes()) {
      const std::vector<Sequence> sequences{{0, 1, 1200}, {1, 77, 150}};
      const Tensor first = attend(sequences, shape, *stream);
      for (const int64_t block_size : {1, 3, 64, 100, 5000}) {
        shape.block_size = block_size;
        INFO(cpu_isa_name(isa), " ", block_size);
        CHECK(rows_of(attend(sequences, shape, *stream), 0, 78) == rows_of(first, 0, 78));
      }
    }
  }
}

TEST_CASE("PagedAttention.WithoutRowsDoesNothing") {
  for (const CpuIsa isa : {CpuIsa::kReference, best_cpu_isa()}) {
    const Tensor out = attend({{0, 0, 5}}, kSmall, *make_stream(isa));
    CHECK(out->rows() == 0);
  }
}

TEST_CASE("PagedAttention.DiesOfMisshapenArgumentsAndSaysWhich") {
  for (const CpuIsa isa : {CpuIsa::kReference, best_cpu_isa()}) {
    const auto stream = make_stream(isa);
    const auto dies = [&](const Shape& shape, const Sequence& sequence, const char* words) {
      const std::string said = dying_words([&] { attend({sequence}, shape, *stream); });
      INFO(said);
      CHECK(said.find(words) != std::string::npos);
    };
    Shape heads = kSmall, odd = kSmall, type = kSmall;
    heads.heads = 5;
    odd.head_dim = 7;
    type.q = DType::kI32;
    dies(heads, {0, 1, 1}, "5 query heads are no multiple of 2 KV heads");
    dies(odd, {0, 1, 1}, "head_dim is 7, expected an even number up to 256");
    dies(type, {0, 1, 1}, "q has the wrong type I32");
    dies(kSmall, {0, 3, 2}, "a context is shorter than its rows");
  }
}

TEST_CASE("RopeCache.AgreesWithTheReferenceAndWritesOnlyTheNamedSlots") {
  const int64_t tokens = 37, positions = 300;
  for (const auto& [heads, kv_heads, d, block_size] :
       std::vector<std::array<int64_t, 4>>{{1, 1, 2, 1},
                                           {3, 1, 6, 7},
                                           {5, 1, 64, 16},
                                           {4, 2, 80, 64},
                                           {2, 2, 128, 5},
                                           {1, 1, 256, 9}}) {
    Tensor qkv(DType::kF32, {tokens, (heads + 2 * kv_heads) * d}, 3);
    qkv.fill_random(1, 2.0f);
    Tensor q_norm(DType::kF32, {d}), k_norm(DType::kF32, {d});
    q_norm.fill_random(2);
    k_norm.fill_random(3);
    Tensor cos(DType::kF32, {positions, d / 2}, 1), sin(DType::kF32, {positions, d / 2}, 2);
    const auto angle = [&](int64_t p, int64_t j) {
      return static_cast<float>(p) *
             std::pow(1e4f, -2.0f * static_cast<float>(j) / static_cast<float>(d));
    };
    cos.fill([&](int64_t p, int64_t j) { return std::cos(angle(p, j)); });
    sin.fill([&](int64_t p, int64_t j) { return std::sin(angle(p, j)); });
    std::vector<int32_t> at, slots;
    for (int32_t t = 0; t < tokens; ++t) {
      at.push_back(t * 8);
      slots.push_back(t % 5 == 3 ? -1 : t * 2 + 1);
    }
    const Tensor position = int_tensor(at), slot = int_tensor(slots);
    const int64_t blocks = (2 * tokens + block_size) / block_size + 1;

    for (const DType cache_type : kTypes) {
      for (const DType q_type : kTypes) {
        for (const RopeStyle style : {RopeStyle::kHalf, RopeStyle::kInterleaved}) {
          for (const bool norms : {false, true}) {
            const KvLayout layout = make_layout(blocks, block_size, kv_heads, d, cache_type);
            const auto run = [&](Stream& stream, Cache& cache) {
              Tensor q(q_type, {tokens, heads, d}, 1);
              rope_cache({.qkv = qkv,
                          .q_norm = norms ? q_norm.view() : TensorView(),
                          .k_norm = norms ? k_norm.view() : TensorView(),
                          .eps = 1e-5f,
                          .style = style,
                          .cos = cos,
                          .sin = sin,
                          .positions = position,
                          .slots = slot,
                          .q = q,
                          .cache = cache.memory.data(),
                          .layout = layout,
                          .layer = cache.layer},
                         stream);
              CHECK(q.surroundings_untouched());
              return q;
            };
            Cache slow(layout);
            const Tensor expected = run(*make_stream(CpuIsa::kReference), slow);
            for (const CpuIsa isa : fast_isas()) {
              Cache fast(layout);
              const Tensor got = run(*make_stream(isa, 2), fast);
              INFO(cpu_isa_name(isa),
                   " d ",
                   d,
                   " ",
                   dtype_name(cache_type),
                   " ",
                   dtype_name(q_type),
                   " ",
                   norms);
              CHECK(worst_difference(got, expected, 1e-6, tolerance(q_type)) <= 1.0);
              double worst = 0.0;
              for (int64_t s = 0; s < blocks * block_size; ++s) {
                for (int which = 0; which < 2; ++which) {
                  for (int64_t h = 0; h < kv_heads; ++h) {
                    for (int64_t i = 0; i < d; ++i) {
                      const double a = fast.at(s / block_size, which, h, s % block_size, i);
                      const double b = slow.at(s / block_size, which, h, s % block_size, i);
                      if (std::isnan(a) && std::isnan(b)) continue;
                      worst = std::max(
                          worst, std::abs(a - b) / (1e-6 + tolerance(cache_type) * std::abs(b)));
                    }
                  }
                }
              }
              CHECK(worst <= 1.0);
              CHECK(fast.memory.surroundings_untouched());
              // Nothing in the other layer.
              CHECK(static_cast<const unsigned char*>(fast.memory.data())[0] == 0xFF);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("RopeCache.DiesOfWhatLiesOutsideAndSaysWhat") {
  for (const CpuIsa isa : {CpuIsa::kReference, best_cpu_isa()}) {
    const auto stream = make_stream(isa);
    const KvLayout layout = make_layout(2, 4, 1, 8, DType::kF32);
    Cache cache(layout);
    Tensor qkv(DType::kF32, {1, 24}), table(DType::kF32, {3, 4}), q(DType::kF32, {1, 1, 8});
    qkv.fill_random(1);
    table.fill_random(2);
    const auto dies = [&](int32_t position, int32_t slot, int64_t layer, const char* words) {
      const Tensor positions = int_tensor({position}), slots = int_tensor({slot});
      const std::string said = dying_words([&] {
        rope_cache({.qkv = qkv,
                    .cos = table,
                    .sin = table,
                    .positions = positions,
                    .slots = slots,
                    .q = q,
                    .cache = cache.memory.data(),
                    .layout = layout,
                    .layer = layer},
                   *stream);
      });
      INFO(said);
      CHECK(said.find(words) != std::string::npos);
    };
    dies(3, 0, 0, "a position lies outside of the table");
    dies(0, 8, 0, "a slot lies outside of the pool");
    dies(0, 0, 2, "no such layer");
  }
}
