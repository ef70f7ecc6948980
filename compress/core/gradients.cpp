#include "compress/core/gradients.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "compress/core/errors.h"
#include "compress/kernels/attention_weights/attention_weights.h"
#include "compress/kernels/causal_attention/causal_attention.h"
#include "compress/kernels/gated_activation/gated_activation.h"
#include "compress/kernels/rms_norm/rms_norm.h"
#include "compress/kernels/rotate/rotate.h"
#include "compress/linalg/blas.h"
#include "compress/linalg/product.h"

namespace attar {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

const float* values(const at::Tensor& t) { return t.const_data_ptr<float>(); }
float* writable(const at::Tensor& t) { return t.mutable_data_ptr<float>(); }

// Rows [n, C] added up in their order, in double.
at::Tensor sum_of_rows(const at::Tensor& rows) {
  const std::int64_t count = rows.size(0), columns = rows.size(1);
  at::Tensor total = at::empty({columns}, at::kFloat);
  const float* from = values(rows);
  float* out = writable(total);
  for (std::int64_t c = 0; c < columns; ++c) {
    double sum = 0;
    for (std::int64_t r = 0; r < count; ++r) sum += static_cast<double>(from[r * columns + c]);
    out[c] = static_cast<float>(sum);
  }
  return total;
}

// Columns of [n, C] added up over fixed parts of rows.
at::Tensor sum_of_columns(const at::Tensor& rows) {
  constexpr std::int64_t kPart = 64;
  const std::int64_t count = rows.size(0), columns = rows.size(1);
  const at::Tensor parts = at::zeros({(count + kPart - 1) / kPart, columns}, at::kFloat);
  const float* from = values(rows);
  float* out = writable(parts);
  at::parallel_for(0, parts.size(0), 4, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin * kPart; r < std::min(count, end * kPart); ++r) {
      float* sum = out + r / kPart * columns;
      for (std::int64_t c = 0; c < columns; ++c) sum[c] += from[r * columns + c];
    }
  });
  return sum_of_rows(parts);
}

std::vector<std::int64_t> shape_with(const at::Tensor& x, std::int64_t columns) {
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = columns;
  return shape;
}

class LinearFunction : public Function<LinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    const at::Tensor rows = x.contiguous(), matrix = weight.to(at::kFloat).contiguous();
    // In its own type: a model in float16 is not held in float32 beside.
    context->save_for_backward({rows, weight});
    context->saved_data["bias"] = bias.has_value();
    return linalg::product(rows.flatten(0, -2), matrix, bias ? *bias : at::Tensor())
        .view(shape_with(x, matrix.size(0)));
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& x = saved[0];
    const at::Tensor back = gradients[0].contiguous().flatten(0, -2);
    variable_list found(3);
    if (context->needs_input_grad(0)) {
      const at::Tensor weight = saved[1].to(at::kFloat).contiguous();
      found[0] = linalg::back_product(back, weight).view(x.sizes());
    }
    if (context->needs_input_grad(1)) found[1] = linalg::outer_product(back, x.flatten(0, -2));
    if (context->saved_data["bias"].toBool()) found[2] = sum_of_columns(back);
    return found;
  }
};

class RmsNormFunction : public Function<RmsNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            double eps) {
    const at::Tensor rows = x.contiguous(), scale = weight.to(at::kFloat).contiguous();
    context->save_for_backward({rows, scale});
    context->saved_data["eps"] = eps;
    return rms_norm_into(at::empty(rows.sizes(), rows.options()), rows, scale, eps);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& x = saved[0];
    const std::int64_t columns = x.size(-1), rows = x.numel() / columns;
    const at::Tensor gradient = gradients[0].contiguous();
    const at::Tensor x_gradient = at::empty_like(x);
    constexpr std::int64_t kRows = kernels::RmsNormGradient::kPartRows;
    const at::Tensor parts = at::empty({(rows + kRows - 1) / kRows, columns}, at::kFloat);
    kernels::rms_norm_gradient({values(x), values(saved[1]), values(gradient), writable(x_gradient),
                                writable(parts), rows, columns,
                                static_cast<float>(context->saved_data["eps"].toDouble())});
    return {x_gradient, sum_of_rows(parts), at::Tensor()};
  }
};

at::Tensor gated(const at::Tensor& gate, const at::Tensor& up, Activation activation) {
  return gated_activation_into(at::empty(gate.sizes(), gate.options()), gate, up, activation);
}

// Gradients of gate and up from that of their product.
variable_list gated_gradients(const at::Tensor& gate, const at::Tensor& up,
                              const at::Tensor& gradient, Activation activation) {
  const at::Tensor gate_gradient = at::empty_like(gate), up_gradient = at::empty_like(up);
  const std::int64_t columns = gate.size(-1);
  kernels::gated_activation_gradient(
      {values(gate), values(up), values(gradient), writable(gate_gradient), writable(up_gradient),
       gate.numel() / columns, columns, kernel_activation(activation)});
  return {gate_gradient, up_gradient};
}

