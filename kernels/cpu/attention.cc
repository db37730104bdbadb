#include "kernels/cpu/cpu_stream.h"

namespace flotilla::cpu {
namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

// The tasks of one sequence that has rows in this step.
struct Share {
  int64_t sequence;
  int64_t first_task;
  // Partial results of its splits, [KV head][split]: a decode step over a long context is cut there
  // too. -1: no.
  int64_t first_partial;
};

// What lies in the workspace. All sizes grow with rows and context, so that a workspace for the
// most of both serves any step.
struct Workspace {
  int64_t scratch_bytes;   // of one thread
  int64_t shares_bytes;    // one Share a row
  int64_t partial_floats;  // of one (row, KV head, split)
  int64_t partials;        // how many there is room for
  int64_t bytes;

  Workspace(const CpuStream& s, int64_t rows, int64_t group, int64_t context, const KvLayout& l) {
    scratch_bytes = s.isa().attention_scratch_bytes(group, l.head_dim);
    shares_bytes = round_up(rows * static_cast<int64_t>(sizeof(Share)), 64);
    partial_floats = group * s.isa().attention_partial_floats(l.head_dim);
    // Enough to keep all threads busy with one long sequence.
    const int64_t splits = divide_up(context, kSplit);
    const bool useful = splits > 1 && s.num_threads() > 1;
    partials = useful ? (splits + 2 * s.num_threads()) * l.num_kv_heads : 0;
    bytes = scratch_bytes * s.num_threads() + shares_bytes + partials * partial_floats * 4;
  }
};

class Attention {
 public:
  Attention(const PagedAttentionParams& p, CpuStream& s)
      : p_(p),
        s_(s),
        l_(p.layout),
        group_(p.q.shape[1] / p.layout.num_kv_heads),
        rows_per_task_(std::max<int64_t>(kMaxQueryVectors / group_, 1)),
        workspace_(s, p.q.rows(), group_, longest_context(), p.layout),
        scratch_(static_cast<char*>(p.workspace)),
        shares_(reinterpret_cast<Share*>(scratch_ + workspace_.scratch_bytes * s.num_threads())),
        partials_(
            reinterpret_cast<float*>(reinterpret_cast<char*>(shares_) + workspace_.shares_bytes)) {
    const auto element = static_cast<int64_t>(dtype_bytes(l_.dtype));
    const auto q_element = static_cast<int64_t>(dtype_bytes(p.q.dtype));
    const auto out_element = static_cast<int64_t>(dtype_bytes(p.out.dtype));
    q_head_bytes_ = group_ * l_.head_dim * q_element;
    out_head_bytes_ = group_ * l_.head_dim * out_element;
    kv_head_bytes_ = l_.head_elements() * element;
    shared_.q_stride = p.q.row_stride * q_element;
    shared_.q_type = stored_type(p.q.dtype);
    shared_.out_stride = p.out.row_stride * out_element;
    shared_.out_type = stored_type(p.out.dtype);
    shared_.cache_type = stored_type(l_.dtype);
    shared_.group = group_;
    shared_.head_dim = l_.head_dim;
    shared_.scale = p.scale;
    const auto* const cache = static_cast<const char*>(p.cache);
    shared_.keys = cache + l_.offset(p.layer, 0, 0, 0) * element;
    shared_.values = cache + l_.offset(p.layer, 0, 1, 0) * element;
    shared_.block_stride = l_.block_elements() * element;
    shared_.block_size = l_.block_size;
  }

  void run() {
    const int64_t tasks = divide();
    s_.parallel_for(tasks, [&](int64_t task, int thread) { attend(task, thread); });
    const int64_t heads = l_.num_kv_heads;
    for (int64_t i = 0; i < num_shares_; ++i) {
      if (shares_[i].first_partial < 0) continue;
      for (int64_t head = 0; head < heads; ++head) merge(shares_[i], head);
    }
  }

 private:
  int64_t rows(int64_t sequence) const {
    const int32_t* const offsets = p_.q_offsets.as<int32_t>();
    return offsets[sequence + 1] - offsets[sequence];
  }
  int64_t context(int64_t sequence) const { return p_.context.as<int32_t>()[sequence]; }
  int64_t splits(int64_t sequence) const { return divide_up(context(sequence), kSplit); }
  int64_t longest_context() const {
    int64_t longest = 0;
    for (int64_t i = 0; i < p_.context.rows(); ++i) longest = std::max(longest, context(i));
    return longest;
  }

