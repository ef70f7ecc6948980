#include "compress/calibrate/block_identity.h"

#include <span>
#include <string_view>

#include "compress/io/hash.h"

namespace attar {
namespace {

void hash_tensor(io::Sha256& hash, const at::Tensor& tensor) {
  if (!tensor.defined()) {
    hash.update(std::string_view("none"));
    return;
  }
  const at::Tensor values = tensor.contiguous();
  hash.update(std::string_view(toString(values.scalar_type())));
  for (const std::int64_t size : values.sizes()) hash.update(std::to_string(size) + ",");
  hash.update(std::span(static_cast<const std::byte*>(values.const_data_ptr()),
                        static_cast<std::size_t>(values.nbytes())));
}

void hash_weight(io::Sha256& hash, const Weight& weight) {
  struct Hasher {
    io::Sha256& hash;
    void operator()(const DenseWeight& w) const { hash_tensor(hash, w.values); }
    void operator()(const QuantizedWeight& w) const {
      hash.update(std::to_string(w.scheme.bits) + "/" + std::to_string(w.scheme.group_size) + "/" +
                  std::string(to_string(w.scheme.zero_point)) +
                  (w.scheme.activation_bits != 0 ? "/A8" : "") +
                  (w.scheme.floating() ? "/" + std::string(to_string(w.scheme.block)) : ""));
      hash_tensor(hash, w.codes);
      hash_tensor(hash, w.scale);
      hash_tensor(hash, w.zero);
    }
    void operator()(const SparseWeight& w) const {
      hash_tensor(hash, w.values);
      hash_tensor(hash, w.mask);
    }
    void operator()(const LowRankWeight& w) const {
      hash_tensor(hash, w.b);
      hash_tensor(hash, w.a);
    }
    void operator()(const CorrectedWeight& w) const {
      std::visit(*this, w.base);
      (*this)(w.correction);
    }
  };
  hash.update(kind_of(weight));
  std::visit(Hasher{hash}, weight);
}

void hash_linear(io::Sha256& hash, const Linear& linear) {
  hash_weight(hash, linear.weight);
  hash_tensor(hash, linear.bias);
}

bool same(const DenseWeight& a, const DenseWeight& b) { return a.values.is_same(b.values); }
bool same(const QuantizedWeight& a, const QuantizedWeight& b) {
  return a.codes.is_same(b.codes) && a.scale.is_same(b.scale) && a.zero.is_same(b.zero);
}
bool same(const SparseWeight& a, const SparseWeight& b) {
  return a.values.is_same(b.values) && a.mask.is_same(b.mask);
}
bool same(const LowRankWeight& a, const LowRankWeight& b) {
  return a.b.is_same(b.b) && a.a.is_same(b.a);
}
template <class... Kinds>
bool same(const std::variant<Kinds...>& a, const std::variant<Kinds...>& b);
bool same(const CorrectedWeight& a, const CorrectedWeight& b) {
  return same(a.base, b.base) && same(a.correction, b.correction);
}
template <class... Kinds>
bool same(const std::variant<Kinds...>& a, const std::variant<Kinds...>& b) {
  if (a.index() != b.index()) return false;
  return std::visit(
      [&](const auto& kind) { return same(kind, std::get<std::decay_t<decltype(kind)>>(b)); }, a);
}

}  // namespace

bool same_tensors(const Weight& a, const Weight& b) { return same(a, b); }

bool same_tensors(const Linear& a, const Linear& b) {
  return same_tensors(a.weight, b.weight) && a.bias.is_same(b.bias);
}

bool same_mixing(const Block& a, const Block& b) {
  return a[Norm::kAttention].is_same(b[Norm::kAttention]) &&
         a[Norm::kQuery].is_same(b[Norm::kQuery]) && a[Norm::kKey].is_same(b[Norm::kKey]) &&
         same_tensors(a[Role::kQuery], b[Role::kQuery]) &&
         same_tensors(a[Role::kKey], b[Role::kKey]) &&
         same_tensors(a[Role::kValue], b[Role::kValue]);
}

bool same_attention(const Block& a, const Block& b) {
  return same_mixing(a, b) && same_tensors(a[Role::kOutput], b[Role::kOutput]);
}

std::string hash_of(const Weight& weight) {
  io::Sha256 hash;
  hash_weight(hash, weight);
  return hash.hex();
}

std::string hash_before(Site site, const std::string& context, const Block& block) {
  io::Sha256 hash;
  hash.update(context);
  hash.update(to_string(site));
  hash_tensor(hash, block[Norm::kAttention]);
  if (site == Site::kAttentionInput) return hash.hex();
  for (const Role role : {Role::kQuery, Role::kKey, Role::kValue}) hash_linear(hash, block[role]);
  for (const Norm norm : {Norm::kQuery, Norm::kKey}) hash_tensor(hash, block[norm]);
  if (site == Site::kOutputInput) return hash.hex();
  hash_linear(hash, block[Role::kOutput]);
  hash_tensor(hash, block[Norm::kMlp]);
  if (site == Site::kMlpInput) return hash.hex();
  for (const Role role : {Role::kGate, Role::kUp}) hash_linear(hash, block[role]);
  return hash.hex();
}

std::string hash_whole(const std::string& context, const Block& block) {
  io::Sha256 hash;
  hash.update(hash_before(Site::kDownInput, context, block));
  hash_linear(hash, block[Role::kDown]);
  return hash.hex();
}

}  // namespace attar
