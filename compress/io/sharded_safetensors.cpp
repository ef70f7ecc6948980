#include "compress/io/sharded_safetensors.h"

#include <algorithm>
#include <set>

#include "compress/core/errors.h"
#include "compress/io/json.h"

namespace attar::io {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

using WeightMap = std::map<std::string, std::string>;  // tensor -> shard

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.size() <= 255 &&
         name.find_first_of(std::string("/\\\0", 3)) == name.npos;
}

WeightMap read_index(const fs::path& path) {
  const nlohmann::json index = load_json(path);
  const std::string where = path.string();
  require(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object(),
          where, "must hold an object 'weight_map' of tensor: shard");
  WeightMap map;
  for (const auto& [tensor, shard] : index["weight_map"].items()) {
    require(shard.is_string(), where, "weight_map '", tensor, "' must name a file");
    const auto name = shard.get<std::string>();
    require(is_plain_name(name), where, "weight_map '", tensor, "' names the shard ", shard.dump(),
            ", which is no plain file name inside the folder; refuse such a download");
    map.emplace(tensor, name);
  }
  require(!map.empty(), where, "weight_map is empty");
  return map;
}

// A link may point to a file elsewhere only where the whole folder is made of such links, as in the
// Hugging Face cache (snapshots/X/file -> ../../blobs/HASH): there it stays below the model's root.
void check_inside(const fs::path& folder, const fs::path& shard, const fs::path& index) {
  std::error_code failure;
  if (!fs::is_symlink(shard, failure)) return;
  const fs::path target = fs::weakly_canonical(shard, failure);
  const fs::path home = fs::weakly_canonical(folder, failure);
  const fs::path cache = home.parent_path().filename() == "snapshots"
                             ? home.parent_path().parent_path() / "blobs"
                             : home;
  const auto lies_in = [&](const fs::path& root) {
    const auto [end, rest] = std::mismatch(root.begin(), root.end(), target.begin(), target.end());
    return end == root.end();
  };
  require(lies_in(home) || lies_in(cache), index.string(), "the shard '", shard.filename().string(),
          "' is a link to '", target.string(), "' outside the folder; replace it by the file");
}

SafetensorsFile open_shard(const fs::path& folder, const std::string& name, const fs::path& index) {
  const fs::path path = folder / name;
  std::error_code failure;
  require(fs::exists(path, failure), index.string(), "names the shard '", name,
          "', which is not in the folder; download it again or copy the missing file");
  check_inside(folder, path, index);
  return SafetensorsFile::open(path);
}

// The word before the last dots are the same: "layers.1.q" helps who asked for "layer.1.q".
std::string similar_names(std::span<const TensorView> tensors, std::string_view name) {
  const std::string_view end =
      name.substr(std::min(name.rfind('.', name.rfind('.') - 1), name.size()));
  std::string list;
  int listed = 0;
  for (const TensorView& tensor : tensors) {
    if (!end.empty() && tensor.name.ends_with(end) && listed++ < 3) {
      list += (list.empty() ? "; there are: " : ", ") + tensor.name;
    }
  }
  return list;
}

}  // namespace

bool ShardedSafetensors::present(const fs::path& folder) {
  std::error_code failure;
  return fs::exists(folder / kSingle, failure) || fs::exists(folder / kIndex, failure);
}

ShardedSafetensors ShardedSafetensors::open(const fs::path& folder) {
  ShardedSafetensors result;
  result.folder_ = folder;
  std::error_code failure;
  if (fs::exists(folder / kSingle, failure)) {
    const SafetensorsFile file = SafetensorsFile::open(folder / kSingle);
    result.files_ = {folder / kSingle};
    result.tensors_.assign(file.tensors().begin(), file.tensors().end());
    result.metadata_ = file.metadata();
  } else {
    require(fs::exists(folder / kIndex, failure), folder.string(), "holds neither ", kSingle,
            " nor ", kIndex, "; name a folder of a Hugging Face model in safetensors");
    result.read_shards(read_index(folder / kIndex));
  }
  std::sort(result.tensors_.begin(), result.tensors_.end(),
            [](const TensorView& a, const TensorView& b) { return a.name < b.name; });
  return result;
}

void ShardedSafetensors::read_shards(const WeightMap& map) {
  const fs::path index = folder_ / kIndex;
  files_ = {index};
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : map) shards.insert(shard);
  std::map<std::string, std::string> seen;  // tensor -> shard that holds it
  for (const std::string& shard : shards) {
    const SafetensorsFile file = open_shard(folder_, shard, index);
    if (files_.size() == 1) metadata_ = file.metadata();
    files_.push_back(file.path());
    for (const TensorView& tensor : file.tensors()) {
      const auto [other, fresh] = seen.emplace(tensor.name, shard);
      require(fresh, index.string(), "tensor '", tensor.name, "' stands in '", other->second,
              "' and in '", shard, "'");
      if (map.contains(tensor.name)) {
        tensors_.push_back(tensor);
      } else {
        warnings_.push_back("tensor '" + tensor.name + "' of '" + shard +
                            "' is not in the index and is left out");
      }
    }
  }
  for (const auto& [tensor, shard] : map) {
    const auto found = seen.find(tensor);
    require(found != seen.end() && found->second == shard, index.string(), "tensor '", tensor,
            "' is not in its shard '", shard, "'; download the folder again");
  }
}

const TensorView* ShardedSafetensors::find(std::string_view name) const {
  const auto found = std::lower_bound(
      tensors_.begin(), tensors_.end(), name,
      [](const TensorView& tensor, std::string_view wanted) { return tensor.name < wanted; });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

const TensorView& ShardedSafetensors::at(std::string_view name) const {
  const TensorView* found = find(name);
  require(found != nullptr, folder_.string(), "has no tensor '", name, "'",
          similar_names(tensors_, name));
  return *found;
}

std::uint64_t ShardedSafetensors::total_bytes() const {
  std::uint64_t sum = 0;
  for (const TensorView& tensor : tensors_) sum += tensor.bytes.size();
  return sum;
}

}  // namespace attar::io
