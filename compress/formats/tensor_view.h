// Between tensors of files and tensors of ATen.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "compress/io/safetensors_file.h"

namespace attar {

// Throws BadInput naming `where` for element types that have no tensor form here.
at::ScalarType scalar_type_of(io::ElementType type, std::string_view where);
io::ElementType element_type_of(at::ScalarType type);

// "float16", "bfloat16", "float32": names of config.json. "f16", ...: names of options.
std::string_view long_name(at::ScalarType type);
at::ScalarType dense_type_from(std::string_view option);  // UsageError

// A read-only tensor over mapped bytes that keeps `owner` alive; a copy where the bytes are not
// aligned to the type.
at::Tensor view_bytes(std::span<const std::byte> bytes, std::vector<std::int64_t> shape,
                      at::ScalarType type, std::shared_ptr<const void> owner);
at::Tensor view_of(const io::TensorView& tensor);

// Bytes of a contiguous CPU tensor; valid as long as the tensor lives.
std::span<const std::byte> bytes_of(const at::Tensor& tensor);

// Lets the system drop the pages of `file` that hold `part`, if it is a contiguous view of it.
void drop_pages(const io::MappedFile& file, const at::Tensor& part);

// "[3, 4]".
std::string shape_text(std::span<const std::int64_t> shape);

}  // namespace attar
