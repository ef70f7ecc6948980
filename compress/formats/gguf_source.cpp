#include <algorithm>
#include <mutex>
#include <set>

#include "compress/core/errors.h"
#include "compress/families/model_config.h"
#include "compress/formats/gguf_blocks.h"
#include "compress/formats/gguf_model.h"
#include "compress/formats/tensor_view.h"
#include "compress/formats/weight_rows.h"
#include "compress/io/hash.h"

namespace attar {
namespace {

using io::GgmlType;

std::optional<at::ScalarType> plain_type(GgmlType type) {
  if (type == GgmlType::f32) return at::kFloat;
  if (type == GgmlType::f16) return at::kHalf;
  if (type == GgmlType::bf16) return at::kBFloat16;
  return std::nullopt;
}

// Tables that some files hold and nobody needs.
bool is_ignored(std::string_view tensor) {
  return tensor == "rope_freqs.weight" || tensor.ends_with(".attn_rot_embd.weight");
}

class Source final : public GgufSource {
 public:
  explicit Source(const std::filesystem::path& path)
      : file_(io::GgufFile::open(path)),
        config_(config_from_gguf(file_)),
        architecture_(gguf_architecture_named(file_.string("general.architecture"), path.string())),
        family_(family_named(config_.family)) {
    check_tensors();
  }

  const ModelConfig& config() const override { return config_; }
  std::string path() const override { return file_.path().string(); }
  std::string format() const override { return "gguf"; }
  const io::GgufFile& file() const override { return file_; }

  Block read_block(std::int64_t index) const override {
    const ModelConfig config = config_.of_block(index);
    Block block;
    for (const Norm norm : norms_of(config)) {
      block[norm] = values(fill(family_.gguf.of(norm), index) + ".weight");
    }
    for (const Role role : roles_of(config)) {
      const std::string name = fill(family_.gguf.of(role), index);
      Linear& linear = block[role];
      linear.weight = weight(name);
      if (file_.find_tensor(name + ".bias") != nullptr) linear.bias = values(name + ".bias");
      const std::int64_t heads = interleaved_heads(index, role);
      if (heads == 0) continue;
      const at::Tensor order = halves(heads, config_.head_dim);
      linear.weight = select_rows(linear.weight, order);
      if (linear.bias.defined()) linear.bias = linear.bias.index_select(0, order);
    }
    return block;
  }
  Weight read_embedding() const override { return weight(std::string(family_.gguf.embedding)); }
  at::Tensor read_final_norm() const override {
    return values(std::string(family_.gguf.final_norm) + ".weight");
  }
  Weight read_head() const override {
    return config_.tied_head ? read_embedding() : weight(std::string(family_.gguf.head));
  }

  void done_with_block(std::int64_t index) const override {
    for (const Role role : roles_of(config_.of_block(index))) {
      done_with_module(fill(family_.gguf.of(role), index));
    }
  }
  void done_with_outer() const override {
    done_with_module(std::string(family_.gguf.embedding));
    done_with_module(std::string(family_.gguf.head));
  }

  void done_with(const at::Tensor& part) const override { drop_pages(*file_.mapping(), part); }

  std::string sha256() const override {
    const std::lock_guard lock(mutex_);
    if (sha256_.empty()) sha256_ = io::sha256_file(file_.path());
    return sha256_;
  }
  std::int64_t file_bytes() const override {
    return static_cast<std::int64_t>(file_.mapping()->size());
  }

  StoredWeight stored(std::int64_t block, Role role) const override {
    const std::string name = fill(family_.gguf.of(role), block);
    StoredWeight stored = stored_tensor(name);
    stored.bias = file_.find_tensor(name + ".bias") != nullptr;
    return stored;
  }
  StoredWeight stored_embedding() const override {
    return stored_tensor(std::string(family_.gguf.embedding));
  }
  StoredWeight stored_head() const override {
    return config_.tied_head ? stored_embedding() : stored_tensor(std::string(family_.gguf.head));
  }

 private:
  void done_with_module(const std::string& module) const {
    if (const io::GgufTensor* tensor = file_.find_tensor(module + ".weight")) {
      tensor->file->done_with(tensor->bytes);
    }
  }

