#include "compress/formats/block_file.h"

#include <ATen/ops/empty.h>

#include <map>

#include "compress/core/errors.h"
#include "compress/formats/tensor_view.h"
#include "compress/io/hash.h"
#include "compress/io/json.h"
#include "compress/io/safetensors_file.h"

namespace attar {
namespace {

using Tensors = std::map<std::string, at::Tensor>;

void put(Tensors& tensors, const std::string& name, const at::Tensor& tensor) {
  if (tensor.defined()) tensors.emplace(name, tensor.contiguous());
}

std::string name_of(Norm norm) {
  constexpr std::array<const char*, kNorms.size()> kNames = {"attention_norm", "mlp_norm",
                                                             "query_norm", "key_norm"};
  return kNames[index_of(norm)];
}

nlohmann::json scheme_to_json(const QuantScheme& scheme) {
  nlohmann::json json = {{"bits", scheme.bits},
                         {"group_size", scheme.group_size},
                         {"zero_point", to_string(scheme.zero_point)},
                         {"scale_type", long_name(scheme.scale_type)},
                         {"block", to_string(scheme.block)}};
  if (scheme.activation_bits != 0) json["activation_bits"] = scheme.activation_bits;
  return json;
}

QuantScheme scheme_from_json(const nlohmann::json& json, std::string_view where) {
  QuantScheme scheme;
  scheme.bits = json.at("bits").get<int>();
  scheme.group_size = json.at("group_size").get<std::int64_t>();
  require(scheme.bits >= 2 && scheme.bits <= 8 && scheme.group_size >= 0, where,
          "the scheme is out of range");
  const auto zero_point = json.at("zero_point").get<std::string>();
  bool known = false;
  for (const ZeroPoint candidate :
       {ZeroPoint::kSymmetric, ZeroPoint::kInteger, ZeroPoint::kMinimum}) {
    if (to_string(candidate) != zero_point) continue;
    scheme.zero_point = candidate;
    known = true;
  }
  require(known, where, "zero point '", zero_point, "' is unknown");
  scheme.scale_type = dense_type_from(json.at("scale_type").get<std::string>());
  scheme.activation_bits = json.value("activation_bits", 0);
  const auto block = json.value("block", std::string());
  scheme.block = block_grid_named(block);
  require(to_string(scheme.block) == block, where, "block grid '", block, "' is unknown");
  return scheme;
}

// Takes the parts of a weight into `tensors` and gives its description.
struct Describe {
  Tensors& tensors;
  std::string prefix;

  nlohmann::json operator()(const DenseWeight& w) const {
    if (!w.values.defined()) return {{"kind", "none"}};
    put(tensors, prefix + ".values", w.values);
    return {{"kind", "dense"}};
  }
  nlohmann::json operator()(const QuantizedWeight& w) const {
    put(tensors, prefix + ".codes", w.codes);
    put(tensors, prefix + ".scale", w.scale);
    put(tensors, prefix + ".zero", w.zero);
    return {{"kind", "quantized"}, {"scheme", scheme_to_json(w.scheme)}};
  }
  nlohmann::json operator()(const SparseWeight& w) const {
    put(tensors, prefix + ".values", w.values);
    put(tensors, prefix + ".mask", w.mask);
    return {{"kind", "sparse"}, {"columns", w.columns}};
  }
  nlohmann::json operator()(const LowRankWeight& w) const {
    put(tensors, prefix + ".b", w.b);
    put(tensors, prefix + ".a", w.a);
    return {{"kind", "low-rank"}, {"code_bytes", w.code_bytes}};
  }
  nlohmann::json operator()(const CorrectedWeight& w) const {
    nlohmann::json base = std::visit(*this, w.base);
    return {{"kind", "corrected"}, {"base", base}, {"correction", (*this)(w.correction)}};
  }
};

std::string checksum(const Tensors& tensors) {
  io::Sha256 hash;
  for (const auto& [name, tensor] : tensors) hash.update(name).update(bytes_of(tensor));
  return hash.hex();
}

// Reads the parts of a weight back.
class Reader {
 public:
  Reader(const Tensors& tensors, std::string where) : tensors_(tensors), where_(std::move(where)) {}

