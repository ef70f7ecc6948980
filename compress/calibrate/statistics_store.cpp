#include "compress/calibrate/statistics_store.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <array>

#include "compress/core/errors.h"
#include "compress/io/hdf5_store.h"

namespace attar {
namespace {

using io::Hdf5Store;

// The vectors of an entry, by name.
template <class Statistics, class Visit>
void for_vectors(Statistics& statistics, const Visit& visit) {
  visit("sum", statistics.sum);
  visit("sum_absolute", statistics.sum_absolute);
  visit("sum_squares", statistics.sum_squares);
  visit("max_absolute", statistics.max_absolute);
}

std::span<const double> doubles(const at::Tensor& t) {
  return {t.const_data_ptr<double>(), static_cast<std::size_t>(t.numel())};
}

// Row after row of the upper triangle, diagonal included: [n (n + 1) / 2].
at::Tensor upper_triangle(const at::Tensor& full) {
  const std::int64_t n = full.size(0);
  at::Tensor packed = at::empty({n * (n + 1) / 2}, at::kDouble);
  const auto* from = full.const_data_ptr<double>();
  auto* to = packed.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < n; ++i) to = std::copy(from + i * n + i, from + (i + 1) * n, to);
  return packed;
}

at::Tensor symmetric(const std::vector<double>& packed, std::int64_t n) {
  at::Tensor full = at::empty({n, n}, at::kDouble);
  auto* to = full.mutable_data_ptr<double>();
  const double* from = packed.data();
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = i; j < n; ++j) to[i * n + j] = to[j * n + i] = *from++;
  }
  return full;
}

std::string group_of(const std::string& name) { return "statistics/" + name; }

constexpr std::string_view kVersion = "attar.statistics";

void refuse_another(const Hdf5Store& store) {
  if (!store.has_attribute("", kVersion)) {
    require(store.children("").empty(), store.path().string(),
            "is there and holds something else than statistics; name another file");
    return;
  }
  const std::int64_t version = store.int_attribute("", kVersion);
  require(version == 1, store.path().string(), "statistics of an unknown version ", version,
          "; name another file or remove this one");
}

}  // namespace

StatisticsStore::StatisticsStore(std::filesystem::path path) : path_(std::move(path)) {
  const bool exists = std::filesystem::exists(path_);
  rebuilt_ = exists && !Hdf5Store::readable(path_);
  if (rebuilt_) Hdf5Store::require_own(path_);
  if (exists && !rebuilt_) refuse_another(Hdf5Store(path_, Hdf5Store::Mode::read));
  Hdf5Store store(path_, exists && !rebuilt_ ? Hdf5Store::Mode::update : Hdf5Store::Mode::create);
  store.set_attribute("", kVersion, std::int64_t{1});
}

std::optional<linalg::GramStatistics> StatisticsStore::find(const StatisticsKey& key) const {
  const Hdf5Store store(path_, Hdf5Store::Mode::read);
  const std::string group = group_of(key.name());
  if (!store.exists(group)) return std::nullopt;
  const std::int64_t n = store.int_attribute(group, "columns");
  const std::vector<double> packed = store.read<double>(group + "/gram");
  require(n > 0 && n < (1 << 24) && std::ssize(packed) == n * (n + 1) / 2, path_.string(), "'",
          group, "' holds ", packed.size(), " numbers for ", n,
          " columns; remove the file, the statistics are taken anew");
  linalg::GramStatistics found;
  found.tokens = store.int_attribute(group, "tokens");
  found.dropped = store.int_attribute(group, "dropped");
  found.gram = symmetric(packed, n);
  for_vectors(found, [&](const std::string& name, at::Tensor& vector) {
    vector = at::empty({n}, at::kDouble);
    store.read_into<double>(group + "/" + name,
                            {vector.mutable_data_ptr<double>(), static_cast<std::size_t>(n)});
  });
  return found;
}

void StatisticsStore::put(const StatisticsKey& key, const linalg::GramStatistics& statistics) {
  Hdf5Store store(path_, Hdf5Store::Mode::update);
  const std::int64_t n = statistics.gram.size(0);
  store.write_group(group_of(key.name()), [&](Hdf5Store& into, const std::string& below) {
    const at::Tensor packed = upper_triangle(statistics.gram.contiguous());
    into.write<double>(below + "/gram", doubles(packed), std::array{packed.numel()});
    for_vectors(statistics, [&](const std::string& name, const at::Tensor& vector) {
      into.write<double>(below + "/" + name, doubles(vector), std::array{n});
    });
    into.set_attribute(below, "columns", n);
    into.set_attribute(below, "tokens", statistics.tokens);
    into.set_attribute(below, "dropped", statistics.dropped);
  });
}

std::int64_t StatisticsStore::entries() const {
  const Hdf5Store store(path_, Hdf5Store::Mode::read);
  return store.exists("statistics") ? static_cast<std::int64_t>(store.children("statistics").size())
                                    : 0;
}

std::int64_t merge_stores(const StatisticsStore& first, const std::string& first_tokens,
                          const StatisticsStore& second, const std::string& second_tokens,
                          StatisticsStore& whole, const std::string& whole_tokens) {
  std::vector<std::string> names;
  {
    const Hdf5Store store(first.path(), Hdf5Store::Mode::read);
    if (store.exists("statistics")) names = store.children("statistics");
  }
  std::int64_t merged = 0;
  for (const std::string& name : names) {
    const std::size_t dash = name.find('-');
    if (dash == std::string::npos || name.substr(dash + 1) != first_tokens) continue;
    const std::string context = name.substr(0, dash);
    const auto a = first.find({context, first_tokens});
    const auto b = second.find({context, second_tokens});
    if (!a || !b) continue;
    whole.put({context, whole_tokens}, linalg::merge(*a, *b));
    ++merged;
  }
  return merged;
}

}  // namespace attar