  // Heads whose rows the file keeps interleaved; 0 for other layers.
  std::int64_t interleaved_heads(std::int64_t block, Role role) const {
    if (!architecture_.interleaves_query_and_key) return 0;
    const BlockWidths widths = config_.widths_of(block);
    if (role == Role::kQuery) return widths.heads;
    return role == Role::kKey ? widths.kv_heads : 0;
  }

  // A one-dimensional tensor as float32.
  at::Tensor values(const std::string& name) const {
    const io::GgufTensor& tensor = file_.tensor(name);
    return view_bytes(tensor.bytes, tensor.shape(), *plain_type(tensor.type), tensor.file)
        .to(at::kFloat);
  }

  Weight weight(const std::string& name) const {
    const io::GgufTensor& tensor = file_.tensor(name + ".weight");
    if (const auto plain = plain_type(tensor.type)) {
      return DenseWeight{view_bytes(tensor.bytes, tensor.shape(), *plain, tensor.file)};
    }
    return unpack_blocks(tensor.type, tensor.bytes, tensor.ne[1], tensor.ne[0]);
  }

  StoredWeight stored_tensor(const std::string& name) const {
    const io::GgufTensor& tensor = file_.tensor(name + ".weight");
    StoredWeight stored;
    stored.tensor = tensor.name;
    stored.type = io::ggml_type_info(tensor.type).name;
    stored.bytes = static_cast<std::int64_t>(tensor.bytes.size());
    if (is_block_type(tensor.type)) {
      stored.scheme = scheme_of(tensor.type);
    } else {
      stored.dense_type = *plain_type(tensor.type);
    }
    return stored;
  }

  void check_tensors() {
    const TensorNames& names = family_.gguf;
    check_tensor(std::string(names.embedding) + ".weight", {config_.hidden, config_.vocabulary});
    check_tensor(std::string(names.final_norm) + ".weight", {config_.hidden});
    if (!config_.tied_head) {
      check_tensor(std::string(names.head) + ".weight", {config_.hidden, config_.vocabulary});
    }
    for (std::int64_t i = 0; i < config_.layers; ++i) {
      const ModelConfig config = config_.of_block(i);
      for (const Norm norm : norms_of(config)) {
        check_tensor(fill(names.of(norm), i) + ".weight", {width_of(config_, norm)});
      }
      for (const Role role : roles_of(config)) {
        const std::string name = fill(names.of(role), i);
        const LinearShape shape = shape_of(config, role);
        check_tensor(name + ".weight", {shape.in, shape.out});
        if (file_.find_tensor(name + ".bias") != nullptr) {
          check_tensor(name + ".bias", {shape.out});
        } else {
          require(!family_.bias_rule(role).always, path(), "tensor '", name, ".bias' is missing");
        }
      }
    }
    for (const io::GgufTensor& tensor : file_.tensors()) {
      require(expected_.contains(tensor.name) || is_ignored(tensor.name), path(), "tensor '",
              tensor.name, "' is not part of a ", architecture_.name, " model with ",
              config_.layers, " blocks; this variant is not supported");
    }
  }

  void check_tensor(const std::string& name, const std::vector<std::int64_t>& ne) {
    const io::GgufTensor& tensor = file_.tensor(name);
    const std::string where = path() + ": " + name;
    require(tensor.ne == ne, where, "extents must be ", shape_text(ne), " by the metadata, got ",
            shape_text(tensor.ne));
    const bool plain = plain_type(tensor.type).has_value();
    require(plain || (ne.size() == 2 && is_block_type(tensor.type)), where, "tensor type ",
            io::ggml_type_info(tensor.type).name, " is not supported; supported: F32, F16, BF16",
            ne.size() == 2 ? ", Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, IQ4_XS, Q2_K to Q6_K"
                           : " for vectors");
    expected_.insert(name);
  }

  io::GgufFile file_;
  ModelConfig config_;
  const GgufArchitecture& architecture_;
  const Family& family_;
  std::set<std::string, std::less<>> expected_;
  mutable std::mutex mutex_;
  mutable std::string sha256_;
};

}  // namespace

std::shared_ptr<const GgufSource> open_gguf(const std::filesystem::path& path) {
  return std::make_shared<Source>(path);
}

}  // namespace attar