  at::Tensor get(const std::string& name) const {
    const auto found = tensors_.find(name);
    require(found != tensors_.end(), where_, "tensor '", name,
            "' is missing; delete the file and run again");
    return found->second;
  }
  at::Tensor get_if(const std::string& name) const {
    return tensors_.contains(name) ? tensors_.at(name) : at::Tensor();
  }

  LowRankWeight low_rank(const nlohmann::json& json, const std::string& prefix) const {
    return {get(prefix + ".b"), get(prefix + ".a"), json.at("code_bytes").get<std::int64_t>()};
  }

  Weight weight(const nlohmann::json& json, const std::string& prefix) const {
    const auto kind = json.at("kind").get<std::string>();
    if (kind == "corrected") {
      const Weight base = weight(json.at("base"), prefix);
      const LowRankWeight correction = low_rank(json.at("correction"), prefix);
      if (const auto* dense = std::get_if<DenseWeight>(&base)) {
        return CorrectedWeight{*dense, correction};
      }
      if (const auto* quantized = std::get_if<QuantizedWeight>(&base)) {
        return CorrectedWeight{*quantized, correction};
      }
      const auto* sparse = std::get_if<SparseWeight>(&base);
      require(sparse != nullptr, where_, prefix, " has a base of an unknown kind");
      return CorrectedWeight{*sparse, correction};
    }
    if (kind == "low-rank") return low_rank(json, prefix);
    if (kind == "sparse") {
      return SparseWeight{get(prefix + ".values"), get(prefix + ".mask"),
                          json.at("columns").get<std::int64_t>()};
    }
    if (kind == "quantized") {
      return QuantizedWeight{scheme_from_json(json.at("scheme"), where_ + " " + prefix),
                             get(prefix + ".codes"), get(prefix + ".scale"),
                             get_if(prefix + ".zero")};
    }
    if (kind == "none") return DenseWeight{};
    require(kind == "dense", where_, prefix, " is of the unknown kind '", kind, "'");
    return DenseWeight{get(prefix + ".values")};
  }