class GatedActivationFunction : public Function<GatedActivationFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate, const at::Tensor& up,
                            std::int64_t activation) {
    const at::Tensor g = gate.contiguous(), u = up.contiguous();
    context->save_for_backward({g, u});
    context->saved_data["activation"] = activation;
    return gated(g, u, static_cast<Activation>(activation));
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    variable_list found =
        gated_gradients(saved[0], saved[1], gradients[0].contiguous(),
                        static_cast<Activation>(context->saved_data["activation"].toInt()));
    found.emplace_back();
    return found;
  }
};

// The gated values are made again for the gradient: a fifth of what a block would keep.
class GatedLinearFunction : public Function<GatedLinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate, const at::Tensor& up,
                            const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            std::int64_t activation) {
    const at::Tensor g = gate.contiguous(), u = up.contiguous(), matrix = weight.contiguous();
    context->save_for_backward({g, u, matrix});
    context->saved_data["activation"] = activation;
    context->saved_data["bias"] = bias.has_value();
    return linalg::product(gated(g, u, static_cast<Activation>(activation)).flatten(0, -2), matrix,
                           bias ? *bias : at::Tensor())
        .view(shape_with(gate, matrix.size(0)));
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &gate = saved[0], &up = saved[1], &weight = saved[2];
    const auto activation = static_cast<Activation>(context->saved_data["activation"].toInt());
    const at::Tensor back = gradients[0].contiguous().flatten(0, -2);
    variable_list found = gated_gradients(
        gate, up, linalg::back_product(back, weight).view(gate.sizes()), activation);
    found.resize(5);
    if (context->needs_input_grad(2)) {
      found[2] = linalg::outer_product(back, gated(gate, up, activation).flatten(0, -2));
    }
    if (context->saved_data["bias"].toBool()) found[3] = sum_of_columns(back);
    return found;
  }
};

// Turns the heads of [B, T, heads * head_dim] in place, each sequence from position 0.
void rotate_heads(const at::Tensor& states, const at::Tensor& cos, const at::Tensor& sin,
                  std::int64_t head_dim) {
  const std::int64_t length = states.size(1), width = states.size(2);
  for (std::int64_t b = 0; b < states.size(0); ++b) {
    kernels::rotate({writable(states) + b * length * width, width, length, width / head_dim,
                     head_dim, head_dim, values(cos), values(sin), cos.size(0)});
  }
}

// One key-value head of one sequence: gradients of its queries, keys and values.
class HeadGradient {
 public:
  static constexpr std::int64_t kTile = 64;  // queries at a time

  struct Pointers {  // of the first position and this head
    const float *q, *k, *v, *gradient;
    float *q_gradient, *k_gradient, *v_gradient;
  };

  HeadGradient(std::int64_t length, std::int64_t head_dim, std::int64_t q_stride,
               std::int64_t kv_stride)
      : length_(static_cast<int>(length)),
        head_dim_(static_cast<int>(head_dim)),
        q_stride_(static_cast<int>(q_stride)),
        kv_stride_(static_cast<int>(kv_stride)),
        weights_(static_cast<std::size_t>(kTile * length)),
        gradients_(static_cast<std::size_t>(kTile * length)) {}

  // Adds to k_gradient and v_gradient.
  void add(const Pointers& at) {
    using linalg::gemm;
    const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim_));
    for (int first = 0; first < length_; first += static_cast<int>(kTile)) {
      const int rows = std::min(static_cast<int>(kTile), length_ - first), keys = first + rows;
      const std::int64_t start = static_cast<std::int64_t>(first) * q_stride_;
      float *p = weights_.data(), *d = gradients_.data();
      gemm(false, true, rows, keys, head_dim_, 1, at.q + start, q_stride_, at.k, kv_stride_, 0, p,
           keys);
      gemm(false, true, rows, keys, head_dim_, 1, at.gradient + start, q_stride_, at.v, kv_stride_,
           0, d, keys);
      kernels::attention_weights({p, d, rows, keys, keys, first + 1, scale});
      gemm(false, false, rows, head_dim_, keys, 1, d, keys, at.k, kv_stride_, 0,
           at.q_gradient + start, q_stride_);
      gemm(true, false, keys, head_dim_, rows, 1, d, keys, at.q + start, q_stride_, 1,
           at.k_gradient, kv_stride_);
      gemm(true, false, keys, head_dim_, rows, 1, p, keys, at.gradient + start, q_stride_, 1,
           at.v_gradient, kv_stride_);
    }
  }

 private:
  int length_, head_dim_, q_stride_, kv_stride_;
  std::vector<float> weights_, gradients_;
};

