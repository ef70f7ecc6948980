#include "compress/train/teacher_cache.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "compress/core/errors.h"
#include "compress/io/hash.h"
#include "compress/io/hdf5_store.h"
#include "compress/linalg/product.h"
#include "compress/train/response_gradient.h"
#include "compress/train/sparse_targets.h"

namespace attar {
namespace {

namespace fs = std::filesystem;
using io::Hdf5Store;

constexpr double kLogStep = 4096;  // units of a stored log probability in a nat

fs::path shard_file(const fs::path& folder, std::int64_t shard) {
  std::string number = std::to_string(shard);
  number.insert(0, number.size() < 6 ? 6 - number.size() : 0, '0');
  return folder / ("shard-" + number + ".h5");
}

struct Shard {
  std::vector<std::uint8_t> counts;
  std::vector<std::int32_t> ids;
  std::vector<std::uint16_t> values;
};

template <class T>
void write_all(Hdf5Store& store, const char* name, const std::vector<T>& values) {
  const std::int64_t shape[] = {static_cast<std::int64_t>(values.size())};
  store.write<T>(name, values, shape);
}

template <class To, class From>
std::vector<To> narrowed(const std::vector<From>& values) {
  std::vector<To> out;
  for (const From value : values) out.push_back(static_cast<To>(value));
  return out;
}

void write_shard(const fs::path& file, const Shard& shard, const CacheOptions& options,
                 std::int64_t vocabulary, const std::string& key) {
  fs::path temporary = file;
  temporary += ".partial";
  {
    Hdf5Store store(temporary, Hdf5Store::Mode::create);
    store.set_attribute("", "key", key);
    store.set_attribute("", "kind", options.kind);
    store.set_attribute("", "count", options.count);
    store.set_attribute("", "wide_ids", std::int64_t{vocabulary > 65536 ? 1 : 0});
    write_all(store, "counts", shard.counts);
    if (vocabulary <= 65536) {
      write_all(store, "ids", narrowed<std::uint16_t>(shard.ids));
    } else {
      write_all(store, "ids", shard.ids);
    }
    if (options.kind == "top_k") {
      write_all(store, "values", shard.values);
    } else {
      write_all(store, "values", narrowed<std::uint8_t>(shard.values));
    }
    store.flush();
  }
  fs::rename(temporary, file);
}

void check_key(const fs::path& file, const std::string& key) {
  const Hdf5Store store(file, Hdf5Store::Mode::read);
  require(store.string_attribute("", "key") == key, file.string(),
          "holds the probabilities of another teacher, text, length or kind; name another folder "
          "or remove this one");
}

Shard compute_shard(std::int64_t shard, const CacheOptions& options, const TrainingWindows& windows,
                    LiveTeacher& teacher) {
  const std::int64_t first = shard * kShardWindows;
  const std::int64_t count = std::min(kShardWindows, windows.count() - first);
  const std::int64_t length = windows.length();
  Shard out;
  const at::Tensor ids = windows.inputs(first, count);
  teacher.read(ids);
  const at::Tensor hidden = teacher.normed().flatten(0, 1);
  const std::int64_t rows = hidden.size(0);
  for (std::int64_t at = 0; at < rows; at += kResponseRows) {
    const std::int64_t size = std::min(kResponseRows, rows - at);
    const at::Tensor logits = linalg::product(hidden.narrow(0, at, size), teacher.head());
    const float* values = logits.const_data_ptr<float>();
    std::vector<SparseRow> kept(static_cast<std::size_t>(size));
    at::parallel_for(0, size, 4, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const std::span row(values + r * logits.size(1), static_cast<std::size_t>(logits.size(1)));
        kept[static_cast<std::size_t>(r)] =
            options.kind == "top_k"
                ? top_probabilities(row, options.count)
                : drawn_probabilities(row, options.count, options.seed,
                                      static_cast<std::uint64_t>(first * length + at + r));
      }
    });
    for (const SparseRow& row : kept) {
      out.counts.push_back(static_cast<std::uint8_t>(row.ids.size()));
      out.ids.insert(out.ids.end(), row.ids.begin(), row.ids.end());
      for (const float p : row.probabilities) {
        const double value = options.kind == "top_k"
                                 ? -std::log(std::max(static_cast<double>(p), 1e-30)) * kLogStep
                                 : static_cast<double>(p) * static_cast<double>(options.count);
        out.values.push_back(static_cast<std::uint16_t>(std::min(65535.0, std::round(value))));
      }
    }
  }
  return out;
}

}  // namespace

std::string cache_key(const CacheOptions& options, const TrainingWindows& windows,
                      const std::string& teacher) {
  const nlohmann::json all = {options.kind,
                              options.count,
                              options.kind == "top_k" ? 0 : options.seed,
                              windows.tokens().sha256,
                              windows.length(),
                              teacher};
  return io::sha256_hex(all.dump());
}