 private:
  const Tensors& tensors_;
  std::string where_;
};

void write_file(const std::filesystem::path& path, const Tensors& tensors,
                const nlohmann::json& weights) {
  std::vector<io::TensorPlan> plans;
  for (const auto& [name, tensor] : tensors) {
    plans.push_back({name, element_type_of(tensor.scalar_type()), tensor.sizes().vec()});
  }
  const nlohmann::json description = {
      {"version", 1}, {"weights", weights}, {"sha256", checksum(tensors)}};
  io::SafetensorsWriter writer(path, plans, {{"format", "pt"}, {"attar", description.dump()}});
  for (const io::TensorPlan& plan : writer.tensors()) {
    writer.append(plan.name, bytes_of(tensors.at(plan.name)));
  }
  writer.finish();
}

// Opens a file that write_file made and gives its parts to `body(reader, weights)`.
template <class Body>
auto read_file(const std::filesystem::path& path, bool verify, const Body& body) {
  const io::SafetensorsFile file = io::SafetensorsFile::open(path);
  const std::string where = path.string();
  const auto metadata = file.metadata().find("attar");
  require(metadata != file.metadata().end(), where,
          "is no block file of attar: __metadata__ has no 'attar'");
  const nlohmann::json description = io::parse_json(metadata->second, where + ": __metadata__");
  Tensors tensors;
  for (const io::TensorView& tensor : file.tensors()) tensors.emplace(tensor.name, view_of(tensor));
  try {
    require(description.at("version") == 1, where,
            "is of another version of attar; delete it and "
            "run again");
    if (verify) {
      require(checksum(tensors) == description.at("sha256").get<std::string>(), where,
              "the checksum does not agree with the tensors: the file is damaged; delete it and "
              "run again");
    }
    return body(Reader(tensors, where), description.at("weights"));
  } catch (const nlohmann::json::exception& error) {
    throw BadInput(message(where, "the description in __metadata__ is damaged: ", error.what(),
                           "; delete the file and run again"));
  }
}

}  // namespace

void write_block_file(const std::filesystem::path& path, const Block& block) {
  Tensors tensors;
  for (const Norm norm : kNorms) put(tensors, name_of(norm), block[norm]);
  nlohmann::json weights;
  for (const Role role : kRoles) {
    const std::string prefix(to_string(role));
    weights[prefix] = std::visit(Describe{tensors, prefix}, block[role].weight);
    put(tensors, prefix + ".bias", block[role].bias);
  }
  write_file(path, tensors, weights);
}

Block read_block_file(const std::filesystem::path& path, bool verify) {
  return read_file(path, verify, [&](const Reader& reader, const nlohmann::json& weights) {
    Block block;
    for (const Norm norm : kNorms) {
      block[norm] = norm == Norm::kMlp ? reader.get(name_of(norm)) : reader.get_if(name_of(norm));
    }
    for (const Role role : kRoles) {
      const std::string prefix(to_string(role));
      block[role] = {reader.weight(weights.at(prefix), prefix), reader.get_if(prefix + ".bias")};
    }
    const std::size_t present = roles_of(block).size();
    for (const Role role : kRoles) {
      const std::string where = path.string() + " " + std::string(to_string(role));
      const bool there = index_of(role) >= kRoles.size() - present;
      require(there == (shape_of(block[role].weight) != WeightShape{}), where,
              there ? "is missing" : "is there without a norm of attention",
              "; delete the file and run again");
      if (there) check(block[role].weight, where);
    }
    return block;
  });
}

void write_outer_file(const std::filesystem::path& path, const OuterWeights& outer) {
  Tensors tensors;
  put(tensors, "final_norm", outer.final_norm);
  nlohmann::json weights;
  weights["embedding"] = std::visit(Describe{tensors, "embedding"}, outer.embedding);
  if (outer.head) weights["head"] = std::visit(Describe{tensors, "head"}, *outer.head);
  write_file(path, tensors, weights);
}

OuterWeights read_outer_file(const std::filesystem::path& path, bool verify) {
  return read_file(path, verify, [&](const Reader& reader, const nlohmann::json& weights) {
    OuterWeights outer;
    outer.final_norm = reader.get("final_norm");
    outer.embedding = reader.weight(weights.at("embedding"), "embedding");
    check(outer.embedding, path.string() + " embedding");
    if (weights.contains("head")) {
      outer.head = reader.weight(weights.at("head"), "head");
      check(*outer.head, path.string() + " head");
    }
    return outer;
  });
}

namespace {

constexpr std::int64_t kOuter = -1;

void make_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  require<IoError>(!error, folder.string(), "cannot make the folder: ", error.message());
}

}  // namespace

FolderModelStore::FolderModelStore(std::filesystem::path folder, NameOf name_of)
    : folder_(std::move(folder)), name_of_(std::move(name_of)) {}

std::filesystem::path FolderModelStore::path_of(std::int64_t index) const {
  if (name_of_) return folder_ / name_of_(index);
  const std::string number = std::to_string(index);
  return folder_ / ("block-" + std::string(5 - std::min<std::size_t>(5, number.size()), '0') +
                    number + ".safetensors");
}

std::optional<Block> FolderModelStore::read(std::int64_t index) const {
  const std::filesystem::path path = path_of(index);
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::nullopt;
  Block block = read_block_file(path, !verified(index));
  note_verified(index);
  return block;
}

void FolderModelStore::write(std::int64_t index, const Block& block) {
  make_folder(folder_);
  write_block_file(path_of(index), block);
  note_verified(index);
}

std::optional<OuterWeights> FolderModelStore::read_outer() const {
  const std::filesystem::path path = folder_ / "outer.safetensors";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::nullopt;
  OuterWeights outer = read_outer_file(path, !verified(kOuter));
  note_verified(kOuter);
  return outer;
}

void FolderModelStore::write_outer(const OuterWeights& outer) {
  make_folder(folder_);
  write_outer_file(folder_ / "outer.safetensors", outer);
  note_verified(kOuter);
}

bool FolderModelStore::verified(std::int64_t part) const {
  const std::lock_guard lock(mutex_);
  return verified_.contains(part);
}

void FolderModelStore::note_verified(std::int64_t part) const {
  const std::lock_guard lock(mutex_);
  verified_.insert(part);
}

}  // namespace attar
