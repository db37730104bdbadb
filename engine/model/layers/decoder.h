// A pre-norm decoder: what all families are. A family is the choice of its parts.
#pragma once

#include <memory>
#include <variant>
#include <vector>

#include "engine/model/layers/layers.h"

namespace flotilla {

struct DecoderLayer {
  RmsNorm input_norm;
  Attention attention;
  RmsNorm post_norm;
  std::variant<DenseMlp, MoeFfn> ffn;
};

//   x = embed(tokens);  per layer: x += attention(norm(x)), x += ffn(norm(x));  hidden = norm(x);
//   logits = hidden · headᵀ
class Decoder final : public CausalLm {
 public:
  struct Parts {
    Embedding embedding;
    std::vector<DecoderLayer> layers;
    RmsNorm norm;
    Linear head;                           // [V, C]
    std::unique_ptr<ExpertStore> experts;  // null for a dense model
  };
  explicit Decoder(Parts parts) : parts_(std::move(parts)) {}

  StatusOr<TensorView> forward(ForwardContext& ctx) override;
  void logits(const TensorView& hidden, const TensorView& logits, Stream& stream) override;
  ExpertStore* experts() override { return parts_.experts.get(); }

 private:
  Parts parts_;
};

// The usual decoder with the usual tensor names, in the shapes that config.json describes.
StatusOr<std::unique_ptr<CausalLm>> load_decoder(ModelLoader& loader);

}  // namespace flotilla
