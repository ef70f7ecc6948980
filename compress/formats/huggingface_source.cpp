#include <ATen/ops/zeros.h>

#include <mutex>
#include <set>

#include "compress/core/errors.h"
#include "compress/families/model_config.h"
#include "compress/formats/compressed_floats.h"
#include "compress/formats/huggingface.h"
#include "compress/formats/tensor_view.h"
#include "compress/io/hash.h"
#include "compress/io/json.h"
#include "compress/io/sharded_safetensors.h"

namespace attar {
namespace {

constexpr std::array<std::string_view, 4> kPackedParts = {".weight_packed", ".weight_scale",
                                                          ".weight_shape", ".weight_zero_point"};

constexpr std::array<std::string_view, 2> kByteParts = {".weight", ".weight_scale"};

class Source final : public HuggingFaceSource {
 public:
  explicit Source(const std::filesystem::path& folder)
      : folder_(folder),
        json_(io::load_json(folder / "config.json")),
        config_(config_from_json(json_, (folder / "config.json").string())),
        family_(family_named(config_.family)),
        biases_(biases_from_json(json_, family_, (folder / "config.json").string())),
        tensors_(io::ShardedSafetensors::open(folder)) {
    const auto quantization = json_.find("quantization_config");
    if (quantization != json_.end() && !quantization->is_null()) {
      schemes_ = schemes_from_config(*quantization, (folder / "config.json").string());
    }
    check_tensors();
  }

  const ModelConfig& config() const override { return config_; }
  std::string path() const override { return folder_.string(); }
  std::string format() const override { return "huggingface"; }
  const std::filesystem::path& folder() const override { return folder_; }
  const nlohmann::json& config_json() const override { return json_; }

  Block read_block(std::int64_t index) const override {
    Block block;
    for (const Norm norm : norms_of(config_)) {
      block[norm] = plain(fill(family_.huggingface.of(norm), index)).to(at::kFloat);
    }
    for (const Role role : kRoles) {
      const std::string module = fill(family_.huggingface.of(role), index);
      block[role].weight = weight(module, shape_of(config_, role));
      if (biases_[index_of(role)]) block[role].bias = view(module + ".bias").to(at::kFloat);
    }
    return block;
  }
  Weight read_embedding() const override {
    return DenseWeight{plain(std::string(family_.huggingface.embedding))};
  }
  at::Tensor read_final_norm() const override {
    return plain(std::string(family_.huggingface.final_norm)).to(at::kFloat);
  }
  Weight read_head() const override {
    return config_.tied_head ? read_embedding()
                             : weight(std::string(family_.huggingface.head),
                                      {config_.vocabulary, config_.hidden});
  }

  void done_with_block(std::int64_t index) const override {
    for (const Role role : kRoles) done_with_module(fill(family_.huggingface.of(role), index));
  }
  void done_with_outer() const override {
    done_with_module(std::string(family_.huggingface.embedding));
    done_with_module(std::string(family_.huggingface.head));
  }

  void done_with(const at::Tensor& part) const override {
    const io::MappedFile* last = nullptr;
    for (const io::TensorView& tensor : tensors_.tensors()) {
      if (tensor.file.get() == last) continue;
      last = tensor.file.get();
      drop_pages(*last, part);
    }
  }

  std::vector<std::string> left_out() const override { return tensors_.warnings(); }
  std::string sha256() const override {
    const std::lock_guard lock(mutex_);
    if (!sha256_.empty()) return sha256_;
    io::Sha256 all;
    all.update(json_.dump());
    for (const auto& file : tensors_.files()) all.update(io::sha256_file(file));
    return sha256_ = all.hex();
  }
  std::int64_t file_bytes() const override {
    std::uint64_t bytes = 0;
    for (const auto& file : tensors_.files()) bytes += std::filesystem::file_size(file);
    return static_cast<std::int64_t>(bytes);
  }

