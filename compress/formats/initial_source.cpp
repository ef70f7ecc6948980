#include "compress/formats/initial_source.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "compress/core/errors.h"
#include "compress/core/fields.h"
#include "compress/core/random.h"
#include "compress/families/model_config.h"
#include "compress/io/hash.h"
#include "compress/io/json.h"

namespace attar {
namespace {

struct Initialise {
  std::int64_t seed = 0;
  double deviation = 0.02;

  template <class Visit>
  static void fields(Visit&& visit) {
    visit("seed", &Initialise::seed, Range<std::int64_t>{0, std::int64_t{1} << 53},
          "Of all values.");
    visit("deviation", &Initialise::deviation, Range{1e-6, 10.0}, "Of a matrix's values.");
  }
};

class Source final : public HuggingFaceSource {
 public:
  explicit Source(const std::filesystem::path& folder)
      : folder_(folder),
        json_(io::load_json(folder / "config.json")),
        config_(config_from_json(json_, (folder / "config.json").string())),
        biases_(biases_from_json(json_, family_named(config_.family),
                                 (folder / "config.json").string())),
        initialise_(read_fields<Initialise>(io::load_json(folder / kInitialiseFile),
                                            (folder / kInitialiseFile).string())) {}

  const ModelConfig& config() const override { return config_; }
  std::string path() const override { return folder_.string(); }
  std::string format() const override { return "initial"; }
  const std::filesystem::path& folder() const override { return folder_; }
  const nlohmann::json& config_json() const override { return json_; }

  Block read_block(std::int64_t index) const override {
    Block block;
    for (const Norm norm : norms_of(config_)) {
      block[norm] = at::ones({width_of(config_, norm)}, at::kFloat);
    }
    const double residual = 1 / std::sqrt(2.0 * static_cast<double>(config_.layers));
    for (const Role role : kRoles) {
      const LinearShape shape = shape_of(config_, role);
      const bool writes = role == Role::kOutput || role == Role::kDown;
      block[role].weight =
          DenseWeight{values(layer_name(index, role), shape.out, shape.in, writes ? residual : 1)};
      if (biases_[index_of(role)]) block[role].bias = at::zeros({shape.out}, at::kFloat);
    }
    return block;
  }
  Weight read_embedding() const override {
    return DenseWeight{values("model.embed_tokens", config_.vocabulary, config_.hidden, 1)};
  }
  at::Tensor read_final_norm() const override { return at::ones({config_.hidden}, at::kFloat); }
  Weight read_head() const override {
    return config_.tied_head
               ? read_embedding()
               : DenseWeight{values("lm_head", config_.vocabulary, config_.hidden, 1)};
  }
  void done_with_block(std::int64_t) const override {}
  void done_with_outer() const override {}
  void done_with(const at::Tensor&) const override {}

  std::string sha256() const override {
    return io::sha256_hex(json_.dump() + write_fields(initialise_).dump());
  }
  std::int64_t file_bytes() const override {
    std::int64_t bytes = stored_embedding().bytes * (config_.tied_head ? 1 : 2);
    for (std::int64_t i = 0; i < config_.layers; ++i) {
      for (const Role role : kRoles) bytes += stored(i, role).bytes;
    }
    return bytes + 4 * config_.hidden * (2 * config_.layers + 1);
  }

  StoredWeight stored(std::int64_t block, Role role) const override {
    const LinearShape shape = shape_of(config_, role);
    return plain(layer_name(block, role), shape.out, shape.in, biases_[index_of(role)]);
  }
  StoredWeight stored_embedding() const override {
    return plain("model.embed_tokens", config_.vocabulary, config_.hidden, false);
  }
  StoredWeight stored_head() const override {
    return config_.tied_head ? stored_embedding()
                             : plain("lm_head", config_.vocabulary, config_.hidden, false);
  }

 private:
  at::Tensor values(const std::string& name, std::int64_t rows, std::int64_t columns,
                    double factor) const {
    at::Tensor drawn = at::empty({rows, columns}, at::kFloat);
    const CounterRandom random(static_cast<std::uint64_t>(initialise_.seed), name);
    float* out = drawn.mutable_data_ptr<float>();
    const double deviation = initialise_.deviation * factor;
    for (std::int64_t i = 0; i < rows * columns; ++i) {
      out[i] = static_cast<float>(deviation * random.normal(static_cast<std::uint64_t>(i)));
    }
    return drawn;
  }
  static StoredWeight plain(const std::string& name, std::int64_t rows, std::int64_t columns,
                            bool bias) {
    return {name + ".weight", "F32", std::nullopt, at::kFloat, 4 * rows * columns, bias};
  }

  std::filesystem::path folder_;
  nlohmann::json json_;
  ModelConfig config_;
  Biases biases_;
  Initialise initialise_;
};

}  // namespace

std::shared_ptr<const HuggingFaceSource> open_initial(const std::filesystem::path& folder) {
  return std::make_shared<Source>(folder);
}

}  // namespace attar