class AttentionFunction : public Function<AttentionFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& query,
                            const at::Tensor& key, const at::Tensor& value, const at::Tensor& cos,
                            const at::Tensor& sin, std::int64_t heads, std::int64_t kv_heads,
                            std::int64_t head_dim) {
    const at::Tensor q = query.clone(at::MemoryFormat::Contiguous);
    const at::Tensor k = key.clone(at::MemoryFormat::Contiguous);
    const at::Tensor v = value.contiguous();
    rotate_heads(q, cos, sin, head_dim);
    rotate_heads(k, cos, sin, head_dim);
    context->save_for_backward({q, k, v, cos, sin});
    context->saved_data["head_dim"] = head_dim;
    const std::int64_t length = q.size(1), q_width = q.size(2), kv_width = k.size(2);
    at::Tensor out = at::empty(q.sizes(), q.options());
    std::vector<kernels::AttentionSequence> sequences;
    for (std::int64_t b = 0; b < q.size(0); ++b) {
      const std::int64_t row = b * length;
      sequences.push_back({values(q) + row * q_width, values(k) + row * kv_width,
                           values(v) + row * kv_width, writable(out) + row * q_width, length,
                           length});
    }
    kernels::causal_attention({sequences.data(), q.size(0), heads, kv_heads, head_dim, q_width,
                               kv_width, kv_width, q_width,
                               1.0f / std::sqrt(static_cast<float>(head_dim))});
    return out;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2];
    const at::Tensor gradient = gradients[0].contiguous();
    const std::int64_t head_dim = context->saved_data["head_dim"].toInt();
    const std::int64_t length = q.size(1), q_width = q.size(2), kv_width = k.size(2);
    const std::int64_t kv_heads = kv_width / head_dim, group = q_width / kv_width;
    const at::Tensor dq = at::empty_like(q), dk = at::zeros_like(k), dv = at::zeros_like(v);
    at::parallel_for(0, q.size(0) * kv_heads, 1, [&](std::int64_t begin, std::int64_t end) {
      HeadGradient head(length, head_dim, q_width, kv_width);
      for (std::int64_t task = begin; task < end; ++task) {
        const std::int64_t kv_head = task % kv_heads, row = task / kv_heads * length;
        const std::int64_t kv = row * kv_width + kv_head * head_dim;
        for (std::int64_t g = 0; g < group; ++g) {
          const std::int64_t at = row * q_width + (kv_head * group + g) * head_dim;
          head.add({values(q) + at, values(k) + kv, values(v) + kv, values(gradient) + at,
                    writable(dq) + at, writable(dk) + kv, writable(dv) + kv});
        }
      }
    });
    const at::Tensor back = saved[4].neg();  // turning back is turning by the opposite angle
    rotate_heads(dq, saved[3], back, head_dim);
    rotate_heads(dk, saved[3], back, head_dim);
    return {dq, dk, dv, {}, {}, {}, {}, {}};
  }
};

}  // namespace

at::Tensor linear_with_gradient(const at::Tensor& x, const at::Tensor& weight,
                                const at::Tensor& bias) {
  if (weight.numel() == 0) return at::linear(x, weight, bias);
  return LinearFunction::apply(x, weight, bias.defined() ? std::optional(bias) : std::nullopt);
}

at::Tensor rms_norm_with_gradient(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return RmsNormFunction::apply(x, weight, eps);
}

at::Tensor gated_activation_with_gradient(const at::Tensor& gate, const at::Tensor& up,
                                          Activation activation) {
  if (gate.size(-1) == 0) return gate;  // a block without MLP
  return GatedActivationFunction::apply(gate, up, static_cast<std::int64_t>(activation));
}

at::Tensor gated_linear_with_gradient(const at::Tensor& gate, const at::Tensor& up,
                                      Activation activation, const at::Tensor& weight,
                                      const at::Tensor& bias) {
  return GatedLinearFunction::apply(gate, up, weight,
                                    bias.defined() ? std::optional(bias) : std::nullopt,
                                    static_cast<std::int64_t>(activation));
}

at::Tensor attention_with_gradient(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const RopeTable& rope, const AttentionShape& shape) {
  if (shape.heads == 0) return q;  // a block without attention
  require(q.size(1) <= rope.cos.size(0), "attention", "a sequence of ", q.size(1),
          " tokens exceeds the ", rope.cos.size(0), " positions prepared");
  return AttentionFunction::apply(q, k, v, rope.cos, rope.sin, shape.heads, shape.kv_heads,
                                  shape.head_dim);
}

}  // namespace attar
