#include "kernels/cpu/cpu_stream.h"

namespace flotilla::cpu {
namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How `rows` rows of a weight are cut: into chunks of rows, whose panels of the weight stay in the
// cache, and each of these into ranges of panels. Results do not depend on it: every output is
// computed whole, by one task.
struct Cut {
  int64_t rows, rows_per_chunk, panels, ranges;

  Cut(int64_t num_rows, int64_t n, int64_t k, int num_threads)
      : rows(num_rows), panels(divide_up(n, kPanel)) {
    const int64_t chunks = std::max<int64_t>(divide_up(rows, kMaxGemmRows), 1);
    rows_per_chunk = divide_up(divide_up(rows, chunks), kGemmRows) * kGemmRows;
    // About four tasks a thread, unless they would be too small to be worth it.
    constexpr int64_t kWorthATask = 100'000;  // multiply-adds, with weights from memory
    const int64_t wanted = num_threads == 1 ? 1 : divide_up(4 * num_threads, chunks);
    ranges = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(panels, 1));
    ranges = std::min(ranges, std::max<int64_t>(rows * n * k / chunks / kWorthATask, 1));
  }

  int64_t tasks() const { return divide_up(rows, rows_per_chunk) * ranges; }

  // Sets the rows, counted from first_row, and panels of one task.
  void set(int64_t task, int64_t first_row, GemmTask& t) const {
    const int64_t chunk = task / ranges, range = task % ranges;
    t.row_begin = first_row + chunk * rows_per_chunk;
    t.row_end = std::min(t.row_begin + rows_per_chunk, first_row + rows);
    t.panel_begin = panels * range / ranges;
    t.panel_end = panels * (range + 1) / ranges;
  }
};

int64_t row_bytes(const TensorView& view) {
  return view.row_stride * static_cast<int64_t>(dtype_bytes(view.dtype));
}

GemmTask shared_task(const TensorView& x, const TensorView& y) {
  GemmTask t = {};
  t.x = x.as<char>();
  t.x_stride = row_bytes(x);
  t.x_type = stored_type(x.dtype);
  t.y = y.as<char>();
  t.y_stride = row_bytes(y);
  t.y_type = stored_type(y.dtype);
  t.n = y.cols();
  t.k = x.cols();
  return t;
}

}  // namespace

void linear(const LinearParams& p, Stream& stream) {
  if (p.x.rows() == 0) return;
  CpuStream& s = cpu_stream(stream);
  GemmTask shared = shared_task(p.x, p.y);
  shared.w = static_cast<const char*>(p.w.data);
  shared.w_type = stored_type(p.w.dtype);
  shared.bias = p.bias.as<float>();
  const Cut cut(p.x.rows(), shared.n, shared.k, s.num_threads());
  s.parallel_for(cut.tasks(), [&](int64_t task, int) {
    GemmTask t = shared;
    cut.set(task, 0, t);
    s.isa().gemm(t);
  });
}

void grouped_linear(const GroupedLinearParams& p, Stream& stream) {
  CpuStream& s = cpu_stream(stream);
  const int32_t* const offsets = p.offsets.as<int32_t>();
  GemmTask shared = shared_task(p.x, p.y);
  shared.x_rows = p.x_rows.as<int32_t>();
  shared.out_rows = p.out_rows.as<int32_t>();
  const auto cut_of = [&](int64_t g) {
    return Cut(offsets[g + 1] - offsets[g], shared.n, shared.k, s.num_threads());
  };
  int64_t tasks = 0;
  for (int64_t g = 0; g < p.num_groups; ++g) {
    check(offsets[g] <= offsets[g + 1], "grouped_linear: offsets must ascend");
    if (offsets[g] == offsets[g + 1]) continue;
    check(!p.w[g].empty(), "grouped_linear: a group with rows has no weight");
    tasks += cut_of(g).tasks();
  }
  s.parallel_for(tasks, [&](int64_t task, int) {
    int64_t g = 0;
    for (;; ++g) {
      if (offsets[g] == offsets[g + 1]) continue;
      const int64_t of_group = cut_of(g).tasks();
      if (task < of_group) break;
      task -= of_group;
    }
    GemmTask t = shared;
    t.w = static_cast<const char*>(p.w[g].data);
    t.w_type = stored_type(p.w[g].dtype);
    cut_of(g).set(task, offsets[g], t);
    s.isa().gemm(t);
  });
}

}  // namespace flotilla::cpu
