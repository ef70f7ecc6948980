#include "compress/formats/gguf_encode.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <vector>

#include "compress/core/errors.h"
#include "compress/formats/gguf_blocks.h"
#include "compress/kernels/convert/convert.h"
#include "compress/kernels/ggml_blocks/ggml_blocks.h"

namespace attar {
namespace {

using io::GgmlType;

constexpr std::int64_t kPiece = std::int64_t{1} << 15;  // values that one thread has at hand
constexpr std::int64_t kPiecesKept = 32;                // before their pages are let go

// One thread's work: rows of the source as float32, and their bytes.
class Piece {
 public:
  explicit Piece(const EncodeRows& call)
      : call_(call),
        columns_(call.values.size(1)),
        width_(static_cast<std::int64_t>(call.values.element_size())),
        block_(ggml_block_of(call.type)),
        source_(static_cast<const std::byte*>(call.values.const_data_ptr())),
        order_(call.order.defined() ? call.order.const_data_ptr<std::int64_t>() : nullptr) {}

  // Rows [begin, end); gives the largest difference.
  float encode(std::int64_t begin, std::int64_t end) {
    const std::int64_t count = (end - begin) * columns_;
    plain_.resize(static_cast<std::size_t>(count));
    if (order_ == nullptr) {
      widen(source_ + begin * columns_ * width_, count, plain_.data());
    } else {
      for (std::int64_t row = begin; row < end; ++row) {
        widen(source_ + order_[row] * columns_ * width_, columns_,
              plain_.data() + (row - begin) * columns_);
      }
    }
    bytes_.resize(static_cast<std::size_t>(
        io::ggml_tensor_bytes(call_.type, std::vector<std::int64_t>{columns_, end - begin})
            .value()));
    const float found =
        block_ ? kernels::ggml_quantize(*block_, plain_.data(), count, bytes_.data()) : round();
    call_.write(begin, bytes_);
    return found;
  }

 private:
  void widen(const std::byte* from, std::int64_t count, float* to) const {
    switch (call_.values.scalar_type()) {
      case at::kHalf:
        return kernels::f16_to_f32(from, to, count);
      case at::kBFloat16:
        return kernels::bf16_to_f32(from, to, count);
      default:
        std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(float));
    }
  }

  // To a plain type and back.
  float round() {
    const auto count = static_cast<std::int64_t>(plain_.size());
    back_.resize(plain_.size());
    if (call_.type == GgmlType::f16) {
      kernels::f32_to_f16(plain_.data(), bytes_.data(), count);
      kernels::f16_to_f32(bytes_.data(), back_.data(), count);
    } else if (call_.type == GgmlType::bf16) {
      kernels::f32_to_bf16(plain_.data(), bytes_.data(), count);
      kernels::bf16_to_f32(bytes_.data(), back_.data(), count);
    } else {
      require(call_.type == GgmlType::f32, "gguf", "cannot write ",
              io::ggml_type_info(call_.type).name);
      std::memcpy(bytes_.data(), plain_.data(), bytes_.size());
      back_ = plain_;
    }
    std::int32_t worst = 0;  // bits of numbers >= 0 stand in their order, NaN last
    for (std::int64_t i = 0; i < count; ++i) {
      const float difference =
          back_[static_cast<std::size_t>(i)] - plain_[static_cast<std::size_t>(i)];
      worst = std::max(worst, std::bit_cast<std::int32_t>(difference) & 0x7fffffff);
    }
    return std::bit_cast<float>(worst);
  }

  const EncodeRows& call_;
  std::int64_t columns_, width_;
  std::optional<kernels::GgmlBlock> block_;
  const std::byte* source_;
  const std::int64_t* order_;
  std::vector<float> plain_, back_;
  std::vector<std::byte> bytes_;
};

}  // namespace

double encode_rows(const EncodeRows& call) {
  const std::int64_t rows = call.values.size(0), columns = call.values.size(1);
  const io::GgmlTypeInfo& info = io::ggml_type_info(call.type);
  require(columns > 0 && columns % info.elements == 0, "gguf", info.name,
          " needs rows of a multiple of ", info.elements, " values, got ", columns);
  const std::int64_t step = std::max<std::int64_t>(1, kPiece / columns);
  const std::int64_t pieces = (rows + step - 1) / step;
  const bool let_go = call.done && !call.order.defined();
  std::atomic<std::uint32_t> worst = 0;
  at::parallel_for(0, pieces, 1, [&](std::int64_t begin, std::int64_t end) {
    Piece piece(call);
    std::uint32_t found = 0;
    std::int64_t kept = begin;
    for (std::int64_t i = begin; i < end; ++i) {
      const float difference = piece.encode(i * step, std::min(rows, (i + 1) * step));
      found = std::max(found, std::bit_cast<std::uint32_t>(difference) & 0x7fffffff);
      if (!let_go || (i + 1 - kept < kPiecesKept && i + 1 < end)) continue;
      call.done(call.values.slice(0, kept * step, std::min(rows, (i + 1) * step)));
      kept = i + 1;
    }
    std::uint32_t before = worst;
    while (before < found && !worst.compare_exchange_weak(before, found)) {
    }
  });
  if (call.done && call.order.defined()) call.done(call.values);
  return std::bit_cast<float>(worst.load());
}

}  // namespace attar