  StoredWeight stored(std::int64_t block, Role role) const override {
    StoredWeight stored = stored_module(fill(family_.huggingface.of(role), block));
    stored.bias = biases_[index_of(role)];
    return stored;
  }
  StoredWeight stored_embedding() const override {
    return stored_module(std::string(family_.huggingface.embedding));
  }
  StoredWeight stored_head() const override {
    return config_.tied_head ? stored_embedding()
                             : stored_module(std::string(family_.huggingface.head));
  }

 private:
  void done_with_module(const std::string& module) const {
    for (const std::string_view part : {".weight", ".weight_packed", ".weight_scale"}) {
      if (const io::TensorView* tensor = tensors_.find(module + std::string(part))) {
        tensor->file->done_with(tensor->bytes);
      }
    }
  }

  at::Tensor view(const std::string& tensor) const { return view_of(tensors_.at(tensor)); }
  at::Tensor plain(const std::string& module) const { return view(module + ".weight"); }

  // The grid of a module; the type of its scales is the file's, or narrower where the configuration
  // says what float32 scales were rounded to.
  std::optional<QuantScheme> scheme_of(const std::string& module) const {
    if (!schemes_ || module == family_.huggingface.embedding) return std::nullopt;
    std::optional<QuantScheme> scheme = schemes_(module);
    if (!scheme || scheme->floating()) return scheme;
    const io::TensorView& scale = tensors_.at(module + ".weight_scale");
    const at::ScalarType type = scalar_type_of(scale.type, folder_.string() + ": " + scale.name);
    if (type != at::kFloat) scheme->scale_type = type;
    return scheme;
  }

  // As bytes, if it is of the type that its format asks for.
  at::Tensor bytes_of_part(const std::string& module, const FloatPart& part) const {
    const io::TensorView& tensor = tensors_.at(module + std::string(part.name));
    require(tensor.type == part.type, folder_.string() + ": " + tensor.name, "must be ",
            io::safetensors_name(part.type), ", got ", io::safetensors_name(tensor.type));
    return view_bytes(tensor.bytes, tensor.shape, at::kByte, tensor.file);
  }

  Weight floats(const std::string& module, const QuantScheme& scheme,
                const WeightShape& shape) const {
    const std::vector<FloatPart> parts = float_parts(scheme, shape);
    const at::Tensor scale = scheme.block == BlockGrid::kFp8 ? view(module + ".weight_scale")
                                                             : bytes_of_part(module, parts[1]);
    return unpack_floats({bytes_of_part(module, parts[0]), scale, {}, {}}, scheme, shape,
                         folder_.string() + ": " + module);
  }

  Weight weight(const std::string& module, const LinearShape& shape) const {
    const std::optional<QuantScheme> scheme = scheme_of(module);
    if (!scheme) return DenseWeight{plain(module)};
    if (scheme->floating()) return floats(module, *scheme, {shape.out, shape.in});
    PackedWeight packed;
    packed.scale = view(module + ".weight_scale");
    if (scheme->activation_bits != 0) {
      packed.packed = plain(module);
    } else {
      packed.packed = view(module + ".weight_packed");
      packed.shape = view(module + ".weight_shape");
      if (tensors_.find(module + ".weight_zero_point") != nullptr) {
        packed.zero_point = view(module + ".weight_zero_point");
      }
    }
    return unpack(packed, *scheme, {shape.out, shape.in}, folder_.string() + ": " + module);
  }

  StoredWeight stored_module(const std::string& module) const {
    StoredWeight stored;
    stored.scheme = scheme_of(module);
    if (!stored.scheme) {
      const io::TensorView& tensor = tensors_.at(module + ".weight");
      stored.tensor = tensor.name;
      stored.type = io::safetensors_name(tensor.type);
      stored.dense_type = scalar_type_of(tensor.type, folder_.string() + ": " + tensor.name);
      stored.bytes = static_cast<std::int64_t>(tensor.bytes.size());
      return stored;
    }
    stored.tensor = module + std::string(parts_of(*stored.scheme).front());
    stored.type = describe(*stored.scheme);
    for (const std::string_view part : parts_of(*stored.scheme)) {
      const io::TensorView* tensor = tensors_.find(module + std::string(part));
      if (tensor != nullptr) stored.bytes += static_cast<std::int64_t>(tensor->bytes.size());
    }
    return stored;
  }

