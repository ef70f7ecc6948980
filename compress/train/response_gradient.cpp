#include "compress/train/response_gradient.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "compress/core/errors.h"
#include "compress/linalg/product.h"

namespace attar {
namespace {

// Memory for chunks of logits, grown once.
at::Tensor chunk_of(at::Tensor& held, std::int64_t rows, std::int64_t columns) {
  constexpr std::int64_t kApart = 16;  // rows a power of two apart would share few cache lines
  if (!held.defined()) {
    held = at::empty({std::min(rows, kResponseRows), columns + kApart}, at::kFloat);
  }
  return held.narrow(0, 0, rows).narrow(1, 0, columns);
}

}  // namespace

ResponseGradient response_gradient(const at::Tensor& hidden, const at::Tensor& head,
                                   const at::Tensor& head_gradient, const ResponseTargets& targets,
                                   std::span<const ResponseTerm> terms, double scale) {
  const at::NoGradGuard none;
  const std::int64_t rows = hidden.size(0), vocabulary = head.size(0);
  const auto count = static_cast<std::int64_t>(terms.size());
  const bool live = targets.teacher_hidden.defined();
  require(!live || targets.teacher_head.size(0) == vocabulary, "distill",
          "the teacher has logits for ", live ? targets.teacher_head.size(0) : 0,
          " tokens, the student for ", vocabulary, "; align the vocabularies");
  ResponseGradient result{at::empty(hidden.sizes(), hidden.options()),
                          std::vector<double>(terms.size(), 0.0)};
  at::Tensor student_memory, teacher_memory, head_sum = head_gradient;
  std::vector<double> losses(static_cast<std::size_t>(kResponseRows * count));
  for (std::int64_t first = 0; first < rows; first += kResponseRows) {
    const std::int64_t size = std::min(kResponseRows, rows - first);
    const at::Tensor x = hidden.narrow(0, first, size);
    at::Tensor logits = chunk_of(student_memory, size, vocabulary);
    linalg::product_into(logits, x, head);
    kernels::ResponseLoss call{};
    if (live) {
      at::Tensor teacher = chunk_of(teacher_memory, size, vocabulary);
      linalg::product_into(teacher, targets.teacher_hidden.narrow(0, first, size),
                           targets.teacher_head);
      call.teacher_stride = teacher.stride(0);
      call.teacher = teacher.const_data_ptr<float>();
    }
    if (targets.sparse_ids.defined()) {
      const std::int64_t known = targets.sparse_ids.size(1);
      call.sparse = {targets.sparse_ids.const_data_ptr<std::int32_t>() + first * known,
                     targets.sparse_probabilities.const_data_ptr<float>() + first * known, known,
                     targets.sparse_tail};
    }
    call.student = logits.mutable_data_ptr<float>();
    call.rows = size;
    call.vocabulary = vocabulary;
    call.student_stride = logits.stride(0);
    call.targets = targets.tokens.const_data_ptr<std::int64_t>() + first;
    call.terms = terms.data();
    call.term_count = count;
    call.scale = scale;
    call.losses = losses.data();
    kernels::response_loss(call);
    for (std::int64_t r = 0; r < size; ++r) {
      for (std::int64_t i = 0; i < count; ++i) {
        result.losses[static_cast<std::size_t>(i)] +=
            losses[static_cast<std::size_t>(r * count + i)];
      }
    }
    at::Tensor back = result.hidden.narrow(0, first, size);
    linalg::back_product_into(back, logits, head);
    if (head_sum.defined()) linalg::outer_product_into(head_sum, logits, x, /*add=*/true);
  }
  return result;
}

}  // namespace attar
