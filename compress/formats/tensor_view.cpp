#include "compress/formats/tensor_view.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cstring>
#include <functional>

#include "compress/core/errors.h"

namespace attar {
namespace {

struct TypePair {
  io::ElementType element;
  at::ScalarType scalar;
};
constexpr std::array<TypePair, 8> kTypes = {{{io::ElementType::f32, at::kFloat},
                                             {io::ElementType::f16, at::kHalf},
                                             {io::ElementType::bf16, at::kBFloat16},
                                             {io::ElementType::i32, at::kInt},
                                             {io::ElementType::i64, at::kLong},
                                             {io::ElementType::u8, at::kByte},
                                             {io::ElementType::i8, at::kChar},
                                             {io::ElementType::f64, at::kDouble}}};

}  // namespace

at::ScalarType scalar_type_of(io::ElementType type, std::string_view where) {
  for (const TypePair& pair : kTypes) {
    if (pair.element == type) return pair.scalar;
  }
  throw BadInput(message(where, "element type ", io::safetensors_name(type),
                         " is not supported here; supported: F32, F16, BF16"));
}

io::ElementType element_type_of(at::ScalarType type) {
  for (const TypePair& pair : kTypes) {
    if (pair.scalar == type) return pair.element;
  }
  throw std::logic_error(std::string("element_type_of: ") + at::toString(type));
}

std::string_view long_name(at::ScalarType type) {
  if (type == at::kHalf) return "float16";
  return type == at::kBFloat16 ? "bfloat16" : "float32";
}

at::ScalarType dense_type_from(std::string_view option) {
  std::string lower(option);
  for (char& c : lower) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  if (lower == "f16" || lower == "float16") return at::kHalf;
  if (lower == "bf16" || lower == "bfloat16") return at::kBFloat16;
  require<UsageError>(lower == "f32" || lower == "float32", "export", "type '", option,
                      "' is unknown; safetensors hold plain values as f16, bf16 or f32");
  return at::kFloat;
}

at::Tensor view_bytes(std::span<const std::byte> bytes, std::vector<std::int64_t> shape,
                      at::ScalarType type, std::shared_ptr<const void> owner) {
  const auto address = reinterpret_cast<std::uintptr_t>(bytes.data());
  if (bytes.empty() || address % c10::elementSize(type) != 0) {
    const at::Tensor copy = at::empty(shape, type);
    if (!bytes.empty()) std::memcpy(copy.mutable_data_ptr(), bytes.data(), bytes.size());
    return copy;
  }
  // Nobody writes through it: the pages are mapped without write permission.
  void* data = const_cast<std::byte*>(bytes.data());
  return at::from_blob(
      data, shape, [owner = std::move(owner)](void*) {}, at::TensorOptions(type));
}

at::Tensor view_of(const io::TensorView& tensor) {
  const std::string where = tensor.file->path().string() + ": " + tensor.name;
  return view_bytes(tensor.bytes, tensor.shape, scalar_type_of(tensor.type, where), tensor.file);
}

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  TORCH_INTERNAL_ASSERT(tensor.is_contiguous() && tensor.device().is_cpu());
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

void drop_pages(const io::MappedFile& file, const at::Tensor& part) {
  const auto* begin = static_cast<const std::byte*>(part.const_data_ptr());
  const std::span<const std::byte> all = file.bytes();
  const std::less<const std::byte*> before;
  if (all.empty() || before(begin, all.data()) || !before(begin, all.data() + all.size())) return;
  file.done_with(bytes_of(part));
}

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (const std::int64_t extent : shape) {
    text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  }
  return text + "]";
}

}  // namespace attar