  // Fills shares_; returns the number of tasks.
  int64_t divide() {
    int64_t tasks = 0, partials = 0;
    for (int64_t i = 0; i < p_.context.rows(); ++i) {
      if (rows(i) == 0) continue;
      check(rows(i) > 0 && context(i) >= rows(i),
            "paged_attention: a context is shorter than its rows");
      Share share{i, tasks, -1};
      const int64_t needed = splits(i) * l_.num_kv_heads;
      if (rows(i) == 1 && splits(i) > 1 && partials + needed <= workspace_.partials) {
        share.first_partial = partials;
        partials += needed;
        tasks += needed;
      } else {
        tasks += divide_up(rows(i), rows_per_task_) * l_.num_kv_heads;
      }
      shares_[num_shares_++] = share;
    }
    return tasks;
  }

  void attend(int64_t task, int thread) const {
    const Share& share = *std::prev(
        std::upper_bound(shares_, shares_ + num_shares_, task, [](int64_t t, const Share& s) {
          return t < s.first_task;
        }));
    const int64_t i = share.sequence, piece = (task - share.first_task) / l_.num_kv_heads;
    const int64_t head = (task - share.first_task) % l_.num_kv_heads;
    AttentionTask t = shared_;
    int64_t first_row = 0;
    t.rows = 1;
    if (share.first_partial >= 0) {
      t.split_begin = piece;
      t.split_end = piece + 1;
      t.partial = partial(share, head, piece);
    } else {
      // Late rows see most: they come first, so that the last task to be claimed is a short one.
      const int64_t chunks = divide_up(rows(i), rows_per_task_);
      first_row = (chunks - 1 - piece) * rows_per_task_;
      t.rows = std::min(rows_per_task_, rows(i) - first_row);
      t.split_end = divide_up(context(i) - rows(i) + first_row + t.rows, kSplit);
    }
    t.first_position = context(i) - rows(i) + first_row;
    const int64_t row = p_.q_offsets.as<int32_t>()[i] + first_row;
    t.q = static_cast<const char*>(p_.q.data) + row * t.q_stride + head * q_head_bytes_;
    t.out = static_cast<char*>(p_.out.data) + row * t.out_stride + head * out_head_bytes_;
    t.keys += head * kv_head_bytes_;
    t.values += head * kv_head_bytes_;
    t.block_table = p_.block_table.row<int32_t>(i);
    t.scratch = scratch_ + thread * workspace_.scratch_bytes;
    s_.isa().attention(t);
  }

  void merge(const Share& share, int64_t head) const {
    const int64_t row = p_.q_offsets.as<int32_t>()[share.sequence];
    s_.isa().merge_attention(
        {.partials = partial(share, head, 0),
         .splits = splits(share.sequence),
         .group = group_,
         .head_dim = l_.head_dim,
         .out = static_cast<char*>(p_.out.data) + row * shared_.out_stride + head * out_head_bytes_,
         .out_type = shared_.out_type});
  }

  float* partial(const Share& share, int64_t head, int64_t split) const {
    const int64_t index = share.first_partial + head * splits(share.sequence) + split;
    return partials_ + index * workspace_.partial_floats;
  }

  const PagedAttentionParams& p_;
  CpuStream& s_;
  const KvLayout& l_;
  const int64_t group_;  // query heads of one KV head
  const int64_t rows_per_task_;
  const Workspace workspace_;
  char* const scratch_;
  Share* const shares_;
  float* const partials_;
  AttentionTask shared_ = {};
  int64_t q_head_bytes_, out_head_bytes_, kv_head_bytes_;
  int64_t num_shares_ = 0;
};

}  // namespace

void paged_attention(const PagedAttentionParams& p, Stream& stream) {
  Attention(p, cpu_stream(stream)).run();
}

size_t paged_attention_workspace_bytes(int64_t max_rows,
                                       int64_t num_heads,
                                       int64_t max_context,
                                       const KvLayout& layout,
                                       const Stream& stream) {
  const Workspace workspace(
      cpu_stream(stream), max_rows, num_heads / layout.num_kv_heads, max_context, layout);
  return static_cast<size_t>(workspace.bytes);
}

}  // namespace flotilla::cpu
