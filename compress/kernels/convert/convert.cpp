#include "compress/kernels/convert/convert.h"

#include "compress/kernels/threads.h"

namespace attar::kernels {
namespace {

const char* at(const void* base, std::int64_t i) { return static_cast<const char*>(base) + 2 * i; }
char* at(void* base, std::int64_t i) { return static_cast<char*>(base) + 2 * i; }

}  // namespace

void f16_to_f32(const void* source, float* out, std::int64_t count, const Variant& variant) {
  for_row_ranges(count, 1, [&](std::int64_t begin, std::int64_t end) {
    variant.f16_to_f32(at(source, begin), out + begin, end - begin);
  });
}

void bf16_to_f32(const void* source, float* out, std::int64_t count, const Variant& variant) {
  for_row_ranges(count, 1, [&](std::int64_t begin, std::int64_t end) {
    variant.bf16_to_f32(at(source, begin), out + begin, end - begin);
  });
}

void f32_to_f16(const float* source, void* out, std::int64_t count, const Variant& variant) {
  for_row_ranges(count, 1, [&](std::int64_t begin, std::int64_t end) {
    variant.f32_to_f16(source + begin, at(out, begin), end - begin);
  });
}

void f32_to_bf16(const float* source, void* out, std::int64_t count, const Variant& variant) {
  for_row_ranges(count, 1, [&](std::int64_t begin, std::int64_t end) {
    variant.f32_to_bf16(source + begin, at(out, begin), end - begin);
  });
}

}  // namespace attar::kernels