  // Every tensor that the configuration asks for is there in its shape and type, and no other.
  void check_tensors() {
    const TensorNames& names = family_.huggingface;
    check_module(std::string(names.embedding), {config_.vocabulary, config_.hidden});
    check_tensor(std::string(names.final_norm) + ".weight", {config_.hidden});
    const std::string head(names.head);
    if (!config_.tied_head) {
      check_module(head, {config_.vocabulary, config_.hidden});
    } else {
      expected_.insert(head + ".weight");  // some files hold the tied head as well
    }
    for (std::int64_t i = 0; i < config_.layers; ++i) {
      for (const Norm norm : norms_of(config_)) {
        check_tensor(fill(names.of(norm), i) + ".weight", {width_of(config_, norm)});
      }
      for (const Role role : kRoles) {
        const std::string module = fill(names.of(role), i);
        const LinearShape shape = shape_of(config_, role);
        check_module(module, {shape.out, shape.in});
        if (biases_[index_of(role)]) check_tensor(module + ".bias", {shape.out});
      }
    }
    for (const io::TensorView& tensor : tensors_.tensors()) {
      require(expected_.contains(tensor.name) || is_ignored_buffer(tensor.name), folder_.string(),
              "tensor '", tensor.name, "' is not part of a ", config_.family,
              " model with this config.json (", config_.layers, " layers, biases ",
              biases_[0] ? "on" : "off",
              " in attention); the weights and config.json are not of "
              "one model, or this variant is not supported");
    }
  }

  void check_module(const std::string& module, std::vector<std::int64_t> shape) {
    const std::optional<QuantScheme> scheme = scheme_of_config(module);
    if (!scheme) return check_tensor(module + ".weight", std::move(shape));
    for (const std::string_view part : parts_of(*scheme)) {
      const std::string name = module + std::string(part);
      expected_.insert(name);
      if (part == ".weight_zero_point") continue;
      const io::TensorView& tensor = tensors_.at(name);
      if (scheme->floating() || (part != ".weight" && part != ".weight_packed")) continue;
      // What else there is to hold whole numbers to, unpack() does.
      if (part == ".weight_packed") shape[1] = packed_words(*scheme, shape[1]);
      require(tensor.shape == shape, folder_.string() + ": " + name, "shape must be ",
              shape_text(shape), " by config.json, got ", shape_text(tensor.shape));
    }
  }
  std::optional<QuantScheme> scheme_of_config(const std::string& module) const {
    if (!schemes_ || module == family_.huggingface.embedding) return std::nullopt;
    return schemes_(module);
  }
  static std::span<const std::string_view> parts_of(const QuantScheme& scheme) {
    if (scheme.activation_bits != 0 || scheme.block == BlockGrid::kFp8) return kByteParts;
    if (scheme.block == BlockGrid::kMxfp4) return std::span(kPackedParts).first(2);
    return kPackedParts;
  }

  void check_tensor(const std::string& name, const std::vector<std::int64_t>& shape) {
    const io::TensorView& tensor = tensors_.at(name);
    const std::string where = folder_.string() + ": " + name;
    require(tensor.shape == shape, where, "shape must be ", shape_text(shape),
            " by config.json, got ", shape_text(tensor.shape));
    require(at::isFloatingType(scalar_type_of(tensor.type, where)) &&
                tensor.type != io::ElementType::f64,
            where, "element type ", io::safetensors_name(tensor.type),
            " is not supported; supported: F32, F16, BF16");
    expected_.insert(name);
  }

  std::filesystem::path folder_;
  nlohmann::json json_;
  ModelConfig config_;
  const Family& family_;
  Biases biases_;
  io::ShardedSafetensors tensors_;
  SchemeOf schemes_;
  std::set<std::string> expected_;
  mutable std::mutex mutex_;
  mutable std::string sha256_;
};

}  // namespace

std::shared_ptr<const HuggingFaceSource> open_huggingface(const std::filesystem::path& folder) {
  return std::make_shared<Source>(folder);
}

}  // namespace attar
