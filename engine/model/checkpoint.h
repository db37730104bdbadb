// The weights of a model directory: one safetensors file or several with an index. Every tensor is
// claimed once, by name and shape; what nobody claimed is an error too, so a checkpoint of another
// model cannot half-load.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/mutex.h"
#include "common/status.h"
#include "engine/model/safetensors.h"
#include "kernels/tensor_view.h"

namespace flotilla {

// Host memory that holds a tensor's values; `owned` keeps generated values alive, a mapped file
// needs none.
struct HostTensor {
  TensorView view;
  std::shared_ptr<const std::vector<std::byte>> owned;
};

// Where tensors come from: files, or a generator of dummy weights. Threads: any.
class TensorSource {
 public:
  virtual ~TensorSource() = default;

  virtual bool has(std::string_view name) const = 0;
  // kNotFound if there is no such tensor.
  virtual StatusOr<DType> dtype(const std::string& name) const = 0;
  // The values, claimed. kInvalidArgument names the tensor, what was expected and what was found.
  virtual StatusOr<HostTensor> claim(const std::string& name,
                                     const std::vector<int64_t>& shape) = 0;
  // Marks as known without reading a byte (experts of other ranks). Same checks.
  virtual Status claim_unread(const std::string& name, const std::vector<int64_t>& shape) = 0;
  // Marks every tensor with this prefix as known and not used.
  virtual void ignore_prefix(std::string_view prefix) = 0;
  // kInvalidArgument that names the first few if anything is left that nobody claimed.
  virtual Status check_all_claimed() const = 0;
  // Bytes of values handed out so far: not those of experts that live elsewhere.
  virtual uint64_t bytes_read() const = 0;
  // Over headers, sizes and names of the files (or the dummy seed): never over the weights' bytes.
  virtual std::string digest_material() const = 0;
};

// Opens `dir`/model.safetensors or the shards of `dir`/model.safetensors.index.json.
StatusOr<std::unique_ptr<TensorSource>> open_checkpoint(const std::string& dir);

// Random weights of whatever shape is asked for: norms 1, biases 0, everything else N(0, 0.02) in
// BF16, by (seed, name). Source of the distribution: HF's initializer_range.
std::unique_ptr<TensorSource> make_dummy_source(uint64_t seed);

}  // namespace flotilla