CacheReport write_cache(const fs::path& folder, const CacheOptions& options,
                        const TrainingWindows& windows, std::int64_t steps, std::int64_t batch,
                        const std::string& key, LiveTeacher& teacher, const RunContext& context) {
  fs::create_directories(folder);
  std::set<std::int64_t> needed;
  const std::int64_t all = (windows.count() + kShardWindows - 1) / kShardWindows;
  for (std::int64_t step = 0; step < steps && static_cast<std::int64_t>(needed.size()) < all;
       ++step) {
    for (const std::int64_t window : windows.numbers(step, batch)) {
      needed.insert(window / kShardWindows);
    }
  }
  CacheReport report;
  for (const std::int64_t shard : needed) {
    context.check_stop();
    const fs::path file = shard_file(folder, shard);
    if (Hdf5Store::readable(file)) {
      check_key(file, key);
    } else {
      write_shard(file, compute_shard(shard, options, windows, teacher), options, teacher.common(),
                  key);
      ++report.written;
      context.progress("teacher's probabilities, shard " + std::to_string(shard));
    }
    report.bytes += static_cast<std::int64_t>(fs::file_size(file));
    report.tokens +=
        std::min(kShardWindows, windows.count() - shard * kShardWindows) * windows.length();
  }
  return report;
}

CachedTeacher::CachedTeacher(fs::path folder, CacheOptions options, std::string key,
                             std::int64_t length)
    : folder_(std::move(folder)),
      options_(std::move(options)),
      key_(std::move(key)),
      length_(length) {}

void CachedTeacher::read_window(std::int64_t window, std::int32_t* ids, float* probabilities) {
  const fs::path file = shard_file(folder_, window / kShardWindows);
  const Hdf5Store store(file, Hdf5Store::Mode::read);
  require(store.string_attribute("", "key") == key_, file.string(),
          "is of another teacher or text");
  const auto counts = store.read<std::uint8_t>("counts");
  const auto begin = static_cast<std::size_t>(window % kShardWindows * length_);
  require(counts.size() >= begin + static_cast<std::size_t>(length_) &&
              std::all_of(counts.begin(), counts.end(),
                          [&](std::uint8_t count) { return count <= options_.count; }),
          file.string(), "is damaged; remove the folder, and the teacher is written down anew");
  std::int64_t first = 0, total = 0;
  for (std::size_t i = 0; i < begin; ++i) first += counts[i];
  for (std::size_t i = 0; i < static_cast<std::size_t>(length_); ++i) total += counts[begin + i];
  const bool top = options_.kind == "top_k";
  std::vector<std::int32_t> own(static_cast<std::size_t>(total));
  std::vector<std::uint16_t> values(own.size());
  if (store.int_attribute("", "wide_ids") == 0) {
    std::vector<std::uint16_t> narrow(own.size());
    store.read_rows<std::uint16_t>("ids", first, narrow);
    std::copy(narrow.begin(), narrow.end(), own.begin());
  } else {
    store.read_rows<std::int32_t>("ids", first, own);
  }
  if (top) {
    store.read_rows<std::uint16_t>("values", first, values);
  } else {
    std::vector<std::uint8_t> narrow(own.size());
    store.read_rows<std::uint8_t>("values", first, narrow);
    std::copy(narrow.begin(), narrow.end(), values.begin());
  }
  std::size_t next = 0;
  for (std::int64_t t = 0; t < length_; ++t) {
    for (std::int64_t k = 0; k < options_.count; ++k) {
      const bool there = k < counts[begin + static_cast<std::size_t>(t)];
      ids[t * options_.count + k] = there ? own[next] : -1;
      probabilities[t * options_.count + k] =
          !there ? 0.0f
          : top  ? static_cast<float>(std::exp(-static_cast<double>(values[next]) / kLogStep))
                 : static_cast<float>(values[next]) / static_cast<float>(options_.count);
      next += there ? 1 : 0;
    }
  }
}

void CachedTeacher::read(const Batch& batch) {
  const auto size = static_cast<std::int64_t>(batch.windows.size());
  ids_ = at::empty({size * length_, options_.count}, at::kInt);
  probabilities_ = at::empty({size * length_, options_.count}, at::kFloat);
  const std::int64_t step = length_ * options_.count;
  for (std::int64_t i = 0; i < size; ++i) {
    read_window(batch.windows[static_cast<std::size_t>(i)],
                ids_.mutable_data_ptr<std::int32_t>() + i * step,
                probabilities_.mutable_data_ptr<float>() + i * step);
  }
}

}  // namespace attar
